"""The last door: a structure set is read again from disk and must pass every rule before it may be sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.errors import InvalidDicomError
from scipy import ndimage

from daemon.contour_data import MAX_VALUE_BYTES, decode_points
from daemon.destination_profile import PROFILES, HoleStyle, Profile
from daemon.errors import OutputRejected
from daemon.result_header import ResultIdentity
from daemon.short_names import short_names
from daemon.structure_set import written
from daemon.structure_set_rules import broken_rules
from daemon.structure_template import ROI
from model.contours import Contour, fill
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from model.structures import LEFT, structure

ROUND_TRIP_DICE = 0.99
SMALL_ROUND_TRIP_DICE = 0.95
SMALL_CM3 = 1.0
"""Least Dice coefficient between a structure's mask and its contours filled again, above and up to this volume.

A smooth contour cuts corners of voxels, and of a cochlea one voxel is more than 1 %.
"""

FEW_VOXELS = 4
"""So many voxels on one slice may be lost, as the very tip of a structure; a slice with more needs a contour."""

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
class _Found:
    """One ROI of the file: its sound contours, what is wrong with the others, and its middle in patient x."""

    contours: Sequence[Contour]
    findings: Sequence[str]
    middle_x_mm: float


def check_structure_set(
    path: Path,
    volume: CTVolume,
    rois: Sequence[ROI],
    identity: ResultIdentity,
    profile: Profile = PROFILES["generic"],
) -> list[StructureSummary]:
    """Read a structure set from disk and compare it with what it was made from.

    Parameters
    ----------
    path
        Part 10 file as it would be sent.
    volume, rois
        The CT, and the structures with their masks; what was not found must be absent from the file or, where the
        profile writes empty structures, empty.
    identity
        The UIDs that the file must have.
    profile
        For which it was written.

    Returns
    -------
    list of StructureSummary
        One for each ROI, in their order, under the name that the template gives it.

    Raises
    ------
    OutputRejected
        With every finding, if there is any.
    """
    dataset = _read(path)
    findings = broken_rules(dataset, volume, identity)
    in_file = _rois(dataset, volume, profile)
    names = short_names([roi.name for roi in rois], profile)
    expected = {names[roi.name]: roi for roi in rois}
    summaries = []
    for name, roi in expected.items():
        reference = _without_holes(roi.mask) if profile.holes is HoleStyle.FILLED else roi.mask
        summary, wrong = _compare(roi, reference, in_file.get(name), volume.grid, profile)
        findings += wrong
        summaries.append(summary)
    findings += [finding for found in in_file.values() for finding in found.findings]
    findings += _presence(in_file, expected, {names[roi.name] for roi in written(rois, profile)})
    findings += _wrong_attributes(dataset, expected)
    organs = {roi.organ: in_file[name] for name, roi in expected.items() if roi.organ and name in in_file}
    findings += _wrong_sides(organs)
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


def _rois(dataset: Dataset, volume: CTVolume, profile: Profile) -> dict[str, _Found]:
    """Every ROI that has a name and a ROI Contour item, by name."""
    names = {
        roi.get("ROINumber"): str(roi.get("ROIName")) for roi in dataset.get("StructureSetROISequence", ())
    }
    slice_of_uid = {uid: index for index, uid in enumerate(volume.sop_instance_uids)}
    found = {}
    for item in dataset.get("ROIContourSequence", ()):
        name = names.get(item.get("ReferencedROINumber"))
        if name is not None:
            found[name] = _found(name, item, volume.grid, slice_of_uid, profile)
    return found


def _found(
    name: str, item: Dataset, grid: SliceGrid, slice_of_uid: Mapping[str, int], profile: Profile
) -> _Found:
    contours, findings, middles = [], [], []
    for number, contour in enumerate(item.get("ContourSequence", ()), start=1):
        try:
            slice_index, points = _contour(contour, grid, slice_of_uid, profile)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            findings.append(f"{name} contour {number}: {error}")
            continue
        contours.append(Contour(slice_index, grid.to_pixel(slice_index, points)))
        middles.append(float(points[:, 0].mean()))
    return _Found(contours, findings, float(np.mean(middles)) if middles else float("nan"))


def _contour(
    item: Dataset, grid: SliceGrid, slice_of_uid: Mapping[str, int], profile: Profile
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
    if len(points) > profile.max_points:
        raise ValueError(f"has {len(points)} points, {profile.name} allows {profile.max_points}")
    if item.NumberOfContourPoints != len(points):
        raise ValueError(f"says {item.NumberOfContourPoints} points and has {len(points)}")
    off_plane = np.abs((points - grid.positions_mm[slice_index]) @ grid.normal).max()
    if off_plane > PLANE_TOLERANCE_MM + 0.5 * 10**-profile.decimals * np.sqrt(3):
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


def _presence(in_file: Mapping[str, _Found], expected: Mapping[str, ROI], due: set[str]) -> Iterator[str]:
    """What must be in the file is, and nothing else."""
    yield from (f"ROI {name!r} is missing" for name in expected if name in due and name not in in_file)
    for name, found in in_file.items():
        if name not in expected:
            yield f"ROI {name!r} is nothing that was segmented"
        elif name not in due and not found.contours:
            yield f"ROI {name!r} is empty"


def _wrong_attributes(dataset: Dataset, expected: Mapping[str, ROI]) -> Iterator[str]:
    """Names, numbers and types are the template's, so that nothing is taken for something else."""
    types = {
        item.get("ReferencedROINumber"): item.get("RTROIInterpretedType")
        for item in dataset.get("RTROIObservationsSequence", ())
    }
    for item in dataset.get("StructureSetROISequence", ()):
        roi = expected.get(str(item.get("ROIName")))
        if roi is None:
            continue
        if item.get("ROINumber") != roi.number:
            yield f"{roi.name} has ROI Number {item.get('ROINumber')}, needed is {roi.number}"
        elif types.get(roi.number) != roi.interpreted_type:
            yield f"{roi.name} is of type {types.get(roi.number)!r}, needed is {roi.interpreted_type.value}"


def _wrong_sides(organs: Mapping[str, _Found]) -> Iterator[str]:
    """A left organ lies to the patient's left of its partner, where x of LPS is larger; by TG-263 names."""
    for name, left in organs.items():
        right = organs.get(structure(name).mirror) if structure(name).laterality == LEFT else None
        if right and left.middle_x_mm <= right.middle_x_mm:
            where = f"x {left.middle_x_mm:.1f} and {right.middle_x_mm:.1f} mm"
            yield f"{name} does not lie to the left of {structure(name).mirror}: {where}"


def _compare(
    roi: ROI, reference: Mask, found: _Found | None, grid: SliceGrid, profile: Profile
) -> tuple[StructureSummary, list[str]]:
    """What the file holds of one structure, and how that differs from its mask."""
    volume_cm3 = roi.mask.volume_cm3(grid)
    if reference.is_empty and not (found and found.contours):
        return StructureSummary(roi.name, volume_cm3), []
    contours = found.contours if found else ()
    back = fill(contours, grid.shape)
    dice = _dice(reference, back)
    slices = {contour.slice_index for contour in contours}
    least = ROUND_TRIP_DICE if volume_cm3 > SMALL_CM3 else SMALL_ROUND_TRIP_DICE
    findings = []
    if dice < least:
        findings.append(f"{roi.name}: contours return the mask with Dice {dice} < {least}")
    if lost := _slices(reference, FEW_VOXELS) - slices:
        findings.append(f"{roi.name}: slices {_listed(lost)} of the mask have no contour")
    if extra := slices - _slices(reference, 0):
        findings.append(f"{roi.name}: slices {_listed(extra)} have a contour and no mask")
    if profile.holes is not HoleStyle.NESTED and _is_nested(contours, grid.shape):
        findings.append(f"{roi.name}: a contour lies inside another, {profile.name} reads no hole from that")
    return StructureSummary(roi.name, volume_cm3, len(contours), len(slices), dice), findings


def _slices(mask: Mask, voxels: int) -> set[int]:
    """Indices of the slices on which a mask has more voxels than these."""
    counts = np.count_nonzero(mask.voxels, axis=(1, 2))
    return {mask.corner[0] + int(index) for index in np.flatnonzero(counts > voxels)}


def _listed(slices: set[int]) -> str:
    return ", ".join(map(str, sorted(slices)))


def _without_holes(mask: Mask) -> Mask:
    """The mask with every hole of a slice filled; what touches the outside by a corner only is no hole."""
    around = np.ones((3, 3), dtype=bool)
    filled = [ndimage.binary_fill_holes(plane, structure=around) for plane in mask.voxels]
    return Mask(np.array(filled, dtype=bool).reshape(mask.voxels.shape), mask.corner, mask.shape)


def _is_nested(contours: Sequence[Contour], shape: tuple[int, int, int]) -> bool:
    """Whether somewhere the contours together return less than the contours one by one: a nested hole."""
    by_slice: dict[int, list[Contour]] = {}
    for contour in contours:
        by_slice.setdefault(contour.slice_index, []).append(contour)
    several = [own for own in by_slice.values() if len(own) > 1]
    return any(
        sum(fill([each], shape).count for each in own) - fill(own, shape).count > 2 * FEW_VOXELS
        for own in several
    )


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
