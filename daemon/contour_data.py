"""Contour Data (3006,0050) of one polygon: to the bytes of its decimal strings and back."""

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.contours import Contour
from model.geometry import SliceGrid

MAX_VALUE_BYTES = 65534
"""Longest value that explicit VR can hold in a DS element (PS3.5 7.1.2): its length field has 16 bits.

Our files are implicit VR, but a peer that converts them would write a longer value as UN: a lost contour.
"""

DECIMALS = 2
"""Coordinates are written to 0.01 mm, as planning systems do."""

ROUNDING_MM = 0.5 * 10**-DECIMALS
"""How far each may be off by that."""

MAX_DECIMALS = 6
"""Oncentra and IHE-RO's reference write so many; none needs more."""

_DECIMAL_STRING = re.compile(rb" *[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)? *")
_MAX_DECIMAL_STRING = 16


def encode_contour(
    contour: Contour, grid: SliceGrid, decimals: int = DECIMALS, max_points: int | None = None
) -> bytes:
    """Patient x, y, z of every vertex, padded to even length, never over `MAX_VALUE_BYTES`.

    A contour too long for that, or of more than `max_points`, loses the vertices that matter least.
    Splitting it instead would show planning systems two outlines with an edge that is not there.

    Parameters
    ----------
    decimals
        Of a coordinate in mm, 1 to 6: without any, a contour about one voxel may shrink to a point.
    max_points
        3 at least; without it, as many as fit.

    Raises
    ------
    ValueError
        Other decimals or points.
    """
    _require(decimals, max_points)
    points = contour.points if max_points is None else simplified(contour.points, max_points)
    while len(value := _encoded(grid.to_patient(contour.slice_index, points), decimals)) > MAX_VALUE_BYTES:
        points = simplified(points, len(points) * MAX_VALUE_BYTES // len(value))
    return value


def encode_contours(
    contours: Sequence[Contour], grid: SliceGrid, decimals: int = DECIMALS, max_points: int | None = None
) -> list[bytes]:
    """Encode every contour as `encode_contour` does one, all coordinates at once."""
    if not contours:
        return []
    _require(decimals, max_points)
    lines = [each.points if max_points is None else simplified(each.points, max_points) for each in contours]
    counts = np.array([len(each) for each in lines])
    slices = np.repeat([each.slice_index for each in contours], counts)
    rounded = _rounded(grid.to_patient(slices, np.concatenate(lines)), decimals)
    stops = np.cumsum(counts)
    starts = stops - counts
    before = np.roll(rounded, 1, axis=0)
    before[starts] = rounded[stops - 1]
    is_distinct = (rounded != before).any(axis=1)
    left = np.add.reduceat(is_distinct.astype(np.int64), starts)
    return [
        value if len(value) <= MAX_VALUE_BYTES else encode_contour(contour, grid, decimals, max_points)
        for contour, value in zip(contours, _texts(rounded[is_distinct], left, decimals), strict=True)
    ]


def count_points(value: bytes) -> int:
    """Number of Contour Points of an encoded value."""
    return (value.count(b"\\") + 1) // 3


def decode_points(value: bytes) -> NDArray[np.float64]:
    """(n, 3) LPS mm.

    Raises
    ------
    ValueError
        A value that is no decimal string of at most 16 characters (PS3.5 6.2), or not three for each point.
    """
    strings = value.split(b"\\")
    for string in strings:
        if len(string) > _MAX_DECIMAL_STRING or not _DECIMAL_STRING.fullmatch(string):
            shown = string.decode("ascii", "replace")
            raise ValueError(f"{shown!r} is no decimal string of at most {_MAX_DECIMAL_STRING} characters")
    if len(strings) % 3:
        raise ValueError(f"{len(strings)} coordinates are not three for each point")
    return np.array(list(map(float, strings))).reshape(-1, 3)


def _encoded(points_mm: NDArray[np.float64], decimals: int) -> bytes:
    """Decimal strings of (n, 3) points, without points that rounding made equal to the one before."""
    rounded = _rounded(points_mm, decimals)
    distinct = rounded[(rounded != np.roll(rounded, 1, axis=0)).any(axis=1)]
    return _texts(distinct, np.array([len(distinct)]), decimals)[0]


def _require(decimals: int, max_points: int | None) -> None:
    if not 1 <= decimals <= MAX_DECIMALS or (max_points is not None and max_points < 3):
        raise ValueError(
            f"{decimals} decimals and {max_points} points; needed are 1 to {MAX_DECIMALS} decimals and 3 points"
        )


def _rounded(points_mm: NDArray[np.float64], decimals: int) -> NDArray[np.float64]:
    return np.round(points_mm, decimals) + 0.0  # + 0.0 turns -0.00 into 0.00


def _texts(rounded: NDArray[np.float64], counts: NDArray[np.int64], decimals: int) -> list[bytes]:
    """Decimal strings of (n, 3) points of several contours, each contour's padded to even length.

    All digits at once: to format number by number would take longer than all that is traced.

    Parameters
    ----------
    counts
        (contours,) points of each.
    """
    units = np.rint(rounded.ravel() * 10**decimals).astype(np.int64)
    stops = 3 * np.cumsum(counts)
    before_point = len(str(np.abs(units).max(initial=0) // 10**decimals))
    size = (len(units), 2 + before_point + 1 + decimals)  # separator, sign, digits, point, decimals
    text, is_written = np.empty(size, dtype=np.uint8), np.ones(size, dtype=bool)
    text[:, :2] = tuple(b"\\-")
    text[:, -1 - decimals] = ord(".")
    is_written[stops[:-1], 0] = is_written[:1, 0] = False
    is_written[:, 1] = units < 0
    left = np.abs(units)
    for place in range(decimals + before_point):
        column = -1 - place - (place >= decimals)
        if place > decimals:
            is_written[:, column] = left > 0
        rest = left // 10
        text[:, column] = left - 10 * rest + ord("0")
        left = rest
    lengths = np.cumsum(np.count_nonzero(is_written, axis=1))
    whole = text[is_written].tobytes()
    ends = [0, *lengths[stops - 1].tolist()] if len(units) else [0] * (len(counts) + 1)
    values = [whole[start:end] for start, end in pairwise(ends)]
    return [value + b" " * (len(value) % 2) for value in values]


def simplified(points: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """At most `count` of (n, 2) vertices of a closed polygon, without those that span the smallest triangles.

    What changes is exactly the triangle between a vertex and its two neighbours, far less than a voxel where
    vertices stand as close as those of a traced mask (Visvalingam and Whyatt 1993, taken in passes).
    Vertices that stand twice are the ends of a keyhole's channel, and stay: it must remain without width.
    """
    first = 0
    while len(points) > count:
        fixed = _repeated(points)
        if np.count_nonzero(~fixed) <= len(points) - count:
            fixed[:] = False
        ahead, behind = np.roll(points, -1, axis=0) - points, points - np.roll(points, 1, axis=0)
        doubled_area = np.abs(behind[:, 0] * ahead[:, 1] - behind[:, 1] * ahead[:, 0])
        # No two neighbours in one pass: the second's triangle would no longer be the one that was measured.
        candidates = np.arange(first, len(points) - 1, 2)
        candidates = candidates[~fixed[candidates]]
        smallest = candidates[np.argsort(doubled_area[candidates], kind="stable")]
        points = np.delete(points, smallest[: min(len(points) - count, len(candidates) // 4 + 1)], axis=0)
        first = 1 - first
    return points


def _repeated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) whether a vertex of (n, 2) stands at the very place of another."""
    _, index, counts = np.unique(points, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(counts[index.ravel()] > 1)
