"""Outlines along voxel edges, redrawn as a hand draws them: smooth, few points, the same voxels inside.

An outline crosses the way from every voxel inside to its neighbours outside. Where on that way is not known, and
that is all the freedom taken here: each vertex slides between the two voxel centres, the line bends as
little as it can, and encloses the area of its voxels. No line can then leave out a voxel, take one in, cross
another or itself, however small an island or thin a wall.

All lines of all structures are drawn together, in arrays with one number for each vertex.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve_banded, cholesky_banded

from model.outlines import Outlines

Values = NDArray[np.float64]
Indices = NDArray[np.int64]
_Number = TypeVar("_Number", bound=np.generic)

STEPS, PULL, OVERSHOOT = 6, 0.05, 1.6
"""Of the descent; with more steps no line came out straighter."""

ROOM = 0.1
"""How near to a voxel centre, in voxels, a vertex may slide."""

CLEARANCE = 0.04
"""How near to it the simplified line may pass: above what rounding to 0.01 mm moves a point."""

_BEYOND_MM = 1e3


def smoothed(
    outlines: Outlines, pixel_spacing_mm: tuple[float, float], tolerance_mm: float
) -> list[NDArray[np.float64]]:
    """Redraw outlines as smooth lines of few points.

    Parameters
    ----------
    pixel_spacing_mm
        (between rows, between columns).
    tolerance_mm
        A vertex of the smooth line is left out where it lies no further than this from what remains.

    Returns
    -------
    list of (m, 2) arrays, row and column, in the order of the outlines; at least three points each.
    """
    if not len(outlines.starts):
        return []
    rings = _Rings.of(outlines, pixel_spacing_mm)
    shares = _least_bent(rings)
    kept = _simplified(rings, shares, tolerance_mm)
    # Chords cut off bends: what that takes from the area is given back, or small organs would be drawn too small.
    shares = _with_area(rings, shares, kept)
    kept = _simplified(rings, shares, tolerance_mm, kept)
    counts = np.add.reduceat(kept.astype(np.int64), rings.starts)
    y, x = (each[kept] for each in rings.points_mm(shares))
    points = np.stack([y / pixel_spacing_mm[0], x / pixel_spacing_mm[1]], axis=1)  # (kept, 2)
    return np.split(points, np.cumsum(counts)[:-1])


@dataclass(frozen=True, eq=False)
class _Rings:
    """Closed lines one after another: a vertex lies at ``(y + share * dy, x + share * dx)``, share from 0 to 1.

    x and y are columns and rows in mm; (y, x) is the voxel centre inside, (dy, dx) the way to the one outside.
    """

    y: Values
    x: Values
    dy: Values
    dx: Values
    most: Values  # (n,) the largest share: less where the neighbour lies outside the image
    pixel_mm: tuple[float, float]
    starts: Indices  # (rings,) first vertex of each
    stops: Indices  # (rings,) the one after its last

    @classmethod
    def of(cls, outlines: Outlines, pixel_mm: tuple[float, float]) -> "_Rings":
        row, column = outlines.rows + outlines.row_steps, outlines.columns + outlines.column_steps
        leaves = (row < 0) | (row >= outlines.size[0]) | (column < 0) | (column >= outlines.size[1])
        row_mm, column_mm = np.float64(pixel_mm[0]), np.float64(pixel_mm[1])
        return cls(
            outlines.rows * row_mm,
            outlines.columns * column_mm,
            outlines.row_steps * row_mm,
            outlines.column_steps * column_mm,
            np.where(leaves, 0.5, 1.0),
            pixel_mm,
            outlines.starts,
            outlines.starts + outlines.counts,
        )

    @cached_property
    def ring(self) -> Indices:
        """(n,) which line a vertex belongs to."""
        return np.repeat(np.arange(len(self.starts)), self.stops - self.starts)

    def before(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """(n,) of each vertex's previous one."""
        shifted = np.empty_like(values)
        shifted[1:] = values[:-1]
        shifted[self.starts] = values[self.stops - 1]
        return shifted

    def after(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """(n,) of each vertex's next one."""
        shifted = np.empty_like(values)
        shifted[:-1] = values[1:]
        shifted[self.stops - 1] = values[self.starts]
        return shifted

    def sums(self, values: Values) -> Values:
        """(rings,) over the vertices of each."""
        return np.asarray(np.add.reduceat(values, self.starts), dtype=np.float64)

    @cached_property
    def voxel_area_mm2(self) -> Values:
        """(rings,) of the voxels within, less than 0 for a hole: a vertex stands for the voxel edge on its way."""
        return self.sums((self.x + self.dx / 2) * np.sign(self.dx)) * self.pixel_mm[0]

    @cached_property
    def room(self) -> tuple[float, Values]:
        """Least and (n,) largest share to which a vertex may slide."""
        return ROOM, np.where(self.most < 1, self.most, 1 - ROOM)

    def in_room(self, shares: Values) -> Values:
        """Clip shares to where vertices may slide."""
        return np.minimum(np.maximum(shares, self.room[0]), self.room[1])

    def points_mm(self, shares: Values | float) -> tuple[Values, Values]:
        """(n,) y and (n,) x."""
        return self.y + shares * self.dy, self.x + shares * self.dx


def _least_bent(rings: _Rings) -> Values:
    """(n,) shares of the line that turns as little as it can, by ADMM (Boyd 2011, 3.1 and 3.4.3).

    Two copies of the line in turn: one bends as little as it can, the other keeps to its room and its area; both
    are drawn towards each other.
    """
    bending = _Bending.of(rings)
    bent_least = _Solver(rings, bending)
    at_rest = bending.transposed(rings, bending.at_rest)
    within = np.full(len(rings.y), 0.5)
    apart = np.zeros_like(within)
    for number in range(STEPS):
        straight = bent_least.solve(PULL * (within - apart) - at_rest)
        straight = OVERSHOOT * straight + (1 - OVERSHOOT) * within
        within = rings.in_room(straight + apart)
        if number % 4 == 0:
            within = _with_area(rings, within)
        apart += straight - within
    return _with_area(rings, within)


@dataclass(frozen=True, eq=False)
class _Bending:
    """How far each vertex lies off the chord between its neighbours, in pixels.

    It is ``own * share + before * share before + after * share after + at_rest``.
    Measured across the line, so that uneven steps along it do not count: on a straight line all is 0.
    """

    own: Values
    before: Values
    after: Values
    at_rest: Values

    @classmethod
    def of(cls, rings: _Rings) -> "_Bending":
        y, x = rings.points_mm(0.5)
        along_y, along_x = (
            rings.after(each) - rings.before(each) for each in (_blurred(rings, y), _blurred(rings, x))
        )
        length = (np.hypot(along_y, along_x) + 1e-9) * max(rings.pixel_mm)
        across_y, across_x = -along_x / length, along_y / length
        to_before = np.hypot(y - rings.before(y), x - rings.before(x))
        to_after = rings.after(to_before)
        nearness = to_after / (to_before + to_after)
        terms = []
        at_rest = np.zeros_like(y)
        for of_vertex, weight in ((np.asarray, 1.0), (rings.before, -nearness), (rings.after, nearness - 1)):
            terms.append(weight * (across_y * of_vertex(rings.dy) + across_x * of_vertex(rings.dx)))
            at_rest += weight * (across_y * of_vertex(rings.y) + across_x * of_vertex(rings.x))
        return cls(terms[0], terms[1], terms[2], at_rest)

    def transposed(self, rings: _Rings, values: Values) -> Values:
        """(n,) product of the transposed matrix with values."""
        return self.own * values + rings.after(self.before * values) + rings.before(self.after * values)


def _blurred(rings: _Rings, values: Values) -> Values:
    for _ in range(8):
        values = values / 2 + (rings.before(values) + rings.after(values)) / 4
    return values


class _Solver:
    """Least squares of bending, with a pull: a matrix with two neighbours on either side, around every ring.

    Each ring is folded, first vertex, last, second, last but one, and so on: neighbours around the ring then stand
    at most two places apart, also where it closes, and the matrix has four diagonals above its main one.
    """

    def __init__(self, rings: _Rings, bending: _Bending) -> None:
        self._place = _folded(rings)
        own, before, after = bending.own, bending.before, bending.after
        itself = np.arange(len(own))
        following = rings.after(itself)
        squares = own**2 + rings.after(before**2) + rings.before(after**2) + PULL
        next_ones = own * after + rings.after(before * own)
        next_but_one = rings.after(before * after)
        band = np.zeros((5, len(own)))
        band[4, self._place] = squares
        for values, other in ((next_ones, following), (next_but_one, following[following])):
            places = self._place, self._place[other]
            low, high = np.minimum(*places), np.maximum(*places)
            # Around a ring of four both neighbours but one are the same vertex, and both count.
            np.add.at(band, (4 + low - high, high), values)
        self._factor = cholesky_banded(band, overwrite_ab=True, check_finite=False)

    def solve(self, right: Values) -> Values:
        """(n,) shares."""
        folded = np.empty_like(right)
        folded[self._place] = right
        solved = cho_solve_banded((self._factor, False), folded, overwrite_b=True, check_finite=False)
        return np.asarray(solved[self._place], dtype=np.float64)


def _folded(rings: _Rings) -> Indices:
    """(n,) the place of each vertex when every ring is folded."""
    start = rings.starts[rings.ring]
    count = (rings.stops - rings.starts)[rings.ring]
    number = np.arange(len(rings.y)) - start
    return start + np.where(number < (count + 1) // 2, 2 * number, 2 * (count - number) - 1)


def _with_area(rings: _Rings, shares: Values, kept: NDArray[np.bool_] | None = None) -> Values:
    """Shift lines outward or inward until they, or their kept vertices, enclose the area of their voxels.

    Where a line has no room left it stays, so the area of a hole of one voxel in a thin wall may fall short.
    """
    y, x = rings.points_mm(shares)
    chord_y, chord_x = rings.after(y) - rings.before(y), rings.after(x) - rings.before(x)
    length = np.hypot(chord_y, chord_x) / 2 + 1e-9
    gain = (rings.dx * chord_y - rings.dy * chord_x) / 2
    # How far to slide for a shift of 1 mm across the line; less where a vertex slides nearly along it.
    slide = 1 / np.maximum(gain / length, min(rings.pixel_mm) / 2)
    missing = rings.voxel_area_mm2 - _area_mm2(rings, y, x, kept)
    shift = missing / np.maximum(rings.sums(gain * slide), 1e-9)
    return rings.in_room(shares + shift[rings.ring] * slide)


def _area_mm2(rings: _Rings, y: Values, x: Values, kept: NDArray[np.bool_] | None) -> Values:
    """(rings,) by the shoelace formula, of the kept vertices only; less than 0 for a hole."""
    if kept is None:
        return rings.sums(rings.after(y) * x - y * rings.after(x)) / 2
    counts = np.add.reduceat(kept.astype(np.int64), rings.starts)
    stops = np.cumsum(counts)
    starts = stops - counts
    y, x = y[kept], x[kept]
    next_y, next_x = np.roll(y, -1), np.roll(x, -1)
    next_y[stops - 1], next_x[stops - 1] = y[starts], x[starts]
    return np.asarray(np.add.reduceat(next_y * x - y * next_x, starts) / 2)


def _simplified(
    rings: _Rings, shares: Values, tolerance_mm: float, kept: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """(n,) which vertices to keep (Ramer 1972, Douglas and Peucker 1973; all lines at once, chord by chord).

    A chord must pass the ways of all vertices it replaces, clear of the voxel centres at their ends.

    Parameters
    ----------
    kept
        To keep in any case, with the first of each line among them; without it, only those.
    """
    points = rings.points_mm(shares)
    if kept is None:
        kept = np.zeros(len(shares), dtype=bool)
        kept[rings.starts] = True
    else:
        kept = kept.copy()
    chords = _Chords.between(rings, kept)
    while len(chords.vertices):
        distance = chords.distances_mm(points)
        worst = chords.most(distance)
        is_near = worst <= tolerance_mm
        # Only a chord that is near enough needs to be looked at closer; others are split whatever it shows.
        near = np.flatnonzero(is_near[chords.chord])
        misses = near[~chords.passes(rings, points, near)]
        distance[misses] += _BEYOND_MM
        worst[is_near] = 0
        np.maximum.at(worst, chords.chord[misses], distance[misses])
        is_split = worst > 0
        is_worst = np.flatnonzero((distance == worst[chords.chord]) & is_split[chords.chord])
        split = is_worst[np.flatnonzero(np.diff(chords.chord[is_worst], prepend=-1))]
        kept[chords.vertices[split]] = True
        chords = chords.split_at(split)
    return kept


@dataclass(frozen=True, eq=False)
class _Chords:
    """Vertices that are left out as yet, and the kept ones before and after each."""

    vertices: Indices  # (n,) ascending
    first: Indices  # (n,)
    last: Indices  # (n,)

    @classmethod
    def between(cls, rings: _Rings, kept: NDArray[np.bool_]) -> "_Chords":
        vertices, places = np.flatnonzero(~kept), np.flatnonzero(kept)
        chord = np.searchsorted(places, vertices) - 1
        following = np.append(places[1:], len(kept))[chord]
        ring = rings.ring[vertices]
        return cls(
            vertices, places[chord], np.where(following < rings.stops[ring], following, rings.starts[ring])
        )

    @cached_property
    def starts(self) -> Indices:
        """(chords,) the first vertex of each that replaces any."""
        return np.flatnonzero(np.diff(self.first, prepend=-1))

    @cached_property
    def chord(self) -> Indices:
        """(n,) by which chord each is replaced."""
        return np.repeat(np.arange(len(self.starts)), np.diff(np.append(self.starts, len(self.first))))

    def most(self, values: Values) -> Values:
        """(chords,) the largest value of each."""
        return np.asarray(np.maximum.reduceat(values, self.starts), dtype=np.float64)

    def distances_mm(self, points: tuple[Values, Values]) -> Values:
        """(n,) from each vertex to its chord."""
        y, x = points
        start_y, start_x = y[self.first], x[self.first]
        chord_y, chord_x = y[self.last] - start_y, x[self.last] - start_x
        off_y, off_x = y[self.vertices] - start_y, x[self.vertices] - start_x
        share = (off_y * chord_y + off_x * chord_x) / np.maximum(chord_y**2 + chord_x**2, 1e-12)
        share = np.minimum(np.maximum(share, 0), 1)
        return np.sqrt((off_y - share * chord_y) ** 2 + (off_x - share * chord_x) ** 2)

    def passes(self, rings: _Rings, points: tuple[Values, Values], which: Indices) -> NDArray[np.bool_]:
        """(which,) whether its chord passes a vertex's way from voxel centre to voxel centre, clear of both."""
        y, x = points
        vertices, first, last = self.vertices[which], self.first[which], self.last[which]
        chord_y, chord_x = y[last] - y[first], x[last] - x[first]
        dy, dx = rings.dy[vertices], rings.dx[vertices]
        turn = dy * chord_x - dx * chord_y
        turn[np.abs(turn) < 1e-9] = np.inf  # a chord along the way does not pass it
        to_y, to_x = y[first] - rings.y[vertices], x[first] - rings.x[vertices]
        crossing = (to_y * chord_x - to_x * chord_y) / turn  # share of the way
        along = (to_y * dx - to_x * dy) / turn  # share of the chord
        most = rings.most[vertices]
        furthest = np.where(most < 1, most + 1e-9, 1 - CLEARANCE)
        clears = (crossing >= CLEARANCE) & (crossing <= furthest)
        return clears & (along >= 0) & (along <= 1)

    def split_at(self, split: Indices) -> "_Chords":
        """The chords of some vertices in two, without those vertices; the others are settled."""
        at = np.full(len(self.starts), -1)
        at[self.chord[split]] = self.vertices[split]
        at = at[self.chord]
        is_open = (at >= 0) & (at != self.vertices)
        vertices, first, last, at = (each[is_open] for each in (self.vertices, self.first, self.last, at))
        is_later = vertices > at
        return _Chords(vertices, np.where(is_later, at, first), np.where(is_later, last, at))
