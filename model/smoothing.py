"""Outlines along voxel edges, redrawn as a hand draws them: smooth, few points, the same voxels inside.

An outline crosses the way from every voxel inside to its neighbours outside. Where on that way is not known, and
that is all the freedom taken here: each vertex slides between the two voxel centres, the line bends as
little as it can, and encloses the area of its voxels. No line can then leave out a voxel, take one in, cross
another or itself, however small an island or thin a wall.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

Points = NDArray[np.float64]
Indices = NDArray[np.int64]

STEPS, PULL, OVERSHOOT = 20, 0.005, 1.6
"""Of the descent; with more steps or rounds no line came out straighter."""

ROOM = 0.1
"""How near to a voxel centre, in voxels, a vertex may slide."""

CLEARANCE = 0.04
"""How near to it the simplified line may pass: above what rounding to 0.01 mm moves a point."""


_BEYOND_MM = 1e3


def smoothed(
    outlines: Sequence[Points],
    size: tuple[int, int],
    pixel_spacing_mm: tuple[float, float],
    tolerance_mm: float,
) -> list[Points]:
    """Redraw closed outlines as smooth lines of few points.

    Parameters
    ----------
    outlines
        (n, 2) row and column of every crossing between a voxel inside and one outside, nearer to the one inside,
        in the order of the outline, with the inside always on the same hand.
    size
        (rows, columns) of the image, which no line leaves.
    pixel_spacing_mm
        (between rows, between columns).
    tolerance_mm
        A vertex of the smooth line is left out where it lies no further than this from what remains.

    Returns
    -------
    list of (m, 2) arrays, row and column, in the order of the outlines; at least three points each.
    """
    if not outlines:
        return []
    rings = _Rings.of(outlines, size, np.asarray(pixel_spacing_mm, dtype=np.float64))
    shares = _least_bent(rings)
    kept = _simplified(rings, shares, tolerance_mm)
    # Chords cut off bends: what that takes from the area is given back, or small organs would be drawn too small.
    shares = _with_area(rings, shares, kept)
    kept = _simplified(rings, shares, tolerance_mm)
    counts = np.add.reduceat(kept.astype(np.int64), rings.starts)
    return np.split(rings.points_mm(shares)[kept] / rings.spacing, np.cumsum(counts)[:-1])


@dataclass(frozen=True, eq=False)
class _Rings:
    """Closed lines one after another: vertex i lies at ``inside[i] + share * outward[i]``, share from 0 to 1."""

    inside: Points  # (n, 2) mm, voxel centres
    outward: Points  # (n, 2) mm, from there to the neighbouring voxel centre
    at_border: NDArray[np.bool_]  # (n,) whether the neighbour lies outside the image
    spacing: Points  # (2,) mm
    starts: Indices  # (rings,) first vertex of each
    before: Indices  # (n,) previous vertex
    after: Indices  # (n,) next vertex

    @classmethod
    def of(cls, outlines: Sequence[Points], size: tuple[int, int], spacing: Points) -> "_Rings":
        points = np.concatenate(outlines)
        counts = np.array([len(outline) for outline in outlines])
        starts = np.cumsum(counts) - counts
        before, after = np.arange(len(points)) - 1, np.arange(len(points)) + 1
        before[starts], after[starts + counts - 1] = starts + counts - 1, starts
        inside = np.rint(points)
        outward = np.sign(points - inside)
        neighbour = inside + outward
        leaves = np.asarray(((neighbour < 0) | (neighbour >= size)).any(axis=1))
        return cls(inside * spacing, outward * spacing, leaves, spacing, starts, before, after)

    @cached_property
    def ring(self) -> Indices:
        """(n,) which line a vertex belongs to."""
        return np.repeat(np.arange(len(self.starts)), np.diff([*self.starts, len(self.inside)]))

    @cached_property
    def voxel_area_mm2(self) -> Points:
        """(rings,) of the voxels within, less than 0 for a hole: a vertex stands for the voxel edge on its way."""
        edge = self.inside[:, 1] + self.outward[:, 1] / 2
        columns = np.add.reduceat(edge * np.sign(self.outward[:, 1]), self.starts)
        return np.asarray(columns * self.spacing[0], dtype=np.float64)

    @cached_property
    def hand(self) -> float:
        """1 or -1: on which hand the inside lies, as the sign of areas by the shoelace formula."""
        points = self.points_mm(0.5)
        return float(np.sign(_cross(points, points[self.after]).sum()))

    def in_room(self, shares: Points) -> Points:
        """Clip shares to where vertices may slide."""
        return np.clip(shares, ROOM, np.where(self.at_border, 0.5, 1 - ROOM))

    def points_mm(self, shares: Points | float) -> Points:
        """(n, 2) row and column, in mm."""
        return np.asarray(self.inside + np.reshape(shares, (-1, 1)) * self.outward, dtype=np.float64)


def _least_bent(rings: _Rings) -> Points:
    """(n,) shares of the line that turns as little as it can, by ADMM (Boyd 2011, 3.1 and 3.4.3).

    Two copies of the line in turn: one bends as little as it can, the other keeps to its room and its area; both
    are drawn towards each other.
    """
    bending, at_rest = _bending(rings)
    stiffness = bending.T @ bending + PULL * sparse.eye_array(len(at_rest))
    bent_least = splu(stiffness.tocsc())
    within = np.full(len(at_rest), 0.5)
    apart = np.zeros_like(within)
    for number in range(STEPS):
        straight = bent_least.solve(PULL * (within - apart) - bending.T @ at_rest)
        straight = OVERSHOOT * straight + (1 - OVERSHOOT) * within
        within = rings.in_room(straight + apart)
        if number % 4 == 0:
            within = _with_area(rings, within)
        apart += straight - within
    return _with_area(rings, within)


def _bending(rings: _Rings) -> tuple[sparse.csr_array, Points]:
    """How far each vertex lies off the chord between its neighbours, in pixels, as matrix @ shares + vector.

    Measured across the line, so that uneven steps along it do not count: on a straight line all is 0.
    """
    points, before, after = rings.points_mm(0.5), rings.before, rings.after
    blurred = points
    for _ in range(8):
        blurred = blurred / 2 + (blurred[before] + blurred[after]) / 4
    along = blurred[after] - blurred[before]
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across /= (np.linalg.norm(across, axis=1, keepdims=True) + 1e-9) * rings.spacing.max()
    to_before = np.linalg.norm(points - points[before], axis=1)
    to_after = np.linalg.norm(points - points[after], axis=1)
    nearness = to_after / (to_before + to_after)
    itself = np.arange(len(points))
    terms = ((itself, np.ones_like(nearness)), (before, -nearness), (after, nearness - 1))
    values = [weight * (across * rings.outward[other]).sum(axis=1) for other, weight in terms]
    at_rest = sum(weight * (across * rings.inside[other]).sum(axis=1) for other, weight in terms)
    columns = np.concatenate([other for other, _ in terms])
    matrix = sparse.coo_array((np.concatenate(values), (np.tile(itself, 3), columns)))
    return matrix.tocsr(), np.asarray(at_rest)


def _with_area(rings: _Rings, shares: Points, kept: NDArray[np.bool_] | None = None) -> Points:
    """Shift lines outward or inward until they, or their kept vertices, enclose the area of their voxels.

    Where a line has no room left it stays, so the area of a hole of one voxel in a thin wall may fall short.
    """
    points = rings.points_mm(shares)
    chord = points[rings.after] - points[rings.before]
    length = np.linalg.norm(chord, axis=1) / 2 + 1e-9
    gain = rings.hand / 2 * _cross(rings.outward, chord)
    # How far to slide for a shift of 1 mm across the line; less where a vertex slides nearly along it.
    slide = 1 / np.maximum(gain / length, rings.spacing.min() / 2)
    gain_of_ring = np.add.reduceat(gain * slide, rings.starts)
    missing = rings.voxel_area_mm2 - rings.hand * _signed_area(rings, points, kept)
    shift = missing / np.maximum(gain_of_ring, 1e-9)
    return rings.in_room(shares + shift[rings.ring] * slide)


def _signed_area(rings: _Rings, points: Points, kept: NDArray[np.bool_] | None) -> Points:
    """(rings,) by the shoelace formula, of the kept vertices only."""
    starts, ring = rings.starts, rings.ring
    if kept is not None:
        points, ring = points[kept], ring[kept]
        starts = np.searchsorted(ring, np.arange(len(starts)))
    following = np.roll(points, -1, axis=0)
    following[np.append(starts[1:], len(points)) - 1] = points[starts]
    return np.asarray(np.add.reduceat(_cross(points, following), starts) / 2)


def _simplified(rings: _Rings, shares: Points, tolerance_mm: float) -> NDArray[np.bool_]:
    """(n,) which vertices to keep (Ramer 1972, Douglas and Peucker 1973; all lines at once, chord by chord).

    A chord must pass the ways of all vertices it replaces, clear of the voxel centres at their ends.
    """
    points = rings.points_mm(shares)
    kept = np.zeros(len(points), dtype=bool)
    kept[rings.starts] = True
    open_ones = np.flatnonzero(~kept)
    while len(open_ones):
        first, last = _chord_ends(rings, kept, open_ones)
        misfit = _misfit(rings, points, open_ones, first, last) / tolerance_mm
        chord_starts = np.flatnonzero(np.diff(first, prepend=-1))
        chord = np.cumsum(np.diff(first, prepend=-1) != 0) - 1
        worst = np.maximum.reduceat(misfit, chord_starts)
        is_worst = (misfit == worst[chord]) & (worst[chord] > 1)
        _, foremost = np.unique(chord[is_worst], return_index=True)
        kept[open_ones[is_worst][foremost]] = True
        open_ones = open_ones[(worst[chord] > 1) & ~kept[open_ones]]
    return kept


def _chord_ends(rings: _Rings, kept: NDArray[np.bool_], vertices: Indices) -> tuple[Indices, Indices]:
    """Kept vertices before and after each of the given ones, on its own line."""
    places = np.flatnonzero(kept)
    chord = np.searchsorted(places, vertices, side="right") - 1
    ring = rings.ring[vertices]
    following = places[np.minimum(chord + 1, len(places) - 1)]
    is_closing = (following < vertices) | (rings.ring[following] != ring)
    return places[chord], np.where(is_closing, rings.starts[ring], following)


def _misfit(rings: _Rings, points: Points, vertices: Indices, first: Indices, last: Indices) -> Points:
    """(vertices,) mm from each vertex to its chord; infinite for a chord that does not pass the vertex's way."""
    start, chord = points[first], points[last] - points[first]
    inside, outward = rings.inside[vertices], rings.outward[vertices]
    from_start = points[vertices] - start
    squared = (chord**2).sum(axis=1)
    share = np.clip((from_start * chord).sum(axis=1) / np.maximum(squared, 1e-12), 0, 1)
    distance = np.linalg.norm(from_start - share[:, None] * chord, axis=1)
    turn = _cross(outward, chord)
    turn[np.abs(turn) < 1e-9] = np.inf
    crossing = _cross(start - inside, chord) / turn  # share of the way
    along = _cross(start - inside, outward) / turn  # share of the chord
    furthest = np.where(rings.at_border[vertices], 0.5 + 1e-9, 1 - CLEARANCE)
    clears = (crossing >= CLEARANCE) & (crossing <= furthest)
    passes = clears & (along >= 0) & (along <= 1) & np.isfinite(turn)
    return np.asarray(np.where(passes, distance, _BEYOND_MM + distance))


def _cross(a: Points, b: Points) -> Points:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
