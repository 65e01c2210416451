"""When a series is complete: nobody sends it any more, it has been quiet, and no image is known to be missing."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from threading import Lock

import structlog

from daemon.clock_watch import ClockWatch
from daemon.config import Series
from daemon.errors import StaleJob, StorageFull
from daemon.evidence import NOTHING, Evidence
from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Job
from daemon.jobs import JobState

log = structlog.get_logger()

ANSWER_SECONDS = 90.0
"""Beyond the quiet period nobody's answer is waited for."""


class Step(Enum):
    """What to do with a series that is quiet."""

    WAIT = "wait"
    START = "start"
    REJECT = "reject"


@dataclass(frozen=True)
class Judgement:
    """A step and its reason: what a series waits for, or why it starts."""

    step: Step
    reason: str = ""


def judge(images: int, silent_seconds: float, evidence: Evidence | None, config: Series) -> Judgement:
    """Decide about a series that nobody is sending.

    A count lets a series start early only where that is configured, and keeps it waiting at most
    `max_wait_seconds`; without a usable count the quiet period decides alone.

    Parameters
    ----------
    images
        How many there are, each once.
    evidence
        None while it is being gathered.
    """
    pause = config.quiet_seconds
    no_image = f"no image for {pause:g} s"
    if evidence is None:
        pause, reason = pause + ANSWER_SECONDS, f"{no_image}; its sender was asked in vain"
    elif evidence.expected is None:
        reason = "; ".join(filter(None, (no_image, evidence.source)))
    elif images > evidence.expected:
        reason = f"{no_image}; {images} images, though there are {evidence.expected} by {evidence.source}"
    elif images == evidence.expected:
        pause = min(pause, config.counted_quiet_seconds or pause)
        reason = f"all {images} images ({evidence.source}), no image for {pause:g} s"
    else:
        there = f"{images} of {evidence.expected} images ({evidence.source})"
        return _incomplete(there, silent_seconds, config)
    return Judgement(Step.START, reason) if silent_seconds >= pause else Judgement(Step.WAIT)


def _incomplete(there: str, silent_seconds: float, config: Series) -> Judgement:
    longest = max(config.quiet_seconds, config.max_wait_seconds)
    if silent_seconds < longest:
        return Judgement(Step.WAIT, there if silent_seconds >= config.quiet_seconds else "")
    told = f"{there} and no other for {longest:g} s"
    if config.when_images_missing == "proceed":
        return Judgement(Step.START, told)
    return Judgement(Step.REJECT, f"{told}; send the others, or `oarlock retry` to contour what is there")


class Completeness:
    """Watches the receiving jobs and queues those that are complete.

    C-STORE has no end of a series: some senders open an association per image, others spread one study over
    several, and an abort says nothing about what is still to come.
    So a series is complete after `quiet_seconds` without an image *and* without an open association that
    has fed it; one that stays open but silent for `max_wait_seconds` no longer counts.
    Which images came when stands in the job table, so that a restart forgets only the associations, which
    end with the process anyway.

    Parameters
    ----------
    evidence
        What is known about how many images a series has; None while that is being found out.
    forget
        Called with a job that receives no longer.
    """

    def __init__(
        self,
        queue: JobQueue,
        config: Series,
        clock: Callable[[], datetime],
        watch: ClockWatch | None = None,
        evidence: Callable[[Job], Evidence | None] = lambda _: NOTHING,
        forget: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._queue = queue
        self._config = config
        self._max_wait = timedelta(seconds=config.max_wait_seconds)
        self._clock = clock
        self._watch = watch
        self._evidence = evidence
        self._forget = forget
        # While we were down nobody could send: our own outage is no silence of the sender.
        self._listening_since = clock()
        self._lock = Lock()
        self._last_fed: dict[int, dict[int, datetime]] = {}

    def association_opened(self, association_id: int) -> None:
        """From now on the association holds up whatever it feeds."""
        with self._lock:
            self._last_fed[association_id] = {}

    def fed(self, association_id: int, job_id: int) -> None:
        """Note an image for a job, new or known; after the end of its association this means nothing."""
        with self._lock:
            if association_id in self._last_fed:
                self._last_fed[association_id][job_id] = self._clock()

    def association_closed(self, association_id: int) -> None:
        """Released, aborted or lost: it holds up nothing any more; repeatable."""
        with self._lock:
            self._last_fed.pop(association_id, None)

    def tick(self) -> int:
        """Queue every series that is complete now; returns how many."""
        try:
            if self._watch and (jump := self._watch.jump()):
                self._count_silence_anew()
                self._watch.settled(jump)
                log.warning("clock_was_set", seconds=round(jump.total_seconds()))
            return sum(self._queued(job) for job in self._queue.receiving_jobs())
        except StorageFull as error:
            log.warning("series_not_queued", reason=str(error))
            return 0

    def _queued(self, job: Job) -> bool:
        """Look at one job; what a peer wrote into its images must not keep the others from being looked at."""
        try:
            return self._look_at(job)
        except StorageFull:
            raise
        except Exception:
            log.exception("series_not_judged", job=job.id, series=job.series_instance_uid)
            return False

    def _count_silence_anew(self) -> None:
        self._queue.clock_was_set()
        self._listening_since = now = self._clock()
        with self._lock:
            self._last_fed = {number: dict.fromkeys(fed, now) for number, fed in self._last_fed.items()}

    def _look_at(self, job: Job) -> bool:
        """Do what is due with one job; returns whether it was queued."""
        now = self._clock()
        silent = (now - max(job.last_instance_at, self._listening_since)).total_seconds()
        quiet = self._config.quiet_seconds
        soonest = min(quiet, self._config.counted_quiet_seconds or quiet)
        if silent < soonest or self._is_being_fed(job, now):
            return False
        if job.state is not JobState.RECEIVING:
            if silent >= quiet:
                self._queue.discarded(
                    job.id, f"no image for {quiet:g} s; those sent from now on open a new job"
                )
            return False
        judgement = judge(self._images(job), silent, self._evidence(job), self._config)
        if judgement.step is Step.WAIT:
            if judgement.reason not in ("", job.awaits):
                self._queue.awaits(job.id, judgement.reason)
            return False
        return self._end(job, judgement)

    def _is_being_fed(self, job: Job, now: datetime) -> bool:
        with self._lock:
            fed = [last_fed[job.id] for last_fed in self._last_fed.values() if job.id in last_fed]
        return any(now - last < self._max_wait for last in fed)

    def _images(self, job: Job) -> int:
        """How many images the series has; a later revision is segmented with those of the earlier ones."""
        return job.instance_count if job.revision == 1 else len(self._queue.images(job.id))

    def _end(self, job: Job, judgement: Judgement) -> bool:
        self._forget(job.id)
        facts = {
            "job": job.id,
            "series": job.series_instance_uid,
            "revision": job.revision,
            "images": job.instance_count,
        }
        try:
            if judgement.step is Step.REJECT:
                self._queue.images_missing(job.id, judgement.reason)
                log.warning("series_rejected", reason=judgement.reason, **facts)
                return False
            state = self._queue.complete(job.id, judgement.reason)
        except StaleJob:
            return False  # cancelled since it was listed
        log.info("series_complete" if state is JobState.QUEUED else "series_empty", **facts)
        return state is JobState.QUEUED
