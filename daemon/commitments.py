"""Storage commitment requests as they reach the listener: written down, then answered where they came from."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from pydicom import Dataset

from daemon.commitment import (
    Reference,
    Verdict,
    as_text,
    examine,
    read_request,
    report,
)
from daemon.errors import StorageFull
from daemon.job_queue import JobQueue
from daemon.spool import Spool

log = structlog.get_logger()

HERE_SECONDS = 60.0
"""For so long the association of the request may take to be answered on; then the worker calls back."""


Answered = Callable[[int | None], None]
"""Hears the status of a response."""


@dataclass(frozen=True)
class PendingCommitment:
    """A request that was accepted."""

    number: int
    transaction_uid: str
    calling: str
    references: tuple[Reference, ...]


class Commitments:
    """Accepts requests and answers them on their own association; what fails is left to the worker."""

    def __init__(self, queue: JobQueue, spool: Spool, clock: Callable[[], datetime]) -> None:
        self._queue = queue
        self._spool = spool
        self._clock = clock

    def accept(self, information: Dataset, titles: tuple[str, str], address: str) -> PendingCommitment:
        """Write a request down; after this it is answered, whatever happens to its association.

        Raises
        ------
        ValueError
            It lacks its Transaction UID or its references.
        StorageFull
            It cannot be written down.
        """
        transaction, references = read_request(information)
        later = self._clock() + timedelta(seconds=HERE_SECONDS)
        number = self._queue.keep_commitment(transaction, titles, address, as_text(references), later)
        log.info("commitment_requested", calling=titles[0], instances=len(references))
        return PendingCommitment(number, transaction, titles[0], tuple(references))

    def answer(self, pending: PendingCommitment, send: Callable[[Dataset, int, Answered], None]) -> None:
        """Send the answer on the association of the request; an association that ended leaves it unanswered.

        Parameters
        ----------
        send
            Sends an N-EVENT-REPORT of an event type, and calls back with the peer's status if it answers.
        """
        try:
            verdict = examine(self._queue, self._spool, pending.references, pending.calling)
            send(
                report(pending.transaction_uid, verdict),
                verdict.event_type,
                lambda status: self._answered(pending, verdict, status),
            )
        except Exception as error:  # noqa: BLE001 -- whatever it is, the worker answers later
            log.info("commitment_left_to_worker", kind=type(error).__name__)

    def _answered(self, pending: PendingCommitment, verdict: Verdict, status: int | None) -> None:
        """Close a request whose answer was taken, however late; another status leaves it to the worker."""
        if status != 0x0000:
            return
        try:
            self._queue.commitment_answered(pending.number, "answered on the association of the request")
        except StorageFull as error:
            log.info("commitment_left_to_worker", kind=type(error).__name__)
        else:
            log.info("commitment_reported", committed=len(verdict.committed), failed=len(verdict.failed))
