"""A live listener, spoken to over real sockets by many senders at once."""

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import structlog

from daemon.dicom_port import NetworkLimits
from daemon.part10 import read_part10
from tests.conditions import wait_until
from tests.fuzz import pdus
from tests.fuzz.oracle import Broken
from tests.fuzz.target import Change, FuzzOne, Target
from tests.instances import StoredInstance, ct_instance
from tests.nodes import ReceivingNode, receiving_node
from tests.senders import Sender

LIMITS = NetworkLimits(request_seconds=2, idle_seconds=3, drain_seconds=5)
SENDERS = 32
"""Conversations at the same time."""

PATIENCE_SECONDS = 0.15
"""How long an answer may take before the sender goes on; what comes later is still read."""

END_SECONDS = 30
"""By then an association must have ended: its own limits are a tenth of this, and the machine may be busy."""

CHECK_EVERY = 500
SILENT_ONE_IN = 100
_SERIES = "1.2.826.0.1.9"
_ALLOWED = {
    "jobs",
    "arriving",
    "unclaimed",
    "oarlock.db",
    "oarlock.db-wal",
    "oarlock.db-shm",
    "oarlock.db.lock",
}


def seeds() -> list[bytes]:
    """Conversations of a good sender, with every service that the listener offers."""
    instance = ct_instance(_SERIES)
    echo = pdus.message(1, _request(0x0030, pdus.VERIFICATION))
    release = pdus.pdu(pdus.RELEASE_RQ, bytes(4))
    store = _store(instance, 1)
    committed = pdus.message(5, _action(), _references(instance))
    return [
        pdus.associate_rq() + echo + release,
        pdus.associate_rq() + store + release,
        pdus.associate_rq() + _store(instance, 5) + echo + _store(ct_instance(_SERIES, 2), 2) + release,
        pdus.associate_rq() + store + committed + release,
        pdus.associate_rq(pdus.negotiation()) + echo + pdus.pdu(pdus.ABORT, bytes(4)),
        pdus.associate_rq(calling=b"OTHER") + _store(ct_instance(_SERIES, 3), 3),
    ]


def _request(number: int, sop_class: bytes, *more: tuple[int, bytes]) -> list[tuple[int, bytes]]:
    fields = [(0x0002, sop_class), (0x0100, pdus.short(number)), (0x0110, pdus.short(1)), *more]
    return [*fields, (0x0800, pdus.short(0x0101))] if not more else fields


def _store(instance: StoredInstance, pieces: int) -> bytes:
    uid = instance.sop_instance_uid.encode()
    more = ((0x0700, pdus.short(0)), (0x0800, pdus.short(1)), (0x1000, uid))
    return pdus.message(3, _request(0x0001, pdus.CT, *more), instance.dataset_bytes, pieces)


def _action() -> list[tuple[int, bytes]]:
    return [
        (0x0003, pdus.COMMITMENT),
        (0x0100, pdus.short(0x0130)),
        (0x0110, pdus.short(2)),
        (0x0800, pdus.short(1)),
        (0x1001, pdus.COMMITMENT + b".1"),
        (0x1008, pdus.short(1)),
    ]


def _references(instance: StoredInstance) -> bytes:
    """The action information of a commitment request, in implicit VR: a transaction and one image."""

    def element(tag: bytes, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return tag + len(value).to_bytes(4, "little") + value

    item = element(b"\x08\x00\x50\x11", pdus.CT)
    item += element(b"\x08\x00\x55\x11", instance.sop_instance_uid.encode())
    sequence = element(b"\xfe\xff\x00\xe0", item)
    return element(b"\x08\x00\x95\x11", b"1.2.3.4.5") + element(b"\x08\x00\x99\x11", sequence)


def mutate(data: bytes, rng: Random, change: Change) -> bytes:
    return pdus.mutate(data, rng, change)


@contextmanager
def opened(folder: Path) -> Iterator[FuzzOne]:
    """Start a listener as the command line does and speak to it; look after it now and then, and at the end."""
    root = folder / "node"
    root.mkdir()
    failures = _Failures()
    with (
        failures.watched(),
        receiving_node(root, limits=LIMITS, node={"max_associations": 2 * SENDERS}) as node,
        ThreadPoolExecutor(SENDERS) as pool,
    ):
        caretaker = _Caretaker(node, root)
        caretaker.look_after()
        running: list[Future[None]] = []
        given = 0

        def fuzz_one(data: bytes) -> None:
            nonlocal given
            given += 1
            caretaker.sent_bytes += len(data)
            running.append(pool.submit(_converse, node.port, data, silent=given % SILENT_ONE_IN == 0))
            if len(running) >= 2 * SENDERS or given % CHECK_EVERY == 0:
                _finish(running, everything=given % CHECK_EVERY == 0)
            if given % CHECK_EVERY == 0:
                caretaker.look_after()
            failures.raise_first()

        yield fuzz_one
        _finish(running, everything=True)
        caretaker.look_after()
        failures.raise_first()


def _finish(running: list[Future[None]], *, everything: bool) -> None:
    """Take conversations that have ended from the list, raising what was wrong about one; wait for one or all."""
    while running and (everything or len(running) >= 2 * SENDERS or running[0].done()):
        running.pop(0).result(10 * END_SECONDS)


def _converse(port: int, data: bytes, *, silent: bool) -> None:
    """Send an input PDU by PDU, waiting for answers as a sender does; then leave, or say nothing more."""
    with socket.create_connection(("127.0.0.1", port), END_SECONDS) as connection:
        connection.settimeout(END_SECONDS)
        try:
            for piece in pdus.split(data):
                connection.sendall(piece)
                if piece[0] == pdus.ASSOCIATE_RQ and not _answer(connection):
                    return
            while not silent and _answer(connection):
                pass
            if not silent:
                connection.sendall(pdus.pdu(pdus.ABORT, bytes(4)))
                connection.shutdown(socket.SHUT_WR)
            connection.settimeout(END_SECONDS)
            while connection.recv(65536):
                pass
        except TimeoutError as error:
            raise Broken(f"the association did not end within {END_SECONDS} s\n{data.hex()}") from error
        except OSError:
            return  # it was closed from the other side


def _answer(connection: socket.socket) -> bool:
    """Whether something came within our patience."""
    connection.settimeout(PATIENCE_SECONDS)
    try:
        return bool(connection.recv(65536))
    except TimeoutError:
        return False
    finally:
        connection.settimeout(END_SECONDS)


class _Caretaker:
    """Looks after a listener between two inputs: it must serve, hold nothing and have told the truth."""

    def __init__(self, node: ReceivingNode, root: Path) -> None:
        self.sent_bytes = 0
        self._node = node
        self._root = root
        self._number = 0

    def look_after(self) -> None:
        """Raise Broken where the listener is not what it was."""
        self._require_idle()
        self._require_service()
        self._require_truth()
        self._node.listener.tick()

    def _require_idle(self) -> None:
        listener = self._node.listener
        deadline = time.monotonic() + END_SECONDS
        while (
            left := sum(len(port.connections) for port in listener._bound)
        ) and time.monotonic() < deadline:
            time.sleep(0.02)
        if left or listener.open_associations:
            raise Broken(f"{left} connections and {listener.open_associations} associations did not end")

    def _require_service(self) -> None:
        """A good sender gets through."""
        self._number += 1
        instance = ct_instance(f"{_SERIES}.{self._number}")
        with Sender(self._node.port) as sender:
            if not sender.accepted:
                raise Broken(f"a good association is not accepted: {sender.rejection}")
            status = sender.store(
                instance.sop_class_uid,
                instance.sop_instance_uid,
                instance.transfer_syntax_uid,
                instance.dataset_bytes,
            ).status
        if status != 0x0000:
            raise Broken(f"a good image is answered by {status}")
        wait_until(lambda: not self._node.listener.open_associations, "the good association to end")

    def _require_truth(self) -> None:
        """Every row has its file, every file is of a row, and nothing else lies in the spool."""
        strange = {path.name for path in self._root.iterdir()} - _ALLOWED
        if strange:
            raise Broken(f"in the spool lie {sorted(strange)}")
        if left := list(self._root.glob("arriving/*")):
            raise Broken(f"{len(left)} images that no longer arrive")
        held = 0
        for number, paths in self._node.spool.job_folders().items():
            held += self._require_true_job(number, paths)
        if held > 2 * self.sent_bytes + 1024 * 1024 * (1 + self._number):
            raise Broken(f"{held} bytes on disk after {self.sent_bytes} were sent")

    def _require_true_job(self, number: int, paths: list[Path]) -> int:
        rows = {
            self._node.spool.instance_path(number, row.sop_instance_uid): row.sha256
            for row in self._node.queue.instances(number)
        }
        if set(rows) != set(paths):
            raise Broken(f"job {number} has {len(rows)} rows and {len(paths)} files")
        for path, digest in rows.items():
            if hashlib.sha256(read_part10(path)[1]).hexdigest() != digest:
                raise Broken(f"{path.name} is not what its row says")
        everything = [
            path for path in self._root.joinpath("jobs", f"{number:08d}").rglob("*") if path.is_file()
        ]
        if any(path.suffix != ".dcm" for path in everything):
            raise Broken(f"job {number} holds {sorted({path.suffix for path in everything})}")
        return sum(os.stat(path).st_size for path in everything)  # noqa: PTH116 -- thousands of files


class _Failures(logging.Handler):
    """Our own log and pynetdicom's: an exception that was caught at the last moment is a finding all the same."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._seen: list[str] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Listen to both logs for a while."""
        library = logging.getLogger("pynetdicom")
        before = structlog.get_config()
        library.addHandler(self)
        library.propagate = False
        structlog.configure(processors=[self._ours], cache_logger_on_first_use=False)
        try:
            yield
        finally:
            structlog.configure(**before)
            library.removeHandler(self)

    def raise_first(self) -> None:
        """Raise Broken for the first failure that was logged."""
        if self._seen:
            raise Broken(self._seen.pop(0))

    def emit(self, record: logging.LogRecord) -> None:
        """Take an error of pynetdicom."""
        text = record.getMessage()
        if text.startswith("Exception in DUL"):
            self._seen.append(f"pynetdicom: {text}")

    def _ours(self, _logger: object, _method: str, event: Mapping[str, Any]) -> Any:
        if event.get("exc_info"):
            self._seen.append(f"logged: {event.get('event')} {event['exc_info']!r}")
        raise structlog.DropEvent


TARGET = Target(
    (
        "daemon.pdata",
        "daemon.command_set",
        "daemon.negotiation",
        "daemon.association",
        "daemon.listener",
        "daemon.dicom_port",
        "daemon.reception",
        "daemon.instance_header",
        "daemon.element_walk",
    ),
    seeds,
    mutate,
    opened,
)
