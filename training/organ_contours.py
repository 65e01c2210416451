"""The contours of one ROI as a mask on its CT, or the reason why they make none that could be taught."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.contours import Contour, fill
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from training.structure_sets import Roi, RoiContour

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
"""Contours that enclose; several on one slice count by the odd number of them around a voxel, either way."""

ON_SLICE_MM = 0.5
"""How far a contour may lie from its slice; never more than a quarter of the gap between slices."""


class RoiUnusableError(Exception):
    """The contours do not say where the whole organ is; the message says why."""


@dataclass(frozen=True, eq=False)
class OrganMask:
    """The voxels inside, and what was passed over."""

    mask: Mask
    remarks: tuple[str, ...]


def organ_mask(roi: Roi, volume: CTVolume) -> OrganMask:
    """Fill the contours of a ROI by the code that fills them everywhere else.

    Points and contours of fewer than three points enclose nothing and are passed over. So is a contour that is
    there twice: by the odd number around a voxel the two would enclose nothing. Contours beyond the first or last
    slice are cut off, as the organ is.

    Raises
    ------
    RoiUnusableError
        Open contours, contours between slices, across slices or on other slices than they say, slices between
        filled ones that are not, or no contours at all.
    """
    drawn = [contour for contour in roi.contours if contour.kind in CLOSED and len(contour.points_mm) >= 3]
    closed = _without_copies(drawn)
    copies = len(drawn) - len(closed)
    twice = (f"{copies} × contour that is there twice passed over",) if copies else ()
    passed_over = (*_passed_over(roi), *twice)
    if not closed:
        raise RoiUnusableError("; ".join(("no contours", *passed_over)))
    offsets = [_plane_mm(contour, volume.grid) for contour in closed]
    slices = _slices(np.array(offsets), volume.grid)
    if (slices < 0).all():
        raise RoiUnusableError("all contours lie beyond the first and last slice of the CT")
    _require_own_slices(closed, slices, volume)
    filled = fill(
        (
            Contour(int(index), volume.grid.to_pixel(int(index), contour.points_mm))
            for index, contour in zip(slices, closed, strict=True)
            if index >= 0
        ),
        volume.grid.shape,
    )
    if filled.is_empty:
        raise RoiUnusableError("the contours enclose no voxel")
    _require_no_gaps(filled)
    beyond = int((slices < 0).sum())
    cut = (f"{beyond} of {len(slices)} contours lie beyond the CT",) if beyond else ()
    return OrganMask(filled, (*passed_over, *cut))


def _passed_over(roi: Roi) -> tuple[str, ...]:
    """What encloses nothing; open contours that were meant to are refused."""
    kinds = [contour.kind for contour in roi.contours]
    other = sorted({kind or "no type" for kind in kinds} - {*CLOSED, "POINT"})
    if other:
        count = sum(kind not in {*CLOSED, "POINT"} for kind in kinds)
        raise RoiUnusableError(f"{count} of {len(kinds)} contours are not closed ({', '.join(other)})")
    points = sum(kind == "POINT" for kind in kinds)
    scraps = sum(contour.kind in CLOSED and len(contour.points_mm) < 3 for contour in roi.contours)
    words = []
    if points:
        words.append(f"{points} × POINT passed over")
    if scraps:
        words.append(f"{scraps} × contour of fewer than 3 points passed over")
    return tuple(words)


def _without_copies(contours: Iterable[RoiContour]) -> list[RoiContour]:
    """Each contour once, wherever it begins and whichever way round it runs."""
    return [*{frozenset(map(tuple, contour.points_mm)): contour for contour in contours}.values()]


def _plane_mm(contour: RoiContour, grid: SliceGrid) -> float:
    """Where along the normal a contour lies."""
    offsets = contour.points_mm @ grid.normal
    if float(np.ptp(offsets)) > 2 * ON_SLICE_MM:
        raise RoiUnusableError(f"a contour runs across slices, over {np.ptp(offsets):.1f} mm")
    return float(offsets.mean())


def _slices(offsets_mm: NDArray[np.float64], grid: SliceGrid) -> NDArray[np.intp]:
    """Slice of each contour, -1 beyond the first and last; refused if any lies between two."""
    planes = grid.offsets_mm
    tolerance = min(ON_SLICE_MM, float(np.diff(planes).min()) / 4)
    nearest = np.abs(planes[None] - offsets_mm[:, None]).argmin(axis=1)
    off = np.abs(planes[nearest] - offsets_mm)
    beyond = (offsets_mm < planes[0] - tolerance) | (offsets_mm > planes[-1] + tolerance)
    between = (off > tolerance) & ~beyond
    if between.any():
        raise RoiUnusableError(
            f"{between.sum()} of {len(offsets_mm)} contours lie on no slice, up to {off[between].max():.2f} mm off"
        )
    return np.where(beyond, -1, nearest)


def _require_own_slices(closed: list[RoiContour], slices: NDArray[np.intp], volume: CTVolume) -> None:
    """Refuse contours that lie on another slice than the image they refer to."""
    index_of = {uid: index for index, uid in enumerate(volume.sop_instance_uids)}
    wrong = 0
    for contour, index in zip(closed, slices, strict=True):
        named = {index_of[uid] for uid in contour.image_uids if uid in index_of}
        wrong += bool(named) and int(index) not in named
    if wrong:
        raise RoiUnusableError(
            f"{wrong} of {len(closed)} contours lie on another slice than the image they refer to"
        )


def _require_no_gaps(filled: Mask) -> None:
    """Refuse an organ of which slices in between are empty: the organ is there, but where is not known."""
    missing = int(np.count_nonzero(~filled.voxels.any(axis=(1, 2))))
    if missing:
        raise RoiUnusableError(
            f"{missing} slices between the first and the last contour have none, or none that encloses a voxel"
        )
