"""Damage to the data elements of a DICOM file: tags, VRs, lengths, values and nesting (PS3.5 section 7)."""

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.fuzz.damage import LENGTHS, TEXTS, a_number
from tests.fuzz.target import MAX_INPUT_BYTES, Change

_PREFIX = 132
_DEFLATED, _IMPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2\0"
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_VRS = (
    *sorted(_LONG),
    b"AE",
    b"AT",
    b"CS",
    b"DA",
    b"DS",
    b"FD",
    b"FL",
    b"IS",
    b"LO",
    b"PN",
    b"SL",
    b"SS",
    b"UI",
    b"UL",
    b"US",
    b"??",
)
_NUMBERS = {b"US": 2, b"SS": 2, b"UL": 4, b"SL": 4, b"AT": 4, b"FL": 4, b"FD": 8, b"SV": 8, b"UV": 8}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_ITEM, _END_SEQUENCE = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_SEQUENCE = b"\x06\x30\x10\x00"  # Referenced Frame of Reference Sequence
_MOST_ELEMENTS = 3000


@dataclass(frozen=True)
class Element:
    """Where one data element stands in the bytes; `length_at` is where its length stands."""

    start: int
    length_at: int
    length_size: int
    value: int
    end: int
    vr: bytes


def elements(data: bytes, *, is_explicit: bool = True) -> list[Element]:
    """Find the elements, those in sequences included; stops where the bytes make no sense.

    A file says itself whether its VRs are explicit; `is_explicit` is for bytes that do not.
    """
    start, found = (_PREFIX if data[128:132] == b"DICM" else 0), []
    while start + 8 <= len(data) and len(found) < _MOST_ELEMENTS:
        if is_explicit and data[start : start + 2] != b"\x02\x00" and _IMPLICIT in data[:start]:
            is_explicit = False
        element = _element(data, start, is_explicit=is_explicit)
        if element is None or element.end > len(data):
            break
        found.append(element)
        start = element.end
    return found


def _element(data: bytes, start: int, *, is_explicit: bool) -> Element | None:
    """One element; sequences and items end before what is in them, so that this comes next."""
    group = data[start : start + 2]
    vr = data[start + 4 : start + 6]
    if group == b"\xfe\xff":
        is_fragment = (
            data[start : start + 4] == _ITEM
            and int.from_bytes(data[start + 4 : start + 8], "little") != _UNDEFINED
        )
        return _ended(data, Element(start, start + 4, 4, start + 8, 0, b""), descends=not is_fragment)
    if not is_explicit:
        return _ended(data, Element(start, start + 4, 4, start + 8, 0, b""))
    if not re.fullmatch(rb"[A-Z]{2}", vr):
        return None
    if vr in _LONG:
        return _ended(data, Element(start, start + 8, 4, start + 12, 0, vr), descends=vr == b"SQ")
    return _ended(data, Element(start, start + 6, 2, start + 8, 0, vr))


def _ended(data: bytes, element: Element, *, descends: bool = False) -> Element:
    length = int.from_bytes(data[element.length_at : element.length_at + element.length_size], "little")
    end = element.value if descends or length == _UNDEFINED else element.value + length
    return Element(element.start, element.length_at, element.length_size, element.value, end, element.vr)


def mutated_file(data: bytes, rng: Random, change: Change) -> bytes:
    """Damage a DICOM file; one that is deflated mostly in what it inflates to."""
    inflated = _inflated(data) if _DEFLATED in data[:400] and rng.random() < 0.8 else None
    if inflated is None:
        return mutated(data, rng, change)
    head = data[: len(data) - len(inflated[1])]
    if rng.random() < 0.002:
        return head + _bomb(rng.choice((20, 129, 400)))
    return head + _deflated(mutated(inflated[0], rng, change))


def mutated(data: bytes, rng: Random, change: Change, *, is_explicit: bool = True) -> bytes:
    """Damage one element, or bytes anywhere."""
    found = elements(data, is_explicit=is_explicit)
    if not found or rng.random() < 0.1:
        return change(data)
    element = rng.choice(found)
    head, tail = data[: element.start], data[element.end :]
    return head + _mutated_element(data, element, found, rng, change) + tail


def _mutated_element(
    data: bytes, element: Element, found: Sequence[Element], rng: Random, change: Change
) -> bytes:
    """What stands in an element's place instead of it."""
    whole, value = data[element.start : element.end], data[element.value : element.end]
    other = rng.choice(found)
    match rng.randrange(10):
        case 0:
            length = _wrong_length(len(value), element.length_size, rng)
            behind = element.length_at + element.length_size
            changed = data[element.start : element.length_at] + length + data[behind : element.end]
        case 1 if element.vr:
            changed = whole[:4] + rng.choice(_VRS) + whole[6:]
        case 2:
            changed = _other_tag(whole[:4], found, data, rng) + whole[4:]
        case 3:
            changed = rng.choice((b"", whole * 2, whole * 2, whole * 20))
        case 4:
            changed = data[other.start : other.end]
        case 5:
            changed = _nested(rng.choice((2, 30, 400, 1000)), rng) + whole
        case 6:
            changed = whole[: rng.randrange(len(whole) + 1)]
        case _:
            changed = _with_value(data, element, _new_value(element, value, rng, change))
    return changed


def _new_value(element: Element, value: bytes, rng: Random, change: Change) -> bytes:
    kind = rng.randrange(5)
    if element.vr in _NUMBERS and kind < 3:
        return a_number(rng, _NUMBERS[element.vr]) * rng.choice((1, 1, 2))
    if kind == 0 and b"\\" in value:
        parts = value.split(b"\\")
        parts[rng.randrange(len(parts))] = rng.choice(TEXTS)
        return b"\\".join(parts)
    if kind < 3:
        return rng.choice(TEXTS)
    return change(value)


def _with_value(data: bytes, element: Element, value: bytes) -> bytes:
    """The element with another value and the length of this one; what is too long for its field is cut."""
    value = value[: 256**element.length_size - 2]
    value += b" " * (len(value) % 2)
    length = len(value).to_bytes(element.length_size, "little")
    return data[element.start : element.length_at] + length + value


def _wrong_length(real: int, size: int, rng: Random) -> bytes:
    number = rng.choice((*LENGTHS, real + 1, real + 2, max(0, real - 1), max(0, real - 2), 2 * real))
    return (number % 256**size).to_bytes(size, "little")


def _other_tag(tag: bytes, found: Sequence[Element], data: bytes, rng: Random) -> bytes:
    other = rng.choice(found)
    return rng.choice(
        (
            bytes([tag[0] ^ 1]) + tag[1:],
            tag[:2] + rng.randbytes(2),
            data[other.start : other.start + 4],
            rng.choice((_ITEM, _END_ITEM, _END_SEQUENCE, b"\xe0\x7f\x10\x00", b"\xff\xff\xff\xff")),
        )
    )


def _nested(depth: int, rng: Random) -> bytes:
    """A sequence in a sequence in a sequence, closed or not."""
    opening = _SEQUENCE + b"SQ\0\0" + b"\xff" * 4 + _ITEM + b"\xff" * 4
    closing = _END_ITEM + bytes(4) + _END_SEQUENCE + bytes(4)
    return opening * depth + closing * (depth if rng.random() < 0.5 else 0)


def _inflated(data: bytes) -> tuple[bytes, bytes] | None:
    """The data set of a deflated file, and the bytes it was inflated from."""
    start = next(
        (each.start for each in elements(data) if data[each.start : each.start + 2] != b"\x02\x00"), None
    )
    behind = max(
        (each.end for each in elements(data) if data[each.start : each.start + 2] == b"\x02\x00"),
        default=None,
    )
    if behind is None or (start is not None and start < behind):
        return None
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[behind:], 4 * MAX_INPUT_BYTES), data[
            behind:
        ]
    except zlib.error:
        return None


def _deflated(data: bytes) -> bytes:
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _bomb(megabytes: int) -> bytes:
    """A valid element of zeros that deflates to a thousandth."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    head = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, megabytes << 20)
    first = deflater.compress(head) + deflater.flush(zlib.Z_FULL_FLUSH)
    block = deflater.compress(bytes(1 << 20)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return first + block * megabytes + deflater.flush()
