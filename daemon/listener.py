"""The DICOM port: Verification and Storage SCP for CT images; turns network events into calls."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from ssl import SSLContext
from threading import Lock, Thread
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE

from daemon.admission import AssociationRequest, may_send, overload, stranger
from daemon.commitment import STORAGE_COMMITMENT
from daemon.commitment_reports import CommitmentReports
from daemon.commitments import Commitments
from daemon.completeness import Completeness
from daemon.config import Config
from daemon.dicom_port import DicomPort, NetworkLimits
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Rejection, StorageStatus
from daemon.errors import CannotStart, StorageFull
from daemon.reception import Reception, StoreAnswer, StoreRequest
from daemon.tls import fingerprint, server_context
from daemon.transfer_syntaxes import UNCOMPRESSED, decodable_transfer_syntaxes

log = structlog.get_logger()

_VERIFICATION = UID("1.2.840.10008.1.1")

# PS3.7 annex C.5
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_ACTION = 0x0123

_JOIN_SECONDS = 5.0
"""What the threads of an aborted association get to end."""


@dataclass
class _Conversation:
    """What we know of one association."""

    number: int
    calling: str
    called: str
    address: str
    since: float = field(default_factory=time.monotonic)
    stored: int = 0
    refused: int = 0
    byte_count: int = 0

    def count(self, answer: StoreAnswer, byte_count: int) -> None:
        """Count one answered C-STORE request."""
        self.byte_count += byte_count
        if answer.status is StorageStatus.SUCCESS:
            self.stored += 1
        else:
            self.refused += 1

    def summary(self) -> dict[str, object]:
        """Return what its last log line says."""
        return {
            "association": self.number,
            "calling": self.calling,
            "stored": self.stored,
            "refused": self.refused,
            "byte_count": self.byte_count,
            "seconds": round(time.monotonic() - self.since, 3),
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
        self._open: dict[Association, _Conversation] = {}
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
        _silence_pynetdicom()
        wanted: list[tuple[int, SSLContext | None]] = []
        if not (tls and tls.only):
            wanted.append((self._config.node.port, None))
        if tls:
            wanted.append((tls.port, server_context(tls)))
        try:
            self._ports = [self._bind(port, context) for port, context in wanted]
        except CannotStart:
            for bound in self._ports:
                bound.server_close()
            raise
        for bound in self._ports:
            bound.open()

    def _bind(self, port: int, context: SSLContext | None) -> DicomPort:
        node = self._config.node
        try:
            bound = DicomPort(
                self._application_entity(),
                (node.host, port),
                self._limits,
                self._handlers(),
                self._lost,
                context,
            )
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
            for association in bound.connections:
                if association.requestor.primitive is None:
                    bound.hang_up(association)
        self._wait_for(lambda: not self._open, self._limits.drain_seconds)
        for association, conversation in list(self._open.items()):
            log.warning("association_cut_off", association=conversation.number, calling=conversation.calling)
            association.abort(block=False)
        if not self._wait_for(self._is_deserted, _JOIN_SECONDS):
            for bound in self._bound:
                for association in bound.connections:
                    bound.hang_up(association)
            self._wait_for(self._is_deserted, _JOIN_SECONDS)

    def _is_deserted(self) -> bool:
        return not any(bound.connections for bound in self._bound)

    @property
    def _bound(self) -> list[DicomPort]:
        if not self._ports:
            raise RuntimeError("the listener has not been started")
        return self._ports

    def _wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.02)
            for bound in self._bound:
                bound.reap()
        return condition()

    def _application_entity(self) -> AE:
        ae = AE(self._config.node.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = self._config.node.max_pdu_bytes
        # Associations are counted at the door; this counts connections, also those that never speak.
        ae.maximum_associations = self._config.node.max_associations + self._limits.spare_connections
        ae.acse_timeout = self._limits.request_seconds
        ae.network_timeout = self._limits.idle_seconds
        ae.add_supported_context(_VERIFICATION, list(UNCOMPRESSED[:2]))
        # A peer asks as SCU; a destination that reports what it committed comes as SCP.
        ae.add_supported_context(STORAGE_COMMITMENT, list(UNCOMPRESSED[:2]), scu_role=True, scp_role=True)
        ae.add_supported_context(CTImageStorage, decodable_transfer_syntaxes())
        return ae

    def _handlers(self) -> list[evt.EventHandlerType]:
        return [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_ESTABLISHED, self._on_established),
            (evt.EVT_C_ECHO, self._on_c_echo),
            (evt.EVT_C_STORE, self._on_c_store),
            (evt.EVT_N_ACTION, self._on_n_action),
            (evt.EVT_N_EVENT_REPORT, self._on_n_event_report),
            (evt.EVT_RELEASED, self._on_released),
            (evt.EVT_ABORTED, self._on_aborted),
        ]

    def _on_requested(self, event: evt.Event) -> None:
        """Admit or reject an association; pynetdicom itself would accept whatever a handler fails to refuse."""
        try:
            rejection = self._admit(event.assoc)
        except Exception:
            log.exception("admission_failed")
            rejection = Rejection.TEMPORARY_CONGESTION
        if rejection:
            event.assoc.acse.send_reject(*rejection.value)
            event.assoc.kill()  # returns when the A-ASSOCIATE-RJ is sent; else the socket closes before it

    def _admit(self, association: Association) -> Rejection | None:
        primitive = cast("A_ASSOCIATE", association.requestor.primitive)
        asked = AssociationRequest(
            calling=str(primitive.calling_ae_title).strip(),
            called=str(primitive.called_ae_title).strip(),
            address=association.requestor.address,
            application_context=str(primitive.application_context_name),
            certificate_sha256=fingerprint(association.dul.socket and association.dul.socket.socket),
            wants_to_store=any(
                context.abstract_syntax == CTImageStorage
                for context in primitive.presentation_context_definition_list
            ),
        )
        rejection = stranger(self._config, asked) or self._take_seat(association, asked)
        if rejection is None:
            if not may_send(self._config, asked):
                association.acceptor.supported_contexts = [
                    context
                    for context in association.acceptor.supported_contexts
                    if context.abstract_syntax != CTImageStorage
                ]
            return None
        log.warning(
            "association_rejected",
            calling=asked.calling,
            called=asked.called,
            address=asked.address,
            reason=rejection.name.lower(),
        )
        return rejection

    def _take_seat(self, association: Association, asked: AssociationRequest) -> Rejection | None:
        has_room = not self._stopping and self._reception.has_room()
        with self._lock:
            titles = [conversation.calling for conversation in self._open.values()]
            rejection = overload(self._config, asked, titles, has_room=has_room)
            if rejection is None:
                self._open[association] = _Conversation(
                    next(self._numbers), asked.calling, asked.called, asked.address
                )
        return rejection

    def _on_established(self, event: evt.Event) -> None:
        conversation = self._open[event.assoc]
        self._completeness.association_opened(conversation.number)
        log.info(
            "association_accepted",
            association=conversation.number,
            calling=conversation.calling,
            called=conversation.called,
            address=conversation.address,
            contexts=len(event.assoc.accepted_contexts),
            refused_contexts=len(event.assoc.rejected_contexts),
        )

    def _on_c_echo(self, _event: evt.Event) -> int:
        return int(StorageStatus.SUCCESS)

    def _on_c_store(self, event: evt.Event) -> Dataset | int:
        conversation = self._open.get(event.assoc)
        if conversation is None:
            return int(StorageStatus.OUT_OF_RESOURCES)  # cut off while this image was on its way
        received = cast("C_STORE", event.request)
        request = StoreRequest(
            association_id=conversation.number,
            calling=conversation.calling,
            called=conversation.called,
            sop_class_uid=str(received.AffectedSOPClassUID),
            sop_instance_uid=str(received.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(event.context.transfer_syntax),
            dataset_bytes=cast("BytesIO", received.DataSet).getvalue(),
        )
        answer = self._reception.store(request)
        conversation.count(answer, len(request.dataset_bytes))
        if answer.status is StorageStatus.SUCCESS:
            return int(answer.status)
        response = Dataset()
        response.Status = int(answer.status)
        response.ErrorComment = answer.comment
        return response

    def _on_n_action(self, event: evt.Event) -> tuple[int, None]:
        """Accept a storage commitment request; its answer follows on this association while it is open."""
        conversation = self._open.get(event.assoc)
        if conversation is None:
            return StorageStatus.OUT_OF_RESOURCES, None
        try:
            if event.action_type != 1:
                return _NO_SUCH_ACTION, None
            pending = self._commitments.accept(
                event.action_information, (conversation.calling, conversation.called), conversation.address
            )
        except StorageFull as error:
            log.warning("commitment_refused", association=conversation.number, cause=str(error))
            return _PROCESSING_FAILURE, None
        except Exception as error:  # noqa: BLE001 -- the request cannot be read
            log.warning("commitment_refused", association=conversation.number, kind=type(error).__name__)
            return _PROCESSING_FAILURE, None
        Thread(
            target=self._commitments.answer, args=(pending, event.assoc), name="commitment", daemon=True
        ).start()
        return int(StorageStatus.SUCCESS), None

    def _on_n_event_report(self, event: evt.Event) -> tuple[int, None]:
        """A destination says what it has committed, on an association of its own."""
        return self._reports.take(event.event_type, lambda: event.event_information), None

    def _on_released(self, event: evt.Event) -> None:
        self._end(event.assoc, "association_released")

    def _on_aborted(self, event: evt.Event) -> None:
        silent = event.assoc.dul.idle_timer_expired()
        self._end(event.assoc, "association_timed_out" if silent else "association_aborted")

    def _lost(self, association: Association) -> None:
        """End what no event has ended: the connection broke during negotiation, or pynetdicom failed."""
        self._end(association, "association_lost")

    def _end(self, association: Association, verb: str) -> None:
        """Let go of an association, once."""
        with self._lock:
            conversation = self._open.pop(association, None)
        if conversation is None:
            return
        self._completeness.association_closed(conversation.number)
        log.info(verb, **conversation.summary())


def _silence_pynetdicom() -> None:
    """Let pynetdicom speak of failures alone: its trace of every message costs time and quotes identifiers."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
