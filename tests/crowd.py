"""A crowd of peers: senders of many series, and visitors that store nothing and end in every way."""

import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

from benchmarks.bulk_sender import Association, Image, store_request
from tests.fuzz import pdus

SENDERS = 4
"""Associations that store at once, after one alone has stored the first fifth of the series."""

_TIMEOUT_SECONDS = 60
_ECHO = pdus.message(
    1,
    [
        (0x0002, pdus.VERIFICATION),
        (0x0100, pdus.short(0x0030)),
        (0x0110, pdus.short(1)),
        (0x0800, pdus.short(0x0101)),
    ],
)
_SUCCESS = struct.pack("<HHLH", 0, 0x0900, 2, 0x0000)


class Visit(Enum):
    """What a peer does that stores nothing."""

    ECHO = "C-ECHO and release"
    CONNECT = "TCP only"
    ABORT = "A-ABORT"
    VANISH = "closed without a word"


VISITS = (
    Visit.ECHO,
    Visit.CONNECT,
    Visit.ECHO,
    Visit.ABORT,
    Visit.ECHO,
    Visit.CONNECT,
    Visit.ECHO,
    Visit.VANISH,
)
"""In turn: half are health checks, a quarter never speak."""


def store_series(port: int, sent: Sequence[Sequence[Image]], stored: Callable[[], None]) -> set[str]:
    """Store series over one association, then the rest over four at once; return the acknowledged UIDs."""
    acknowledged: set[str] = set()

    def over_one(calling: str, series: Sequence[Sequence[Image]]) -> None:
        association = Association(port, calling, "OARLOCK")
        everything = [image for each in series for image in each]
        for number, image in enumerate(everything):
            request = store_request(image, 1 + number % 60000, association.longest_pdu)
            if association.store(request) == 0x0000:
                acknowledged.add(image.sop_instance_uid)
            stored()
        association.release()

    alone = len(sent) // 5
    over_one("CT0", sent[:alone])
    rest = [(f"CT{number}", sent[alone + number - 1 :: SENDERS]) for number in range(1, SENDERS + 1)]
    with ThreadPoolExecutor(SENDERS) as pool:
        list(pool.map(lambda each: over_one(*each), rest))
    return acknowledged


def visit(port: int, count: int, at_once: int, opened: Callable[[int], None]) -> None:
    """Open associations in rounds, all of a round before the first of it ends."""
    with ThreadPoolExecutor(at_once) as pool:
        for first in range(0, count, at_once):
            visits = [VISITS[number % len(VISITS)] for number in range(first, min(first + at_once, count))]
            connections = list(pool.map(lambda visit: _open(port, visit), visits))
            opened(len(visits))
            list(pool.map(_end, connections, visits))


def _open(port: int, visit: Visit) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)
    if visit is not Visit.CONNECT:
        connection.sendall(pdus.associate_rq())
        _answer(connection, pdus.ASSOCIATE_AC)
    return connection


def _end(connection: socket.socket, visit: Visit) -> None:
    with connection:
        if visit is Visit.ECHO:
            connection.sendall(_ECHO)
            if _SUCCESS not in _answer(connection, pdus.P_DATA):
                raise ConnectionError("a C-ECHO was not answered 0x0000")
            connection.sendall(pdus.pdu(pdus.RELEASE_RQ, bytes(4)))
            _answer(connection, pdus.RELEASE_RP)
        elif visit is Visit.ABORT:
            connection.sendall(pdus.pdu(pdus.ABORT, bytes(4)))


def _answer(connection: socket.socket, expected: int) -> bytes:
    """Read one PDU; returns its body."""
    with connection.makefile("rb") as stream:
        kind, length = struct.unpack(">BxL", stream.read(6))
        body = stream.read(length)
    if kind != expected:
        raise ConnectionError(f"PDU {kind} instead of {expected}: {body.hex()}")
    return body
