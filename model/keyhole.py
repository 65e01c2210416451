"""How holes are written: nested, joined to the outer contour by a channel without width, or not at all."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from model.contours import Contour

Points = NDArray[np.float64]

STYLES = ("nested", "keyhole", "filled")


def with_holes(contours: Sequence[Contour], style: str) -> list[Contour]:
    """Write the holes of nested contours in another style.

    Parameters
    ----------
    contours
        Of one structure, nested as `trace` makes them: none crosses another, and what lies inside an odd number is
        inside.
    style
        `nested`: as they are, for readers that count contours.
        `keyhole`: outer and inner contours in one, joined by channels without width (PS3.3 C.8.8.6.3). Right for
        every reader: those that count contours, those that unite them, those that count turns.
        `filled`: outer contours only, without islands inside holes; `count_holes` says what is lost.

    Returns
    -------
    list of Contour
        Ordered by slice.

    Raises
    ------
    ValueError
        Another style.
    """
    if style not in STYLES:
        raise ValueError(f"{style!r} is no style of holes; there are {', '.join(STYLES)}")
    if style == "nested":
        return list(contours)
    written: list[Contour] = []
    for _, group in groupby(sorted(contours, key=lambda c: c.slice_index), key=lambda c: c.slice_index):
        on_slice = list(group)
        written += _joined(on_slice) if style == "keyhole" else _outermost(on_slice)
    return written


def count_holes(contours: Sequence[Contour]) -> int:
    """How many of nested contours are holes: those inside an odd number of others."""
    by_slice = groupby(sorted(contours, key=lambda c: c.slice_index), key=lambda c: c.slice_index)
    return sum(int((_depths(_nesting(list(group))) % 2).sum()) for _, group in by_slice)


def _outermost(contours: list[Contour]) -> list[Contour]:
    return [each for each, depth in zip(contours, _depths(_nesting(contours)), strict=True) if depth == 0]


def _joined(contours: list[Contour]) -> list[Contour]:
    """Every contour of even depth with the holes directly inside it."""
    inside = _nesting(contours)
    depths = _depths(inside)
    joined = []
    for index, outer in enumerate(contours):
        if depths[index] % 2 == 0:
            holes = np.flatnonzero(inside[:, index] & (depths == depths[index] + 1))
            rings = [contours[hole].points for hole in holes]
            joined.append(replace(outer, points=_keyhole(outer.points, rings)) if rings else outer)
    return joined


def _nesting(contours: list[Contour]) -> NDArray[np.bool_]:
    """(n, n) whether the first lies inside the second; as none cross, one vertex tells."""
    inside = np.zeros((len(contours), len(contours)), dtype=bool)
    if len(contours) == 1:
        return inside
    low = np.array([each.points.min(axis=0) for each in contours])
    high = np.array([each.points.max(axis=0) for each in contours])
    may = ((low[:, None] > low) & (high[:, None] < high)).all(axis=2)
    for first, second in np.argwhere(may):
        inside[first, second] = _contains(contours[second].points, contours[first].points[0])
    return inside


def _depths(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) in how many others each lies."""
    return np.asarray(inside.sum(axis=1), dtype=np.int64)


def _contains(polygon: Points, point: Points) -> bool:
    start, end = polygon, np.roll(polygon, -1, axis=0)
    spans = (start[:, 0] <= point[0]) != (end[:, 0] <= point[0])
    start, end = start[spans], end[spans]
    at = start[:, 1] + (point[0] - start[:, 0]) / (end[:, 0] - start[:, 0]) * (end[:, 1] - start[:, 1])
    return bool(np.count_nonzero(at > point[1]) % 2)


def _keyhole(outer: Points, holes: list[Points]) -> Points:
    """One polygon of an outer contour and its holes, the nearest joined first.

    Holes run against the outer contour, so that readers that count turns find none inside a hole.
    """
    outer_turn = _signed_area(outer)
    waiting = [hole if _signed_area(hole) * outer_turn < 0 else hole[::-1] for hole in holes]
    joined = outer
    while waiting:
        walls = [joined, *waiting]
        index, at_hole, at_joined = _channel(joined, waiting, walls)
        hole = np.roll(waiting.pop(index), -at_hole, axis=0)
        joined = np.concatenate([joined[: at_joined + 1], hole, hole[:1], joined[at_joined:]])
    return joined


def _channel(joined: Points, holes: list[Points], walls: list[Points]) -> tuple[int, int, int]:
    """Hole, its vertex and the vertex of the joined contour between which the shortest channel meets no wall."""
    start = np.concatenate(walls)
    end = np.concatenate([np.roll(wall, -1, axis=0) for wall in walls])
    vertices = np.concatenate(holes)
    owner = np.repeat(np.arange(len(holes)), [len(hole) for hole in holes])
    first = np.cumsum([0, *(len(hole) for hole in holes)])
    squared = ((vertices[:, None] - joined) ** 2).sum(axis=2)
    for flat in np.argsort(squared, axis=None, kind="stable"):
        at_vertex, at_joined = np.unravel_index(flat, squared.shape)
        if not _meets(vertices[at_vertex], joined[at_joined], start, end):
            index = int(owner[at_vertex])
            return index, int(at_vertex - first[index]), int(at_joined)
    raise ValueError("a hole cannot be reached from its outer contour: contours cross each other")


def _meets(a: Points, b: Points, start: Points, end: Points) -> bool:
    """Whether the way from a to b crosses or touches any edge, edges that begin or end at a or b apart."""
    own = np.zeros(len(start), dtype=bool)
    for point in (a, b):
        own |= (start == point).all(axis=1) | (end == point).all(axis=1)
    start, end = start[~own], end[~own]
    edge, way = end - start, b - a
    of_a, of_b = _cross(edge, a - start), _cross(edge, b - start)
    of_start, of_end = _cross(way, start - a), _cross(way, end - a)
    return bool(((of_a * of_b <= 0) & (of_start * of_end <= 0)).any())


def _signed_area(points: Points) -> float:
    return float(_cross(points, np.roll(points, -1, axis=0)).sum()) / 2


def _cross(a: Points, b: Points) -> Points:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])
