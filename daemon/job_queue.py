"""The job table: what is received, what is worked on, what became of it. All SQL stands in `job_queue*`."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from sqlalchemy import Engine, Select, func, select

from daemon import job_queue_arrivals as arrivals
from daemon import job_queue_clock as times
from daemon import job_queue_commitments as commitments
from daemon import job_queue_committing as committing
from daemon import job_queue_deliveries as delivering
from daemon import job_queue_identity as identity
from daemon import job_queue_leases as leases
from daemon import job_queue_looking as looking
from daemon import job_queue_operators as operators
from daemon import job_queue_recovery as recovery
from daemon import job_queue_series as series
from daemon.errors import StaleJob
from daemon.job_queue_audit import AuditRow, trail
from daemon.job_queue_committing import CommitmentAnswer
from daemon.job_queue_engine import Transactions, forget_journal, migrate, sqlite_engine
from daemon.job_queue_looking import head_revision, schema_revision
from daemon.job_queue_rows import Base, Commitment, Delivery, DeliveryItem, Instance, Job, JobEvent, Result
from daemon.job_queue_state import get, move, move_held, refusal, remark, stale
from daemon.job_queue_values import (
    FindingResult,
    IncomingInstance,
    KnownInstance,
    Place,
    RecoveredJob,
    SegmentedResult,
    StoredObject,
    StructureResult,
)
from daemon.job_records import (
    DeliveryRecord,
    EventRecord,
    FindingRecord,
    JobRecord,
    ResultRecord,
    SetAsideRecord,
    StageTimeRecord,
    StructureRecord,
)
from daemon.jobs import JobState, QueueReason

__all__ = [
    "AuditRow",
    "CommitmentAnswer",
    "FindingResult",
    "IncomingInstance",
    "JobQueue",
    "KnownInstance",
    "Place",
    "RecoveredJob",
    "SegmentedResult",
    "StoredObject",
    "StructureResult",
    "head_revision",
    "migrate",
    "open_queue",
    "schema_revision",
]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Row = TypeVar("_Row", bound=Base)
_Record = TypeVar("_Record", bound="DataclassInstance")


def open_queue(url: str, clock: Callable[[], datetime]) -> "JobQueue":
    """Queue on the database of a URL, which is created or brought up to date first; raises CannotStart."""
    migrate(url)
    return JobQueue(sqlite_engine(url), clock)


def uuid_uid() -> str:
    """Give a new UID derived from a UUID (PS3.5 Section B.2)."""
    return f"2.25.{uuid4().int}"


class JobQueue:
    """The job table of one installation, shared by threads and processes.

    Every method is one short transaction.
    Rows handed out are detached copies: changing them changes nothing.

    Parameters
    ----------
    clock
        The current time, with its zone.
    new_uid
        A UID nobody has used; a job keeps those of its first claim, and its result is one object at every send.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], datetime], new_uid: Callable[[], str] = uuid_uid
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._new_uid = new_uid
        transactions = Transactions(engine)
        self._reading, self._writing = transactions.reading, transactions.writing
        self._shared = transactions.shared

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._shared.close()
        self._engine.dispose()

    # Reception

    def place(self, series_uid: str, sop_uid: str, calling_ae_title: str, called_ae_title: str) -> Place:
        """Find the newest job of a sender's series that already holds an image, and the one that receives it now.

        Another sender's copy does not count: two that send one series at the same time would otherwise
        end as two halves.
        A cancelled or purged job does not count either: what is sent again then is wanted again.
        """
        return self._shared.read(
            lambda database: arrivals.place(database, series_uid, sop_uid, calling_ae_title, called_ae_title)
        )

    def job_for_instance(self, incoming: IncomingInstance) -> int:
        """Find or open the receiving job of an image's series, sender and called AE title.

        One that is discarded while its images arrive takes the rest of them, so that no half series is left.
        A job still queued goes back to receiving; once it is claimed, a new revision is opened.
        """
        with self._writing() as session:
            now = self._clock()
            return (
                series.open_for(session, incoming)
                or series.receive_again(session, now, incoming)
                or series.open_revision(session, now, incoming, self._new_uid)
            )

    def add_instance(self, job_id: int, incoming: IncomingInstance) -> bool:
        """Count an image whose file is safe on disk; after this the sender may be told 0x0000.

        Returns False where the job stopped receiving meanwhile: ask `job_for_instance` again.
        The same image twice counts once.
        """
        return self._shared.write(
            lambda database: arrivals.add_instance(database, self._clock(), job_id, incoming)
        )

    def sent_again(self, incoming: IncomingInstance) -> None:
        """Let a series wait on of which a known image came once more: its sender may have begun anew."""
        which = incoming.series_instance_uid, incoming.calling_ae_title, incoming.called_ae_title
        if self._shared.read(lambda database: arrivals.is_waiting(database, *which)):
            with self._writing() as session:
                series.wait_on(session, self._clock(), incoming)

    def set_aside(self, job_id: int, incoming: IncomingInstance, file_name: str) -> None:
        """Write down an image refused because the job holds other bytes under its UID; once per content."""
        with self._writing() as session:
            series.set_aside(session, self._clock(), job_id, incoming, file_name)

    def recover(self, job: RecoveredJob) -> JobState:
        """Enter a job that only its folder remembers; raises IllegalTransition where its number is known."""
        with self._writing() as session:
            return recovery.enter(session, self._clock(), job, self._new_uid)

    # Completeness

    def receiving_jobs(self) -> list[Job]:
        """Jobs whose images are still arriving, also those of a discarded series, oldest first."""
        return self._all(select(Job).where(series.TAKES_IMAGES).order_by(Job.id))

    def complete(self, job_id: int, detail: str) -> JobState:
        """Queue a job whose series is complete; one without any image (none could be stored) is cancelled.

        Raises
        ------
        StaleJob
            The job is not receiving.
        """
        with self._writing() as session:
            job, code, target = get(session, job_id), None, JobState.QUEUED
            if job.instance_count == 0:
                code, target, detail = QueueReason.NO_IMAGES, JobState.CANCELLED, "no image was stored"
            which, origin = Job.id == job_id, JobState.RECEIVING
            if not move(session, self._clock(), which, origin, target, detail=detail, reason_code=code):
                raise StaleJob(str(refusal(job, "completed")))
            return target

    def images_missing(self, job_id: int, detail: str) -> None:
        """Reject a job whose sender has more images than it sent; raises StaleJob where it is not receiving."""
        with self._writing() as session:
            which, origin, target = Job.id == job_id, JobState.RECEIVING, JobState.REJECTED
            code = QueueReason.IMAGES_MISSING
            if not move(session, self._clock(), which, origin, target, detail=detail, reason_code=code):
                raise stale(session, job_id, "reception")

    def awaits(self, job_id: int, what: str) -> None:
        """Write down what a receiving job waits for, and in its history where that is news."""
        with self._writing() as session:
            job = get(session, job_id)
            if job.state is JobState.RECEIVING and job.awaits != what:
                job.awaits = what
                remark(session, self._clock(), job_id, f"waits for {what}")

    def discarded(self, job_id: int, detail: str) -> None:
        """End the discarding of a series whose sender has paused: its images open a new job from now on."""
        with self._writing() as session:
            job = get(session, job_id)
            if job.discarding:
                job.discarding = False
                remark(session, self._clock(), job_id, detail)

    # Segmentation

    def claim(self, owner: str, lease_seconds: float) -> Job | None:
        """Lease the oldest queued job that is due; None where nothing is."""
        with self._writing() as session:
            return leases.claim(session, self._clock(), owner, lease_seconds, self._new_uid)

    def renew(self, job_id: int, owner: str, lease_seconds: float, stage: str, fraction: float) -> None:
        """Prolong a lease and show the progress (fraction of the stage, 0 to 1); raises StaleJob."""
        with self._writing() as session:
            leases.renew(session, self._clock(), job_id, owner, lease_seconds, stage, fraction)

    def release_expired(self) -> list[Job]:
        """Take back the jobs whose worker stopped renewing; returns them as they are now."""
        with self._writing() as session:
            return leases.release_expired(session, self._clock())

    def segmented(self, job_id: int, owner: str, result: SegmentedResult) -> None:
        """Write down results that are on disk, one delivery per destination, and a doubt; raises StaleJob."""
        with self._writing() as session:
            leases.segmented(session, self._clock(), job_id, owner, result)

    def reject(self, job_id: int, owner: str, code: str, detail: str) -> None:
        """Refuse an unsuitable series; `detail` says what was found and what is needed; raises StaleJob."""
        self._finish(job_id, owner, JobState.REJECTED, code, detail)

    def fail(self, job_id: int, owner: str, code: str, detail: str) -> None:
        """Give a job up whose failure would repeat itself; raises StaleJob."""
        self._finish(job_id, owner, JobState.FAILED, code, detail)

    def requeue(self, job_id: int, owner: str, not_before: datetime | None, detail: str) -> JobState:
        """Return a job after a passing failure; it fails where its attempts are used up; raises StaleJob."""
        with self._writing() as session:
            return leases.requeue(session, self._clock(), job_id, owner, not_before, detail)

    def give_back(self, job_id: int, owner: str, detail: str, not_before: datetime | None = None) -> None:
        """Return an unfinished job, as if it had not been claimed; raises StaleJob."""
        with self._writing() as session:
            leases.give_back(session, self._clock(), job_id, owner, detail, not_before)

    def note(self, job_id: int, detail: str) -> None:
        """Write a remark into a job's history."""
        with self._writing() as session:
            remark(session, self._clock(), job_id, detail)

    # Delivery

    def claim_delivery(self, owner: str, lease_seconds: float) -> tuple[Delivery, Job] | None:
        """Lease the delivery due the longest to a destination with none under way; None where nothing is."""
        with self._writing() as session:
            return delivering.claim(session, self._clock(), owner, lease_seconds)

    def renew_delivery(self, delivery_id: int, owner: str, lease_seconds: float) -> None:
        """Prolong the lease of a delivery under way; raises StaleJob."""
        with self._writing() as session:
            delivering.renew(session, self._clock(), delivery_id, owner, lease_seconds)

    def delivery_items(self, delivery_id: int) -> list[tuple[DeliveryItem, Result]]:
        """Objects of a delivery in the order in which they are sent."""
        with self._reading() as session:
            return delivering.items(session, delivery_id)

    def item_sent(self, item_id: int, detail: str = "") -> bool:
        """Write down that a destination stored one object of a delivery; whether the others are wanted still."""
        with self._writing() as session:
            return delivering.item_sent(session, self._clock(), item_id, detail)

    def delivery_sent(self, delivery_id: int, status: int | None, detail: str = "") -> None:
        """Write down that a destination stored everything; closes the job after the last one."""
        with self._writing() as session:
            delivering.sent(session, self._clock(), delivery_id, status, detail)

    def delivery_again(
        self, delivery_id: int, not_before: datetime, kind: str, status: int | None, detail: str
    ) -> None:
        """Leave a failed try for later; raises StaleJob where the delivery is no longer pending."""
        with self._writing() as session:
            delivering.again(session, self._clock(), delivery_id, not_before, kind, status, detail)

    def delivery_failed(self, delivery_id: int, kind: str, status: int | None, detail: str) -> None:
        """Give a delivery up; raises StaleJob where it is no longer pending."""
        with self._writing() as session:
            delivering.failed(session, self._clock(), delivery_id, kind, status, detail)

    def postpone_destination(self, destination: str, not_before: datetime) -> int:
        """Let all pending deliveries to a silent destination wait; returns how many."""
        with self._writing() as session:
            return delivering.postpone(session, destination, not_before)

    # Storage commitment that we ask for

    def ask_commitment(self, delivery_id: int, status: int | None, detail: str) -> str:
        """Write down that a delivery's commitment is asked for; returns the Transaction UID of the request.

        Parameters
        ----------
        status, detail
            How the destination answered the last C-STORE; no status where that is told already.
        """
        transaction_uid = self._new_uid()
        with self._writing() as session:
            committing.ask(session, self._clock(), delivery_id, transaction_uid, status, detail)
        return transaction_uid

    def commitment_not_taken(self, transaction_uid: str, detail: str) -> None:
        """Write down that a request never came to its destination, and why."""
        with self._writing() as session:
            committing.not_taken(session, transaction_uid, detail)

    def commitments_unanswered(self, delivery: Delivery) -> int:
        """How many requests for a delivery its destination took and did not answer since it was last asked for."""
        with self._reading() as session:
            return committing.times_asked(session, delivery.id, delivery.created_at)

    def await_commitment(self, transaction_uid: str, until: datetime, detail: str) -> None:
        """Leave a delivery to its answer; nothing where that is there already."""
        with self._writing() as session:
            committing.wait(session, self._clock(), transaction_uid, until, detail)

    def commitment_reported(
        self, transaction_uid: str, committed: Collection[str], failed: Mapping[str, int]
    ) -> CommitmentAnswer | None:
        """Write down a destination's answer, which may close its delivery; None for an unknown transaction.

        Parameters
        ----------
        committed
            SOP Instance UIDs.
        failed
            SOP Instance UID to Failure Reason; these count as not sent.
        """
        with self._writing() as session:
            return committing.answer(session, self._clock(), transaction_uid, committed, failed)

    # Storage commitment that peers ask for

    def keep_commitment(
        self,
        transaction_uid: str,
        titles: tuple[str, str],
        address: str,
        references: str,
        not_before: datetime,
    ) -> int:
        """Write a request down before it is accepted; `titles` are calling and called AE title."""
        with self._writing() as session:
            now = self._clock()
            return commitments.keep(session, now, not_before, transaction_uid, titles, address, references)

    def claim_commitment(self, until: datetime) -> Commitment | None:
        """Take the unanswered request that is due the longest; it is due again at `until`."""
        with self._writing() as session:
            return commitments.claim(session, self._clock(), until)

    def commitment_answered(self, commitment_id: int, detail: str) -> None:
        """Write down that a request needs no further answer, and why."""
        with self._writing() as session:
            commitments.answered(session, self._clock(), commitment_id, detail)

    def postpone_commitment(self, commitment_id: int, not_before: datetime, detail: str) -> None:
        """Write down why an answer could not be given yet."""
        with self._writing() as session:
            commitments.postpone(session, commitment_id, not_before, detail)

    def find_instances(self, sop_instance_uid: str) -> list[Instance]:
        """Rows of an image in all jobs that still have their files."""
        with self._reading() as session:
            return commitments.find_instances(session, sop_instance_uid)

    def set_aside_from(self, calling_ae_title: str) -> frozenset[str]:
        """SOP Instance UIDs under which a sender also sent bytes that were refused and set aside."""
        with self._reading() as session:
            return commitments.set_aside_from(session, calling_ae_title)

    # Operators

    def retry(self, job_id: int, by: str = "an operator") -> JobState:
        """Start a failed, rejected or cancelled job again, where its work stopped.

        With results on disk only what was not sent is sent again; else it is segmented anew.
        What no operator has released yet is held again.

        Raises
        ------
        NoSuchJob
        IllegalTransition
            The job is in another state.
        """
        with self._writing() as session:
            return operators.retry(session, self._clock(), job_id, by)

    def send_again(self, job_id: int, destination: str | None, detail: str) -> None:
        """Have a delivered job's results sent once more, to one destination or (None) to all.

        Raises
        ------
        NoSuchJob
        IllegalTransition
            The job is not delivered, or was never sent to that destination.
        """
        with self._writing() as session:
            operators.send_again(session, self._clock(), job_id, destination, detail)

    def cancel(self, job_id: int, detail: str) -> JobState:
        """Stop an unfinished job, or what is sent once more of a delivered one; returns its state then.

        Raises NoSuchJob, IllegalTransition.
        """
        with self._writing() as session:
            return operators.cancel(session, self._clock(), job_id, detail)

    def release(self, job_id: int, detail: str) -> None:
        """Let a held job's results go to their destinations; raises NoSuchJob, IllegalTransition."""
        with self._writing() as session:
            operators.release(session, self._clock(), job_id, detail)

    def refuse(self, job_id: int, detail: str) -> None:
        """Refuse a held job's results: nothing of it is sent; raises NoSuchJob, IllegalTransition."""
        with self._writing() as session:
            operators.refuse(session, self._clock(), job_id, detail)

    def jobs(self, state: JobState | None = None, limit: int = 100) -> list[JobRecord]:
        """Newest jobs first."""
        return self._shared.read(lambda database: looking.jobs(database, state, limit))

    def job(self, job_id: int) -> JobRecord:
        """One job; raises NoSuchJob."""
        return self._shared.read(lambda database: looking.job(database, job_id))

    def events(self, job_id: int) -> list[EventRecord]:
        """A job's history, oldest first."""
        return self._of_job(EventRecord, job_id)

    def deliveries(self, job_id: int) -> list[DeliveryRecord]:
        """A job's deliveries in the order of its route."""
        return self._of_job(DeliveryRecord, job_id)

    def results(self, job_id: int) -> list[ResultRecord]:
        """Objects made of a job."""
        return self._of_job(ResultRecord, job_id)

    def findings(self, job_id: int) -> list[FindingRecord]:
        """What is doubtful about a job."""
        return self._of_job(FindingRecord, job_id)

    def structures(self, job_id: int) -> list[StructureRecord]:
        """Organs of a job's structure set."""
        return self._of_job(StructureRecord, job_id)

    def stage_times(self, job_id: int) -> list[StageTimeRecord]:
        """Seconds of every stage of the segmentation."""
        return self._of_job(StageTimeRecord, job_id)

    def instances(self, job_id: int) -> list[Instance]:
        """Images that arrived for this job itself; see `images` for what it is segmented from."""
        return self._all(select(Instance).where(Instance.job_id == job_id).order_by(Instance.id))

    def images(self, job_id: int) -> list[Instance]:
        """Images a job is segmented from: its own and those of the series' earlier revisions, each once.

        Each lies in the spool under its own `job_id`.
        """
        with self._reading() as session:
            return series.images(session, job_id)

    def instance_uids(self, job_id: int) -> frozenset[str] | None:
        """SOP Instance UIDs of a job's own images; None where there is no such job."""
        with self._reading() as session:
            if session.get(Job, job_id) is None:
                return None
            uids = select(Instance.sop_instance_uid).where(Instance.job_id == job_id)
            return frozenset(session.scalars(uids))

    def set_asides(self, job_id: int) -> list[SetAsideRecord]:
        """Images refused because the job holds other bytes under their UID."""
        return self._of_job(SetAsideRecord, job_id)

    def audit_trail(self, since: datetime, until: datetime) -> Iterator[AuditRow]:
        """Every event from `since` to before `until`, oldest first, with what identifies its job."""
        with self._reading() as session:
            yield from trail(session, since, until)

    # The computer's clock

    def clock_was_set(self) -> None:
        """Count silences and leases anew, and cut waits, as times from before mean nothing any more."""
        with self._writing() as session:
            times.clock_was_set(session, self._clock())

    def cut_times(self) -> None:
        """Cut leases and waits that reach further than any may: a clock set back while nothing ran."""
        with self._writing() as session:
            times.cut_times(session, self._clock())

    def last_event_at(self) -> datetime | None:
        """When the history was last written, by the clock of then; None where there is none."""
        with self._reading() as session:
            return session.scalar(select(func.max(JobEvent.at)))

    # Retention

    def purgeable(self, before: datetime, states: Collection[JobState]) -> list[Job]:
        """Jobs in some states since before a time whose images no later revision needs, oldest first."""
        with self._reading() as session:
            return series.purgeable(session, before, states)

    def purged(self, job: Job | JobRecord, detail: str) -> bool:
        """Write down that a finished job's files go now, and forget the patient's name.

        Returns False where the job has moved on since it was looked at, or a later revision needs its images: then
        its files stay.

        Raises
        ------
        IllegalTransition
            The job is not finished.
        """
        which = (Job.id == job.id) & (Job.state_since == job.state_since) & ~series.is_needed()
        with self._writing() as session:
            now, target = self._clock(), JobState.PURGED
            return bool(move(session, now, which, job.state, target, detail=detail, patient_name=None))

    def is_purged(self, job_id: int) -> bool:
        """Whether a job is known and its files are gone, or ought to be."""
        return self._shared.read(lambda database: looking.is_purged(database, job_id))

    def jobs_of_patient(self, patient_id: str) -> list[JobRecord]:
        """Jobs that still name a Patient ID, oldest first."""
        return self._shared.read(lambda database: looking.of_patient(database, patient_id))

    def jobs_of_several(self) -> list[JobRecord]:
        """Jobs with files that may name another patient than their row does, oldest first."""
        return self._shared.read(looking.of_several)

    def forget_patient(self, job_id: int, detail: str) -> None:
        """Purge a finished job whose files are gone, and leave nothing of its patient; repeatable.

        Raises
        ------
        IllegalTransition
            The job is not finished.
        """
        with self._writing() as session:
            identity.forget(session, self._clock(), job_id, detail)
        forget_journal(self._engine)

    def forget_patients(self, before: datetime) -> int:
        """Leave nothing of the patients in purged jobs opened before a time; returns how many those were."""
        with self._writing() as session:
            forgotten = identity.forget_aged(session, before)
        if forgotten:
            forget_journal(self._engine)
        return forgotten

    def _of_job(self, kind: type[_Record], job_id: int) -> list[_Record]:
        return self._shared.read(lambda database: looking.of_job(database, kind, job_id))

    def _all(self, rows: Select[_Row]) -> list[_Row]:
        with self._reading() as session:
            return list(session.scalars(rows))

    def _finish(self, job_id: int, owner: str, target: JobState, code: str, detail: str) -> None:
        with self._writing() as session:
            move_held(session, self._clock(), job_id, owner, target, detail=detail, reason_code=code)
