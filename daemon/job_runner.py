"""Takes the next queued job from its images to a stored structure set, and ends it with the true reason."""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from threading import Event

import structlog

from daemon.config import Config, Route
from daemon.errors import ImagesUnread, OutputRejected, StaleJob, StorageFull
from daemon.failure_words import call_path, describe, is_cuda_fault, without_patient
from daemon.job_queue import FindingResult, JobQueue, SegmentedResult, StoredObject, StructureResult
from daemon.job_queue_rows import Job
from daemon.jobs import JobState
from daemon.judgement import hold_reason
from daemon.lease import kept
from daemon.result_header import ResultIdentity
from daemon.result_objects import WantedObject, wanted_objects
from daemon.retry import next_run
from daemon.segmentation import ContouredSeries, SegmentsVolumes, contour_series
from daemon.spool import Spool
from daemon.template_file import template_for
from model.errors import ReasonCode, SeriesUnsuitable

log = structlog.get_logger()

LEASE_SECONDS = 60.0
"""How long after a crash another worker may take the job."""
STORAGE_SECONDS = 60.0
"""How long a job waits that found the disk full."""
RENEW_SECONDS = 2.0
"""Also how often people see the progress move."""


class RunnerReason(StrEnum):
    """Reason codes of jobs that failed here."""

    OUTPUT_REJECTED = "output-rejected"
    IMAGE_MISSING = "image-missing"
    """A file that the table knows is not in the spool, be it another node's or older than the table."""


class DeviceBroken(Exception):  # noqa: N818 -- says what holds
    """The GPU context of this process is beyond repair; the supervisor must start a new process."""


class _BrokenOff(Exception):  # noqa: N818 -- likewise
    """The worker stops and does not wait for the job."""


class JobRunner:
    """Segments one job at a time.

    Parameters
    ----------
    settings
        Gives the configuration as it stands now; asked for each job's route.
    owner
        Who holds the leases: unique among all workers.
    jitter
        A random number from 0 to 1 for each wait.
    on_progress
        Called whenever the job has come further; stages may take minutes.
    """

    def __init__(
        self,
        queue: JobQueue,
        spool: Spool,
        segmenter: SegmentsVolumes,
        settings: Callable[[], Config],
        clock: Callable[[], datetime],
        owner: str,
        jitter: Callable[[], float],
        *,
        on_progress: Callable[[], None],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._segmenter = segmenter
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._jitter = jitter
        self._on_progress = on_progress
        self._lease_seconds = lease_seconds
        self._breaking_off = Event()
        self._job: Job | None = None
        self._owed: tuple[Job, str, datetime] | None = None
        self._stage, self._share = "", 0.0

    @property
    def doing(self) -> str:
        """What is under way, for people; empty when nothing is."""
        job = self._job
        return f"job {job.id}: {self._stage} {self._share:.0%}" if job else ""

    def run_next(self) -> bool:
        """Run the oldest job that is due to its end; False where none is.

        Raises
        ------
        DeviceBroken
            After the job went back to the queue.
        StorageFull
            The job table cannot be written. A job that could not be given back for that is given back first.
        """
        self._give_back_owed()
        job = self._queue.claim(self._owner, self._lease_seconds)
        if job is None:
            return False
        with structlog.contextvars.bound_contextvars(job=job.id, series=job.series_instance_uid):
            log.info("job_claimed", attempt=job.attempts, images=job.instance_count)
            self._job, self._stage, self._share = job, "load", 0.0
            try:
                self._run(job)
            except StaleJob as error:
                self._drop(job, error)
            except StorageFull as error:  # of the results or of whatever ends the job in the table
                self._postpone(job, error)
            finally:
                self._job = None
        return True

    def break_off(self) -> None:
        """Give the job under way back to the queue at its next progress report."""
        self._breaking_off.set()

    def abandon(self) -> None:
        """Give the job under way back now; whatever its thread still makes is dropped."""
        if job := self._job:
            self._give_back(job)

    def _run(self, job: Job) -> None:
        """Segment under a renewed lease; whatever happens ends in exactly one move of the job."""

        def renew() -> None:
            self._queue.renew(job.id, self._owner, self._lease_seconds, self._stage, self._share)

        try:
            with kept(renew, RENEW_SECONDS) as lost:
                route = self._route(job)
                done = self._contour(job, route, lost)
            self._queue.segmented(job.id, self._owner, _result(done, route))
        except _BrokenOff:
            self._give_back(job)
        except SeriesUnsuitable as refusal:
            self._queue.reject(job.id, self._owner, refusal.code, without_patient(str(refusal), job))
            log.info("job_rejected", code=refusal.code)
        except OutputRejected as refusal:
            reason = without_patient(str(refusal), job)
            self._queue.fail(job.id, self._owner, RunnerReason.OUTPUT_REJECTED, reason)
            log.critical("job_failed", code=RunnerReason.OUTPUT_REJECTED, findings=len(refusal.findings))
        except (StaleJob, StorageFull):
            raise
        except ImagesUnread as error:
            self._unread(job, error)
        except Exception as error:  # noqa: BLE001 -- here a job ends, and the next one must go on
            self._requeue(job, error)
        else:
            found = sum(summary.found for summary in done.summaries)
            seconds = round(sum(done.stage_seconds.values()), 1)
            held = bool(hold_reason(done.findings, route.doubtful))
            log.info("job_segmented", structures=found, seconds=seconds, model=done.model.version, held=held)

    def _route(self, job: Job) -> Route:
        route = self._settings().route_for(job.calling_ae_title, job.called_ae_title)
        if route is None or not route.destinations:
            raise SeriesUnsuitable(
                ReasonCode.NO_ROUTE,
                f"no route for calling AE title {job.calling_ae_title} and called AE title "
                f"{job.called_ae_title}; add [[routes]] with destinations that match them and run "
                f"`oarlock retry {job.id}`",
            )
        return route

    def _contour(self, job: Job, route: Route, lost: Event) -> ContouredSeries:
        """Return the series contoured and on disk."""

        def store(file_name: str, content: bytes) -> Path:
            return self._spool.store_result(job.id, content, file_name)[0]

        def progress(stage: str, share: float) -> None:
            self._stage, self._share = stage, share
            self._on_progress()
            if lost.is_set():
                raise StaleJob(f"job {job.id} was cancelled or its lease was lost during {stage}")
            if self._breaking_off.is_set():
                raise _BrokenOff

        images = self._queue.images(job.id)
        self._spool.begin_results(job.id)
        done = contour_series(
            [self._spool.instance_path(image.job_id, image.sop_instance_uid) for image in images],
            self._segmenter,
            self._identity(job),
            template_for(route),
            self._wanted(route),
            store,
            progress,
            policy=route.doubtful,
        )
        if route.qa_sheet != "none":
            progress("qa-sheet", 0.0)
            sheet = done.contoured.qa_sheet
            store(f"qa_sheet.{route.qa_sheet}", sheet.png if route.qa_sheet == "png" else sheet.pdf)
        self._spool.mark_checked(job.id, {file.path.name: file.sha256 for file in done.files})
        return done

    def _wanted(self, route: Route) -> list[WantedObject]:
        config = self._settings()
        return wanted_objects({name: config.destination(name) for name in route.destinations})

    def _identity(self, job: Job) -> ResultIdentity:
        """Return UIDs and time that every run of the job has in common, so that all make the same object."""
        claims = [event.at for event in self._queue.events(job.id) if event.to_state is JobState.SEGMENTING]
        return ResultIdentity(
            job.result_sop_instance_uid, job.result_series_instance_uid, min(claims).astimezone()
        )

    def _unread(self, job: Job, error: ImagesUnread) -> None:
        """Tell images that our own disk does not give back from images that are unsuitable.

        Raises
        ------
        StorageFull
            The disk does not give them now: the job waits, as it does for room.
        """
        if not error.are_gone:
            raise StorageFull(f"cannot read {error}") from error
        reason = (
            f"{error}; restore it and run `oarlock retry {job.id}`, or `oarlock cancel {job.id}`, "
            f"`oarlock erase {job.id}`, and send the series again"
        )
        self._queue.fail(job.id, self._owner, RunnerReason.IMAGE_MISSING, reason)
        log.critical("job_failed", code=RunnerReason.IMAGE_MISSING)

    def _requeue(self, job: Job, error: Exception) -> None:
        """Let a failure that may pass be tried again; the queue fails the job when its attempts are used up."""
        log.warning("job_error", kind=type(error).__name__, attempt=job.attempts, calls=call_path(error))
        again = next_run(self._clock(), job.attempts, self._jitter())
        state = self._queue.requeue(job.id, self._owner, again, describe(error, job))
        if state is JobState.FAILED:
            log.error("job_failed", attempts=job.attempts)
        else:
            log.warning("job_requeued", again_at=again.isoformat(timespec="seconds"))
        if is_cuda_fault(error):
            raise DeviceBroken(describe(error, job)) from error

    def _drop(self, job: Job, error: StaleJob) -> None:
        """Leave a job that is not ours any more; where its patient was erased, with what was written since."""
        log.warning("job_dropped", reason=str(error))
        if self._queue.is_purged(job.id):
            self._spool.purge(job.id)

    def _give_back(self, job: Job) -> None:
        self._queue.give_back(job.id, self._owner, "given back: the worker stops")
        log.warning("job_given_back", stage=self._stage)

    def _postpone(self, job: Job, error: StorageFull) -> None:
        """Let a job wait for storage: that is no fault of its own, and uses up none of its attempts."""
        again = self._clock() + timedelta(seconds=STORAGE_SECONDS)
        log.warning("job_waits_for_storage", stage=self._stage, reason=str(error))
        self._owed = job, f"waits for storage: {error}", again
        self._give_back_owed()

    def _give_back_owed(self) -> None:
        """Give back the job that waits for storage, which may have to wait for storage itself."""
        if self._owed is None:
            return
        job, detail, again = self._owed
        try:
            self._queue.give_back(job.id, self._owner, detail, again)
        except StaleJob as error:
            self._drop(job, error)
        self._owed = None


def _result(done: ContouredSeries, route: Route) -> SegmentedResult:
    return SegmentedResult(
        model_name=done.model.name,
        model_version=done.model.version,
        model_digest=done.model.digest,
        destinations=[
            name
            for name in route.destinations
            if any(name in file.wanted.destinations for file in done.files)
        ],
        objects=[
            StoredObject(
                file.wanted.kind,
                file.wanted.profile,
                file.sop_instance_uid,
                file.sha256,
                file.path.name,
                file.wanted.destinations,
            )
            for file in done.files
        ],
        structures=[
            StructureResult(each.name, each.volume_cm3, each.contours, each.slices, found=each.found)
            for each in done.summaries
        ],
        findings=[
            FindingResult(each.code, each.severity, each.structure, each.text) for each in done.findings
        ],
        stage_seconds=done.stage_seconds,
        held=hold_reason(done.findings, route.doubtful),
        remarks=done.remarks,
    )
