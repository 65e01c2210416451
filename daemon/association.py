"""One established association: its requests are read, handled and answered, one after the other."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from itertools import count
from threading import Lock, Thread

import structlog
from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage
from pynetdicom.dsutils import decode, encode

from daemon.command_set import NO_DATA_SET, RESPONSE, CommandField, Element, encode_command
from daemon.commitment import STORAGE_COMMITMENT, WELL_KNOWN_INSTANCE
from daemon.commitment_reports import CommitmentReports
from daemon.commitments import Answered, Commitments
from daemon.dimse import StorageStatus
from daemon.errors import StorageFull
from daemon.negotiation import AcceptedContext
from daemon.pdata import AbortReason, Message, ProtocolViolation, Wire
from daemon.reception import Reception, StoreAnswer, StoreRequest

log = structlog.get_logger()

VERIFICATION = UID("1.2.840.10008.1.1")

MAX_INFORMATION_BYTES = 4 * 2**20
"""Of an N-ACTION's data set: 25,000 references or more."""

# PS3.7 annex C.5
_PROCESSING_FAILURE = 0x0110
_NO_SUCH_ACTION = 0x0123
_NO_SUCH_SOP_CLASS = 0x0118
_UNRECOGNISED_OPERATION = 0x0211
_RESOURCE_LIMITATION = 0x0213


@dataclass
class Tally:
    """What came over an association so far."""

    since: float = field(default_factory=time.monotonic)
    stored: int = 0
    refused: int = 0
    byte_count: int = 0

    def count(self, answer: StoreAnswer) -> None:
        """Count one answered C-STORE request."""
        if answer.status is StorageStatus.SUCCESS:
            self.stored += 1
        else:
            self.refused += 1


class Association:
    """An association with a peer.

    Parameters
    ----------
    number
        Its own within this process; stands in the log.
    titles
        Calling and called AE title.
    may_send
        Whether images are taken from it; a destination may come only to report what it has committed.
    """

    def __init__(
        self,
        number: int,
        titles: tuple[str, str],
        address: str,
        wire: Wire,
        reception: Reception,
        commitments: Commitments,
        reports: CommitmentReports,
        *,
        may_send: bool,
    ) -> None:
        self.number = number
        self.calling, self.called = titles
        self.address = address
        self.tally = Tally()
        self._wire = wire
        self._reception = reception
        self._commitments = commitments
        self._taken_reports = reports
        self.may_send = may_send
        self._contexts: Mapping[int, AcceptedContext] = {}
        self._message_ids = count(1)
        self._reports: dict[int, Answered] = {}
        self._lock = Lock()

    def serve(self, contexts: Mapping[int, AcceptedContext]) -> None:
        """Answer requests until the association ends; always raises AssociationEnd."""
        self._contexts = contexts
        handlers: dict[int, Callable[[Message], None]] = {
            CommandField.C_STORE_RQ: self._store,
            CommandField.C_ECHO_RQ: self._echo,
            CommandField.N_ACTION_RQ: self._action,
            CommandField.N_EVENT_REPORT_RQ: self._event_report,
            CommandField.N_EVENT_REPORT_RSP: self._report_answered,
            CommandField.C_CANCEL_RQ: lambda _message: None,  # of what has been answered already
        }
        while True:
            message = self._wire.receive()
            handlers.get(message.command.field, self._refuse_unknown)(message)

    def abort(self) -> None:
        """Tell the peer that the association ends now (A-ABORT, service user); the connection stays."""
        self._wire.abort(0, AbortReason.NOT_SPECIFIED)

    # Requests

    def _store(self, message: Message) -> None:
        context, command = self._contexts[message.context_id], message.command
        request = StoreRequest(
            association_id=self.number,
            calling=self.calling,
            called=self.called,
            sop_class_uid=command.sop_class_uid if context.abstract_syntax == CTImageStorage else "",
            sop_instance_uid=command.sop_instance_uid,
            transfer_syntax_uid=str(context.transfer_syntax),
        )
        answer = self._reception.store(request, self._counted_data_set())
        self.tally.count(answer)
        self._respond(message, answer.status, answer.comment)

    def _counted_data_set(self) -> Iterable[memoryview]:
        for piece in self._wire.data_set():
            self.tally.byte_count += len(piece)
            yield piece

    def _echo(self, message: Message) -> None:
        self._respond(message, StorageStatus.SUCCESS)

    def _action(self, message: Message) -> None:
        """Accept a storage commitment request; its answer follows on this association while it is open."""
        context = self._contexts[message.context_id]
        information = self._information()
        if context.abstract_syntax != STORAGE_COMMITMENT:
            self._respond(message, _NO_SUCH_SOP_CLASS)
            return
        if information is None:
            log.warning("commitment_refused", association=self.number, cause="more than 4 MB of references")
            self._respond(message, _RESOURCE_LIMITATION)
            return
        if message.command.action_type != 1:
            self._respond(message, _NO_SUCH_ACTION)
            return
        try:
            asked = _decoded(information, context)
            pending = self._commitments.accept(asked, (self.calling, self.called), self.address)
        except Exception as error:  # noqa: BLE001 -- the request cannot be read, or cannot be written down
            cause = str(error) if isinstance(error, StorageFull) else type(error).__name__
            log.warning("commitment_refused", association=self.number, cause=cause)
            self._respond(message, _PROCESSING_FAILURE)
            return
        self._respond(message, StorageStatus.SUCCESS)

        report = partial(self._report, message.context_id)
        Thread(
            target=self._commitments.answer, args=(pending, report), name="commitment", daemon=True
        ).start()

    def _event_report(self, message: Message) -> None:
        """A destination says what it has committed, on an association of its own."""
        context, information = self._contexts[message.context_id], self._information()
        if context.abstract_syntax != STORAGE_COMMITMENT:
            self._respond(message, _NO_SUCH_SOP_CLASS)
        elif information is None:
            self._respond(message, _RESOURCE_LIMITATION)
        else:
            status = self._taken_reports.take(
                message.command.event_type, lambda: _decoded(information, context)
            )
            self._respond(message, status)

    def _information(self) -> bytes | None:
        """Take a data set into memory; None where it is too long for that."""
        information: bytearray | None = bytearray()
        for piece in self._wire.data_set():
            if information is not None:
                information += piece
                if len(information) > MAX_INFORMATION_BYTES:
                    information = None
        return None if information is None else bytes(information)

    def _refuse_unknown(self, message: Message) -> None:
        if message.command.is_response:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, "a response to no request of ours")
        for _ in self._wire.data_set():
            pass
        self._respond(message, _UNRECOGNISED_OPERATION)

    def _respond(self, message: Message, status: int, comment: str = "") -> None:
        command = message.command
        elements: dict[Element, int | str] = {
            Element.COMMAND_FIELD: command.field | RESPONSE,
            Element.MESSAGE_ID_BEING_RESPONDED_TO: command.message_id,
            Element.COMMAND_DATA_SET_TYPE: NO_DATA_SET,
            Element.STATUS: int(status),
        }
        if command.sop_class_uid:
            elements[Element.AFFECTED_SOP_CLASS_UID] = command.sop_class_uid[:64]
        if command.sop_instance_uid:
            elements[Element.AFFECTED_SOP_INSTANCE_UID] = command.sop_instance_uid[:64]
        if command.action_type is not None:
            elements[Element.ACTION_TYPE_ID] = command.action_type
        if command.event_type is not None:
            elements[Element.EVENT_TYPE_ID] = command.event_type
        if comment:
            elements[Element.ERROR_COMMENT] = comment
        self._wire.send_message(message.context_id, encode_command(elements))

    # Our own request

    def _report(self, context_id: int, information: Dataset, event_type: int, answered: Answered) -> None:
        """Send an N-EVENT-REPORT (PS3.7 section 10.3.1); `answered` gets its status whenever that comes."""
        syntax = self._contexts[context_id].transfer_syntax
        encoded = encode(information, syntax.is_implicit_VR, syntax.is_little_endian)
        if encoded is None:
            raise ValueError("the report cannot be encoded")
        message_id = next(self._message_ids) % 65536
        with self._lock:
            self._reports[message_id] = answered
        elements: dict[Element, int | str] = {
            Element.AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
            Element.COMMAND_FIELD: CommandField.N_EVENT_REPORT_RQ,
            Element.MESSAGE_ID: message_id,
            Element.COMMAND_DATA_SET_TYPE: 1,
            Element.AFFECTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
            Element.EVENT_TYPE_ID: event_type,
        }
        self._wire.send_message(context_id, encode_command(elements), encoded)

    def _report_answered(self, message: Message) -> None:
        for _ in self._wire.data_set():
            pass
        with self._lock:
            answered = self._reports.pop(message.command.message_id, None)
        if answered is None:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, "a response to no request of ours")
        answered(message.command.status)


def _decoded(information: bytes, context: AcceptedContext) -> Dataset:
    syntax = context.transfer_syntax
    return decode(BytesIO(information), syntax.is_implicit_VR, syntax.is_little_endian)
