"""Where polygons cross themselves, for thousands of polygons at once."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from daemon.lint_stack import Stack

TOLERANCE_MM = 0.02
"""How far an edge must reach beyond another to cross it: rounding to 0.01 mm moves both by less.

Edges that touch or lie on each other, as the two sides of a keyhole's channel do (PS3.3 C.8.8.6.3), do not cross.
"""

_PAIRS_AT_ONCE = 2_000_000

Crossings = dict[int, tuple[int, NDArray[np.float64]]]
"""Index of a polygon to the number of its crossings and (3,) LPS mm of one of them."""


def crossings(stack: Stack) -> Crossings:
    """Find the polygons that have proper crossings between their edges."""
    if not len(stack):
        return {}
    flat = _flattened(stack)
    found: Crossings = {}
    for first, second in _candidates(flat, flat[stack.next_point], stack.owner):
        crossing = _cross(flat, stack.next_point, first, second)
        for edge in first[crossing]:
            polygon = int(stack.owner[edge])
            count, where = found.get(
                polygon, (0, (stack.points[edge] + stack.points[stack.next_point[edge]]) / 2)
            )
            found[polygon] = (count + 1, where)
    return found


def _flattened(stack: Stack) -> NDArray[np.float64]:
    """(n, 2) points without the coordinate in which their polygon is thinnest.

    The longer of the two that stay comes first: edges then overlap least in it.
    """
    order = np.argsort(stack.low_mm - stack.high_mm, axis=1)[:, :2]  # (polygons, 2), widest first
    return np.take_along_axis(stack.points, order[stack.owner], axis=1)


def _candidates(
    start: NDArray[np.float64], end: NDArray[np.float64], owner: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs of edges of one polygon whose boxes overlap, in portions.

    All polygons are laid side by side along the first axis, each in a strip of its own, and swept once.
    """
    low, high = np.minimum(start, end), np.maximum(start, end)
    width = np.ptp(np.concatenate([start[:, 0], end[:, 0]])) + 1.0
    low_x, high_x = low[:, 0] + owner * width, high[:, 0] + owner * width
    order = np.argsort(low_x, kind="stable")
    until = np.searchsorted(low_x[order], high_x[order], side="left")  # edges that begin before this one ends
    counts = np.maximum(until - np.arange(len(order)) - 1, 0)
    for begin, stop in _portions(counts):
        count = counts[begin:stop]
        first = np.repeat(np.arange(begin, stop), count)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
        a, b = order[first], order[second]
        overlap = (low[a, 1] < high[b, 1]) & (low[b, 1] < high[a, 1])
        yield a[overlap], b[overlap]


def _portions(counts: NDArray[np.intp]) -> Iterator[tuple[int, int]]:
    """Ranges of edges with at most `_PAIRS_AT_ONCE` pairs, but at least one edge each."""
    total = np.concatenate([[0], np.cumsum(counts)])
    begin = 0
    while begin < len(counts):
        stop = int(np.searchsorted(total, total[begin] + _PAIRS_AT_ONCE, side="right")) - 1
        stop = max(stop, begin + 1)
        yield begin, stop
        begin = stop


def _cross(
    points: NDArray[np.float64],
    next_point: NDArray[np.intp],
    first: NDArray[np.intp],
    second: NDArray[np.intp],
) -> NDArray[np.bool_]:
    """(pairs,) whether each edge reaches beyond the other on both sides."""
    a, b = points[first], points[next_point[first]]
    c, d = points[second], points[next_point[second]]
    return _are_apart(a, b, c, d) & _are_apart(c, d, a, b)


def _are_apart(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(pairs,) whether c and d lie on different sides of the line through a and b, clearly off it."""
    along = b - a
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-12)
    of_c = (along[:, 0] * (c - a)[:, 1] - along[:, 1] * (c - a)[:, 0]) / length
    of_d = (along[:, 0] * (d - a)[:, 1] - along[:, 1] * (d - a)[:, 0]) / length
    return (of_c * of_d < 0) & (np.minimum(np.abs(of_c), np.abs(of_d)) > TOLERANCE_MM)
