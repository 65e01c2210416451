"""The answers of destinations to our storage commitment requests, on whatever association they come."""

from collections.abc import Callable, Mapping
from enum import IntEnum, StrEnum

import structlog
from pydicom import Dataset

from daemon.commitment import read_report, reason_words
from daemon.delivery_setback import Setbacks
from daemon.errors import StaleJob, StorageFull
from daemon.job_queue import CommitmentAnswer, JobQueue

log = structlog.get_logger()


class ReportStatus(IntEnum):
    """Status of an N-EVENT-REPORT response (PS3.7 section 10.1.1.1.8)."""

    SUCCESS = 0x0000
    """Written down."""
    PROCESSING_FAILURE = 0x0110
    """Our fault and passing: it could not be written down."""
    NO_SUCH_EVENT_TYPE = 0x0113
    """Neither 1 nor 2 (PS3.4 table J.3-2)."""
    INVALID_ARGUMENT_VALUE = 0x0115
    """It cannot be read, or its Transaction UID is none of ours."""


class CommitmentFailure(StrEnum):
    """Recorded as the delivery's failure kind like an `OutcomeKind`."""

    NOT_COMMITTED = "not-committed"
    """The destination has stored it and does not answer for it."""


class CommitmentReports:
    """Takes reports; several threads may share one."""

    def __init__(self, queue: JobQueue, setbacks: Setbacks) -> None:
        self._queue = queue
        self._setbacks = setbacks

    def take(self, event_type: int | None, information: Callable[[], Dataset]) -> int:
        """Write an N-EVENT-REPORT down and return the status of the response; never raises.

        Parameters
        ----------
        information
            Gives the Event Information; may raise where that cannot be decoded.
        """
        try:
            return int(self._take(event_type, information))
        except StorageFull as error:
            log.warning("commitment_report_refused", cause=str(error))
            return ReportStatus.PROCESSING_FAILURE
        except Exception as error:  # noqa: BLE001 -- the report cannot be read
            log.warning("commitment_report_refused", kind=type(error).__name__)
            return ReportStatus.INVALID_ARGUMENT_VALUE

    def _take(self, event_type: int | None, information: Callable[[], Dataset]) -> ReportStatus:
        if event_type not in {1, 2}:
            return ReportStatus.NO_SUCH_EVENT_TYPE
        transaction_uid, committed, failed = read_report(information())
        answered = self._queue.commitment_reported(transaction_uid, committed, failed)
        if answered is None:
            log.warning("commitment_report_refused", transaction=transaction_uid, kind="unknown transaction")
            return ReportStatus.INVALID_ARGUMENT_VALUE
        with structlog.contextvars.bound_contextvars(
            job=answered.delivery.job_id, destination=answered.delivery.destination
        ):
            log.info("commitment_answered", committed=len(committed), failed=len(failed))
            if answered.is_setback:
                self._set_back(answered)
        return ReportStatus.SUCCESS

    def _set_back(self, answered: CommitmentAnswer) -> None:
        detail = f"stored, but not committed: {_words(answered.failed)}"
        reason = next(iter(answered.failed.values()), None)
        try:
            self._setbacks.note(answered.delivery, CommitmentFailure.NOT_COMMITTED, reason, detail)
        except StaleJob as error:
            log.info("commitment_no_longer_wanted", reason=str(error))


def _words(failed: Mapping[str, int]) -> str:
    """Say why objects are not committed, each reason once."""
    if not failed:
        return "the report leaves out what was asked for; it is asked again"
    return f"{', '.join(dict.fromkeys(map(reason_words, failed.values())))}; it is sent again"
