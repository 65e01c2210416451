"""Answers storage commitment requests on an association of our own, where the peer has ended its own."""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from pynetdicom import build_context, build_role

from daemon.commitment import STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE, examine, from_text, report
from daemon.config import Config, Peer
from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Commitment
from daemon.outgoing_association import NotDone, Timeouts, associated, peer_node
from daemon.retry import next_delivery
from daemon.spool import Spool

log = structlog.get_logger()

_CLAIM_SECONDS = 300.0
REPORT_TIMEOUTS = Timeouts(connection=30, association=30, response=30, stall=30)


class CommitmentReporter:
    """Takes due requests from the job table, one after the other.

    Parameters
    ----------
    settings
        Gives the configuration as it stands now: where peers are called back, and for how long.
    jitter
        A random number from 0 to 1 for each wait.
    """

    def __init__(
        self,
        queue: JobQueue,
        spool: Spool,
        settings: Callable[[], Config],
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._settings = settings
        self._clock = clock
        self._jitter = jitter

    def report_next(self) -> bool:
        """Answer the request that is due; False where none is."""
        request = self._queue.claim_commitment(self._clock() + timedelta(seconds=_CLAIM_SECONDS))
        if request is None:
            return False
        bound = log.bind(calling=request.calling_ae_title, transaction=request.transaction_uid)
        peer = self._peer(request)
        if peer is None:
            detail = f"no [[peers]] of {request.calling_ae_title} has a `port` to be called back on"
            self._queue.commitment_answered(request.id, f"not answered: {detail}")
            bound.warning("commitment_unanswerable", reason=detail)
            return True
        problem = self._report(request, peer)
        if problem is None:
            self._queue.commitment_answered(request.id, "answered on an association of our own")
            bound.info("commitment_reported")
        else:
            self._again(request, problem)
            bound.warning("commitment_not_reported", reason=problem, attempts=request.attempts)
        return True

    def _peer(self, request: Commitment) -> Peer | None:
        peers = self._settings().peers
        return next((peer for peer in peers if peer.ae_title == request.calling_ae_title and peer.port), None)

    def _report(self, request: Commitment, peer: Peer) -> str | None:
        """Send the answer; returns why it was not taken."""
        verdict = examine(
            self._queue, self._spool, from_text(request.instance_references), request.calling_ae_title
        )
        node = peer_node(peer, request.address)
        contexts, roles = [build_context(STORAGE_COMMITMENT)], [build_role(STORAGE_COMMITMENT, scp_role=True)]
        tls = self._settings().tls
        try:
            with associated(
                node, request.called_ae_title, contexts, REPORT_TIMEOUTS, tls, roles=roles
            ) as association:
                status, _ = association.send_n_event_report(
                    report(request.transaction_uid, verdict),
                    verdict.event_type,
                    STORAGE_COMMITMENT,
                    WELL_KNOWN_INSTANCE,
                )
        except NotDone as reason:
            return reason.outcome.detail
        except (RuntimeError, ValueError) as error:
            return f"{peer.ae_title} does not take the answer: {error}"
        code = status.get("Status")
        return None if code == 0x0000 else f"{peer.ae_title} answered {code}"

    def _again(self, request: Commitment, problem: str) -> None:
        retry_for = timedelta(hours=self._settings().delivery.retry_for_hours)
        again = next_delivery(
            self._clock(), request.requested_at, retry_for, request.attempts, self._jitter()
        )
        if again is None:
            self._queue.commitment_answered(request.id, f"given up: {problem}")
        else:
            self._queue.postpone_commitment(request.id, again, problem)
