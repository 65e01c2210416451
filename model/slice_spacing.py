"""Whether slices stand as one stack: nothing twice, nothing beside it, nothing missing.

Which spacings are taken
------------------------
Gaps between neighbouring slices are grouped into stretches of equal gaps; a stretch of at least two gaps
(three slices) establishes a spacing.

- A *change of spacing* is taken: 2.5, 2.5, 5, 5 mm. A single gap at the change is taken if it is no
  wider than the wider spacing beside it: 2.5, 2.5, 3.75, 5, 5 mm, as abutting slices of 2.5 and 5 mm lie.
- A *missing slice* is a single gap wider than the spacings established on either side (or on the only side),
  made up of these spacings: 2.5, 2.5, 5, 2.5, 2.5 mm or 2.5, 2.5, 7.5, 5, 5 mm. So is a stretch of any
  length between two stretches of one and the same narrower spacing, if it is a multiple of it.
- Everything else is *irregular*: single gaps that are wider but no such sum, or narrower than half the spacings
  beside them (two acquisitions overlap), single gaps next to each other (two acquisitions interleave), no
  spacing established at all, or gaps over `MAXIMUM_GAP_MM`.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from model.errors import ReasonCode, SeriesUnsuitable
from model.geometry import POSITION_TOLERANCE_MM, SliceGrid, even_runs

SAME_PLANE_MM = 0.05
"""Closer planes are one plane: no CT reconstructs slices a twentieth of a millimetre apart."""

GAP_TOLERANCE = 0.1
"""Relative difference between gaps that count as equal, or as a multiple, once stretches are found."""

MAXIMUM_GAP_MM = 10.0
"""Between slices further apart nobody knows what is there."""


def refuse_duplicate_positions(grid: SliceGrid) -> None:
    """Two images of one plane are two phases, or two stacks: nobody can tell which to contour."""
    offsets = grid.offsets_mm
    is_new = np.concatenate([[True], np.diff(offsets) > SAME_PLANE_MM])
    per_plane = np.bincount(np.cumsum(is_new) - 1)
    if (per_plane > 1).any():
        first = int(np.flatnonzero(~is_new)[0])
        raise SeriesUnsuitable(
            ReasonCode.DUPLICATE_POSITION,
            f"{len(offsets)} images at {len(per_plane)} positions, up to {per_plane.max()} at one, first at "
            f"{_place(grid, first)}; needed is one image per position: send one phase or acquisition",
        )


def refuse_leaning_stack(grid: SliceGrid) -> None:
    """Slices must stand on one straight line, upright or tilted; a jump sideways is a second acquisition.

    What passes can be resampled to even gaps and is then uniform in the sense of `SliceGrid.is_uniform`.
    """
    offsets = grid.offsets_mm
    if len(offsets) < 3:
        return
    share = (offsets - offsets[0]) / (offsets[-1] - offsets[0])
    line = grid.positions_mm[0] + share[:, None] * (grid.positions_mm[-1] - grid.positions_mm[0])
    off_line = np.abs(grid.positions_mm - line).max(axis=1)
    worst = int(off_line.argmax())
    if off_line[worst] > POSITION_TOLERANCE_MM:
        raise SeriesUnsuitable(
            ReasonCode.IRREGULAR_SPACING,
            f"slices do not stand on one line: the slice at {_place(grid, worst)} is "
            f"{off_line[worst]:.2f} mm beside it; needed is one line within {POSITION_TOLERANCE_MM} mm",
        )


@dataclass(frozen=True)
class _Stretch:
    """Equal gaps between `first` and `last` slice."""

    first: int
    last: int
    gap_mm: float

    @classmethod
    def of(cls, run: slice, offsets: NDArray[np.float64]) -> "_Stretch":
        first, last = run.start, run.stop - 1
        return cls(first, last, float(offsets[last] - offsets[first]) / (last - first))

    @property
    def is_single(self) -> bool:
        return self.last - self.first == 1


def refuse_irregular_gaps(grid: SliceGrid) -> None:
    """Tell changes of spacing from missing slices, by the rule at the top of this module."""
    offsets = grid.offsets_mm
    gaps = np.diff(offsets)
    if not len(gaps):
        return
    stretches = [_Stretch.of(run, offsets) for run in even_runs(offsets[:, None])]
    if len(stretches) > 1 and all(stretch.is_single for stretch in stretches):
        raise SeriesUnsuitable(
            ReasonCode.IRREGULAR_SPACING,
            f"no two neighbouring gaps between slices are equal: {_listed(gaps)} mm; "
            "needed is a regular spacing",
        )
    for index, stretch in enumerate(stretches):
        left = next((s.gap_mm for s in reversed(stretches[:index]) if not s.is_single), None)
        right = next((s.gap_mm for s in stretches[index + 1 :] if not s.is_single), None)
        _refuse_odd_stretch(grid, stretch, [side for side in (left, right) if side is not None])
    for before, after in pairwise(stretches):
        if before.is_single and after.is_single:
            needed = "equal to the gap before or after: these may be two acquisitions interleaved"
            _refuse_gap(grid, ReasonCode.IRREGULAR_SPACING, after.first, needed)
    if gaps.max() > MAXIMUM_GAP_MM:
        _refuse_gap(grid, ReasonCode.IRREGULAR_SPACING, int(gaps.argmax()), f"at most {MAXIMUM_GAP_MM} mm")


def _refuse_odd_stretch(grid: SliceGrid, stretch: _Stretch, sides: list[float]) -> None:
    """Judge a stretch against the spacings established beside it, to the left and to the right."""
    if not sides:
        return
    narrow, wide = min(sides), max(sides)
    beside = f"{_listed(np.array(sides))} mm as beside it"
    is_wider = stretch.gap_mm > wide * (1 + GAP_TOLERANCE)
    is_between_equals = len(sides) == 2 and wide - narrow <= GAP_TOLERANCE * narrow
    parts = _parts(stretch.gap_mm, narrow, wide)
    if is_wider and parts and (stretch.is_single or is_between_equals):
        said = f"{beside}: {parts - 1} missing slice{'s' * (parts > 2)} would fill it"
        _refuse_gap(grid, ReasonCode.MISSING_SLICE, stretch.first, said)
    is_narrower = stretch.gap_mm < narrow * (0.5 - GAP_TOLERANCE / 2)
    if stretch.is_single and (is_wider or is_narrower):
        _refuse_gap(grid, ReasonCode.IRREGULAR_SPACING, stretch.first, beside)


def _parts(gap: float, narrow: float, wide: float) -> int:
    """How many gaps of either spacing fill a gap, 0 if none do; at least two."""
    tolerance = GAP_TOLERANCE * narrow
    for wides in range(int(gap / wide + GAP_TOLERANCE) + 1):
        narrows = round((gap - wides * wide) / narrow)
        if wides + narrows >= 2 and abs(wides * wide + narrows * narrow - gap) <= tolerance:
            return wides + narrows
    return 0


def _refuse_gap(grid: SliceGrid, code: ReasonCode, before: int, needed: str) -> NoReturn:
    gap = grid.offsets_mm[before + 1] - grid.offsets_mm[before]
    raise SeriesUnsuitable(
        code,
        f"gap of {gap:.2f} mm between the slices at {_place(grid, before)} and {_place(grid, before + 1)}; "
        f"needed is {needed}",
    )


def _place(grid: SliceGrid, index: int) -> str:
    """Where a slice is, as a reader finds it: z of Image Position (Patient)."""
    return f"z = {grid.positions_mm[index, 2]:.2f} mm"


def _listed(values: NDArray[np.float64]) -> str:
    """The different values, rounded, the most frequent first."""
    counts = Counter(np.round(values, 2).tolist())
    return ", ".join(f"{value:g}" for value, _ in counts.most_common(6)) + (" …" if len(counts) > 6 else "")
