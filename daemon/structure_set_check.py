"""The last door: a structure set is read again from disk and must pass every rule before it may be sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.errors import InvalidDicomError

from daemon.contour_data import MAX_VALUE_BYTES, ROUNDING_MM, decode_points
from daemon.errors import OutputRejected
from daemon.structure_set import ResultIdentity
from daemon.structure_set_rules import broken_rules
from model.contours import Contour, fill
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid

ROUND_TRIP_DICE = 0.99
"""Least Dice coefficient between an organ's mask and its contours filled again.

Rounding to 0.01 mm moves no voxel centre across a contour, so small organs must return exactly: one voxel is
more than 1 % of a cochlea. The margin is for contours that had to be simplified.
"""

PLANE_TOLERANCE_MM = 0.01
"""How far from its slice's plane a point may lie (IHE-RO BRTO), rounding of its coordinates apart."""

EDGE_TOLERANCE = 0.05
"""How far beyond the outer edge of the image a point may lie, in voxels; rounding needs less."""


@dataclass(frozen=True)
class StructureSummary:
    """What a structure set holds of one organ; without contours the organ was not found.

    Parameters
    ----------
    volume_cm3
        Of the mask.
    contours, slices
        How many contours, on how many different slices.
    dice
        Between the mask and the contours filled again; None for an organ that was not found.
    """

    name: str
    volume_cm3: float = 0.0
    contours: int = 0
    slices: int = 0
    dice: float | None = None

    @property
    def found(self) -> bool:
        """Whether the structure set has the organ."""
        return self.contours > 0


@dataclass(frozen=True, eq=False)
class _Roi:
    """One ROI of the file: its sound contours, what is wrong with the others, and its middle in patient x."""

    name: str
    contours: Sequence[Contour]
    findings: Sequence[str]
    middle_x_mm: float


def check_structure_set(
    path: Path, volume: CTVolume, masks: Mapping[str, Mask], identity: ResultIdentity
) -> list[StructureSummary]:
    """Read a structure set from disk and compare it with what it was made from.

    Parameters
    ----------
    path
        Part 10 file as it would be sent.
    volume, masks
        The CT, and the organs by TG-263 name; organs with an empty mask must be absent from the file.
    identity
        The UIDs that the file must have.

    Returns
    -------
    list of StructureSummary
        One for each mask, in the masks' order.

    Raises
    ------
    OutputRejected
        With every finding, if there is any.
    """
    dataset = _read(path)
    findings = broken_rules(dataset, volume, identity)
    rois = _rois(dataset, volume)
    summaries = []
    for name, mask in masks.items():
        roi = rois.get(name)
        summary = _summary(name, mask, roi, volume.grid)
        if (roi or not mask.is_empty) and (summary.dice or 0.0) < ROUND_TRIP_DICE:
            findings.append(f"{name}: contours return the mask with Dice {summary.dice} < {ROUND_TRIP_DICE}")
        summaries.append(summary)
    findings += [finding for roi in rois.values() for finding in roi.findings]
    findings += [f"ROI {name!r} is no organ that was segmented" for name in rois if name not in masks]
    findings += _wrong_sides(rois)
    if findings:
        raise OutputRejected(findings)
    return summaries


def _read(path: Path) -> Dataset:
    """The file, which must hold one data set and nothing after it: encoded again it is the same bytes."""
    again = BytesIO()
    try:
        dataset = dcmread(path)
        dcmwrite(again, dataset)
    except (InvalidDicomError, AttributeError, EOFError, OSError, ValueError, KeyError) as error:
        raise OutputRejected([f"{path.name} cannot be read again: {error}"]) from error
    if again.getvalue() != path.read_bytes():
        sizes = f"{path.stat().st_size} bytes, its data set {again.tell()}"
        raise OutputRejected([f"{path.name} is not what its data set is encoded as: it has {sizes}"])
    return dataset


def _rois(dataset: Dataset, volume: CTVolume) -> dict[str, _Roi]:
    """Every ROI that has a name and a ROI Contour item, by name."""
    names = {
        roi.get("ROINumber"): str(roi.get("ROIName")) for roi in dataset.get("StructureSetROISequence", ())
    }
    slice_of_uid = {uid: index for index, uid in enumerate(volume.sop_instance_uids)}
    rois = {}
    for item in dataset.get("ROIContourSequence", ()):
        name = names.get(item.get("ReferencedROINumber"))
        if name is not None:
            rois[name] = _roi(name, item, volume.grid, slice_of_uid)
    return rois


def _roi(name: str, item: Dataset, grid: SliceGrid, slice_of_uid: Mapping[str, int]) -> _Roi:
    contours, findings, middles = [], [], []
    for number, contour in enumerate(item.get("ContourSequence", ()), start=1):
        try:
            slice_index, points = _contour(contour, grid, slice_of_uid)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            findings.append(f"{name} contour {number}: {error}")
            continue
        contours.append(Contour(slice_index, grid.to_pixel(slice_index, points)))
        middles.append(float(points[:, 0].mean()))
    return _Roi(name, contours, findings, float(np.mean(middles)) if middles else float("nan"))


def _contour(
    item: Dataset, grid: SliceGrid, slice_of_uid: Mapping[str, int]
) -> tuple[int, NDArray[np.float64]]:
    """Slice index and (n, 3) patient points of one contour; a ValueError says what is wrong with it."""
    if item.ContourGeometricType != "CLOSED_PLANAR":
        raise ValueError(f"is {item.ContourGeometricType}, not CLOSED_PLANAR")
    (image,) = item.ContourImageSequence
    slice_index = slice_of_uid.get(image.ReferencedSOPInstanceUID)
    if slice_index is None:
        raise ValueError(f"refers to {image.ReferencedSOPInstanceUID}, which is no slice of the CT")
    points = decode_points(_contour_data(item))
    if len(points) < 3:
        raise ValueError(f"has {len(points)} points, needed are 3")
    if item.NumberOfContourPoints != len(points):
        raise ValueError(f"says {item.NumberOfContourPoints} points and has {len(points)}")
    off_plane = np.abs((points - grid.positions_mm[slice_index]) @ grid.normal).max()
    if off_plane > PLANE_TOLERANCE_MM + ROUNDING_MM * np.sqrt(3):
        raise ValueError(f"lies {off_plane:.2f} mm off the plane of its slice")
    size = np.array([grid.rows, grid.columns])
    from_middle = np.abs(grid.to_pixel(slice_index, points) - (size - 1) / 2)
    if (from_middle > size / 2 + EDGE_TOLERANCE).any():
        raise ValueError("leaves the image")
    return slice_index, points


def _contour_data(item: Dataset) -> bytes:
    """The bytes as they stand in the file; decoding 300,000 numbers into DS objects would take seconds."""
    value = item.get_item("ContourData").value if "ContourData" in item else None
    if not isinstance(value, bytes):
        raise ValueError("has no Contour Data")  # noqa: TRY004 -- the file is wrong, not the program
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"has {len(value)} bytes of Contour Data, explicit VR allows {MAX_VALUE_BYTES}")
    return value


def _wrong_sides(rois: Mapping[str, _Roi]) -> list[str]:
    """A left organ lies to the patient's left of its partner, where x of LPS is larger."""
    findings = []
    for name, left in rois.items():
        right = rois.get(f"{name.removesuffix('_L')}_R") if name.endswith("_L") else None
        if right and left.middle_x_mm <= right.middle_x_mm:
            where = f"x {left.middle_x_mm:.1f} and {right.middle_x_mm:.1f} mm"
            findings.append(f"{left.name} does not lie to the left of {right.name}: {where}")
    return findings


def _summary(name: str, mask: Mask, roi: _Roi | None, grid: SliceGrid) -> StructureSummary:
    """What the file holds of one organ."""
    if roi is None:
        return StructureSummary(name, mask.volume_cm3(grid))
    slices = len({contour.slice_index for contour in roi.contours})
    dice = _dice(mask, fill(roi.contours, mask.shape))
    return StructureSummary(name, mask.volume_cm3(grid), len(roi.contours), slices, dice)


def _dice(a: Mask, b: Mask) -> float:
    """Dice coefficient of two masks of one volume; 0 if both are empty, as nothing then agrees."""
    low = np.maximum(a.corner, b.corner)
    high = np.minimum(np.add(a.corner, a.voxels.shape), np.add(b.corner, b.voxels.shape))
    if (high <= low).any():
        return 0.0
    common_a, common_b = (
        mask.voxels[
            tuple(slice(lo, hi) for lo, hi in zip(low - mask.corner, high - mask.corner, strict=True))
        ]
        for mask in (a, b)
    )
    return 2 * int(np.count_nonzero(common_a & common_b)) / (a.count + b.count)
