"""Where masks end: the closed lines between voxels inside and outside, of many masks and slices at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from model.geometry import Mask

Indices = NDArray[np.int64]

_UP, _RIGHT, _DOWN, _LEFT = range(4)
_ROW_STEP = np.array([-1, 0, 1, 0])
_COLUMN_STEP = np.array([0, 1, 0, -1])


@dataclass(frozen=True, eq=False)
class Outlines:
    """Closed lines one after another, by mask, then by slice, then by their topmost voxel.

    Every vertex is a voxel inside and one of its four neighbours in the slice, outside; its place on the way
    between both is for others to choose. The inside lies on the right hand of the line.
    Voxels that touch only by a corner have lines of their own.

    Parameters
    ----------
    rows, columns
        (n,) of the voxel inside.
    towards
        (n,) which neighbour: 0 above, 1 to the right, 2 below, 3 to the left.
    starts
        (lines,) first vertex of each.
    masks, slices
        (lines,) which mask it belongs to, and which slice of the volume.
    size
        (rows, columns) of the image.
    """

    rows: Indices
    columns: Indices
    towards: Indices
    starts: Indices
    masks: Indices
    slices: Indices
    size: tuple[int, int]

    @cached_property
    def counts(self) -> Indices:
        """(lines,) vertices of each; 4 at least."""
        return np.diff(np.append(self.starts, len(self.rows)))

    @cached_property
    def row_steps(self) -> Indices:
        """(n,) -1, 0 or 1: from the voxel inside to the one outside."""
        return _ROW_STEP[self.towards]

    @cached_property
    def column_steps(self) -> Indices:
        """(n,) likewise."""
        return _COLUMN_STEP[self.towards]

    def portions(self, vertices: int) -> Iterator["Outlines"]:
        """The same lines in portions of about so many vertices; a line stays whole."""
        cuts = np.flatnonzero(np.diff((self.starts + self.counts - 1) // vertices, prepend=-1))
        for first, stop in pairwise([*cuts.tolist(), len(self.starts)]):
            start = self.starts[first]
            end = self.starts[stop] if stop < len(self.starts) else len(self.rows)
            yield Outlines(
                self.rows[start:end],
                self.columns[start:end],
                self.towards[start:end],
                self.starts[first:stop] - start,
                self.masks[first:stop],
                self.slices[first:stop],
                self.size,
            )


def outlines(masks: Sequence[Mask]) -> Outlines:
    """Find the outlines of masks of one volume; an empty mask has none."""
    padded = [np.pad(mask.voxels, ((0, 0), (1, 1), (1, 1))) for mask in masks]
    widths = np.array([each.shape[2] for each in padded])
    bases = np.cumsum([0, *(each.size for each in padded)])
    flat = np.concatenate([np.zeros(0, bool), *(each.ravel() for each in padded)])
    places, owners, firsts = _edges(padded, bases[:-1], widths)
    towards = np.repeat(np.arange(4), np.diff(firsts))
    width = widths[owners] if len(masks) else owners
    order, starts = _linked(_following(flat, places, width, firsts), firsts[1])
    place, towards, owner = places[order], towards[order], owners[order]
    within, width = place - bases[owner], width[order]
    slice_size = np.array([each.shape[1] * each.shape[2] for each in padded], dtype=np.int64)
    corners = np.array([mask.corner for mask in masks], dtype=np.int64).reshape(-1, 3)
    in_slice = within % slice_size[owner] if len(masks) else within
    first = order[starts]
    first_owner = owners[first]
    return Outlines(
        rows=in_slice // width - 1 + corners[owner, 1],
        columns=in_slice % width - 1 + corners[owner, 2],
        towards=towards,
        starts=starts,
        masks=first_owner,
        slices=within[starts] // slice_size[first_owner] + corners[first_owner, 0],
        size=masks[0].shape[1:] if masks else (0, 0),
    )


def _edges(
    padded: Sequence[NDArray[np.bool_]], bases: Indices, widths: Indices
) -> tuple[Indices, Indices, Indices]:
    """Every voxel edge between inside and outside: place of the voxel inside, its mask; by direction.

    The third array is where each direction begins, and the end.
    """
    found: list[list[Indices]] = [[] for _ in range(4)]
    for voxels, base, width in zip(padded, bases, widths, strict=True):
        inside = voxels.ravel()
        for towards, step in enumerate((-width, 1, width, -1)):
            # The rim of outside voxels keeps every step within the array.
            own = inside[max(0, -step) : len(inside) - max(0, step)]
            other = inside[max(0, step) : len(inside) - max(0, -step)]
            found[towards].append(np.flatnonzero(own > other) + (base + max(0, -step)))
    counts = [[len(each) for each in way] for way in found]
    owners = np.concatenate([np.repeat(np.arange(len(way)), way) for way in counts])
    places = np.concatenate([np.zeros(0, np.int64), *(each for way in found for each in way)])
    return places, owners, np.cumsum([0, *map(sum, counts)])


def _following(inside: NDArray[np.bool_], places: Indices, width: Indices, firsts: Indices) -> Indices:
    """(n,) the edge that comes next, clockwise about the inside."""
    place, way = np.empty_like(places), np.empty_like(places)
    for towards, (first, stop) in enumerate(pairwise(firsts)):
        own, step = places[first:stop], width[first:stop]
        steps = (-step, 1, step, -1)
        ahead = own + steps[(towards + 1) % 4]
        beside = ahead + steps[towards]
        is_straight = inside[ahead]
        is_inward = is_straight & inside[beside]
        place[first:stop] = np.where(is_inward, beside, np.where(is_straight, ahead, own))
        turn = np.where(is_inward, 3, np.where(is_straight, 0, 1))
        way[first:stop] = (towards + turn) % 4
    following = np.empty_like(places)
    for each in range(4):
        goes = np.flatnonzero(way == each)
        own = places[firsts[each] : firsts[each + 1]]
        following[goes] = firsts[each] + np.searchsorted(own, place[goes])
    return following


def _linked(following: Indices, upper: int) -> tuple[Indices, Indices]:
    """Edges in the order of their lines, and where each line starts.

    Parameters
    ----------
    upper
        So many edges, the first, are upper ones; every line has one, and starts with its topmost.
    """
    if not len(following):
        return following, following
    edges = np.arange(len(following))
    _, lines = connected_components(_graph(following), connection="weak")
    firsts = np.sort(np.unique(lines[:upper], return_index=True)[1])
    # One way through all lines: the last edge of each is followed by the first of the next.
    before = np.empty_like(following)
    before[following] = edges
    way = following.copy()
    way[before[firsts]] = np.roll(firsts, -1)
    order = breadth_first_order(_graph(way), firsts[0], return_predecessors=False)
    lengths = np.bincount(lines)[lines[firsts]]
    return order.astype(np.int64), np.cumsum(lengths) - lengths


def _graph(following: Indices) -> csr_array:
    """A graph in which each edge of an outline leads to its follower."""
    count = len(following)
    return csr_array((np.ones(count), following, np.arange(count + 1)), (count, count))
