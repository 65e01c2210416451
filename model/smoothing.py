"""Outlines along voxel edges, redrawn as a hand draws them: smooth, few points, the same voxels inside.

An outline crosses the way from every voxel inside to its neighbours outside. Where on that way is not known, and
that is all the freedom taken here: each vertex slides between the two voxel centres, the line bends as
little as it can, and encloses the area of its voxels. No line can then leave out a voxel, take one in, cross
another or itself, however small an island or thin a wall.

Many lines of many structures are drawn together, in arrays with one number for each vertex.
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
Places = NDArray[np.complex128]
_Number = TypeVar("_Number", bound=np.generic)

STEPS, PULL, OVERSHOOT = 6, 0.05, 1.6
"""Of the descent; with more steps no line came out straighter."""

ROOM = 0.1
"""How near to a voxel centre, in voxels, a vertex may slide."""

CLEARANCE = 0.04
"""How near to it the simplified line may pass: above what rounding to 0.01 mm moves a point."""

PORTION = 40_000
"""Vertices that are drawn together: the more, the fewer calls, but so many stay in a processor's cache."""

_BEYOND_MM2 = 1e8
"""More than any square of a distance."""

_SETTLED = -1.0
"""Less than any."""


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
    return [
        line
        for portion in outlines.portions(PORTION)
        for line in _smoothed_portion(portion, pixel_spacing_mm, tolerance_mm)
    ]


def _smoothed_portion(
    outlines: Outlines, pixel_spacing_mm: tuple[float, float], tolerance_mm: float
) -> list[NDArray[np.float64]]:
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
    def centres(self) -> Places:
        """(n,) voxel centres inside."""
        return _as_complex(self.y, self.x)

    @cached_property
    def ways(self) -> Places:
        """(n,) to the voxel centres outside."""
        return _as_complex(self.dy, self.dx)

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
        length = (np.sqrt(along_y**2 + along_x**2) + 1e-9) * max(rings.pixel_mm)
        across_y, across_x = -along_x / length, along_y / length
        to_before = np.sqrt((y - rings.before(y)) ** 2 + (x - rings.before(x)) ** 2)
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
        around = rings.before(values)
        around += rings.after(values)
        around /= 2
        around += values
        around /= 2
        values = around
    return values


class _Solver:
    """Least squares of bending, with a pull: a matrix with two neighbours on either side, around every ring.

    Each ring is folded, first vertex, last, second, last but one, and so on: neighbours around the ring then stand
    at most two places apart, also where it closes, and the matrix has four diagonals below its main one.
    """

    def __init__(self, rings: _Rings, bending: _Bending) -> None:
        self._place = _folded(rings)
        own, before, after = bending.own, bending.before, bending.after
        itself = np.arange(len(own))
        following = rings.after(itself)
        squares = own**2 + rings.after(before**2) + rings.before(after**2) + PULL
        next_ones = own * after + rings.after(before * own)
        next_but_one = rings.after(before * after)
        below, along = [np.zeros_like(itself)], [self._place]
        for other in (following, following[following]):
            places = self._place, self._place[other]
            low, high = np.minimum(*places), np.maximum(*places)
            below.append(high - low)
            along.append(low)
        # Around a ring of four both neighbours but one are the same vertex, and both count.
        entries = np.concatenate(below) * len(own) + np.concatenate(along)
        band = np.bincount(entries, np.concatenate([squares, next_ones, next_but_one]), 5 * len(own))
        self._factor = cholesky_banded(band.reshape(5, -1), overwrite_ab=True, lower=True, check_finite=False)

    def solve(self, right: Values) -> Values:
        """(n,) shares."""
        folded = np.empty_like(right)
        folded[self._place] = right
        solved = cho_solve_banded((self._factor, True), folded, overwrite_b=True, check_finite=False)
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
    length = np.sqrt(chord_y**2 + chord_x**2) / 2 + 1e-9
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
    points = _as_complex(*rings.points_mm(shares))
    if kept is None:
        kept = np.zeros(len(shares), dtype=bool)
        kept[rings.starts] = True
    else:
        kept = kept.copy()
    chords = _Chords.between(rings, kept)
    while len(chords.vertices):
        distance = chords.squared_distances_mm2(points)
        worst = np.maximum.reduceat(distance, chords.starts)
        is_near = worst <= tolerance_mm**2
        worst[is_near] = _SETTLED
        # Only a chord that is near enough needs to be looked at closer; others are split whatever it shows.
        near = np.flatnonzero(chords.spread(is_near))
        misses = near[~chords.passes(rings, points, near)]
        distance[misses] += _BEYOND_MM2
        np.maximum.at(worst, chords.chord[misses], distance[misses])
        split = np.flatnonzero(distance == chords.spread(worst))
        split = split[np.flatnonzero(np.diff(chords.chord[split], prepend=-1))]
        kept[chords.vertices[split]] = True
        chords = chords.split_at(split)
    return kept


def _as_complex(y: Values, x: Values) -> Places:
    """(n,) the places as one number each: y + ix."""
    places = np.empty(len(y), dtype=np.complex128)
    places.real, places.imag = y, x
    return places


@dataclass(frozen=True, eq=False)
class _Chords:
    """Vertices that are left out as yet, chord by chord, and the kept ones at the ends of each chord."""

    vertices: Indices  # (n,) ascending
    counts: Indices  # (chords,) how many of them each replaces; 1 at least
    first: Indices  # (chords,)
    last: Indices  # (chords,)

    @classmethod
    def between(cls, rings: _Rings, kept: NDArray[np.bool_]) -> "_Chords":
        first = np.flatnonzero(kept)
        following = np.append(first[1:], len(kept))
        ring = rings.ring[first]
        last = np.where(following < rings.stops[ring], following, rings.starts[ring])
        counts = following - first - 1
        replaces = counts > 0
        return cls(np.flatnonzero(~kept), counts[replaces], first[replaces], last[replaces])

    @cached_property
    def starts(self) -> Indices:
        """(chords,) the place of the first vertex of each."""
        return np.asarray(np.cumsum(self.counts) - self.counts)

    def spread(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """(n,) each chord's value for all its vertices."""
        return np.repeat(values, self.counts)

    @cached_property
    def chord(self) -> Indices:
        """(n,) by which chord each is replaced."""
        return self.spread(np.arange(len(self.counts)))

    def squared_distances_mm2(self, points: Places) -> Values:
        """(n,) from each vertex to its chord."""
        chord = points[self.last] - points[self.first]
        length = np.abs(chord)
        turn = np.where(length > 0, np.conj(chord) / np.maximum(length, 1e-12), 1)
        off = (points[self.vertices] - self.spread(points[self.first])) * self.spread(turn)
        beyond = off.real - np.minimum(np.maximum(off.real, 0), self.spread(length))
        return np.asarray(off.imag**2 + beyond**2)

    def passes(self, rings: _Rings, points: Places, which: Indices) -> NDArray[np.bool_]:
        """(which,) whether its chord passes a vertex's way from voxel centre to voxel centre, clear of both."""
        vertices, chord = self.vertices[which], self.chord[which]
        first = points[self.first]
        along = (points[self.last] - first)[chord]
        way = rings.ways[vertices]
        turn = way.real * along.imag - way.imag * along.real
        turn[np.abs(turn) < 1e-9] = np.inf  # a chord along the way does not pass it
        to = first[chord] - rings.centres[vertices]
        crossing = (to.real * along.imag - to.imag * along.real) / turn  # share of the way
        share = (to.real * way.imag - to.imag * way.real) / turn  # of the chord
        most = rings.most[vertices]
        furthest = np.where(most < 1, most + 1e-9, 1 - CLEARANCE)
        clears = (crossing >= CLEARANCE) & (crossing <= furthest)
        return np.asarray(clears & (share >= 0) & (share <= 1))

    def split_at(self, split: Indices) -> "_Chords":
        """The chords of some vertices in two, without those vertices; the others are settled."""
        chord = self.chord[split]
        is_open = np.zeros(len(self.counts), dtype=bool)
        is_open[chord] = True
        remains = self.spread(is_open)
        remains[split] = False
        at = self.vertices[split]
        sooner = split - self.starts[chord]
        counts = np.stack([sooner, self.counts[chord] - sooner - 1], axis=1).ravel()
        first = np.stack([self.first[chord], at], axis=1).ravel()
        last = np.stack([at, self.last[chord]], axis=1).ravel()
        replaces = counts > 0
        return _Chords(self.vertices[remains], counts[replaces], first[replaces], last[replaces])
