"""A structure set as the rules see it: ROIs with their contours as arrays, whatever is wrong with the file."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import BytesLengthException

from daemon.lint_coordinates import Coordinates, coordinates_of
from daemon.lint_stack import Stack

UNREADABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises for values that are not what their VR says, and for sequences without an end."""


# Values that may be absent or broken


def items(dataset: Dataset, keyword: str) -> Sequence[Dataset]:
    """Return the items of a sequence; none if it is absent, empty or no sequence."""
    try:
        element = dataset[keyword]
        return list(element.value or ()) if element.VR == "SQ" else ()
    except UNREADABLE:
        return ()


def texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values as text, without padding; none if absent, empty or not readable."""
    try:
        value = dataset.get(keyword)
    except UNREADABLE:
        return ()
    if value is None or value == "":
        return ()
    many = value if isinstance(value, list | tuple) or hasattr(value, "append") else [value]
    return tuple(str(each).strip(" \0") for each in many)


def text(dataset: Dataset, keyword: str) -> str:
    """Return the value as text, several of them with backslashes between; empty if absent."""
    return "\\".join(texts(dataset, keyword))


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return an integer string's value; None if absent or no integer."""
    try:
        return int(text(dataset, keyword))
    except ValueError:
        return None


# Contours


@dataclass(frozen=True, eq=False)
class ContourView:
    """One item of a Contour Sequence."""

    item: Dataset
    path: str
    roi: str
    type: str
    coordinates: Coordinates
    image_uids: tuple[str, ...]

    @property
    def points(self) -> NDArray[np.float64]:
        """(n, 3) LPS mm; empty where the data are broken."""
        return self.coordinates.points

    @cached_property
    def z_mm(self) -> float | None:
        """Mean patient z; None without points."""
        return round(float(self.points[:, 2].mean()), 3) if len(self.points) else None


@dataclass(frozen=True, eq=False)
class RoiView:
    """One item of the Structure Set ROI Sequence and what the other two sequences say of it.

    Parameters
    ----------
    item, path
        In Structure Set ROI Sequence.
    contours_item, contours_path
        Its first item in ROI Contour Sequence; None without one.
    observation, observation_path
        Its first item in RT ROI Observations Sequence; None without one.
    """

    item: Dataset
    path: str
    number: int | None
    name: str
    contours: tuple[ContourView, ...]
    contours_item: Dataset | None
    contours_path: str
    observation: Dataset | None
    observation_path: str

    @property
    def interpreted_type(self) -> str:
        """RT ROI Interpreted Type; empty if absent."""
        return text(self.observation, "RTROIInterpretedType") if self.observation else ""

    @cached_property
    def outlines(self) -> tuple[ContourView, ...]:
        """Closed contours with points enough to have an inside."""
        return tuple(each for each in self.contours if is_closed(each.type) and len(each.points) >= 3)

    @cached_property
    def stack(self) -> Stack:
        """The outlines' points, one array."""
        return Stack.of([each.points for each in self.outlines])

    @cached_property
    def points(self) -> NDArray[np.float64]:
        """(n, 3) LPS mm of all contours, whatever their type."""
        return np.concatenate([np.empty((0, 3)), *(each.points for each in self.contours)])

    @cached_property
    def centre_mm(self) -> NDArray[np.float64]:
        """(3,) LPS mm, the mean of the outlines' middles weighted by their area; NaN without outlines."""
        weights = self.stack.areas_mm2
        if not weights.sum() > 0:
            return np.full(3, np.nan)
        return np.asarray(weights @ self.stack.centres_mm / weights.sum(), dtype=np.float64)


def is_closed(geometric_type: str) -> bool:
    """Whether contours of this type are polygons."""
    return geometric_type in {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}


@dataclass(frozen=True, eq=False)
class StructureSetView:
    """A structure set's data set, and its ROIs in their order."""

    dataset: Dataset
    rois: tuple[RoiView, ...]

    @property
    def contours(self) -> Iterator[ContourView]:
        """Every contour that belongs to an ROI."""
        return (contour for roi in self.rois for contour in roi.contours)

    @cached_property
    def listed_images(self) -> dict[str, str]:
        """Path of the first item by Referenced SOP Instance UID, of all images the file lists."""
        found: dict[str, str] = {}
        for path, _, image in listed_images(self.dataset):
            found.setdefault(text(image, "ReferencedSOPInstanceUID"), path)
        return found


def view(dataset: Dataset) -> StructureSetView:
    """Take a structure set apart; what is absent or broken is left out and never raises."""
    contour_items = _by_roi(dataset, "ROIContourSequence")
    observations = _by_roi(dataset, "RTROIObservationsSequence")
    rois = []
    for index, item in enumerate(items(dataset, "StructureSetROISequence"), start=1):
        number, name = integer(item, "ROINumber"), text(item, "ROIName")
        contours_path, contours_item = contour_items.get(number, ("", None))
        observation_path, observation = observations.get(number, ("", None))
        contours = _contours(contours_item, contours_path, name) if contours_item is not None else ()
        path = f"StructureSetROISequence[{index}]"
        rois.append(
            RoiView(
                item,
                path,
                number,
                name,
                contours,
                contours_item,
                contours_path,
                observation,
                observation_path,
            )
        )
    return StructureSetView(dataset, tuple(rois))


def referenced_studies(dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Every item of RT Referenced Study Sequence with its path."""
    for f, frame in enumerate(items(dataset, "ReferencedFrameOfReferenceSequence"), start=1):
        for s, study in enumerate(items(frame, "RTReferencedStudySequence"), start=1):
            yield f"ReferencedFrameOfReferenceSequence[{f}].RTReferencedStudySequence[{s}]", study


def referenced_series(dataset: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Every item of RT Referenced Series Sequence with its path."""
    for path, study in referenced_studies(dataset):
        for number, series in enumerate(items(study, "RTReferencedSeriesSequence"), start=1):
            yield f"{path}.RTReferencedSeriesSequence[{number}]", series


def listed_images(dataset: Dataset) -> Iterator[tuple[str, Dataset, Dataset]]:
    """Every image that a referenced series lists: path, the series' item, the image's item."""
    for path, series in referenced_series(dataset):
        for number, image in enumerate(items(series, "ContourImageSequence"), start=1):
            yield f"{path}.ContourImageSequence[{number}]", series, image


def _by_roi(dataset: Dataset, keyword: str) -> dict[int | None, tuple[str, Dataset]]:
    found: dict[int | None, tuple[str, Dataset]] = {}
    for index, item in enumerate(items(dataset, keyword), start=1):
        found.setdefault(integer(item, "ReferencedROINumber"), (f"{keyword}[{index}]", item))
    return found


def _contours(item: Dataset, path: str, roi: str) -> tuple[ContourView, ...]:
    return tuple(
        ContourView(
            item=contour,
            path=f"{path}.ContourSequence[{number}]",
            roi=roi,
            type=text(contour, "ContourGeometricType"),
            coordinates=coordinates_of(contour),
            image_uids=tuple(
                text(image, "ReferencedSOPInstanceUID") for image in items(contour, "ContourImageSequence")
            ),
        )
        for number, contour in enumerate(items(item, "ContourSequence"), start=1)
    )
