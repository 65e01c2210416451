"""Receivers written by hand, byte by byte: they do what no library would let them do."""

import contextlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

Behaviour = Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def raw_receiver(behave: Behaviour) -> Iterator[int]:
    """A port whose every connection is treated in one way; what goes on is told to end with the block."""
    ending = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.settimeout(0.1)

    def serve() -> None:
        while not ending.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.settimeout(10)
            with connection:
                behave(connection, ending)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield int(server.getsockname()[1])
    finally:
        ending.set()
        thread.join()
        server.close()


def stops_reading(connection: socket.socket, ending: threading.Event) -> None:
    """Accept the association, then freeze."""
    accept(connection)
    ending.wait(60)


def answers_http(connection: socket.socket, _ending: threading.Event) -> None:
    """Be a web server on the port of a DICOM node."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def answers_noise(connection: socket.socket, _ending: threading.Event) -> None:
    """Accept the association, then send bytes that are no PDU."""
    accept(connection)
    connection.recv(65536)
    connection.sendall(bytes(range(256)) * 16)


def answers_a_broken_command(connection: socket.socket, ending: threading.Event) -> None:
    """Accept the association, then send a P-DATA-TF whose command set is no command set."""
    accept(connection)
    connection.recv(65536)
    message = bytes([1, 0x03]) + b"\xff" * 64
    item = struct.pack(">L", len(message)) + message
    connection.sendall(b"\x04\x00" + struct.pack(">L", len(item)) + item)
    ending.wait(10)


def announces_four_gigabytes(connection: socket.socket, ending: threading.Event) -> None:
    """Accept the association, then begin a PDU that says it has four gigabytes."""
    accept(connection)
    connection.recv(65536)
    connection.sendall(b"\x04\x00\xff\xff\xff\xff" + bytes(64))
    ending.wait(10)


def aborts_half_way(connection: socket.socket, _ending: threading.Event) -> None:
    """Accept the association, take some of the object, then send an A-ABORT (PS3.8 section 9.3.8)."""
    accept(connection)
    connection.recv(20000)
    connection.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00")
    while connection.recv(65536):
        pass


def resets_half_way(connection: socket.socket, _ending: threading.Event) -> None:
    """Accept the association, take some of the object, then reset the connection."""
    accept(connection)
    connection.recv(20000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def over_a_slow_link(port: int, bytes_per_second: int) -> Behaviour:
    """Pass everything on to a node at another port, but what comes in no faster than this."""

    def pass_on(connection: socket.socket, _ending: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", port)) as node:
            back = threading.Thread(target=_copy, args=(node, connection))
            back.start()
            _copy(connection, node, bytes_per_second)
            node.shutdown(socket.SHUT_RDWR)
            back.join()

    return pass_on


def _copy(source: socket.socket, target: socket.socket, bytes_per_second: float = math.inf) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(8192):
            target.sendall(piece)
            time.sleep(len(piece) / bytes_per_second)


def accept(connection: socket.socket) -> None:
    """Read an A-ASSOCIATE-RQ and accept its first context."""
    connection.sendall(_accept_pdu(connection.recv(65536)))


def _accept_pdu(request: bytes) -> bytes:
    """A-ASSOCIATE-AC that accepts the first context as Implicit VR Little Endian (PS3.8 section 9.3.3)."""

    def item(kind: int, content: bytes) -> bytes:
        return bytes([kind, 0]) + len(content).to_bytes(2, "big") + content

    context = bytes([1, 0, 0, 0]) + item(0x40, ImplicitVRLittleEndian.encode())
    user = item(0x51, (16384).to_bytes(4, "big")) + item(0x52, RTStructureSetStorage.encode())
    body = request[6:74] + item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x21, context) + item(0x50, user)
    return b"\x02\x00" + len(body).to_bytes(4, "big") + body
