"""An RT Structure Set of any vendor as it stands in the file: ROIs, their contours, and what they refer to."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataelem import RawDataElement

from model.dicom_file import read_file


class StructureSetUnreadableError(Exception):
    """The structure set contradicts itself or cannot be decoded; the message says where."""


@dataclass(frozen=True, eq=False)
class RoiContour:
    """One item of a Contour Sequence.

    Parameters
    ----------
    kind
        Contour Geometric Type.
    points_mm
        (n, 3) LPS.
    image_uids
        SOP Instance UIDs of the images it was drawn on; often none.
    """

    kind: str
    points_mm: NDArray[np.float64]
    image_uids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Roi:
    """One ROI; frame of reference and ROI Generation Algorithm are empty where it names none."""

    number: int
    name: str
    frame_of_reference_uid: str
    generation_algorithm: str
    contours: tuple[RoiContour, ...]


@dataclass(frozen=True, eq=False)
class StructureSet:
    """What matching and filling need.

    Parameters
    ----------
    manufacturer, approval
        Manufacturer and Approval Status, empty if the file has none.
    written
        Structure Set Date and Time as they stand there; later ones sort behind.
    frames, series_uids, image_uids
        Frames of reference, CT series and CT images that it refers to, wherever it does.
    """

    rois: tuple[Roi, ...]
    manufacturer: str
    approval: str
    written: str
    frames: frozenset[str]
    series_uids: frozenset[str]
    image_uids: frozenset[str]

    @property
    def is_automatic(self) -> bool:
        """Whether a program drew all that is drawn, as the file says."""
        return all(roi.generation_algorithm == "AUTOMATIC" for roi in self.rois if roi.contours)


def read_structure_set(path: Path) -> StructureSet:
    """Read a file.

    Raises
    ------
    StructureSetUnreadableError
        Whatever is wrong inside the file.
    """
    try:
        dataset = read_file(path)
        _require_whole(dataset)
        return _structure_set(dataset)
    except StructureSetUnreadableError:
        raise
    except Exception as error:
        raise StructureSetUnreadableError(
            f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        ) from error


def _require_whole(dataset: Dataset) -> None:
    """Refuse a file that was cut off: what is left of a sequence reads like a whole one."""
    for tag in dataset.keys():  # noqa: SIM118 - iterating a data set would decode its elements
        element = dataset.get_item(tag)
        if not isinstance(element, RawDataElement) or element.length == 0xFFFFFFFF:
            continue
        if isinstance(element.value, bytes) and len(element.value) != element.length:
            raise StructureSetUnreadableError(
                f"the file is cut off: {tag} has {len(element.value)} of {element.length} bytes"
            )


def _structure_set(dataset: Dataset) -> StructureSet:
    contours = _contours_by_number(dataset)
    rois = tuple(
        Roi(
            int(item.ROINumber),
            str(item.get("ROIName") or ""),
            str(item.get("ReferencedFrameOfReferenceUID") or ""),
            str(item.get("ROIGenerationAlgorithm") or "").strip(),
            contours.get(int(item.ROINumber), ()),
        )
        for item in dataset.get("StructureSetROISequence") or ()
    )
    if len({roi.number for roi in rois}) < len(rois):
        raise StructureSetUnreadableError(
            "two ROIs share one ROI Number: whose contours are whose is not known"
        )
    frames = dataset.get("ReferencedFrameOfReferenceSequence") or ()
    series = [each for frame in frames for each in _series(frame)]
    return StructureSet(
        rois,
        manufacturer=str(dataset.get("Manufacturer") or "").strip(),
        approval=str(dataset.get("ApprovalStatus") or "").strip(),
        written=f"{dataset.get('StructureSetDate') or ''} {dataset.get('StructureSetTime') or ''}".strip(),
        frames=frozenset(str(frame.get("FrameOfReferenceUID") or "") for frame in frames)
        | {roi.frame_of_reference_uid for roi in rois} - {""},
        series_uids=frozenset(str(each.SeriesInstanceUID) for each in series),
        image_uids=frozenset(uid for each in series for uid in _image_uids(each))
        | {uid for roi in rois for contour in roi.contours for uid in contour.image_uids},
    )


def _series(frame: Dataset) -> Iterator[Dataset]:
    for study in frame.get("RTReferencedStudySequence") or ():
        yield from study.get("RTReferencedSeriesSequence") or ()


def _image_uids(item: Dataset) -> tuple[str, ...]:
    return tuple(str(image.ReferencedSOPInstanceUID) for image in item.get("ContourImageSequence") or ())


def _contours_by_number(dataset: Dataset) -> dict[int, tuple[RoiContour, ...]]:
    contours: dict[int, tuple[RoiContour, ...]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = int(item.ReferencedROINumber)
        drawn = tuple(_contour(each) for each in item.get("ContourSequence") or ())
        contours[number] = contours.get(number, ()) + drawn
    return contours


def _contour(item: Dataset) -> RoiContour:
    """One contour; its numbers are taken from the bytes, as some writers make them longer than DS may be."""
    value = item.get_item("ContourData").value if "ContourData" in item else b""
    if isinstance(value, bytes):
        numbers = [float(number) for number in value.rstrip(b"\0 ").split(b"\\") if number.strip()]
    else:
        numbers = [float(number) for number in value or ()]
    if len(numbers) % 3 or not np.isfinite(numbers).all():
        raise StructureSetUnreadableError(
            f"a contour of {len(numbers)} numbers, which are no points in space"
        )
    return RoiContour(
        str(item.get("ContourGeometricType") or ""), np.array(numbers).reshape(-1, 3), _image_uids(item)
    )
