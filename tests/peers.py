"""The other side of the wire: a receiver that misbehaves on request, DCMTK and Orthanc."""

import json
import os
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

from tests.conditions import LIMIT_SECONDS, accepts_tcp, free_port, wait_until
from tests.senders import Sender, send

__all__ = [
    "LIMIT_SECONDS",
    "Orthanc",
    "Received",
    "ReceivingPeer",
    "Sender",
    "StoreScp",
    "accepts_tcp",
    "dcmtk_send",
    "free_port",
    "orthanc",
    "send",
    "silent_port",
    "storescp",
    "wait_until",
]

_ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1"}  # DCMTK and Orthanc leave Nagle on: 44 ms a response
_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def dcmtk_send(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run DCMTK's storescu, dcmsend or echoscu to its end."""
    return subprocess.run(
        [program, *map(str, arguments)],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@dataclass(frozen=True)
class Received:
    """An instance as a receiving peer got it."""

    calling: str
    called: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_bytes: bytes
    file_bytes: bytes


class ReceivingPeer:
    """A C-STORE and C-ECHO SCP on a free port of the loopback whose answers are scripted.

    Parameters
    ----------
    statuses
        The answers to the first C-STORE requests, in order; all later ones are 0x0000.
    comment
        Error Comment of every answer that is not 0x0000.
    delay_seconds
        Waited before each answer.
    abort_at
        The number (from 1) of the C-STORE request that is answered by an A-ABORT.
    reject
        Result, source and reason of an A-ASSOCIATE-RJ given to every association.
    mute
        Accept associations and never answer a C-STORE.
    sop_classes, transfer_syntaxes
        The presentation contexts accepted besides Verification.
    on_commitment
        Answers an N-ACTION request for storage commitment with its status; without it there is no such service.
    """

    def __init__(
        self,
        ae_title: str = "RECEIVER",
        *,
        statuses: Iterable[int] = (),
        comment: str = "",
        delay_seconds: float = 0.0,
        abort_at: int | None = None,
        reject: tuple[int, int, int] | None = None,
        mute: bool = False,
        sop_classes: Sequence[str] = (RTStructureSetStorage, CTImageStorage),
        transfer_syntaxes: Sequence[str] = _UNCOMPRESSED,
        port: int = 0,
        on_commitment: Callable[[evt.Event], int] | None = None,
    ) -> None:
        self.ae_title = ae_title
        self.received: list[Received] = []
        self.requests = 0
        self.echoes = 0
        self.associations = 0
        self._statuses = list(statuses)
        self._comment = comment
        self._delay_seconds = delay_seconds
        self._abort_at = abort_at
        self._reject = reject
        self._mute = mute
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._ae = AE(ae_title)
        self._ae.add_supported_context(Verification)
        for sop_class in sop_classes:
            self._ae.add_supported_context(sop_class, list(transfer_syntaxes))
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_ECHO, self._echo),
        ]
        if on_commitment:
            self._ae.add_supported_context(StorageCommitmentPushModel)
            handlers.append((evt.EVT_N_ACTION, lambda event: (on_commitment(event), None)))
        self._server = self._ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        self.port: int = self._server.server_address[1]

    def _requested(self, event: evt.Event) -> None:
        self.associations += 1
        if self._reject:
            event.assoc.acse.send_reject(*self._reject)
            event.assoc.kill()  # waits until the A-ASSOCIATE-RJ is on its way

    def _echo(self, _event: evt.Event) -> int:
        self.echoes += 1
        return 0x0000

    def _store(self, event: evt.Event) -> Any:
        with self._lock:
            self.requests += 1
            number = self.requests
            status = self._statuses.pop(0) if self._statuses else 0x0000
        if number == self._abort_at:
            event.assoc.abort()
            return 0x0000
        if self._mute:
            self._closing.wait(10 * LIMIT_SECONDS)
            return 0xA700
        self._closing.wait(self._delay_seconds)
        if status == 0x0000 or status & 0xF000 == 0xB000:
            self.received.append(_received(event))
        return self._answer(status)

    def _answer(self, status: int) -> Any:
        answer = Dataset()
        answer.Status = status
        if status and self._comment:
            answer.ErrorComment = self._comment
        return answer

    def close(self) -> None:
        """Stop listening, end every association and wait for its threads."""
        self._closing.set()
        self._server.shutdown()
        threads = self._server.active_associations
        for association in threads:
            if association.is_established:
                association.abort()
        for association in threads:
            association.join(LIMIT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _received(event: evt.Event) -> Received:
    request = event.assoc.requestor.primitive
    return Received(
        calling=request.calling_ae_title.strip(),
        called=request.called_ae_title.strip(),
        sop_class_uid=str(event.request.AffectedSOPClassUID),
        sop_instance_uid=str(event.request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(UID(event.context.transfer_syntax)),
        dataset_bytes=event.encoded_dataset(include_meta=False),
        file_bytes=event.encoded_dataset(),
    )


@contextmanager
def silent_port() -> Iterator[int]:
    """A port where TCP connections are taken and nobody ever speaks DICOM."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield int(server.getsockname()[1])


@dataclass(frozen=True)
class StoreScp:
    """A running DCMTK storescp."""

    ae_title: str
    port: int
    folder: Path

    def files(self) -> list[Path]:
        """Everything it has stored."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextmanager
def storescp(folder: Path, *options: str, ae_title: str = "STORESCP") -> Iterator[StoreScp]:
    """DCMTK's storescp, which stores bytes as received into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = ["storescp", "--output-directory", str(folder), "--aetitle", ae_title, "+xa", "+B"]
    with _process([*command, *options, str(port)], folder.parent / f"storescp-{port}.log") as process:
        wait_until(lambda: process.poll() is not None or accepts_tcp(port), "storescp to listen")
        yield StoreScp(ae_title, port, folder)


class Orthanc:
    """A running Orthanc, steered through its REST interface."""

    def __init__(self, ae_title: str, dicom_port: int, http_port: int) -> None:
        self.ae_title = ae_title
        self.port = dicom_port
        self.http_port = http_port

    def request(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> Any:
        """Call the REST interface; JSON answers are decoded, others returned as bytes."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310 -- likewise
            content: bytes = response.read()
            is_json = response.headers.get_content_type() == "application/json"
        return json.loads(content) if is_json and content else content

    def is_ready(self) -> bool:
        """Whether both the REST interface and the DICOM port answer."""
        try:
            self.request("GET", "/system")
        except OSError:
            return False
        return accepts_tcp(self.port)

    def add_modality(self, name: str, ae_title: str, port: int, host: str = "127.0.0.1") -> None:
        """Make a DICOM node known, as sender and as destination."""
        self.request("PUT", f"/modalities/{name}", {"AET": ae_title, "Host": host, "Port": port})

    def upload(self, path: Path) -> None:
        """Import one DICOM file."""
        self.request("POST", "/instances", path.read_bytes())

    def instances(self) -> list[str]:
        """Return the identifiers of everything stored."""
        return list(self.request("GET", "/instances"))

    def instance_bytes(self, identifier: str) -> bytes:
        """Return one stored file."""
        return bytes(self.request("GET", f"/instances/{identifier}/file"))

    def store(self, modality: str, identifiers: Sequence[str] | None = None) -> dict[str, Any]:
        """Send instances (all, unless named) to a known node by C-STORE and return Orthanc's report."""
        resources = list(self.instances() if identifiers is None else identifiers)
        report: dict[str, Any] = self.request(
            "POST", f"/modalities/{modality}/store", {"Resources": resources, "Synchronous": True}
        )
        return report


@contextmanager
def orthanc(folder: Path, ae_title: str = "ORTHANC", **more: Any) -> Iterator[Orthanc]:
    """An Orthanc with an empty store under `folder`, on free ports; `more` of its settings replace or add."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Orthanc(ae_title, free_port(), free_port())
    settings = {
        "Name": ae_title,
        "DicomAet": ae_title,
        "DicomPort": server.port,
        "HttpPort": server.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAlwaysAllowStore": True,
        "DicomCheckCalledAet": False,
        "Plugins": [],
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    with _process(["Orthanc", str(folder / "orthanc.json")], folder / "orthanc.log") as process:
        wait_until(lambda: process.poll() is not None or server.is_ready(), "Orthanc to answer")
        yield server


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the time of the block; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=_ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT)
        with ended(process):
            yield process


@contextmanager
def ended(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> Iterator[None]:
    """End a process with the block, by force where it takes longer than ten seconds."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
