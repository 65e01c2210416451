"""Where voxels are: slice, row and column indices against patient millimetres (LPS)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

POSITION_TOLERANCE_MM = 0.15
"""How far a slice may lie from its place in an evenly spaced stack and still count as evenly spaced.

Some scanners round Image Position (Patient) to 0.1 mm: gaps of 0.6 and 0.7 mm then stand for 0.625 mm, and a slice
may be off by 0.05 mm as may the first and last it is measured by. It is far below what a contour on CT resolves,
and still shows a missing slice at 0.4 mm.
"""


@dataclass(frozen=True, eq=False)
class SliceGrid:
    """The planes of a CT series: parallel slices of equal size, each at its own position (PS3.3 C.7.6.2).

    Slices need not be evenly spaced, nor stand straight above each other: a tilted gantry shears them.

    Parameters
    ----------
    positions_mm
        (slices, 3) Image Position (Patient), the centre of each slice's first voxel, ascending along
        the normal.
    row_direction
        (3,) unit vector of increasing column index, the first triplet of Image Orientation (Patient).
    column_direction
        (3,) unit vector of increasing row index, the second triplet.
    pixel_spacing_mm
        (between rows, between columns), as Pixel Spacing.
    rows, columns
        Size of every slice.
    """

    positions_mm: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    pixel_spacing_mm: tuple[float, float]
    rows: int
    columns: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return len(self.positions_mm), self.rows, self.columns

    @cached_property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit vector across the slices, towards increasing slice index."""
        return np.cross(self.row_direction, self.column_direction)

    @cached_property
    def offsets_mm(self) -> NDArray[np.float64]:
        """(slices,) distance of each slice's plane from the patient origin, along the normal."""
        return np.asarray(self.positions_mm @ self.normal, dtype=np.float64)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slices, rows, columns): the median gap between planes, 0 for a lone slice; then Pixel Spacing."""
        gaps = np.diff(self.offsets_mm)
        return (float(np.median(gaps)) if len(gaps) else 0.0, *self.pixel_spacing_mm)

    @property
    def is_uniform(self) -> bool:
        """Whether one affine map describes all slices: equal steps, sheared or not."""
        return len(self.uniform_runs()) == 1

    @property
    def tilt_degrees(self) -> float:
        """Angle between the normal and the way from the first slice to the last: the gantry's tilt."""
        way = self.positions_mm[-1] - self.positions_mm[0]
        across = way @ self.normal
        along = np.linalg.norm(way - across * self.normal)
        return float(np.degrees(np.arctan2(along, across)))

    def to_patient(self, slice_index: int | NDArray[np.int64], rc: ArrayLike) -> NDArray[np.float64]:
        """(n, 2) fractional (row, column), on one slice or on (n,), to (n, 3) LPS mm (PS3.3 C.7.6.2.1-1)."""
        scaled = np.asarray(rc, dtype=np.float64) * self.pixel_spacing_mm
        axes = np.stack([self.column_direction, self.row_direction])
        return np.asarray(self.positions_mm[slice_index] + scaled @ axes, dtype=np.float64)

    def to_pixel(self, slice_index: int, points: ArrayLike) -> NDArray[np.float64]:
        """(n, 3) LPS mm to (n, 2) fractional (row, column), projected along the normal onto one slice."""
        offsets = np.asarray(points, dtype=np.float64) - self.positions_mm[slice_index]
        axes = np.stack([self.column_direction, self.row_direction], axis=1)
        return np.asarray(offsets @ axes / self.pixel_spacing_mm, dtype=np.float64)

    def affine(self, start: int | None = None) -> NDArray[np.float64]:
        """4x4 matrix from (column, row, slice - start, 1) to LPS mm for the uniform run beginning at `start`.

        The slice axis is the run's mean step, so it holds for sheared slices too.
        Without `start`, for the whole grid, which must be one run.

        Raises
        ------
        ValueError
            No uniform run begins at `start`, or the grid is more than one.
        """
        runs = {run.start: run for run in self.uniform_runs()}
        if start is None:
            if len(runs) > 1:
                raise ValueError(f"one matrix describes evenly spaced slices; these are {len(runs)} runs")
            start = 0
        if start not in runs:
            raise ValueError(f"no uniform run begins at slice {start}; they begin at {sorted(runs)}")
        positions = self.positions_mm[runs[start]]
        matrix = np.eye(4)
        matrix[:3, 0] = self.row_direction * self.pixel_spacing_mm[1]
        matrix[:3, 1] = self.column_direction * self.pixel_spacing_mm[0]
        is_lone = len(positions) == 1
        matrix[:3, 2] = self.normal if is_lone else (positions[-1] - positions[0]) / (len(positions) - 1)
        matrix[:3, 3] = positions[0]
        return matrix

    def uniform_runs(self) -> list[slice]:
        """Maximal runs of evenly stepped slices, within `POSITION_TOLERANCE_MM`.

        Neighbouring runs share the slice at which the step changes, so together they leave no space between
        slices uncovered: gaps of 2.5, 2.5, 5, 5 mm make ``[slice(0, 3), slice(2, 5)]``.
        A lone slice makes one run, of step 1 mm.
        """
        return self._runs

    @cached_property
    def _runs(self) -> list[slice]:
        return even_runs(self.positions_mm)


def even_runs(points_mm: NDArray[np.float64]) -> list[slice]:
    """Maximal runs of (n, k) points at equal steps on a line; neighbouring runs share the point between them.

    Every point of a run lies within `POSITION_TOLERANCE_MM` of its place between the run's first and last,
    so rounding never adds up along a run.
    """
    runs, start = [], 0
    while start < max(len(points_mm) - 1, 1):
        stop = min(start + 2, len(points_mm))
        while stop < len(points_mm) and _is_even(points_mm[start : stop + 1]):
            stop += 1
        runs.append(slice(start, stop))
        start = max(stop - 1, start + 1)
    return runs


def _is_even(points_mm: NDArray[np.float64]) -> bool:
    even = np.linspace(points_mm[0], points_mm[-1], len(points_mm))
    return bool((np.abs(points_mm - even) <= POSITION_TOLERANCE_MM).all())


def bounding_box(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """The least box around what is true in a (slices, rows, columns) array; None where nothing is."""
    in_slices = np.flatnonzero(inside.any(axis=(1, 2)))
    if not len(in_slices):
        return None
    slab: NDArray[np.bool_] = np.logical_or.reduce(inside[in_slices[0] : in_slices[-1] + 1])
    in_rows, in_columns = np.flatnonzero(slab.any(axis=1)), np.flatnonzero(slab.any(axis=0))
    found = [slice(int(each[0]), int(each[-1]) + 1) for each in (in_slices, in_rows, in_columns)]
    return found[0], found[1], found[2]


@dataclass(frozen=True, eq=False)
class Mask:
    """One structure's voxels, cropped to their bounding box.

    Parameters
    ----------
    voxels
        (slices, rows, columns) bool, the crop.
    corner
        (slice, row, column) of the crop's first voxel in the volume.
    shape
        (slices, rows, columns) of the volume.
    """

    voxels: NDArray[np.bool_]
    corner: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def from_full(cls, full: ArrayLike) -> "Mask":
        """Crop a (slices, rows, columns) array of the whole volume; anything not zero is inside."""
        inside = np.asarray(full, dtype=bool)
        slices, rows, columns = inside.shape
        return cls.from_part(inside, (0, 0, 0), (slices, rows, columns))

    @classmethod
    def from_part(
        cls, part: NDArray[np.bool_], corner: tuple[int, int, int], shape: tuple[int, int, int]
    ) -> "Mask":
        """Crop a (slices, rows, columns) array whose first voxel is `corner` of a volume of `shape`."""
        box = bounding_box(part)
        if box is None:
            return cls(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0), shape)
        first_slice, first_row, first_column = (c + side.start for c, side in zip(corner, box, strict=True))
        return cls(part[box].copy(), (first_slice, first_row, first_column), shape)

    def full(self) -> NDArray[np.bool_]:
        """(slices, rows, columns) bool of the whole volume."""
        whole = np.zeros(self.shape, dtype=bool)
        whole[self.box] = self.voxels
        return whole

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """Where `voxels` lie in the volume."""
        slices, rows, columns = (slice(c, c + n) for c, n in zip(self.corner, self.voxels.shape, strict=True))
        return slices, rows, columns

    @property
    def count(self) -> int:
        """Number of voxels inside."""
        return int(np.count_nonzero(self.voxels))

    @property
    def is_empty(self) -> bool:
        """Whether no voxel is inside."""
        return not self.voxels.any()

    def volume_cm3(self, grid: SliceGrid) -> float:
        """Volume in cm³; each slice is as thick as half the gaps to its neighbours together.

        The first and last slice have one neighbour and count that gap in full; a lone slice has no thickness.
        """
        thickness_mm = slice_thickness_mm(grid)[self.corner[0] : self.corner[0] + len(self.voxels)]
        area_mm2 = np.count_nonzero(self.voxels, axis=(1, 2)) * np.prod(grid.pixel_spacing_mm)
        return float(area_mm2 @ thickness_mm / 1000)


def slice_thickness_mm(grid: SliceGrid) -> NDArray[np.float64]:
    """(slices,) mm along the normal that each slice stands for: half the gap on either side."""
    gaps = np.diff(grid.offsets_mm)
    if not len(gaps):
        return np.zeros(1)
    padded = np.concatenate([gaps[:1], gaps, gaps[-1:]])
    return np.asarray((padded[:-1] + padded[1:]) / 2, dtype=np.float64)
