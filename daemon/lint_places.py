"""Rules about the space that structures take: sizes that no patient has, slices left out, contours shared."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from daemon.lint_finding import Finding, note, warning
from daemon.lint_images import CTImages, common_normal
from daemon.lint_view import RoiView, StructureSetView

BIG = warning(
    "extent-too-large",
    "an ROI is larger than any patient",
    "Look at its contours; units are mm.",
    "1 m across, 2.2 m along",
)
SMALL = warning(
    "extent-too-small",
    "the whole structure set is smaller than 5 mm",
    "Look whether coordinates are in cm or m; units are mm.",
    "PS3.3 C.8.8.6",
)
GAP = warning(
    "slices-skipped",
    "an ROI has no contour on slices between two of its contours that lie above each other",
    "Look whether slices were forgotten.",
    "DicomRTTool PR #44",
)
PARTS = note(
    "parts-apart",
    "an ROI has parts with many slices between them",
    "Nothing, if it is meant to have several parts.",
    "a stray contour looks the same",
)
SAME_PLACE = note(
    "roi-twice",
    "two ROIs have the same contours",
    "Nothing, if both names are wanted.",
    "an ROI copied and not edited looks the same",
)

RULES = (BIG, SMALL, GAP, PARTS, SAME_PLACE)

LARGEST_MM = np.array([1000.0, 1000.0, 2200.0])
SMALLEST_MM = 5.0
MOST_FORGOTTEN = 5
"""With more slices missing than this, an ROI is taken to have two parts."""


def check_extents(view: StructureSetView, _images: CTImages | None) -> Iterator[Finding]:
    """Structures have the size of a patient, in mm."""
    sizes = []
    for roi in view.rois:
        if not len(roi.points):
            continue
        sizes.append(np.ptp(roi.points, axis=0))
        if (sizes[-1] > LARGEST_MM).any():
            x, y, z = sizes[-1]
            yield BIG.at(roi.path, f"it measures {x:.0f} × {y:.0f} × {z:.0f} mm", roi.name)
    outlined = any(roi.outlines for roi in view.rois)
    if outlined and (np.max(sizes, axis=0) < SMALLEST_MM).all():
        x, y, z = np.max(sizes, axis=0)
        yield SMALL.at("ROIContourSequence", f"the largest ROI measures {x:.2f} × {y:.2f} × {z:.2f} mm")


def check_gaps(view: StructureSetView, images: CTImages | None) -> Iterator[Finding]:
    """An ROI has contours on each slice from its first to its last."""
    planes = list(images.planes.values()) if images else []
    across = common_normal(planes)
    slices = _levels(np.array([plane.position_mm @ across for plane in planes]))
    for roi in view.rois:
        if len(roi.stack) > 1:
            yield from _gaps(roi, across if planes else _across(roi), slices)


def _across(roi: RoiView) -> NDArray[np.float64]:
    """(3,) unit vector across an ROI's own contours, towards the head; the patient's z where they have no area."""
    areas = roi.stack.area_vectors
    summed = (areas * np.where(areas[:, 2:] < 0, -1.0, 1.0)).sum(axis=0)
    length = float(np.linalg.norm(summed))
    return summed / length if length > 0 else np.array([0.0, 0.0, 1.0])


def _levels(offsets_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distinct offsets, ascending; nearer than 0.1 mm is the same."""
    ordered = np.sort(offsets_mm)
    return ordered[np.diff(ordered, prepend=-np.inf) > 0.1]


def _gaps(roi: RoiView, normal: NDArray[np.float64], slices: NDArray[np.float64]) -> Iterator[Finding]:
    offsets = roi.stack.means_mm @ normal
    levels = _levels(offsets)
    steps = np.diff(levels)
    if not len(steps):
        return
    usual = float(np.median(steps))
    for low, high in pairwise(levels):
        between = int(((slices > low + 0.1) & (slices < high - 0.1)).sum())
        missing = between if len(slices) else round((high - low) / usual) - 1
        if missing < 1 or (high - low) < 1.5 * usual:
            continue
        where = f"from {low:.1f} to {high:.1f} mm, {missing} slice{'s' * (missing > 1)} without"
        if missing <= MOST_FORGOTTEN and _are_stacked(roi, offsets, low, high):
            yield GAP.at(roi.contours_path, where, roi.name, round(float(low), 3))
        else:
            yield PARTS.at(roi.contours_path, where, roi.name, round(float(low), 3))


def _are_stacked(roi: RoiView, offsets: NDArray[np.float64], low: float, high: float) -> bool:
    """Whether a contour on one level overlaps a contour on another, by their boxes."""
    below, above = np.abs(offsets - low) <= 0.1, np.abs(offsets - high) <= 0.1
    low_mm, high_mm = roi.stack.low_mm[:, :2], roi.stack.high_mm[:, :2]
    overlap = (low_mm[below][:, None] < high_mm[above]) & (low_mm[above] < high_mm[below][:, None])
    return bool(overlap.all(axis=2).any())


def check_same_place(view: StructureSetView, _images: CTImages | None) -> Iterator[Finding]:
    """No two ROIs have the same points."""
    first: dict[bytes, RoiView] = {}
    for roi in view.rois:
        if not roi.outlines:
            continue
        other = first.setdefault(roi.stack.points.tobytes(), roi)
        if other is not roi:
            yield SAME_PLACE.at(roi.path, f"it has the contours of {other.name}", roi.name)


CHECKS = (check_extents, check_gaps, check_same_place)
