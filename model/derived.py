"""Masks made from masks: margins in millimetres, unions, intersections, and what is cut away."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.geometry import Mask, SliceGrid

_NOTHING_MM = 1e-6

_HALF_A_VOXEL = 0.499
"""Up to here a displacement along a side without margin counts as none.

In slices that are turned or tilted by however little, every step brings one along.
"""

_ROUNDING = 1e-9


class MarginMM(Protocol):
    """Millimetres towards each side of the patient, none of them negative."""

    @property
    def left(self) -> float:
        """LPS +x."""

    @property
    def right(self) -> float:
        """LPS -x."""

    @property
    def posterior(self) -> float:
        """LPS +y."""

    @property
    def anterior(self) -> float:
        """LPS -y."""

    @property
    def superior(self) -> float:
        """LPS +z."""

    @property
    def inferior(self) -> float:
        """LPS -z."""


def expand(mask: Mask, grid: SliceGrid, margin: MarginMM) -> Mask:
    """Grow a mask by a margin: every voxel whose centre lies within it of a voxel's centre.

    The margin is an ellipsoid whose half-axes are the millimetres towards each side; a ball where all are equal.
    Distances are those of the slices' own positions, evenly spaced or not, tilted or not. Along an axis without a
    margin to that side, a voxel counts whose centre is no farther off than half a voxel.

    Raises
    ------
    ValueError
        A negative margin.
    """
    steps, towards, against, reach = _margin_steps(grid, margin)
    if mask.is_empty:
        return mask
    rows, columns = steps.rows, steps.columns
    grown = np.zeros(grid.shape, dtype=bool)
    first, top, left = mask.corner
    height, width = mask.voxels.shape[1:]
    box = (
        slice(max(0, top - rows), min(grid.rows, top + height + rows)),
        slice(max(0, left - columns), min(grid.columns, left + width + columns)),
    )
    source = np.pad(mask.voxels, ((0, 0), (rows, rows), (columns, columns)))
    inner = tuple(
        slice(part.start - corner + extra, part.stop - corner + extra)
        for part, corner, extra in zip(box, (top, left), (rows, columns), strict=True)
    )
    for index, plane in enumerate(source, start=first):
        for target in steps.slices_near(index, reach):
            for row, start, stop in _runs(steps.within(index, target, towards, against), rows, columns):
                grown[target][box] |= _moved(plane, row, start, stop)[inner]
    return Mask.from_full(grown)


def misses_next(grid: SliceGrid, margin: MarginMM, *, upwards: bool) -> NDArray[np.bool_]:
    """Of each slice that has one above it, or below it, whether a margin ends before that.

    Parameters
    ----------
    upwards
        Towards the patient's head.

    Returns
    -------
    (slices - 1,), in the order of the grid.
    """
    step = 1 if (grid.normal[2] > 0) == upwards else -1
    steps, towards, against, _ = _margin_steps(grid, margin)
    count = len(grid.positions_mm)
    origins = range(max(0, -step), count - max(0, step))
    return np.array(
        [not steps.within(index, index + step, towards, against).any() for index in origins], bool
    )


def union(masks: Sequence[Mask]) -> Mask:
    """What lies in any of the masks."""
    whole = masks[0].full()
    for mask in masks[1:]:
        whole[mask.box] |= mask.voxels
    return Mask.from_full(whole)


def intersection(masks: Sequence[Mask]) -> Mask:
    """What lies in all of the masks."""
    whole = masks[0].full()
    for mask in masks[1:]:
        whole &= mask.full()
    return Mask.from_full(whole)


def subtract(mask: Mask, other: Mask) -> Mask:
    """What lies in the first and not in the other."""
    return Mask.from_full(mask.full() & ~other.full())


def crop(mask: Mask, other: Mask, grid: SliceGrid, margin: MarginMM) -> Mask:
    """What lies in the first and farther than the margin from the other."""
    return subtract(mask, expand(other, grid, margin))


def _drift(grid: SliceGrid) -> float:
    """How far slices stand aside of each other, at most, for each millimetre along the normal."""
    steps = np.diff(grid.positions_mm, axis=0)
    along = steps @ grid.normal
    aside = np.linalg.norm(steps - along[:, None] * grid.normal, axis=1)
    return float((aside / along).max(initial=0.0))


def _margin_steps(
    grid: SliceGrid, margin: MarginMM
) -> tuple["_Steps", NDArray[np.float64], NDArray[np.float64], float]:
    """Displacements as far as a margin reaches, its half-axes to both sides along x, y and z, and the longest.

    Raises
    ------
    ValueError
        A negative margin.
    """
    towards = np.array([margin.left, margin.posterior, margin.superior])
    against = np.array([margin.right, margin.anterior, margin.inferior])
    if min(towards.min(), against.min()) < 0:
        raise ValueError("a margin may not be negative; use `subtract` or `crop` to make a structure smaller")
    # No displacement within the margin is longer than this, along whatever axis.
    reach = float(np.maximum(towards, against).max())
    rows, columns = (int(reach * (1 + _drift(grid)) / mm) + 1 for mm in grid.pixel_spacing_mm)
    return _Steps(grid, rows, columns), towards, against, reach


class _Steps:
    """Displacements from a voxel to those about it, in patient coordinates."""

    def __init__(self, grid: SliceGrid, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self._positions = grid.positions_mm
        self._normal = grid.normal
        row_mm, column_mm = grid.pixel_spacing_mm
        down = np.arange(-rows, rows + 1)[:, None, None] * row_mm * grid.column_direction
        across = np.arange(-columns, columns + 1)[None, :, None] * column_mm * grid.row_direction
        self._in_plane = down + across  # (2 rows + 1, 2 columns + 1, 3)
        self._nothing_mm = _nothing_mm(grid)

    def slices_near(self, index: int, reach: float) -> Iterator[int]:
        """Slices no farther away than the longest half-axis, along the normal."""
        apart = np.abs((self._positions - self._positions[index]) @ self._normal)
        yield from np.flatnonzero(apart <= reach + _NOTHING_MM).tolist()

    def within(
        self, index: int, target: int, towards: NDArray[np.float64], against: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Which in-plane steps end within the margin when the slice changes from `index` to `target`."""
        step = self._in_plane + (self._positions[target] - self._positions[index])
        axes = np.where(step >= 0, towards, against)
        blocked = ((axes == 0) & (np.abs(step) > self._nothing_mm[index])).any(-1)
        shares = np.divide(step, axes, out=np.zeros_like(step), where=axes > 0)
        return np.asarray(~blocked & ((shares**2).sum(-1) <= 1 + _ROUNDING))


def _nothing_mm(grid: SliceGrid) -> NDArray[np.float64]:
    """(slices, 3) what is no displacement along x, y and z: it reaches no other voxel's centre.

    It is measured by the side of the slice's voxels, up to the nearer neighbour, that runs most along each axis.
    """
    gaps = np.diff(grid.offsets_mm) if len(grid.offsets_mm) > 1 else np.zeros(1)
    to_nearer = np.minimum(np.append(gaps, gaps[-1]), np.append(gaps[0], gaps))[: len(grid.offsets_mm)]
    row_mm, column_mm = grid.pixel_spacing_mm
    sides = np.stack([np.full_like(to_nearer, column_mm), np.full_like(to_nearer, row_mm), to_nearer], axis=1)
    directions = np.abs([grid.row_direction, grid.column_direction, grid.normal])
    along = directions.argmax(axis=0)
    return np.asarray(_HALF_A_VOXEL * directions[along, range(3)] * sides[:, along])


def _runs(allowed: NDArray[np.bool_], rows: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """Row step, first and last column step of every row that has some: an ellipsoid's rows have no gaps."""
    for line, steps in enumerate(allowed):
        found = np.flatnonzero(steps)
        if len(found):
            yield line - rows, int(found[0]) - columns, int(found[-1]) - columns


def _moved(plane: NDArray[np.bool_], row: int, start: int, stop: int) -> NDArray[np.bool_]:
    """The plane moved by a row step, and smeared over a run of column steps; what leaves it is gone."""
    count = np.cumsum(plane, axis=1, dtype=np.int32)
    width = plane.shape[1]
    columns = np.arange(width)
    # A voxel is reached by any source between `stop` and `start` steps before it.
    last, before = columns - start, columns - stop - 1
    upper = np.where(last >= 0, count[:, np.clip(last, 0, width - 1)], 0)
    lower = np.where(before >= 0, count[:, np.clip(before, 0, width - 1)], 0)
    smeared = upper > lower
    moved = np.zeros_like(smeared)
    height = len(plane)
    if abs(row) < height:
        moved[max(0, row) : height + min(0, row)] = smeared[max(0, -row) : height - max(0, row)]
    return moved
