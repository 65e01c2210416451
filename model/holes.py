"""Holes in contours, for readers that take them in different ways: nested, by keyhole, or not at all."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Literal

import numpy as np
from matplotlib.path import Path as Outline
from numpy.typing import NDArray

from model.contours import Contour

HoleStyle = Literal["nested", "keyhole", "filled"]
Points = NDArray[np.float64]


def with_holes(contours: Iterable[Contour], style: HoleStyle) -> list[Contour]:
    """Write nested contours in another style.

    Parameters
    ----------
    contours
        As `trace` gives them: what lies inside an odd number of a slice's contours is inside.
    style
        "nested" changes nothing. "keyhole" joins each hole to the contour around it by a channel without width
        (PS3.3 C.8.8.6.3), which readers by parity and readers by winding both leave empty; an island within a
        hole stays a contour of its own. "filled" keeps only outermost contours.

    Returns
    -------
    list of Contour
        Ordered by slice.
    """
    listed = list(contours)
    if style == "nested":
        return listed
    by_slice = groupby(sorted(listed, key=lambda each: each.slice_index), key=lambda each: each.slice_index)
    return [
        Contour(index, points)
        for index, group in by_slice
        for points in _rewritten([each.points for each in group], style)
    ]


def _rewritten(lines: Sequence[Points], style: HoleStyle) -> list[Points]:
    around = _around(lines)
    depths = [len(outer) for outer in around]
    if style == "filled":
        return [line for line, depth in zip(lines, depths, strict=True) if depth == 0]
    joined = []
    for number, line in enumerate(lines):
        if depths[number] % 2:
            continue
        holes = [
            lines[other]
            for other, outer in enumerate(around)
            if number in outer and depths[other] == depths[number] + 1
        ]
        joined.append(_joined(line, holes))
    return joined


def _around(lines: Sequence[Points]) -> list[set[int]]:
    """Which of the lines enclose each line; no two cross."""
    outlines = [Outline(np.vstack([line, line[:1]]), closed=True) for line in lines]
    boxes = [(line.min(0), line.max(0)) for line in lines]
    return [
        {
            other
            for other, outline in enumerate(outlines)
            if other != number
            and (boxes[other][0] <= boxes[number][0]).all()
            and (boxes[other][1] >= boxes[number][1]).all()
            and outline.contains_point(line[0])
        }
        for number, line in enumerate(lines)
    ]


def _joined(outer: Points, holes: Sequence[Points]) -> Points:
    """One line around all holes.

    The nearest hole is joined first, where it is nearest: a channel that crossed anything would not be shortest.
    """
    turn = np.sign(_signed_area(outer))
    left = [hole[::-1] if np.sign(_signed_area(hole)) == turn else hole for hole in holes]
    line = outer
    while left:
        channels = [_shortest_channel(line, hole) for hole in left]
        nearest = int(np.argmin([channel[0] for channel in channels]))
        line = _with_channel(line, left.pop(nearest), channels[nearest])
    return line


_Channel = tuple[float, int, Points, int, Points]
"""Length, edge of the line and point on it, edge of the hole and point on it; an edge begins at its number."""


def _shortest_channel(line: Points, hole: Points) -> _Channel:
    """The shortest way between two lines; it starts or ends at a vertex of one of them."""
    here = _nearest(line, hole)
    there = _nearest(hole, line)
    if here[0] <= there[0]:
        length, vertex, edge, point = here
        return length, vertex, line[vertex], edge, point
    length, vertex, edge, point = there
    return length, edge, point, vertex, hole[vertex]


def _nearest(points: Points, line: Points) -> tuple[float, int, int, Points]:
    """Distance, which of the points, which edge of the closed line, and the point on it that is nearest."""
    starts, along = line, np.roll(line, -1, axis=0) - line
    offset = points[:, None] - starts  # (points, edges, 2)
    share = np.clip((offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-300), 0, 1)
    feet = starts + share[..., None] * along
    distance = np.linalg.norm(points[:, None] - feet, axis=-1)
    which, edge = np.unravel_index(int(distance.argmin()), distance.shape)
    return float(distance[which, edge]), int(which), int(edge), feet[which, edge]


def _with_channel(line: Points, hole: Points, channel: _Channel) -> Points:
    """Walk the line, the channel, the whole hole, the channel back, and on."""
    _, at, here, hole_at, there = channel
    around = np.roll(hole, -(hole_at + 1), axis=0)  # from the vertex behind the channel's end
    pieces = [line[: at + 1], here[None], there[None], around, there[None], here[None], line[at + 1 :]]
    walked = np.concatenate(pieces)
    return np.asarray(walked[(walked != np.roll(walked, 1, axis=0)).any(axis=1)])


def _signed_area(line: Points) -> float:
    ahead = np.roll(line, -1, axis=0)
    return float((line[:, 0] * ahead[:, 1] - line[:, 1] * ahead[:, 0]).sum() / 2)
