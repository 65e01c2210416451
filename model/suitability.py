"""Whether CT slices make one volume: every check of their headers, and the grid of those that pass."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, CTImageStorage

from model.errors import ReasonCode, SeriesUnsuitable
from model.geometry import SliceGrid, even_runs
from model.slice_header import SliceHeader
from model.slice_spacing import refuse_duplicate_positions, refuse_irregular_gaps, refuse_leaning_stack

MINIMUM_SLICES = 10
"""Even at 5 mm, ten slices span 5 cm: less than any organ's neighbourhood needs to be recognised.

What is shorter is a bolus or biopsy series, or the beginning of a series cut off.
"""

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine within a series: a quarter of a millimetre at 250 mm.

IHE-RO allows as much from the exact axes.
"""

UNIT_TOLERANCE = 1e-2
"""How far direction cosines may be from unit length and a right angle, as two decimals leave them."""

OFF_BY_DIRECTIONS = 0.5
"""How far, in voxels, a corner of the image may lie from where such cosines put it (PS3.3 C.7.6.2.1.1)."""

PIXEL_SPACING_TOLERANCE_MM = 1e-4
"""Largest difference of Pixel Spacing within a series: a twentieth of a millimetre over 512 pixels."""

ACROSS_THE_STACK = np.cos(np.radians(45))
"""An image whose normal is more than 45 degrees off belongs to another kind of view."""


@dataclass(frozen=True)
class Stack:
    """Headers in the order of the grid, and what was noticed on the way."""

    headers: tuple[SliceHeader, ...]
    grid: SliceGrid
    remarks: tuple[str, ...]


def stack_slices(headers: Sequence[SliceHeader], minimum_slices: int = MINIMUM_SLICES) -> Stack:
    """Leave out what is no slice, sort the rest along its normal, and refuse what makes no volume.

    Neither the order of the headers nor Instance Number matter.

    Raises
    ------
    SeriesUnsuitable
        With the first reason found; geometry is judged before frame of reference, and that before rescaling.
    """
    slices, remarks = _leave_out_other_images(headers)
    _require_one_patient(slices)
    _require_one(ReasonCode.MIXED_SERIES, "Study Instance UID", (h.study_instance_uid for h in slices))
    _require_one(ReasonCode.MIXED_SERIES, "Series Instance UID", (h.series_instance_uid for h in slices))
    _require_position(slices)
    slices, across = _leave_out_images_across(slices)
    directions = _common_orientation(slices)
    _require_one(ReasonCode.MIXED_MATRIX, "matrix", (f"{h.rows} × {h.columns}" for h in slices))
    spacing = _common_pixel_spacing(slices)
    _require_true_directions(slices[0], directions, spacing)
    slices, grid = _sorted_grid(slices, directions, spacing)
    refuse_duplicate_positions(grid)
    _require_frame_of_reference(slices)
    if len(slices) < minimum_slices:
        raise SeriesUnsuitable(
            ReasonCode.TOO_FEW_SLICES,
            f"{counted(len(slices), 'CT slice')}; at least {minimum_slices} are needed",
        )
    refuse_leaning_stack(grid)
    refuse_irregular_gaps(grid)
    _require_hounsfield_units(slices)
    return Stack(tuple(slices), grid, (*remarks, *across, *_remarks(slices, grid)))


# What belongs to the volume


def _leave_out_other_images(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], list[str]]:
    """Slices, and a remark for each other kind of object among the files.

    An empty Image Type says nothing.
    """
    primary = {
        h.position_mm: h for h in headers if "PRIMARY" in h.image_type and "LOCALIZER" not in h.image_type
    }
    kinds = [_other_kind(h, primary) for h in headers]
    slices = [h for h, kind in zip(headers, kinds, strict=True) if not kind]
    found = Counter(kind for kind in kinds if kind)
    remarks = [f"{counted(count, kind)} left out" for kind, count in sorted(found.items())]
    if slices:
        return slices, remarks
    if set(found) == {"localizer"}:
        raise SeriesUnsuitable(
            ReasonCode.LOCALIZER_ONLY,
            f"{counted(found['localizer'], 'localizer')} and nothing else; needed are CT slices",
        )
    listed = ", ".join(counted(count, kind) for kind, count in sorted(found.items())) or "no files"
    raise SeriesUnsuitable(ReasonCode.NOT_CT, f"{listed}; needed are single-frame CT images")


def _other_kind(header: SliceHeader, primary: Mapping[tuple[float, ...] | None, SliceHeader]) -> str:
    """What the object is if it is no CT slice, else an empty string; PRIMARY images are given by position.

    SECONDARY marks a secondary capture only beside PRIMARY images (PS3.3 C.7.6.1.1.2), and only where it has no
    place among them: a whole series may be SECONDARY, as averages of a 4D CT are, or some slices of it.
    """
    if header.sop_class_uid != CTImageStorage:
        return f"{UID(header.sop_class_uid).name or 'unclassified'} object"
    if "LOCALIZER" in header.image_type:
        return "localizer"
    if header.samples_per_pixel != 1:
        return "colour image"
    if primary and "SECONDARY" in header.image_type[1:2] and not _has_a_place_among(header, primary):
        return "secondary capture"
    return ""


def _has_a_place_among(header: SliceHeader, others: Mapping[tuple[float, ...] | None, SliceHeader]) -> bool:
    """Whether an image lies like others, by their positions, of which none is in its place."""
    other = next(iter(others.values()))
    return (
        header.position_mm is not None
        and header.position_mm not in others
        and header.orientation is not None
        and other.orientation is not None
        and (header.rows, header.columns) == (other.rows, other.columns)
        and np.allclose(header.orientation, other.orientation, atol=DIRECTION_TOLERANCE)
    )


def _leave_out_images_across(slices: list[SliceHeader]) -> tuple[list[SliceHeader], list[str]]:
    """Drop a few images that lie across the others: localizers that do not say so."""
    normals = np.array([np.cross(*_directions(h)) for h in slices])
    similarity = np.abs(normals @ normals.T)
    usual = similarity[np.argmax(similarity.sum(axis=0))]
    across = usual < ACROSS_THE_STACK
    count = int(across.sum())
    if not 0 < count <= max(2, len(slices) // 20):
        return slices, []
    kept = [h for h, is_across in zip(slices, across, strict=True) if not is_across]
    return kept, [f"{counted(count, 'localizer')} left out, known by lying across the slices"]


# What every slice must have


def _require_position(slices: Sequence[SliceHeader]) -> None:
    for name, values in (
        ("Image Position (Patient)", [h.position_mm for h in slices]),
        ("Image Orientation (Patient)", [h.orientation for h in slices]),
    ):
        missing = sum(value is None for value in values)
        if missing:
            raise SeriesUnsuitable(
                ReasonCode.MISSING_POSITION,
                f"{missing} of {len(slices)} images have no usable {name}; needed on every image",
            )
    skewed = [h for h in slices if not _is_orthonormal(h)]
    if skewed:
        raise SeriesUnsuitable(
            ReasonCode.MISSING_POSITION,
            f"{len(skewed)} of {len(slices)} images have an Image Orientation (Patient) that is no pair of "
            f"unit vectors at a right angle, such as {skewed[0].orientation}; needed on every image",
        )


def _directions(header: SliceHeader) -> NDArray[np.float64]:
    """(2, 3) row and column direction, as the header gives them."""
    return np.array(header.orientation, dtype=np.float64).reshape(2, 3)


def _is_orthonormal(header: SliceHeader) -> bool:
    directions = _directions(header)
    return bool(np.allclose(directions @ directions.T, np.eye(2), atol=UNIT_TOLERANCE))


def _require_one(code: ReasonCode, name: str, values: Iterable[str]) -> str:
    """The one value that all slices share, and which is not empty."""
    counts = Counter(values)
    if len(counts) != 1:
        listed = ", ".join(f"{value or 'none'} ({count} images)" for value, count in counts.most_common(3))
        raise SeriesUnsuitable(code, f"{len(counts)} different values of {name}: {listed}; needed is one")
    (shared,) = counts
    if not shared:
        raise SeriesUnsuitable(code, f"no image has a {name}; needed is one, the same on every image")
    return shared


def _require_one_patient(slices: Sequence[SliceHeader]) -> None:
    """Without the values themselves, as this message goes into logs.

    Patient ID may be empty or the same for all that come without one, so that name and birth date must agree too,
    where they are given.
    """
    for name, values in (
        ("Patient ID", [h.patient_id for h in slices]),
        ("Patient's Name", [h.patient_name for h in slices if h.patient_name.strip("^= ")]),
        ("Patient's Birth Date", [h.birth_date for h in slices if h.birth_date]),
    ):
        patients = Counter(values)
        if len(patients) > 1:
            counts = ", ".join(str(count) for _, count in patients.most_common(3))
            raise SeriesUnsuitable(
                ReasonCode.MIXED_PATIENT,
                f"{len(patients)} different values of {name}, on {counts} images; needed is one",
            )


def _require_frame_of_reference(slices: Sequence[SliceHeader]) -> None:
    """A structure set without the CT's own frame of reference opens nowhere (PS3.3 C.7.4.1)."""
    missing = sum(not h.frame_of_reference_uid for h in slices)
    if missing:
        raise SeriesUnsuitable(
            ReasonCode.NO_FRAME_OF_REFERENCE,
            f"{missing} of {len(slices)} slices have no Frame of Reference UID; needed on every slice",
        )
    frames = (h.frame_of_reference_uid for h in slices)
    _require_one(ReasonCode.MIXED_FRAME_OF_REFERENCE, "Frame of Reference UID", frames)


def _require_hounsfield_units(slices: Sequence[SliceHeader]) -> None:
    """Rescale Slope and Intercept on every slice, to HU (PS3.3 C.8.2.1 and C.11.1)."""
    missing = sum(h.rescale_intercept is None or not h.rescale_slope for h in slices)
    if missing:
        raise SeriesUnsuitable(
            ReasonCode.NO_RESCALE,
            f"{missing} of {len(slices)} slices have no Rescale Slope and Intercept that can be used; "
            "needed on every slice",
        )
    others = Counter(h.rescale_type for h in slices if h.rescale_type not in {"", "HU"})
    if others:
        kind, count = others.most_common(1)[0]
        raise SeriesUnsuitable(
            ReasonCode.NO_RESCALE, f"Rescale Type is {kind} on {count} of {len(slices)} slices; needed is HU"
        )


# Geometry


def _common_orientation(slices: Sequence[SliceHeader]) -> NDArray[np.float64]:
    """(2, 3) row and column direction of all slices, unit vectors at a right angle."""
    directions = np.array([_directions(h) for h in slices])
    spread = float(np.abs(directions - directions[0]).max())
    if spread > DIRECTION_TOLERANCE:
        kinds = len(np.unique(directions.round(2).reshape(len(slices), 6), axis=0))
        raise SeriesUnsuitable(
            ReasonCode.MIXED_ORIENTATION,
            f"{max(kinds, 2)} different orientations, direction cosines up to {spread:.3f} apart; "
            f"needed is one, within {DIRECTION_TOLERANCE}",
        )
    row = directions[0, 0] / np.linalg.norm(directions[0, 0])
    column = directions[0, 1] - row * (row @ directions[0, 1])
    column /= np.linalg.norm(column)
    normal = np.cross(row, column)
    if abs(normal[2]) < ACROSS_THE_STACK:
        raise SeriesUnsuitable(
            ReasonCode.NOT_AXIAL,
            f"slices are not axial, their normal is {np.round(normal, 3).tolist()}; "
            "needed is an axial series",
        )
    return np.stack([row, column])


def _common_pixel_spacing(slices: Sequence[SliceHeader]) -> tuple[float, float]:
    spacings = [h.pixel_spacing_mm for h in slices if h.pixel_spacing_mm]
    if len(spacings) < len(slices):
        raise SeriesUnsuitable(
            ReasonCode.NO_PIXEL_SPACING,
            f"{len(slices) - len(spacings)} of {len(slices)} slices have no usable Pixel Spacing; "
            "needed on every slice",
        )
    low, high = np.min(spacings, axis=0), np.max(spacings, axis=0)
    if (high - low > PIXEL_SPACING_TOLERANCE_MM).any():
        raise SeriesUnsuitable(
            ReasonCode.MIXED_SPACING,
            f"Pixel Spacing from {low.tolist()} to {high.tolist()} mm; needed is one for the whole series",
        )
    between_rows, between_columns = spacings[0]
    return between_rows, between_columns


def _require_true_directions(
    header: SliceHeader, directions: NDArray[np.float64], spacing: tuple[float, float]
) -> None:
    """Refuse cosines so far from what they must be that nobody knows where the image's last pixel lies."""
    sides = np.array([(header.columns - 1) * spacing[1], (header.rows - 1) * spacing[0]])
    moved = (_directions(header) - directions) * sides[:, None]  # (2, 3) mm at the end of either side
    off = float(np.linalg.norm([moved[0], moved[1], moved.sum(axis=0)], axis=1).max())
    if off > OFF_BY_DIRECTIONS * min(spacing):
        raise SeriesUnsuitable(
            ReasonCode.MISSING_POSITION,
            f"Image Orientation (Patient) {header.orientation} is so far from two unit vectors at a right angle "
            f"that a corner of the image is {off:.1f} mm uncertain; needed is {OFF_BY_DIRECTIONS} voxels at most",
        )


def _sorted_grid(
    slices: Sequence[SliceHeader], directions: NDArray[np.float64], spacing: tuple[float, float]
) -> tuple[list[SliceHeader], SliceGrid]:
    positions = np.array([h.position_mm for h in slices])
    order = np.argsort(positions @ np.cross(*directions), kind="stable")
    first = slices[0]
    grid = SliceGrid(positions[order], directions[0], directions[1], spacing, first.rows, first.columns)
    return [slices[i] for i in order], grid


def counted(count: int, thing: str) -> str:
    """A number of things: "1 localizer", "2 localizers"."""
    return f"{count} {thing}" + "s" * (count != 1)


def _remarks(slices: Sequence[SliceHeader], grid: SliceGrid) -> list[str]:
    remarks = []
    if grid.tilt_degrees >= 0.5:
        remarks.append(f"gantry tilt {grid.tilt_degrees:.1f} degrees")
    gaps = np.diff(grid.offsets_mm)
    if len(even_runs(grid.offsets_mm[:, None])) > 1:
        remarks.append(f"spacing varies: {gaps.min():.2f} to {gaps.max():.2f} mm")
    lossy = sum(h.is_lossy for h in slices)
    if lossy:
        remarks.append(f"lossy compression on {counted(lossy, 'slice')}")
    return remarks
