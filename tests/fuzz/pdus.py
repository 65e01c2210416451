"""DICOM messages as bytes on the wire (PS3.8 section 9.3), good ones and damage to every layer of them."""

import struct
from collections.abc import Sequence
from random import Random

from tests.fuzz.damage import TEXTS, a_number
from tests.fuzz.elements import mutated
from tests.fuzz.target import Change

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
_HEAD, _PDV, _ITEM = struct.Struct(">BBI"), struct.Struct(">IBB"), struct.Struct(">BBH")
_FIXED = 68
"""Bytes of an A-ASSOCIATE-RQ before its items."""
_IMPLICIT = b"1.2.840.10008.1.2"
EXPLICIT = b"1.2.840.10008.1.2.1"
VERIFICATION, CT, COMMITMENT = b"1.2.840.10008.1.1", b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.20.1"
_COMMANDS = (
    0x0001,
    0x0010,
    0x0020,
    0x0021,
    0x0030,
    0x0FFF,
    0x0100,
    0x0110,
    0x0120,
    0x0130,
    0x0140,
    0x0150,
    0x8001,
    0x8030,
)
_FIELDS = (
    (0x0100, 2),
    (0x0110, 2),
    (0x0120, 2),
    (0x0700, 2),
    (0x0800, 2),
    (0x0900, 2),
    (0x1008, 2),
    (0x1031, 2),
    (0x0000, 4),
)
_UIDS = (0x0002, 0x0003, 0x1000, 0x1001, 0x0600, 0x1030)


def pdu(kind: int, body: bytes) -> bytes:
    """Head and body."""
    return _HEAD.pack(kind, 0, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    """An item or sub-item of an A-ASSOCIATE-RQ."""
    return _ITEM.pack(kind, 0, len(body) & 0xFFFF) + body


def associate_rq(extras: bytes = b"", calling: bytes = b"SENDER") -> bytes:
    """Propose Verification, CT and storage commitment; `extras` are further items of the user information."""
    syntaxes = item(0x40, _IMPLICIT) + item(0x40, EXPLICIT)
    contexts = b"".join(
        item(0x20, struct.pack(">BBBB", number, 0, 0, 0) + item(0x30, uid) + proposed)
        for number, uid, proposed in (
            (1, VERIFICATION, syntaxes),
            (3, CT, item(0x40, EXPLICIT)),
            (5, COMMITMENT, syntaxes),
            (7, CT, item(0x40, EXPLICIT + b".99")),
        )
    )
    user = item(0x51, struct.pack(">I", 16382)) + item(0x52, b"1.2.3.4") + extras + item(0x55, b"FUZZ")
    titles = b"OARLOCK".ljust(16) + calling.ljust(16)
    fixed = struct.pack(">HH", 1, 0) + titles + bytes(32)
    return pdu(ASSOCIATE_RQ, fixed + item(0x10, b"1.2.840.10008.3.1.1.1") + contexts + item(0x50, user))


def negotiation() -> bytes:
    """Items of the user information that hardly anybody sends (PS3.7 annex D.3.3)."""
    window = item(0x53, struct.pack(">HH", 5, 5))
    roles = item(0x54, struct.pack(">H", len(COMMITMENT)) + COMMITMENT + b"\1\1")
    extended = item(0x56, struct.pack(">H", len(CT)) + CT + b"\2\0\3\0")
    common = item(0x57, struct.pack(">H", len(CT)) + CT + struct.pack(">H", 4) + b"1.23" + bytes(2))
    identity = item(0x58, b"\2\1" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 6) + b"secret")
    return window + roles + extended + common + identity


def command(*fields: tuple[int, bytes]) -> bytes:
    """A command set (PS3.7 section 6.3.1), its group length first."""
    encoded = b"".join(
        struct.pack("<HHI", 0, number, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
        for number, value in fields
    )
    return struct.pack("<HHII", 0, 0, 4, len(encoded)) + encoded


def short(value: int) -> bytes:
    """A value of VR US."""
    return struct.pack("<H", value)


def p_data(context: int, control: int, fragment: bytes) -> bytes:
    """One PDV in a PDU; bit 0 of the control header marks a command, bit 1 the last fragment."""
    return pdu(P_DATA, _PDV.pack(len(fragment) + 2, context, control) + fragment)


def message(
    context: int, fields: Sequence[tuple[int, bytes]], dataset: bytes = b"", pieces: int = 1
) -> bytes:
    """A DIMSE message, its data set in so many fragments."""
    sent = p_data(context, 3, command(*fields))
    size = max(1, -(-len(dataset) // pieces))
    parts = [dataset[start : start + size] for start in range(0, len(dataset), size)]
    return sent + b"".join(
        p_data(context, 2 if number == len(parts) else 0, part) for number, part in enumerate(parts, start=1)
    )


def split(stream: bytes) -> list[bytes]:
    """PDUs as their lengths say; what is behind the last whole one comes as it is."""
    found = []
    while len(stream) >= _HEAD.size:
        end = _HEAD.size + _HEAD.unpack_from(stream)[2]
        if end > len(stream):
            break
        found.append(stream[:end])
        stream = stream[end:]
    return [*found, stream] if stream else found


def mutate(stream: bytes, rng: Random, change: Change) -> bytes:
    """Damage the order of PDUs, one PDU's head, or what is in it."""
    pdus = split(stream)
    if not pdus:
        return associate_rq()
    at = rng.randrange(len(pdus))
    kind = rng.randrange(12)
    if kind == 0:
        return change(stream)
    if kind == 1:
        del pdus[at]
    elif kind == 2:
        pdus.insert(rng.randrange(len(pdus) + 1), pdus[at])
    elif kind == 3:
        pdus.insert(at, _any_pdu(rng))
    elif kind == 4:
        pdus[at] = bytes([rng.choice((*range(1, 9), 0, 255))]) + pdus[at][1:]
    elif kind == 5:
        pdus[at] = pdus[at][:2] + a_number(rng, 4, "big") + pdus[at][6:]
    elif kind == 6:
        pdus[at] = pdus[at][: rng.randrange(len(pdus[at]) + 1)]
    else:
        pdus[at] = _inside(pdus[at], rng, change)
    return b"".join(pdus)


def _any_pdu(rng: Random) -> bytes:
    return rng.choice(
        (
            *(
                pdu(RELEASE_RQ, bytes(4)),
                pdu(RELEASE_RP, bytes(4)),
                pdu(ABORT, bytes(4)),
                pdu(ABORT, b"\0\0\2\5"),
            ),
            *(pdu(ASSOCIATE_RJ, b"\0\1\1\1"), associate_rq(), b"\2" + associate_rq()[1:], pdu(9, b"none")),
            *(pdu(P_DATA, b""), pdu(P_DATA, _PDV.pack(2, 1, 3)), p_data(1, 3, b""), p_data(3, 0, b"behind")),
            *(p_data(1, 3, command((0x0100, short(each)), (0x0800, short(0x0101)))) for each in _COMMANDS),
        )
    )


def _inside(whole: bytes, rng: Random, change: Change) -> bytes:
    """Damage the body of a PDU, whose length is mostly made to fit."""
    kind, body = whole[0], whole[_HEAD.size :]
    if kind == P_DATA:
        body = _mutated_pdvs(body, rng, change)
    elif kind == ASSOCIATE_RQ and len(body) > _FIXED:
        if rng.random() < 0.15:
            body = change(body[:_FIXED])[:_FIXED].ljust(_FIXED, b"\0") + body[_FIXED:]
        else:
            body = body[:_FIXED] + _mutated_items(body[_FIXED:], rng, change)
    else:
        body = change(body)
    return pdu(kind, body) if rng.random() < 0.95 else whole[: _HEAD.size] + body


def _mutated_items(body: bytes, rng: Random, change: Change) -> bytes:
    """Damage one item or sub-item of an A-ASSOCIATE-RQ."""
    items = []
    while len(body) >= _ITEM.size:
        end = _ITEM.size + _ITEM.unpack_from(body)[2]
        items.append(body[:end])
        body = body[end:]
    if not items:
        return change(body)
    at = rng.randrange(len(items))
    chosen = items[at]
    way = rng.randrange(9)
    if way == 0:
        del items[at]
    elif way == 1:
        items[at] = chosen * rng.choice((2, 3, 130))
    elif way == 2:
        items[at] = (
            bytes([rng.choice((0x10, 0x20, 0x21, 0x30, 0x40, 0x50, *range(0x51, 0x5A), 0xFF))]) + chosen[1:]
        )
    elif way == 3:
        items[at] = chosen[:2] + a_number(rng, 2, "big") + chosen[4:]
    elif chosen[0] in {0x20, 0x50}:
        start = _ITEM.size + (4 if chosen[0] == 0x20 else 0)
        head = chosen[_ITEM.size : start] if rng.random() < 0.9 else rng.randbytes(start - _ITEM.size)
        items[at] = item(chosen[0], head + _mutated_items(chosen[start:], rng, change))
    else:
        inner = chosen[_ITEM.size :]
        items[at] = item(chosen[0], rng.choice((change(inner), rng.choice(TEXTS)[:1000], inner + b"\0")))
    return b"".join(items) + body


def _mutated_pdvs(body: bytes, rng: Random, change: Change) -> bytes:
    """Damage the head of the first PDV, its command or its piece of a data set; or split or double it."""
    if len(body) < _PDV.size:
        return change(body)
    length, context, control = _PDV.unpack_from(body)
    fragment, rest = body[_PDV.size : 4 + length], body[4 + length :]
    way = rng.randrange(10)
    if way == 0:
        return a_number(rng, 4, "big") + body[4:]
    if way == 1:
        context = rng.choice((0, 1, 2, 3, 5, 7, 9, 255))
    elif way == 2:
        control = rng.choice((0, 1, 2, 3, 4, 0x82, 255))
    elif way == 3:
        middle = rng.randrange(len(fragment) + 1)
        first = _PDV.pack(middle + 2, context, control & ~2) + fragment[:middle]
        return first + _PDV.pack(len(fragment) - middle + 2, context, control) + fragment[middle:] + rest
    elif way == 4:
        return body * rng.choice((2, 3, 40))
    elif control & 1:
        fragment = _mutated_command(fragment, rng, change)
    else:
        fragment = mutated(fragment, rng, change)
    return _PDV.pack(len(fragment) + 2, context, control) + fragment + rest


def _mutated_command(data: bytes, rng: Random, change: Change) -> bytes:
    """Another value of one field, a path as UID, a field too many, or damage as to any element."""
    way = rng.randrange(4)
    if way == 0:
        number, size = rng.choice(_FIELDS)
        value = short(rng.choice(_COMMANDS)) if number == 0x0100 else a_number(rng, size)
        return _with_field(data, number, value)
    if way == 1:
        return _with_field(
            data, rng.choice(_UIDS), rng.choice((*TEXTS, CT, COMMITMENT + b".1", b"1.2.3.4"))[:2000]
        )
    return mutated(data, rng, change, is_explicit=False)


def _with_field(data: bytes, number: int, value: bytes) -> bytes:
    """The command with another value of a field, or with one field more."""
    value += b"\0" * (len(value) % 2)
    field = struct.pack("<HHI", 0, number, len(value)) + value
    start = data.find(struct.pack("<HH", 0, number))
    if start < 0 or len(data) < start + 8:
        return data + field
    return data[:start] + field + data[start + 8 + int.from_bytes(data[start + 4 : start + 8], "little") :]
