"""Contour Data (3006,0050) of anybody's structure set: its numbers, and what is wrong with them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

MAX_DECIMAL_STRING = 16
"""Characters of one value of VR DS (PS3.5 6.2)."""

_CONTOUR_DATA = Tag("ContourData")
_FRACTIONS = re.compile(rb"\.([0-9]+)")
_DECIMAL_CHARACTERS = b"0123456789+-.eE \\"


@dataclass(frozen=True, eq=False)
class Coordinates:
    """What the Contour Data of one contour holds.

    Parameters
    ----------
    vr
        As the file says it; empty in implicit VR.
    encoded
        As in the file.
    values
        All numbers, as many as there are; empty where one of them is broken.
    longest
        Characters of the longest decimal string.
    broken
        The first value that is no decimal string, in words; empty if all are.
    """

    vr: str
    encoded: bytes
    values: NDArray[np.float64]
    longest: int = 0
    broken: str = ""

    @property
    def points(self) -> NDArray[np.float64]:
        """(n, 3) LPS mm; empty if the numbers are not three for each point."""
        return self.values.reshape(-1, 3) if len(self.values) % 3 == 0 else np.empty((0, 3))

    @cached_property
    def decimals(self) -> int:
        """Most digits after a decimal point."""
        return max(map(len, _FRACTIONS.findall(self.encoded)), default=0)


def coordinates_of(contour: Dataset) -> Coordinates:
    """Decode the bytes as they stand in the file; DS objects for millions of numbers would take minutes."""
    if _CONTOUR_DATA not in contour:
        return Coordinates("", b"", np.empty(0))
    element = contour.get_item(_CONTOUR_DATA)
    # Typed as bytes, but a data set made in memory holds numbers here.
    value: Any = element.value
    if isinstance(value, bytes):
        return _decoded(element.VR or "", value)
    parts = value if isinstance(value, MultiValue) else [value]
    text = "\\".join("" if each is None else str(each) for each in parts)
    return _decoded("", text.encode("utf-8", "replace"))


def _decoded(vr: str, encoded: bytes) -> Coordinates:
    is_padded = encoded.endswith(b" ") and len(encoded) % 2 == 0
    strings = (encoded[:-1] if is_padded else encoded).split(b"\\")
    if strings == [b""]:
        return Coordinates(vr, encoded, np.empty(0))
    longest = max(map(len, strings))
    values = _numbers(encoded, strings)
    if values is None:
        return Coordinates(vr, encoded, np.empty(0), longest, _first_broken(strings))
    return Coordinates(vr, encoded, values, longest)


def _numbers(encoded: bytes, strings: Sequence[bytes]) -> NDArray[np.float64] | None:
    """All values, or None if one of them is no finite decimal string."""
    if encoded.translate(None, _DECIMAL_CHARACTERS):
        return None
    try:
        values = np.array(list(map(float, strings)))
    except ValueError:
        return None
    return values if np.isfinite(values).all() else None


def _first_broken(strings: Sequence[bytes]) -> str:
    broken = ((n, each) for n, each in enumerate(strings, start=1) if _numbers(each, [each]) is None)
    number, string = next(broken)
    return f"value {number} is {string[: 2 * MAX_DECIMAL_STRING].decode('ascii', 'replace')!r}"
