"""Which sections of a volume a picture shows, and each as an upright image in millimetres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.geometry import Mask, SliceGrid

AXIAL_COUNT = 6
AIR_HU = -1024
REFORMAT_MM = 1.0
"""Pixel size of coronal and sagittal images, which are resampled: slices may be uneven or sheared."""

POSITION_BIN_MM = 2.0
APART_MM = 10.0
"""Least distance between parallel sections: closer ones look alike."""

LEFT, POSTERIOR, HEAD = np.eye(3)
_LETTERS = (("R", "L"), ("A", "P"), ("F", "H"))


def letter(direction: NDArray[np.float64]) -> str:
    """The side of the patient that a direction in LPS mostly points to: R, L, A, P, F or H."""
    axis = int(np.argmax(np.abs(direction)))
    return _LETTERS[axis][int(direction[axis] > 0)]


@dataclass(frozen=True, eq=False)
class Section:
    """A plane through a volume, shown as radiologists do: the patient's right at the left, front or head up.

    Parameters
    ----------
    name
        Such as "axial 12 of 140", with the slice's z below it.
    axis
        0: one slice; 1, 2: upright on the slices, perpendicular to their columns or to their rows.
    position
        Index of the slice; for axes 1 and 2, mm along the column or the row direction.
    wanted_down, wanted_right
        (3,) LPS directions that shall point down and to the right; the nearest multiple of 90 degrees is taken.
    """

    name: str
    grid: SliceGrid
    axis: int
    position: float
    wanted_down: NDArray[np.float64]
    wanted_right: NDArray[np.float64]

    @property
    def letters(self) -> tuple[str, str, str, str]:
        """What lies at the left, right, upper and lower edge."""
        return letter(-self.right), letter(self.right), letter(-self.down), letter(self.down)

    @property
    def down(self) -> NDArray[np.float64]:
        """(3,) LPS direction of increasing rows of the sampled image."""
        transposed, flipped_down, _ = self._turn
        return self._directions[int(transposed)] * (-1 if flipped_down else 1)

    @property
    def right(self) -> NDArray[np.float64]:
        """(3,) LPS direction of increasing columns of the sampled image."""
        transposed, _, flipped_right = self._turn
        return self._directions[1 - int(transposed)] * (-1 if flipped_right else 1)

    @property
    def spacing_mm(self) -> tuple[float, float]:
        """(down, right) between pixels of the sampled image."""
        spacing = self.grid.pixel_spacing_mm if self.axis == 0 else (REFORMAT_MM, REFORMAT_MM)
        return (spacing[1], spacing[0]) if self._turn[0] else spacing

    def sample(self, array: NDArray[np.generic], outside: float) -> NDArray[np.float64]:
        """(down, right) values of an array of the volume's shape, `outside` where the volume does not reach."""
        plane = self._slice(array) if self.axis == 0 else self._reformat(array, outside)
        transposed, flipped_down, flipped_right = self._turn
        upright = plane.T if transposed else plane
        return upright[:: -1 if flipped_down else 1, :: -1 if flipped_right else 1]

    def reaches(self, mask: Mask) -> bool:
        """Whether it cuts the box of a mask; where it does not, it shows nothing of it."""
        slices, across = mask.box[0], mask.box[self.axis]
        index = np.array([self.position]) if self.axis == 0 else self._lines()[slices]
        return bool(((index >= across.start) & (index < across.stop)).any())

    @property
    def _directions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Directions of the plane's two axes before it is turned."""
        grid = self.grid
        return (
            (grid.column_direction, grid.row_direction),
            (grid.normal, grid.row_direction),
            (grid.normal, grid.column_direction),
        )[self.axis]

    @cached_property
    def _turn(self) -> tuple[bool, bool, bool]:
        """Whether to transpose, and then to flip down and right."""
        first, second = self._directions
        transposed = bool(abs(first @ self.wanted_right) > abs(second @ self.wanted_right))
        down, right = (second, first) if transposed else (first, second)
        return transposed, bool(down @ self.wanted_down < 0), bool(right @ self.wanted_right < 0)

    def _slice(self, array: NDArray[np.generic]) -> NDArray[np.float64]:
        return np.asarray(array[int(self.position)], dtype=np.float64)

    def _reformat(self, array: NDArray[np.generic], outside: float) -> NDArray[np.float64]:
        """The flat plane at `position`, whatever the shear and the gaps of the slices; (offset, in plane)."""
        grid = self.grid
        along = self._directions[1]
        along_mm = grid.pixel_spacing_mm[2 - self.axis]
        lines = np.moveaxis(array, self.axis, 1)  # (slices, across, along)
        index = self._lines()
        starts = grid.positions_mm @ along
        length = (lines.shape[2] - 1) * along_mm
        wanted = np.arange(starts.min(), starts.max() + length + REFORMAT_MM / 2, REFORMAT_MM)
        steps = np.arange(lines.shape[2]) * along_mm
        rows = np.full((len(lines), len(wanted)), outside, dtype=np.float64)
        for s in np.flatnonzero((index >= 0) & (index < lines.shape[1])):
            rows[s] = np.interp(wanted, starts[s] + steps, lines[s, index[s]], left=outside, right=outside)
        return _interpolated(rows, grid.offsets_mm)

    def _lines(self) -> NDArray[np.int64]:
        """(slices,) which row of each slice, or for axis 2 which column, lies nearest to an upright plane."""
        grid = self.grid
        across = grid.column_direction if self.axis == 1 else grid.row_direction
        across_mm = grid.pixel_spacing_mm[self.axis - 1]
        return np.rint((self.position - grid.positions_mm @ across) / across_mm).astype(int)


def _interpolated(rows: NDArray[np.float64], offsets_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(slices, n) lines at uneven offsets to lines every `REFORMAT_MM`."""
    wanted = np.arange(offsets_mm[0], offsets_mm[-1] + REFORMAT_MM / 2, REFORMAT_MM)
    place = np.interp(wanted, offsets_mm, np.arange(len(rows)))
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(rows) - 1)
    share = (place - below)[:, None]
    return np.asarray(rows[below] * (1 - share) + rows[above] * share, dtype=np.float64)


def choose_sections(grid: SliceGrid, masks: Mapping[str, Mask], *, coronal_count: int = 1) -> list[Section]:
    """Axial sections from head to feet, then coronal ones and a sagittal one, where they show most of the organs.

    The first coronal section shows most, a further one what those before do not; they come from front to back.
    The sagittal section looks for organs of the midline. Without organs, sections are spread over the volume.
    """
    found = {name: mask for name, mask in masks.items() if not mask.is_empty}
    telling = sorted(
        _telling_slices(grid, list(found.values())), key=lambda s: -float(grid.positions_mm[s] @ HEAD)
    )
    count = grid.shape[0]
    axial = [
        Section(f"axial {s + 1} of {count}\nz {_z_text(grid, s)} mm", grid, 0, s, POSTERIOR, LEFT)
        for s in telling
    ]
    midline = [mask for name, mask in found.items() if not name.endswith(("_L", "_R"))]
    across_front = abs(grid.column_direction @ POSTERIOR) > abs(grid.row_direction @ POSTERIOR)
    coronal_axis, sagittal_axis = (1, 2) if across_front else (2, 1)
    coronal_mm = _telling_positions(grid, coronal_axis, list(found.values()), coronal_count)
    sagittal_mm = _telling_positions(grid, sagittal_axis, midline or list(found.values()), 1)
    backwards = (grid.column_direction if coronal_axis == 1 else grid.row_direction) @ POSTERIOR
    return [
        *axial,
        *(
            Section("coronal", grid, coronal_axis, mm, -HEAD, LEFT)
            for mm in sorted(coronal_mm, key=lambda mm: mm * backwards)
        ),
        *(Section("sagittal", grid, sagittal_axis, mm, -HEAD, POSTERIOR) for mm in sagittal_mm),
    ]


def _z_text(grid: SliceGrid, slice_index: int) -> str:
    """As planning systems show it: the third value of Image Position (Patient)."""
    return f"{float(grid.positions_mm[slice_index] @ HEAD):.1f}".removesuffix(".0").replace("-", "−")


def _telling_slices(grid: SliceGrid, masks: Sequence[Mask]) -> list[int]:
    """Slices that together show every organ near its largest; evenly spread ones if fewer do."""
    count = grid.shape[0]
    shares = np.zeros((len(masks), count))
    for share, mask in zip(shares, masks, strict=True):
        areas = np.count_nonzero(mask.voxels, axis=(1, 2))
        share[mask.corner[0] : mask.corner[0] + len(areas)] = areas / areas.max()
    chosen: list[int] = []
    seen = np.zeros(len(masks))
    while len(chosen) < min(AXIAL_COUNT, count):
        gains = np.maximum(shares - seen[:, None], 0).sum(axis=0)
        for other in chosen:
            gains[np.abs(grid.offsets_mm - grid.offsets_mm[other]) < APART_MM] = 0
        best = int(gains.argmax())
        if gains[best] < 0.1:
            break
        chosen.append(best)
        seen = np.maximum(seen, shares[:, best])
    if not chosen:
        return sorted({int(s) for s in np.linspace(0, count, min(AXIAL_COUNT, count) + 2)[1:-1]})
    while len(chosen) < min(AXIAL_COUNT, count):
        ends = np.array([-1, *sorted(chosen), count])
        widest = int(np.diff(ends).argmax())
        chosen.append(int((ends[widest] + ends[widest + 1]) // 2))
    return chosen


def _telling_positions(grid: SliceGrid, axis: int, masks: Sequence[Mask], count: int) -> list[float]:
    """Millimetres along an in-plane direction where the organs together are largest.

    Without organs, the middle and its surroundings.
    """
    direction = grid.column_direction if axis == 1 else grid.row_direction
    spacing = grid.pixel_spacing_mm[axis - 1]
    starts = grid.positions_mm @ direction
    low, high = starts.min(), starts.max() + (grid.shape[axis] - 1) * spacing
    if not masks:
        return [float(mm) for mm in np.linspace(low, high, count + 2)[1:-1]]
    edges = np.arange(low - POSITION_BIN_MM, high + 2 * POSITION_BIN_MM, POSITION_BIN_MM)
    shares, weights = np.zeros((len(masks), len(edges) - 1)), np.zeros(len(masks))
    for organ, mask in enumerate(masks):
        counts = np.count_nonzero(mask.voxels, axis=3 - axis)  # (slices, along the direction)
        in_slices = starts[mask.corner[0] : mask.corner[0] + len(counts)]
        places = in_slices[:, None] + (mask.corner[axis] + np.arange(counts.shape[1])) * spacing
        areas = np.histogram(places, edges, weights=counts)[0]
        shares[organ] = areas / areas.max()
        weights[organ] = areas.max() ** 0.25  # by area alone, or each alike, a few would always win
    chosen: list[float] = []
    seen = np.zeros(len(masks))
    middles = edges[:-1] + POSITION_BIN_MM / 2
    for _ in range(count):
        gains = weights @ np.maximum(shares - seen[:, None], 0)
        for other in chosen:
            gains[np.abs(middles - other) < APART_MM] = -1
        best = int(gains.argmax())
        chosen.append(float(middles[best]))
        seen = np.maximum(seen, shares[:, best])
    return chosen
