"""Masks to closed planar contours and back, inverse to each other voxel by voxel."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.geometry import Mask
from model.outlines import Outlines, outlines
from model.smoothing import smoothed

EDGE_SHARE = 0.49
"""Where the contour along voxel edges runs, from the voxel inside (0) to the one outside (1).

Half-way would put every vertex on a tie, which readers that fill on a pixel raster break in different ways.
Just off it, polygon readers and raster readers find the same voxels, down to single ones.
"""

TOLERANCE_MM = 0.1
"""How far the vertices left out of a smooth contour may lie from it: a tenth of a pixel of a planning CT."""

PORTION = 1_000_000
"""Voxels of the masks that are traced together, at least."""


@dataclass(frozen=True, eq=False)
class Contour:
    """One closed polygon on one slice.

    Parameters
    ----------
    slice_index
        Which slice of the volume.
    points
        (n, 2) fractional (row, column), voxel centres at whole numbers, n >= 3; the first is not repeated.
    """

    slice_index: int
    points: NDArray[np.float64]


def trace(
    mask: Mask, pixel_spacing_mm: tuple[float, float] | None = None, tolerance_mm: float = TOLERANCE_MM
) -> list[Contour]:
    """Outline a mask, slice by slice, ordered by slice.

    Islands and holes are contours of their own, nested: what lies inside an odd number of them is inside
    (PS3.3 C.8.8.6.3). Voxels that touch only by a corner get one contour each.
    An empty mask has no contours.

    Smooth or not, a contour runs between the voxels inside and those outside, so that filling returns the mask.

    Parameters
    ----------
    pixel_spacing_mm
        (between rows, between columns): draws smooth lines of few points, which enclose the area of the voxels.
        Without it, lines follow the voxel edges step by step.
    tolerance_mm
        How far from the contour a vertex of the smooth line may lie to be left out.
    """
    return trace_all([mask], pixel_spacing_mm, tolerance_mm)[0]


def trace_all(
    masks: Sequence[Mask],
    pixel_spacing_mm: tuple[float, float] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> list[list[Contour]]:
    """Outline every mask of one volume as `trace` does one, which takes much longer one by one."""
    return [
        contours
        for portion in _portions(masks)
        for contours in _trace_portion(portion, pixel_spacing_mm, tolerance_mm)
    ]


def _portions(masks: Sequence[Mask]) -> Iterator[list[Mask]]:
    """Masks that are traced together: the more, the fewer calls, but so many stay in a processor's cache."""
    portion: list[Mask] = []
    voxels = 0
    for mask in masks:
        portion.append(mask)
        voxels += mask.voxels.size
        if voxels >= PORTION:
            yield portion
            portion, voxels = [], 0
    if portion:
        yield portion


def _trace_portion(
    masks: Sequence[Mask], spacing: tuple[float, float] | None, tolerance_mm: float
) -> list[list[Contour]]:
    found = outlines(masks)
    lines = _along_edges(found) if spacing is None else smoothed(found, spacing, tolerance_mm)
    traced: list[list[Contour]] = [[] for _ in masks]
    for index, slice_index, line in zip(found.masks.tolist(), found.slices.tolist(), lines, strict=True):
        traced[index].append(Contour(slice_index, line))
    return traced


def _along_edges(found: Outlines) -> list[NDArray[np.float64]]:
    points = np.stack(
        [found.rows + EDGE_SHARE * found.row_steps, found.columns + EDGE_SHARE * found.column_steps], axis=1
    )
    return np.split(points, found.starts[1:]) if len(points) else []


def fill(contours: Iterable[Contour], shape: tuple[int, int, int], rule: str = "xor") -> Mask:
    """Mask of the voxels whose centres lie inside contours, as readers of structure sets see it.

    Parts outside the volume are cut off.

    Parameters
    ----------
    contours
        In any order.
    shape
        (slices, rows, columns) of the volume.
    rule
        `xor`: inside is inside an odd number of a slice's contours (PS3.3 C.8.8.6.3), so that holes may be nested.
        `union`: inside is inside any contour; one that passes a place twice, as a keyhole does, is outside there.

    Raises
    ------
    ValueError
        Another rule; a contour on a slice that the volume does not have, or with fewer than 3 finite points.
    """
    listed = list(contours)
    for contour in listed:
        in_volume = 0 <= contour.slice_index < shape[0]
        if not in_volume or len(contour.points) < 3 or not np.isfinite(contour.points).all():
            raise ValueError(
                f"contour of {len(contour.points)} points on slice {contour.slice_index}; "
                f"needed are 3 finite points at least, on slices 0 to {shape[0] - 1}"
            )
    if rule == "xor":
        return _odd(listed, shape)
    if rule != "union":
        raise ValueError(f"{rule!r} is no rule for filling contours; there are xor and union")
    inside = np.zeros(shape, dtype=bool)
    for layer in _layers(listed):
        inside |= _odd(layer, shape).full()
    return Mask.from_full(inside)


def _layers(contours: Sequence[Contour]) -> list[list[Contour]]:
    """The contours in as few portions as there are contours on one slice, each slice at most once in each."""
    layers: list[list[Contour]] = []
    seen: Counter[int] = Counter()
    for contour in contours:
        if seen[contour.slice_index] == len(layers):
            layers.append([])
        layers[seen[contour.slice_index]].append(contour)
        seen[contour.slice_index] += 1
    return layers


def _odd(contours: Sequence[Contour], shape: tuple[int, int, int]) -> Mask:
    """Mask of the voxels inside an odd number of contours."""
    crossings = _crossings(contours, shape)
    if not len(crossings):
        return Mask.from_full(np.zeros(shape, dtype=bool))
    corner = crossings.min(axis=0)
    size = crossings.max(axis=0) - corner + 1
    # Each crossing turns inside to outside, or back, for all columns to its right. A row's crossings are even
    # in number, so the last column, which may lie just outside the volume, is always outside.
    parity = np.zeros(size, dtype=np.uint8)
    np.add.at(parity, tuple((crossings - corner).T), 1)
    np.add.accumulate(parity, axis=2, out=parity)
    first_slice, first_row, first_column = (int(c) for c in corner)
    return Mask.from_part((parity & 1).astype(bool), (first_slice, first_row, first_column), shape)


def _crossings(contours: Sequence[Contour], shape: tuple[int, int, int]) -> NDArray[np.int64]:
    """(n, 3) slice, row and first column to the right, wherever an edge crosses a row of voxel centres."""
    if not contours:
        return np.zeros((0, 3), dtype=np.int64)
    starts = np.concatenate([c.points for c in contours])
    ends = np.concatenate([np.roll(c.points, -1, axis=0) for c in contours])
    # Upper end first, so that both sides of a channel without width cross at the very same place.
    is_upward = (starts[:, 0] > ends[:, 0])[:, None]
    starts, ends = np.where(is_upward, ends, starts), np.where(is_upward, starts, ends)
    slices = np.repeat([c.slice_index for c in contours], [len(c.points) for c in contours])
    # Half open: a vertex exactly on a row belongs to one of its two edges only.
    first = np.clip(np.ceil(starts[:, 0]), 0, shape[1]).astype(np.int64)
    stop = np.clip(np.ceil(ends[:, 0]), 0, shape[1]).astype(np.int64)
    counts = stop - first
    edge = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    row = first[edge] + within
    (row_0, column_0), (row_1, column_1) = starts[edge].T, ends[edge].T
    crossed_at = column_0 + (row - row_0) * (column_1 - column_0) / (row_1 - row_0)
    column = np.ceil(crossed_at).clip(0, shape[2]).astype(np.int64)
    return np.stack([slices[edge], row, column], axis=1)
