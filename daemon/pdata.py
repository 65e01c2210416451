"""The messages of an established association (PS3.8 sections 9.3.5 to 9.3.8 and annex E), as fast as they come.

Bytes are read into one buffer that is used again and handed on from there, piece by piece, as they lie: no PDU is
assembled, no fragment copied, and an association takes no more memory than its buffer, however long its PDUs are.
"""

import socket
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from mmap import MAP_PRIVATE, mmap
from ssl import SSLSocket
from struct import Struct
from threading import Lock
from time import monotonic

from daemon.command_set import MAX_COMMAND_BYTES, CommandError, CommandSet, decode_command
from daemon.tls_stream import TlsStream

BUFFER_BYTES = 2**19

_PDU_HEADER = Struct(">BxL")
_FRAGMENT_HEADER = Struct(">LBB")  # length of what follows it, presentation context, message control header
_TLS = 0x16
"""First byte of a TLS handshake (RFC 8446 section 5.1), which is no PDU."""
_COMMAND, _LAST = 1, 2  # bits of the message control header (annex E.2)
_UNLIMITED_PDU_BYTES = 2**20
"""What we send at once to a peer that sets no limit."""


class PduType(IntEnum):
    """First byte of a PDU (PS3.8 section 9.3)."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    DATA = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class AbortReason(IntEnum):
    """Why the provider aborts (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER_VALUE = 6


RELEASED = "released"
"""Said of a peer that has said everything before."""


class AssociationEnd(Exception):  # noqa: N818 -- not every end is an error
    """The association goes no further; the message says why, in words without anything that the peer sent."""


class Released(AssociationEnd):
    """The peer asks for its release."""


class Aborted(AssociationEnd):
    """The peer aborted it."""


class Vanished(AssociationEnd):
    """The TCP connection ended without a word."""


class Silent(AssociationEnd):
    """The peer said nothing, or took nothing, for too long."""


class ProtocolViolation(AssociationEnd):
    """The peer does not keep to the protocol, so that we must abort."""

    def __init__(self, reason: AbortReason, found: str) -> None:
        self.reason = reason
        super().__init__(found)


@dataclass(frozen=True)
class Message:
    """A command, and where its data set will come from."""

    context_id: int
    command: CommandSet


class Wire:
    """The PDUs of one TCP connection; one thread receives, any thread may send.

    Parameters
    ----------
    connection
        A socket, with or without TLS; its timeout is how long silence may last.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = TlsStream(connection) if isinstance(connection, SSLSocket) else connection
        self._sending = Lock()
        self._buffer = memoryview(mmap(-1, BUFFER_BYTES, MAP_PRIVATE))  # takes memory as it is used
        self._start = self._end = 0  # of what has been received and not been handed on
        self._in_pdu = 0  # bytes of the current P-DATA-TF that have not been handed on
        self._in_fragment = 0  # likewise of its current fragment
        self._is_last_fragment = False
        self._in_message: int | None = None  # context of a message whose data set has not ended
        self._deadline: float | None = None
        self._contexts: Collection[int] = ()
        self._max_pdu_bytes = self._peer_pdu_bytes = 0

    def establish(
        self, contexts: Collection[int], max_pdu_bytes: int, peer_pdu_bytes: int, idle_seconds: float
    ) -> None:
        """Say what has been negotiated: IDs of accepted contexts, longest PDU in both directions (0: any).

        From now on silence may last for `idle_seconds`.
        """
        self._connection.settimeout(idle_seconds)
        self._contexts = contexts
        self._max_pdu_bytes = max_pdu_bytes
        self._peer_pdu_bytes = peer_pdu_bytes or _UNLIMITED_PDU_BYTES

    # Receiving; all of it raises AssociationEnd

    def receive_request(self, max_bytes: int, seconds: float) -> bytes:
        """Read the A-ASSOCIATE-RQ that must come first, and within a time; returns the whole PDU."""
        self._deadline = monotonic() + seconds
        pdu_type, length = self._pdu_header()
        if pdu_type == PduType.ABORT:
            raise Aborted("aborted before it was requested")
        if pdu_type != PduType.ASSOCIATE_RQ:
            raise _unexpected(pdu_type)
        if length > max_bytes:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE,
                f"an A-ASSOCIATE-RQ of {length} bytes; {max_bytes} are read",
            )
        request = bytearray(_PDU_HEADER.pack(pdu_type, length))
        while len(request) < length + _PDU_HEADER.size:
            request += self._piece(length + _PDU_HEADER.size - len(request))
        self._deadline = None
        return bytes(request)

    def receive(self) -> Message:
        """Read the next command; what has not been taken of the last message's data set is passed over."""
        if self._in_message is not None:
            for _ in self.data_set():
                pass
        context_id, control = self._fragment()
        encoded = bytearray()
        first = context_id
        while True:
            if not control & _COMMAND or context_id != first:
                raise ProtocolViolation(
                    AbortReason.UNEXPECTED_PARAMETER, "a fragment of something else where a command should be"
                )
            if len(encoded) + self._in_fragment > MAX_COMMAND_BYTES:
                raise ProtocolViolation(
                    AbortReason.INVALID_PARAMETER_VALUE, f"a command of more than {MAX_COMMAND_BYTES} bytes"
                )
            while self._in_fragment:
                encoded += self._piece_of_fragment()
            if control & _LAST:
                break
            context_id, control = self._fragment()
        try:
            command = decode_command(bytes(encoded))
        except CommandError as error:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER_VALUE, str(error)) from error
        self._in_message = context_id if command.has_data_set else None
        return Message(context_id, command)

    def data_set(self) -> Iterator[memoryview]:
        """Hand the last message's data set on as it comes; a piece is valid until the next one is asked for."""
        while self._in_message is not None:
            if piece := self._gathered():
                yield piece

    def _gathered(self) -> memoryview:
        """Take what has come of the data set, moved together in the buffer where headers stand in between.

        Whoever takes it hands it to the system, and few long pieces are handed over faster than many.
        """
        piece = self._piece_of_data_set()
        start = self._start - len(piece)
        end = self._start
        while self._in_message is not None and self._has_more_of_data_set():
            piece = self._piece_of_data_set()
            self._buffer[end : end + len(piece)] = piece
            end += len(piece)
        return self._buffer[start:end]

    def _has_more_of_data_set(self) -> bool:
        """Whether the buffer holds some without receiving, which would overwrite it."""
        headers = 0 if self._in_fragment else _FRAGMENT_HEADER.size
        if not self._in_pdu and not self._in_fragment:
            headers += _PDU_HEADER.size
        return self._end - self._start > headers

    def _piece_of_data_set(self) -> memoryview:
        if not self._in_fragment:
            context_id, control = self._fragment()
            if control & _COMMAND or context_id != self._in_message:
                raise ProtocolViolation(
                    AbortReason.UNEXPECTED_PARAMETER, "a fragment of something else within a data set"
                )
            self._is_last_fragment = bool(control & _LAST)
        piece = self._piece_of_fragment() if self._in_fragment else self._buffer[:0]
        if not self._in_fragment and self._is_last_fragment:
            self._in_message = None
        return piece

    def _fragment(self) -> tuple[int, int]:
        """Begin the next fragment; returns its presentation context and message control header."""
        if not self._in_pdu:
            self._in_pdu = self._data_pdu()
        if self._in_pdu < _FRAGMENT_HEADER.size:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE, f"{self._in_pdu} bytes left over in a P-DATA-TF"
            )
        length, context_id, control = _FRAGMENT_HEADER.unpack(self._exactly(_FRAGMENT_HEADER.size))
        if not 2 <= length <= self._in_pdu - 4:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE,
                f"a fragment of {length} bytes in the {self._in_pdu} bytes left of a P-DATA-TF",
            )
        if context_id not in self._contexts:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE, f"presentation context {context_id} was not accepted"
            )
        self._in_pdu -= length + 4
        self._in_fragment = length - 2
        return context_id, control

    def _data_pdu(self) -> int:
        """Begin the next P-DATA-TF; returns its length."""
        pdu_type, length = self._pdu_header()
        if pdu_type == PduType.DATA:
            if not _FRAGMENT_HEADER.size <= length <= self._max_pdu_bytes:
                raise ProtocolViolation(
                    AbortReason.INVALID_PARAMETER_VALUE,
                    f"a P-DATA-TF of {length} bytes; {self._max_pdu_bytes} were agreed",
                )
            return length
        if pdu_type in {PduType.RELEASE_RQ, PduType.ABORT}:
            if length != 4:
                raise ProtocolViolation(
                    AbortReason.INVALID_PARAMETER_VALUE, f"a PDU {pdu_type:02X}H of {length} bytes, not 4"
                )
            source, reason = self._exactly(4)[2:]
            if pdu_type == PduType.RELEASE_RQ:
                raise Released(RELEASED if self._in_message is None else f"{RELEASED} within a message")
            raise Aborted(f"aborted by the peer, source {source}, reason {reason}")
        raise _unexpected(pdu_type)

    def _pdu_header(self) -> tuple[int, int]:
        pdu_type, length = _PDU_HEADER.unpack(self._exactly(_PDU_HEADER.size))
        return pdu_type, length

    def _piece_of_fragment(self) -> memoryview:
        piece = self._piece(self._in_fragment)
        self._in_fragment -= len(piece)
        return piece

    def _exactly(self, count: int) -> bytes:
        """Take a few bytes, wherever they are cut."""
        if self._end - self._start >= count:
            self._start += count
            return bytes(self._buffer[self._start - count : self._start])
        taken = bytearray()
        while len(taken) < count:
            taken += self._piece(count - len(taken))
        return bytes(taken)

    def _piece(self, most: int) -> memoryview:
        """Take what is there, at least one byte."""
        if self._start == self._end:
            self._start, self._end = 0, self._received()
        start = self._start
        self._start = min(start + most, self._end)
        return self._buffer[start : self._start]

    def _received(self) -> int:
        try:
            if self._deadline is not None:
                self._connection.settimeout(max(self._deadline - monotonic(), 0.001))
            count = self._connection.recv_into(self._buffer)
        except TimeoutError as error:
            raise Silent("the peer said nothing for too long") from error
        except OSError as error:  # of TLS as well
            raise Vanished(f"the connection broke: {error.strerror or type(error).__name__}") from error
        if not count:
            raise Vanished("the peer closed the connection without a word")
        return count

    # Sending

    def send(self, pdu: bytes) -> None:
        """Send whole PDUs; raises Silent, Vanished."""
        with self._sending:
            self._send(pdu)

    def send_message(self, context_id: int, command: bytes, data_set: bytes = b"") -> None:
        """Send a command and its data set, if any, in PDUs that the peer takes; raises Silent, Vanished."""
        most = self._peer_pdu_bytes - _FRAGMENT_HEADER.size
        pdus = [*_fragments(context_id, command, _COMMAND, most)]
        if data_set:
            pdus += _fragments(context_id, data_set, 0, most)
        self.send(b"".join(pdus))

    def abort(self, source: int, reason: int) -> None:
        """Send an A-ABORT where the connection still takes one (PS3.8 section 9.3.8)."""
        if not self._sending.acquire(timeout=1):
            return  # a peer that takes nothing does not take this either
        try:
            self._send(_PDU_HEADER.pack(PduType.ABORT, 4) + bytes((0, 0, source, reason)))
        except AssociationEnd:
            pass
        finally:
            self._sending.release()

    def _send(self, pdu: bytes) -> None:
        try:
            self._connection.sendall(pdu)
        except TimeoutError as error:
            raise Silent("the peer took nothing for too long") from error
        except OSError as error:
            raise Vanished(f"the connection broke: {error.strerror or type(error).__name__}") from error


RELEASE_RESPONSE = _PDU_HEADER.pack(PduType.RELEASE_RP, 4) + bytes(4)


def _fragments(context_id: int, content: bytes, control: int, most: int) -> Iterator[bytes]:
    for start in range(0, len(content), most):
        part = content[start : start + most]
        last = _LAST if start + most >= len(content) else 0
        header = _FRAGMENT_HEADER.pack(len(part) + 2, context_id, control | last)
        yield _PDU_HEADER.pack(PduType.DATA, len(header) + len(part)) + header + part


def _unexpected(pdu_type: int) -> ProtocolViolation:
    if pdu_type in PduType.__members__.values():
        return ProtocolViolation(AbortReason.UNEXPECTED_PDU, f"a PDU {pdu_type:02X}H, which is not its turn")
    found = (
        "which is how TLS begins: TLS where plain DICOM is spoken"
        if pdu_type == _TLS
        else "which does not exist"
    )
    return ProtocolViolation(AbortReason.UNRECOGNISED_PDU, f"a PDU {pdu_type:02X}H, {found}")
