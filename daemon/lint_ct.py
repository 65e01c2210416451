"""Rules that need the images: a structure set belongs to this patient, and its contours lie on these slices."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.lint_finding import Finding, Rule, error, note, warning
from daemon.lint_images import PATIENT, STUDY, CTImages, SlicePlane, common_normal
from daemon.lint_shapes import PLANE_TOLERANCE_MM
from daemon.lint_view import (
    ContourView,
    StructureSetView,
    items,
    listed_images,
    referenced_series,
    referenced_studies,
    text,
)

PATIENT_DIFFERS = error(
    "ct-patient-differs",
    "identifier, name, birth date or sex of the patient are not the images'",
    "Do not use the file for this patient before a person has looked.",
    "PS3.3 C.7.1.1",
)
STUDY_DIFFERS = error(
    "ct-study-differs",
    "the referenced study is not the images'",
    "Refer to the images' Study Instance UID.",
    "IHE-RO BRTO",
)
STUDY_ATTRIBUTES = warning(
    "ct-study-attributes-differ",
    "date, time, identifier or accession number of the study are not the images', although the study is",
    "Copy them from the images.",
    "PS3.3 C.7.2.1",
)
SERIES = error(
    "ct-series-absent",
    "the referenced series is not among the images",
    "Give the folder of the images that the contours were drawn on.",
    "IHE-RO BRTO",
)
FRAME = error(
    "ct-frame-of-reference-differs",
    "the referenced frame of reference is not the images'",
    "Contours in another frame of reference lie elsewhere; draw or register them again.",
    "IHE-RO BRTO; rt-utils #29",
)
LISTED_ABSENT = error(
    "ct-listed-image-absent",
    "the file lists images that are not there",
    "Complete the images, or check that it is this series.",
    "IHE-RO BRTO",
)
UNLISTED = warning(
    "ct-image-unlisted",
    "the file does not list all images of the series",
    "List every image of the series.",
    "IHE-RO BRTO",
)
ABSENT = error(
    "ct-contour-image-absent",
    "a contour refers to an image that is not there",
    "Complete the images, or check that it is this series.",
    "IHE-RO BRTO",
)
OTHER_SLICE = error(
    "ct-contour-on-other-slice",
    "a contour lies on another slice than the one it refers to",
    "Refer to the slice it lies on: readers that trust the reference show it elsewhere.",
    "IHE-RO BRTO; pytrip #188",
)
BETWEEN = error(
    "ct-contour-between-slices",
    "a contour lies on no slice",
    "Take z from the slice's own Image Position, never from mean spacing.",
    "IHE-RO BRTO; DicomRTTool PR #44",
)
POINT_BETWEEN = warning(
    "ct-point-between-slices",
    "a point lies on no slice",
    "Nothing, if the receiver takes points between slices, as of an isocentre.",
    "IHE-RO BRTO",
)
BEYOND = error(
    "ct-contour-beyond-slices",
    "a contour lies above the last or below the first slice",
    "Check series and frame of reference.",
    "rt-utils #114",
)
OUTSIDE = error(
    "ct-contour-outside-image",
    "a contour leaves the image",
    "Check series, spacing and orientation.",
    "rt-utils #92, #114",
)
SUPPORT_OUTSIDE = warning(
    "ct-support-outside-image",
    "a contour of a couch or another support leaves the image",
    "Nothing, if the model of the couch is wider than the image; else check spacing and orientation.",
    "PS3.3 C.8.8.8, SUPPORT",
)
NOT_AXIAL = note(
    "ct-not-axial",
    "the images are not axial slices with square pixels",
    "Nothing, if the receiver takes tilted or oblong images.",
    "IHE-RO BRTO",
)

RULES = (
    PATIENT_DIFFERS,
    STUDY_DIFFERS,
    STUDY_ATTRIBUTES,
    SERIES,
    FRAME,
    LISTED_ABSENT,
    UNLISTED,
    ABSENT,
    OTHER_SLICE,
    BETWEEN,
    POINT_BETWEEN,
    BEYOND,
    OUTSIDE,
    SUPPORT_OUTSIDE,
    NOT_AXIAL,
)

EDGE_TOLERANCE = 0.05
"""How far beyond the outer edge of the image a point may lie, in voxels."""


def check_patient(view: StructureSetView, images: CTImages) -> Iterator[Finding]:
    """The patient is the images'; values are not told, as findings are logged."""
    images = _of_the_structure_set(view, images)
    for keyword in PATIENT:
        own = _plain(text(view.dataset, keyword))
        theirs = {_plain(each) for each in images.values(keyword)}
        if theirs and theirs != {own} and (own or keyword in {"PatientID", "PatientName"}):
            several = "; they disagree among themselves" if len(theirs) > 1 else ""
            yield PATIENT_DIFFERS.at(keyword, f"{keyword} is not the images'{several}")


def _of_the_structure_set(view: StructureSetView, images: CTImages) -> CTImages:
    """Images of the series that it lists, as a folder may hold others; all where none of them is there."""
    return images.of_series({text(item, "SeriesInstanceUID") for _, item, _ in listed_images(view.dataset)})


def _plain(value: str) -> str:
    """A name without the carets of empty components at its end."""
    return value.rstrip("^ ")


def check_study(view: StructureSetView, images: CTImages) -> Iterator[Finding]:
    """Study, series and frame of reference are the images'."""
    studies = images.values("StudyInstanceUID")
    for path, study in referenced_studies(view.dataset):
        uid = text(study, "ReferencedSOPInstanceUID")
        if uid and uid not in studies:
            yield STUDY_DIFFERS.at(f"{path}.ReferencedSOPInstanceUID", f"it is {uid}")
    if text(view.dataset, "StudyInstanceUID") in studies:
        for keyword in STUDY:
            own, theirs = text(view.dataset, keyword), images.values(keyword)
            if theirs and own not in theirs:
                yield STUDY_ATTRIBUTES.at(keyword, f"{keyword} is not the images'")
    for path, series in referenced_series(view.dataset):
        uid = text(series, "SeriesInstanceUID")
        if uid and uid not in images.values("SeriesInstanceUID"):
            yield SERIES.at(f"{path}.SeriesInstanceUID", f"there is no series {uid}")
    yield from _frames(view, images)


def _frames(view: StructureSetView, images: CTImages) -> Iterator[Finding]:
    """Frames in which something is drawn, or to which images belong; another may be named beside them."""
    frames = _of_the_structure_set(view, images).values("FrameOfReferenceUID")
    found = {
        text(item, "FrameOfReferenceUID")
        for item in items(view.dataset, "ReferencedFrameOfReferenceSequence")
        if "RTReferencedStudySequence" in item
    }
    found |= {text(roi.item, "ReferencedFrameOfReferenceUID") for roi in view.rois}
    found |= {text(view.dataset, "FrameOfReferenceUID")}
    theirs = ", ".join(sorted(frames)) or "missing"
    for uid in sorted(found - frames - {""}):
        yield FRAME.at("ReferencedFrameOfReferenceSequence", f"it is {uid}, that of the images is {theirs}")


def check_images(view: StructureSetView, images: CTImages) -> Iterator[Finding]:
    """The listed images and the images are the same, and slices as planning systems like them."""
    listed = view.listed_images
    absent = [uid for uid in listed if uid not in images.by_uid]
    if absent:
        words = f"{len(absent)} of {len(listed)} listed images are not among the {len(images.by_uid)} images"
        yield LISTED_ABSENT.at(listed[absent[0]], words)
    series = _of_the_structure_set(view, images)
    unlisted = [uid for uid in series.planes if uid not in listed]
    if listed and unlisted:
        words = f"{len(unlisted)} of {len(series.planes)} slices are not listed, such as {unlisted[0]}"
        yield UNLISTED.at("ReferencedFrameOfReferenceSequence", words)
    odd = [plane for plane in series.planes.values() if not _is_axial(plane)]
    if odd:
        row, column = (np.round(each, 3).tolist() for each in (odd[0].row_direction, odd[0].column_direction))
        words = f"rows run along {row}, columns along {column}, voxels are {odd[0].spacing_mm} mm"
        yield NOT_AXIAL.at("ImageOrientationPatient", words)


def _is_axial(plane: SlicePlane) -> bool:
    directions = np.abs(np.concatenate([plane.row_direction, plane.column_direction]))
    is_square = abs(plane.spacing_mm[0] - plane.spacing_mm[1]) < 0.001
    return bool(np.allclose(directions, [1, 0, 0, 0, 1, 0], atol=0.001)) and is_square


@dataclass(frozen=True, eq=False)
class _Slices:
    """Planes of the images in arrays, one row for each: where contours are looked up."""

    uids: tuple[str, ...]
    offsets_mm: NDArray[np.float64]
    normal: NDArray[np.float64]

    @classmethod
    def of(cls, images: CTImages) -> "_Slices":
        normal = common_normal(list(images.planes.values()))
        offsets = np.array([plane.position_mm @ normal for plane in images.planes.values()])
        order = np.argsort(offsets)
        uids = tuple(images.planes)
        return cls(tuple(uids[index] for index in order), offsets[order], normal)

    def nearest(self, offset_mm: float) -> int:
        """Index of the slice whose plane is nearest."""
        return int(np.abs(self.offsets_mm - offset_mm).argmin())


def check_planes(view: StructureSetView, images: CTImages) -> Iterator[Finding]:
    """Each contour lies on the slice it refers to, and inside it."""
    shown = _of_the_structure_set(view, images)
    if not shown.planes:
        return
    slices = _Slices.of(shown)
    for roi in view.rois:
        outside = SUPPORT_OUTSIDE if roi.interpreted_type == "SUPPORT" else OUTSIDE
        for contour in roi.contours:
            if contour.image_uids and not any(uid in images.by_uid for uid in contour.image_uids):
                words = f"there is no image {contour.image_uids[0]}"
                yield ABSENT.at(contour.path, words, contour.roi, contour.z_mm)
            elif len(contour.points) and contour.type != "OPEN_NONPLANAR":
                yield from _place(contour, shown, slices, outside)


def _place(contour: ContourView, images: CTImages, slices: _Slices, outside: Rule) -> Iterator[Finding]:
    offset = float(contour.points.mean(axis=0) @ slices.normal)
    uid = next((uid for uid in contour.image_uids if uid in images.planes), None)
    nearest = slices.uids[slices.nearest(offset)]
    plane = images.planes[uid or nearest]
    off = _off_plane_mm(contour.points, plane)
    if off > PLANE_TOLERANCE_MM:
        yield _misplaced(contour, offset, off, slices, images.planes[nearest])
    elif _leaves(contour.points, plane):
        low, high = contour.points.min(axis=0), contour.points.max(axis=0)
        words = f"x from {low[0]:.1f} to {high[0]:.1f} mm, y from {low[1]:.1f} to {high[1]:.1f} mm"
        yield outside.at(contour.path, words, contour.roi, contour.z_mm)


def _misplaced(
    contour: ContourView, offset: float, off: float, slices: _Slices, nearest: SlicePlane
) -> Finding:
    index = slices.nearest(offset)
    first, last = slices.offsets_mm[0], slices.offsets_mm[-1]
    gap = float(np.median(np.diff(slices.offsets_mm))) if len(slices.uids) > 1 else 0.0
    if _off_plane_mm(contour.points, nearest) <= PLANE_TOLERANCE_MM:
        words = f"it lies on {slices.uids[index]}, {off:.2f} mm from the slice it refers to"
        return OTHER_SLICE.at(contour.path, words, contour.roi, contour.z_mm)
    if not first - gap / 2 <= offset <= last + gap / 2:
        words = f"it lies at {offset:.2f} mm, the slices from {first:.2f} to {last:.2f}"
        return BEYOND.at(contour.path, words, contour.roi, contour.z_mm)
    words = f"it lies {off:.2f} mm off its slice; the nearest is at {slices.offsets_mm[index]:.2f} mm"
    rule = POINT_BETWEEN if contour.type == "POINT" else BETWEEN
    return rule.at(contour.path, words, contour.roi, contour.z_mm)


def _off_plane_mm(points: NDArray[np.float64], plane: SlicePlane) -> float:
    return float(np.abs((points - plane.position_mm) @ plane.normal).max())


def _leaves(points: NDArray[np.float64], plane: SlicePlane) -> bool:
    """Whether a point lies beyond the outer edge of the outermost voxels."""
    axes = np.stack([plane.row_direction, plane.column_direction], axis=1)
    pixels = (points - plane.position_mm) @ axes / plane.spacing_mm
    size = np.array(plane.size)
    return bool((np.abs(pixels - (size - 1) / 2) > size / 2 + EDGE_TOLERANCE).any())


CHECKS = (check_patient, check_study, check_images, check_planes)
