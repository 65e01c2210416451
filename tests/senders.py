"""C-STORE senders that send encoded bytes exactly as they are, also where these contradict the request."""

import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from tests.conditions import LIMIT_SECONDS, wait_until
from tests.instances import StoredInstance


@dataclass(frozen=True)
class Response:
    """A C-STORE response; status None when none came."""

    status: int | None
    comment: str = ""


class Sender:
    """One association of a C-STORE SCU that sends encoded bytes exactly as they are.

    Requests may contradict their data set, which the library's own `send_c_store` would not let happen.
    """

    def __init__(
        self,
        port: int,
        calling: str = "SENDER",
        called: str = "OARLOCK",
        contexts: Iterable[tuple[str, str | Sequence[str]]] = ((CTImageStorage, ExplicitVRLittleEndian),),
        host: str = "127.0.0.1",
    ) -> None:
        ae = AE(calling)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = LIMIT_SECONDS
        requested = [build_context(abstract, syntaxes) for abstract, syntaxes in contexts]
        self.association = ae.associate(host, port, contexts=requested, ae_title=called)
        self._message_id = 0
        if self.accepted:
            self._park_reactor()

    @property
    def accepted(self) -> bool:
        """Whether the association stands."""
        return bool(self.association.is_established)

    @property
    def rejection(self) -> tuple[int, int, int] | None:
        """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 section 9.3.4)."""
        primitive = self.association.acceptor.primitive
        if not self.association.is_rejected:
            # A rejection that comes at once closes the socket before pynetdicom looks whether it is connected.
            unheard = list(self.association.dul.to_user_queue.queue)
            primitive = next((each for each in unheard if getattr(each, "result", None)), None)
        return primitive and (primitive.result, primitive.result_source, primitive.diagnostic)

    def _park_reactor(self) -> None:
        """Stop the library's reactor thread, which could otherwise take a response from the queue."""
        checkpoint = self.association._reactor_checkpoint
        checkpoint.clear()
        wait_until(lambda: checkpoint._cond._waiters, "the sender's reactor to pause")

    def store(
        self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, dataset_bytes: bytes
    ) -> Response:
        """Send one C-STORE request and return its response."""
        context = next(
            context
            for context in self.association.accepted_contexts
            if context.abstract_syntax == sop_class_uid and context.transfer_syntax[0] == transfer_syntax_uid
        )
        self._message_id += 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = sop_class_uid
        request.AffectedSOPInstanceUID = sop_instance_uid
        request.Priority = 2
        request.DataSet = BytesIO(dataset_bytes)
        self.association.dimse.send_msg(request, context.context_id)
        _, response = self.association.dimse.get_msg(block=True)
        if response is None or response.Status is None:
            return Response(None)
        return Response(int(response.Status), str(response.ErrorComment or ""))

    def echo(self) -> int:
        """Send one C-ECHO request and return the status of its response."""
        self.association._reactor_checkpoint.set()
        return int(self.association.send_c_echo().Status)

    def release(self) -> None:
        """Release the association."""
        self.association.release()

    def abort(self) -> None:
        """Send an A-ABORT."""
        self.association.abort()

    def let_go(self) -> None:
        """Let the library notice that the association has ended from the other side."""
        wrapper = self.association.dul.socket
        connection = wrapper.socket if wrapper else None
        self.association._reactor_checkpoint.set()
        if self.association.is_alive():
            self.association.join(LIMIT_SECONDS)
        if connection:
            connection.close()

    def vanish(self) -> None:
        """Close the TCP connection without a word, as a machine that is switched off."""
        connection = self.association.dul.socket.socket
        connection.shutdown(socket.SHUT_RDWR)
        self.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.association.is_established:
            self.association.release()


def store(sender: Sender, instance: StoredInstance) -> Response:
    """Send one image as it is, under its own class and UID, and return the response."""
    return sender.store(
        instance.sop_class_uid,
        instance.sop_instance_uid,
        instance.transfer_syntax_uid,
        instance.dataset_bytes,
    )


def send(
    paths: Iterable[Path],
    host: str = "127.0.0.1",
    port: int = 11112,
    calling: str = "SENDER",
    called: str = "OARLOCK",
) -> list[int | None]:
    """Send files over one association, byte for byte; one status per file, None where there was no answer.

    An instance whose presentation context was refused has status None; a refused association raises
    ConnectionError with result, source and reason.
    """
    headers = [(path, dcmread(path, stop_before_pixels=True, defer_size=64)) for path in paths]
    kinds = {(str(ds.SOPClassUID), str(ds.file_meta.TransferSyntaxUID)) for _, ds in headers}
    with Sender(port, calling, called, sorted(kinds), host) as sender:
        if not sender.accepted:
            raise ConnectionError(f"association refused: {sender.rejection}")
        accepted = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0]))
            for context in sender.association.accepted_contexts
        }
        statuses: list[int | None] = []
        for path, header in headers:
            kind = (str(header.SOPClassUID), str(header.file_meta.TransferSyntaxUID))
            if kind not in accepted:
                statuses.append(None)
                continue
            content = path.read_bytes()
            start = 144 + int.from_bytes(content[140:144], "little")
            statuses.append(
                sender.store(kind[0], str(header.SOPInstanceUID), kind[1], content[start:]).status
            )
        return statuses
