"""The data elements of an encoded data set, found by their lengths and without decoding one (PS3.5 section 7)."""

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct, unpack_from

from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

Buffer = bytes | bytearray | memoryview

UNDEFINED_LENGTH = 0xFFFFFFFF

_MAX_DEPTH = 100
"""Of sequences within items within sequences; a CT image has three or four."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_IMPLICIT = Struct("<HHL")
_EXPLICIT = Struct("<HH2sH")
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_SHORT_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_16)


class WalkError(Exception):
    """The bytes are no sequence of data elements; the message says where they stop to be."""


def walk(encoded: Buffer, *, implicit: bool) -> Iterator[tuple[int, int, int]]:
    """Yield tag, offset of the value and its length for every element of the outermost level, in their order.

    Little endian, as every transfer syntax that is taken. An explicit element without a VR is read as an implicit
    one, as some writers mix them. The value of an element of undefined length is walked over and yielded with
    that length *before* it is: who stops there need not have all of it.

    Raises
    ------
    WalkError
        An element ends beyond the data set, or a sequence is no sequence.
    """
    place, total = 0, len(encoded)
    short_vrs = frozenset() if implicit else _SHORT_VRS
    while place + 8 <= total:
        group, element, vr, length = _EXPLICIT.unpack_from(encoded, place)
        if vr in short_vrs and place + 8 + length <= total:  # as most, and every image has dozens
            yield group << 16 | element, place + 8, length
            place += 8 + length
            continue
        tag, start, length, of_items = _element(encoded, place, implicit=implicit)
        yield tag, start, length
        if length == UNDEFINED_LENGTH:
            place = _end_of_sequence(encoded, start, implicit=of_items)
        else:
            place = start + length
            if place > total:
                raise WalkError(f"the data set ends within ({tag >> 16:04X},{tag & 0xFFFF:04X})")


def _element(encoded: Buffer, place: int, *, implicit: bool) -> tuple[int, int, int, bool]:
    """Tag, offset of the value, its length, and whether items in it would be implicit."""
    if not implicit:
        group, element, vr, length = _EXPLICIT.unpack_from(encoded, place)
        tag = group << 16 | element
        if vr in _LONG_VRS:
            if place + 12 > len(encoded):
                raise WalkError(f"the data set ends within ({group:04X},{element:04X})")
            # What is unknown was copied from an implicit data set: PS3.5 section 6.2.2, note 2.
            return tag, place + 12, unpack_from("<L", encoded, place + 8)[0], vr == b"UN"
        if vr.isalpha() and vr.isupper():
            return tag, place + 8, length, False
    group, element, length = _IMPLICIT.unpack_from(encoded, place)
    return group << 16 | element, place + 8, length, True


def _end_of_sequence(encoded: Buffer, start: int, *, implicit: bool) -> int:
    """Offset behind the delimiter of a sequence of undefined length that begins at `start`; never recursive."""
    levels = [_Level(implicit)]
    place = start
    while levels:
        if place + 8 > len(encoded):
            raise WalkError("the data set ends within a sequence")
        level = levels[-1]
        group, element, length = _IMPLICIT.unpack_from(encoded, place)
        tag = group << 16 | element
        if level.in_item and tag != _ITEM_END:
            _, place, length, of_items = _element(encoded, place, implicit=level.implicit)
            if length == UNDEFINED_LENGTH:
                levels.append(_Level(of_items))
                if len(levels) > _MAX_DEPTH:
                    raise WalkError(f"sequences are nested more than {_MAX_DEPTH} deep")
                continue
        elif level.in_item:
            place, length, level.in_item = place + 8, 0, False
        elif tag == _ITEM:
            place, level.in_item = place + 8, length == UNDEFINED_LENGTH
        elif tag == _SEQUENCE_END:
            place, length = place + 8, 0
            levels.pop()
        else:
            raise WalkError(f"({group:04X},{element:04X}) stands where an item of a sequence should")
        if length != UNDEFINED_LENGTH:
            place += length
    return place


@dataclass
class _Level:
    """An open sequence of undefined length: are its items implicit, and is one of undefined length open."""

    implicit: bool
    in_item: bool = False
