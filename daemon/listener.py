"""The DICOM port: Verification and Storage SCP for CT images; who may talk, and how every association ended."""

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from ssl import SSLContext
from threading import Lock

import structlog
from pydicom.uid import UID, CTImageStorage
from pynetdicom.presentation import PresentationContext

from daemon.admission import AssociationRequest, Caller, caller, overload, stranger
from daemon.association import VERIFICATION, Association
from daemon.commitment import STORAGE_COMMITMENT
from daemon.commitment_reports import CommitmentReports
from daemon.commitments import Commitments
from daemon.completeness import Completeness
from daemon.config import Config
from daemon.dicom_port import Connection, DicomPort, NetworkLimits
from daemon.dimse import Rejection
from daemon.errors import CannotStart
from daemon.negotiation import (
    MAX_REQUEST_BYTES,
    Acceptance,
    Proposal,
    accept,
    read_proposal,
    reject,
    supported,
)
from daemon.pdata import (
    RELEASE_RESPONSE,
    RELEASED,
    AbortReason,
    AssociationEnd,
    ProtocolViolation,
    Released,
    Silent,
    Vanished,
    Wire,
)
from daemon.reception import Reception
from daemon.tls import fingerprint, server_context
from daemon.transfer_syntaxes import UNCOMPRESSED, decodable_transfer_syntaxes

log = structlog.get_logger()

VERSION_NOT_SUPPORTED = (1, 2, 2)
"""Result, source and reason of the rejection of a peer that does not speak version 1 of the protocol."""

_USER, _PROVIDER = 0, 2
"""Sources of an A-ABORT (PS3.8 table 9-26)."""

_JOIN_SECONDS = 5.0
"""What the threads of an aborted association get to end."""


def presentation_contexts() -> dict[UID, list[UID]]:
    """What is accepted: abstract syntaxes, each with its transfer syntaxes in the order of our preference."""
    return {
        VERIFICATION: list(UNCOMPRESSED[:2]),
        STORAGE_COMMITMENT: list(UNCOMPRESSED[:2]),
        CTImageStorage: decodable_transfer_syntaxes(),
    }


class Listener:
    """The SCP as a service: `start` returns once the port is bound, `stop` lets associations finish.

    Parameters
    ----------
    limits
        Timeouts and numbers that no hospital had to change yet.
    """

    def __init__(
        self,
        config: Config,
        reception: Reception,
        completeness: Completeness,
        commitments: Commitments,
        reports: CommitmentReports,
        limits: NetworkLimits | None = None,
    ) -> None:
        self._config = config
        self._reception = reception
        self._completeness = completeness
        self._commitments = commitments
        self._reports = reports
        self._limits = limits or NetworkLimits()
        self._numbers = itertools.count(1)
        self._lock = Lock()
        self._open: dict[Association, Connection] = {}
        self._supported: list[PresentationContext] = supported(presentation_contexts())
        self._stopping = False
        self._ports: list[DicomPort] = []

    @property
    def port(self) -> int:
        """The TCP port it listens on; the one without TLS where there are two."""
        return self._bound[0].port

    @property
    def tls_port(self) -> int:
        """The TCP port for TLS."""
        return self._bound[-1].port

    @property
    def open_associations(self) -> int:
        """How many associations stand now."""
        return len(self._open)

    def start(self) -> None:
        """Bind the ports and accept associations; raises CannotStart where one is taken."""
        tls = self._config.tls
        context = server_context(tls) if tls else None
        try:
            for port, is_secured in self._config.ports:
                self._ports.append(self._bind(port, context if is_secured else None))
        except CannotStart:
            for bound in self._ports:
                bound.close()
            raise
        for bound in self._ports:
            bound.open()

    def _bind(self, port: int, context: SSLContext | None) -> DicomPort:
        node = self._config.node
        # Associations are counted at the door; this counts connections, also those that never speak.
        most = node.max_associations + self._limits.spare_connections
        try:
            bound = DicomPort((node.host, port), self._limits, most, self._serve, context)
        except OSError as error:
            raise CannotStart(f"port {port} on {node.host} cannot be bound: {error.strerror}") from error
        log.info(
            "listening", ae_title=node.ae_title, host=node.host, port=bound.port, tls=context is not None
        )
        return bound

    def tick(self) -> None:
        """Queue the series that are complete."""
        self._completeness.tick()

    def is_healthy(self) -> bool:
        """Whether every port still takes connections."""
        return all(bound.is_accepting for bound in self._bound)

    def status(self) -> str:
        """Say how many associations are open."""
        return (
            f"port {self.port}: {self.open_associations} of {self._config.node.max_associations} associations"
        )

    def stop(self) -> None:
        """Close the port, let open associations finish for a while, then abort what is left."""
        self._stopping = True
        for bound in self._bound:
            bound.close()
        for connection in self._connections() - set(self._open.values()):
            connection.hang_up()
        self._wait_for(lambda: not self._open, self._limits.drain_seconds)
        for association, connection in list(self._open.items()):
            log.warning("association_cut_off", association=association.number, calling=association.calling)
            association.abort()
            connection.hang_up()
        if not self._wait_for(self._is_deserted, _JOIN_SECONDS):
            for connection in self._connections():
                connection.hang_up()
            self._wait_for(self._is_deserted, _JOIN_SECONDS)

    def _connections(self) -> set[Connection]:
        return {connection for bound in self._bound for connection in bound.connections}

    def _is_deserted(self) -> bool:
        return not self._connections()

    @property
    def _bound(self) -> list[DicomPort]:
        if not self._ports:
            raise RuntimeError("the listener has not been started")
        return self._ports

    def _wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
        return condition()

    # In the thread of a connection

    def _serve(self, connection: Connection) -> None:
        """See a connection through: request, acceptance or rejection, messages, end."""
        wire = Wire(connection.socket)
        try:
            proposal = read_proposal(wire.receive_request(MAX_REQUEST_BYTES, self._limits.request_seconds))
            rejection, association = self._admit(proposal, connection, wire)
            if association is None:
                wire.send(rejection)
                connection.end(self._limits.request_seconds)
                return
        except ProtocolViolation as violation:
            log.warning("no_association", address=connection.address, reason=str(violation))
            wire.abort(_PROVIDER, violation.reason)
            connection.end(self._limits.request_seconds)
            return
        except AssociationEnd:  # a health check, or nothing
            return
        self._converse(association, proposal, connection, wire)

    def _converse(
        self, association: Association, proposal: Proposal, connection: Connection, wire: Wire
    ) -> None:
        try:
            contexts = [
                each
                for each in self._supported
                if association.may_send or each.abstract_syntax != CTImageStorage
            ]
            accepted = accept(proposal, contexts, self._config.node.max_pdu_bytes)
            wire.establish(
                accepted.contexts,
                self._config.node.max_pdu_bytes,
                proposal.max_pdu_bytes,
                self._limits.idle_seconds,
            )
            self._completeness.association_opened(association.number)
            _log_accepted(association, accepted)
            wire.send(accepted.encoded)
            association.serve(accepted.contexts)
        except Released as end:
            self._end(association, "association_released", end)
            with suppress(AssociationEnd):  # who asks for its release and does not wait for it
                wire.send(RELEASE_RESPONSE)
        except ProtocolViolation as end:
            self._end(association, "association_aborted", end)
            wire.abort(_PROVIDER, end.reason)
        except Silent as end:
            self._end(association, "association_timed_out", end)
            wire.abort(_USER, AbortReason.NOT_SPECIFIED)
        except Vanished as end:
            self._end(association, "association_lost", end)
            return
        except AssociationEnd as end:
            self._end(association, "association_aborted", end)
            return
        except Exception:
            self._end(association, "association_failed")
            wire.abort(_PROVIDER, AbortReason.NOT_SPECIFIED)
            raise
        connection.end(self._limits.request_seconds)

    def _admit(
        self, proposal: Proposal, connection: Connection, wire: Wire
    ) -> tuple[bytes, Association | None]:
        """Admit an association or say how it is rejected; a policy that fails lets nobody in."""
        if not proposal.speaks_version_1:
            return reject(VERSION_NOT_SUPPORTED), None
        asked = AssociationRequest(
            calling=proposal.calling,
            called=proposal.called,
            address=connection.address,
            application_context=proposal.application_context,
            certificate_sha256=fingerprint(connection.socket),
            wants_to_store=CTImageStorage in proposal.abstract_syntaxes,
        )
        known = caller(self._config, asked)
        association = Association(
            next(self._numbers),
            (asked.calling, asked.called),
            asked.address,
            wire,
            self._reception,
            self._commitments,
            self._reports,
            may_send=known.peer is not None,
        )
        try:
            rejection = stranger(self._config, asked, known) or self._take_seat(
                association, asked, known, connection
            )
        except Exception:
            log.exception("admission_failed")
            rejection = Rejection.TEMPORARY_CONGESTION
        if rejection is None:
            return b"", association
        log.warning(
            "association_rejected",
            calling=asked.calling,
            called=asked.called,
            address=asked.address,
            reason=rejection.name.lower(),
        )
        return reject(rejection.value), None

    def _take_seat(
        self, association: Association, asked: AssociationRequest, known: Caller, connection: Connection
    ) -> Rejection | None:
        has_room = not self._stopping and self._reception.has_room()
        with self._lock:
            titles = [each.calling for each in self._open]
            rejection = overload(self._config, asked, known, titles, has_room=has_room)
            if rejection is None:
                self._open[association] = connection
        return rejection

    def _end(self, association: Association, verb: str, end: AssociationEnd | None = None) -> None:
        """Let go of an association, once; its place is free before the peer hears of the end."""
        with self._lock:
            if self._open.pop(association, None) is None:
                return
        self._completeness.association_closed(association.number)
        tally = association.tally
        is_usual = end is None or (isinstance(end, Released) and str(end) == RELEASED)
        reason = {} if is_usual else {"reason": str(end)}
        is_cut = isinstance(end, Released) and not is_usual  # in the middle of an image
        (log.warning if is_cut else log.info)(
            verb,
            association=association.number,
            calling=association.calling,
            stored=tally.stored,
            refused=tally.refused,
            byte_count=tally.byte_count,
            seconds=round(time.monotonic() - tally.since, 3),
            **reason,
        )


def _log_accepted(association: Association, accepted: Acceptance) -> None:
    log.info(
        "association_accepted",
        association=association.number,
        calling=association.calling,
        called=association.called,
        address=association.address,
        contexts=len(accepted.contexts),
        refused_contexts=accepted.refused_contexts,
    )
