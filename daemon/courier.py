"""Takes due deliveries to their destinations, one after the other, and writes down what came of each."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from daemon.commitment import Reference
from daemon.commitment_reports import CommitmentReports
from daemon.commitment_request import request_commitment
from daemon.config import Config, Destination
from daemon.delivery import send
from daemon.delivery_setback import Setbacks
from daemon.delivery_words import shown
from daemon.errors import StaleJob
from daemon.failure_words import call_path, describe, without_patient
from daemon.job_queue import JobQueue
from daemon.job_queue_clock import LONGEST_SILENCE
from daemon.job_queue_rows import Delivery, Job
from daemon.lease import kept
from daemon.outgoing_association import DeliveryOutcome, OutcomeKind, Timeouts
from daemon.retry import Backoff
from daemon.spool import Spool

log = structlog.get_logger()

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0
SILENT_SECONDS = 30.0
"""How long a destination that could not be reached is left alone by its other deliveries."""

WAITS = "stored; waits for storage commitment"

_UNREACHED = {OutcomeKind.CONNECTION, OutcomeKind.ASSOCIATION, OutcomeKind.UNKNOWN}


class OwnFailure(StrEnum):
    """Why nothing was sent at all; recorded as the delivery's failure kind like an `OutcomeKind`."""

    UNCONFIGURED = "unconfigured"
    """The configuration no longer has this destination."""
    FILE = "file"
    """The structure set is gone from the spool, altered, or cannot be read."""
    ERROR = "error"
    """An error that nobody foresaw."""


class _Undelivered(Exception):  # noqa: N818 -- says what holds
    """Nothing was sent; `passing` where another try may help."""

    def __init__(self, kind: OwnFailure, detail: str, *, passing: bool) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.passing = passing


class Courier:
    """Delivers; several threads may share one.

    Parameters
    ----------
    settings
        Gives the configuration as it stands now; asked at each try.
    owner
        Who holds the leases: unique among all workers.
    jitter
        A random number from 0 to 1 for each wait.
    """

    def __init__(
        self,
        queue: JobQueue,
        spool: Spool,
        settings: Callable[[], Config],
        clock: Callable[[], datetime],
        owner: str,
        jitter: Callable[[], float],
        timeouts: Timeouts | None = None,
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._timeouts = timeouts
        self._setbacks = Setbacks(queue, settings, clock, jitter)
        self._reports = CommitmentReports(queue, self._setbacks)

    def deliver_next(self) -> bool:
        """Try the delivery that is due; False where none is."""
        due = self._queue.claim_delivery(self._owner, LEASE_SECONDS)
        if due is None:
            return False
        delivery, job = due
        with structlog.contextvars.bound_contextvars(
            job=job.id, series=job.series_instance_uid, destination=delivery.destination
        ):
            try:
                self._deliver(delivery, job)
            except StaleJob as error:
                log.warning("delivery_no_longer_wanted", reason=str(error))
        return True

    def _deliver(self, delivery: Delivery, job: Job) -> None:
        def renew() -> None:
            self._queue.renew_delivery(delivery.id, self._owner, LEASE_SECONDS)

        try:
            with kept(renew, RENEW_SECONDS):
                stored = self._send(delivery, job)
                outcome = self._have_committed(delivery, job, stored) if stored.sent else stored
        except _Undelivered as failure:
            self._failed(delivery, failure.kind, None, failure.detail, passing=failure.passing)
            return
        except StaleJob:
            raise
        except Exception as error:  # noqa: BLE001 -- here a delivery ends, and the others must go on
            log.warning("delivery_error", kind=type(error).__name__, calls=call_path(error))
            self._failed(delivery, OwnFailure.ERROR, None, describe(error, job), passing=True)
            return
        if outcome is None:
            log.info("commitment_requested", attempts=delivery.attempts)
        elif outcome.sent:
            self._queue.delivery_sent(delivery.id, outcome.status, outcome.detail)
            log.info("delivery_sent", status=shown(outcome.status), attempts=delivery.attempts)
        else:
            self._failed(delivery, outcome.kind, outcome.status, outcome.detail)

    def _send(self, delivery: Delivery, job: Job) -> DeliveryOutcome:
        config = self._settings()
        destination = self._destination(delivery, config)
        unsent = {
            self._spool.result_path(job.id, result.file_name): (item, result)
            for item, result in self._queue.delivery_items(delivery.id)
            if item.sent_at is None
        }
        for path, (_, result) in unsent.items():
            _require_unaltered(path, result.sha256, job.id)

        def stored(path: Path, outcome: DeliveryOutcome) -> None:
            item, _ = unsent[path]
            is_wanted = self._queue.item_sent(item.id, without_patient(outcome.detail, job))
            if not is_wanted and path != list(unsent)[-1]:
                raise StaleJob(
                    f"the delivery to {delivery.destination} was cancelled after its first objects"
                )

        try:
            outcome = send(
                list(unsent), destination, config.node.ae_title, self._timeouts, config.tls, stored
            )
        except (OSError, InvalidDicomError) as error:
            raise _unreadable(error) from error
        # A destination's comment may name the patient, whom the history must be able to forget.
        return replace(outcome, detail=without_patient(outcome.detail, job))

    def _have_committed(
        self, delivery: Delivery, job: Job, stored: DeliveryOutcome
    ) -> DeliveryOutcome | None:
        """Ask a destination to commit what it has stored, where it is to; None while its answer is awaited."""
        config = self._settings()
        destination = self._destination(delivery, config)
        rows = [result for item, result in self._queue.delivery_items(delivery.id) if not item.committed_at]
        if not destination.commitment or not rows:
            return stored
        give_up_at = delivery.created_at + timedelta(hours=config.delivery.retry_for_hours)
        unanswered = self._queue.commitments_unanswered(delivery)
        if unanswered and self._clock() >= give_up_at:
            return DeliveryOutcome(
                OutcomeKind.UNKNOWN, None, f"stored, but not committed: {_asked(unanswered)}"
            )
        references = [_reference(self._spool.result_path(job.id, row.file_name)) for row in rows]
        transaction_uid = self._queue.ask_commitment(delivery.id, stored.status, stored.detail)
        outcome = request_commitment(
            references,
            transaction_uid,
            destination,
            config.node.ae_title,
            self._timeouts,
            config.tls,
            self._reports.take,
        )
        if not outcome.sent:
            refused = replace(outcome, detail=without_patient(outcome.detail, job))
            if outcome.kind is not OutcomeKind.UNKNOWN:
                self._queue.commitment_not_taken(transaction_uid, refused.detail)
            return refused
        detail = f"{WAITS}; {_asked(unanswered)}" if unanswered else WAITS
        until = _patience(self._clock(), config.delivery.commitment_minutes, unanswered, give_up_at)
        self._queue.await_commitment(transaction_uid, until, detail)
        return None

    def _destination(self, delivery: Delivery, config: Config) -> Destination:
        destination = config.destination(delivery.destination)
        if destination is None:
            detail = (
                f"no longer configured; add [[destinations]] with this name, or give it up with "
                f"`oarlock cancel {delivery.job_id}`"
            )
            raise _Undelivered(OwnFailure.UNCONFIGURED, detail, passing=True)
        return destination

    def _failed(
        self, delivery: Delivery, kind: StrEnum, status: int | None, detail: str, *, passing: bool = True
    ) -> None:
        """Try again later or give up; a destination that was not reached keeps its other deliveries waiting."""
        again = self._setbacks.note(delivery, kind, status, detail, passing=passing)
        if again and kind in _UNREACHED:
            pause = min(again, self._clock() + timedelta(seconds=SILENT_SECONDS))
            self._queue.postpone_destination(delivery.destination, pause)


def _require_unaltered(path: Path, sha256: str, job_id: int) -> None:
    """Send only what passed its check: the bytes whose digest the job has."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        detail = f"{path} is gone; restore it, or {_anew(job_id)}"
        raise _Undelivered(OwnFailure.FILE, detail, passing=False) from error
    except OSError as error:
        raise _unreadable(error) from error
    if found != sha256:
        detail = f"{path} was altered after its check and is not sent; restore it, or {_anew(job_id)}"
        raise _Undelivered(OwnFailure.FILE, detail, passing=False)


def _anew(job_id: int) -> str:
    """How a series is contoured anew: a job that was delivered once keeps its images, until it is erased."""
    return f"`oarlock cancel {job_id}`, then `oarlock erase {job_id}`, and send the series again"


def _reference(path: Path) -> Reference:
    meta = read_file_meta_info(path)
    return Reference(str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID))


def _patience(now: datetime, first_minutes: float, unanswered: int, give_up_at: datetime) -> datetime:
    """Until when an answer may take: twice as long after each request, and for the last one the first time."""
    first = timedelta(minutes=first_minutes)
    wait = Backoff(first.total_seconds(), LONGEST_SILENCE.total_seconds()).wait_seconds(unanswered + 1, 1.0)
    return max(min(now + timedelta(seconds=wait), give_up_at), now + first)


def _asked(times: int) -> str:
    return f"no answer to {times} request{'s' if times > 1 else ''}"


def _unreadable(error: Exception) -> _Undelivered:
    detail = f"a result cannot be read: {error}; check the file system"
    return _Undelivered(OwnFailure.FILE, detail, passing=True)
