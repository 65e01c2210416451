"""Takes due deliveries to their destinations, one after the other, and writes down what came of each."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

import structlog
from pydicom.errors import InvalidDicomError

from daemon.config import Config, Destination
from daemon.delivery import DeliveryOutcome, OutcomeKind, Timeouts, send
from daemon.errors import StaleJob
from daemon.failure_words import call_path, describe, without_patient
from daemon.job_queue import JobQueue
from daemon.jobs import Delivery, Job
from daemon.lease import kept
from daemon.retry import next_delivery
from daemon.spool import Spool

log = structlog.get_logger()

LEASE_SECONDS = 60.0
RENEW_SECONDS = 15.0
SILENT_SECONDS = 30.0
"""How long a destination that could not be reached is left alone by its other deliveries."""

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
        self._jitter = jitter
        self._timeouts = timeouts

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
                outcome = self._send(delivery, job)
        except _Undelivered as failure:
            self._failed(delivery, failure.kind, None, failure.detail, passing=failure.passing)
            return
        except Exception as error:  # noqa: BLE001 -- here a delivery ends, and the others must go on
            log.warning("delivery_error", kind=type(error).__name__, calls=call_path(error))
            self._failed(delivery, OwnFailure.ERROR, None, describe(error, job), passing=True)
            return
        if outcome.sent:
            self._queue.delivery_sent(delivery.id, outcome.status, outcome.detail)
            log.info("delivery_sent", status=_shown(outcome.status), attempts=delivery.attempts)
        else:
            self._failed(delivery, outcome.kind, outcome.status, outcome.detail, passing=True)

    def _send(self, delivery: Delivery, job: Job) -> DeliveryOutcome:
        config = self._settings()
        destination = self._destination(delivery, config)
        unsent = {
            self._spool.result_path(job.id, result.file_name): (item, result)
            for item, result in self._queue.delivery_items(delivery.id)
            if item.sent_at is None
        }
        for path, (_, result) in unsent.items():
            _require_unaltered(path, result.sha256)

        def stored(path: Path) -> None:
            self._queue.item_sent(unsent[path][0].id)

        try:
            outcome = send(
                list(unsent), destination, config.node.ae_title, self._timeouts, config.tls, stored
            )
        except (OSError, InvalidDicomError) as error:
            raise _unreadable(error) from error
        # A destination's comment may name the patient, whom the history must be able to forget.
        return replace(outcome, detail=without_patient(outcome.detail, job))

    def _destination(self, delivery: Delivery, config: Config) -> Destination:
        destination = config.destination(delivery.destination)
        if destination is None:
            detail = (
                f"no longer configured; add [[destinations]] with this name and run "
                f"`oarlock retry {delivery.job_id}`"
            )
            raise _Undelivered(OwnFailure.UNCONFIGURED, detail, passing=False)
        return destination

    def _failed(
        self, delivery: Delivery, kind: StrEnum, status: int | None, detail: str, *, passing: bool
    ) -> None:
        """Try again later or give up; a destination that was not reached keeps its other deliveries waiting."""
        now = self._clock()
        retry_for = timedelta(hours=self._settings().delivery.retry_for_hours)
        jitter = self._jitter()
        again = next_delivery(now, delivery.created_at, retry_for, delivery.attempts, jitter)
        if again is None or not passing:
            if passing:
                detail = (
                    f"{detail} (tried {delivery.attempts} times in {retry_for.total_seconds() / 3600:g} h)"
                )
            self._queue.delivery_failed(delivery.id, kind, status, detail)
            log.error("delivery_failed", kind=kind, status=_shown(status), attempts=delivery.attempts)
            return
        self._queue.delivery_again(delivery.id, again, kind, status, detail)
        if kind in _UNREACHED:
            pause = min(again, now + timedelta(seconds=SILENT_SECONDS))
            self._queue.postpone_destination(delivery.destination, pause)
        log.warning(
            "delivery_postponed",
            kind=kind,
            status=_shown(status),
            attempts=delivery.attempts,
            again_at=again.isoformat(timespec="seconds"),
        )


def _require_unaltered(path: Path, sha256: str) -> None:
    """Send only what passed its check: the bytes whose digest the job has."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        detail = f"{path} is gone; restore it, or send the series again"
        raise _Undelivered(OwnFailure.FILE, detail, passing=False) from error
    except OSError as error:
        raise _unreadable(error) from error
    if found != sha256:
        detail = f"{path} was altered after its check and is not sent; send the series again"
        raise _Undelivered(OwnFailure.FILE, detail, passing=False)


def _unreadable(error: Exception) -> _Undelivered:
    detail = f"a result cannot be read: {error}; check the file system"
    return _Undelivered(OwnFailure.FILE, detail, passing=True)


def _shown(status: int | None) -> str | None:
    """Return a DIMSE status as the standard writes it."""
    return None if status is None else f"0x{status:04X}"
