"""RT structure sets as vendors write them, for a CT series in a folder, with whatever is wrong about them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from model.contours import trace
from model.geometry import Mask, SliceGrid

Points = np.ndarray
"""(n, 3) LPS mm."""


def outlines(mask: Mask, grid: SliceGrid) -> list[Points]:
    """A mask's contours in patient millimetres; holes are nested, as Varian and RayStation write them."""
    return [grid.to_patient(contour.slice_index, contour.points) for contour in trace(mask)]


def write_structure_set(
    path: Path,
    ct_files: Sequence[Path],
    rois: Mapping[str, Sequence[Points]],
    *,
    kind: str = "CLOSED_PLANAR",
    change: Callable[[Dataset], None] | None = None,
) -> Path:
    """Write a structure set that refers to every image of a series; `change` is called just before writing."""
    headers = [dcmread(file, stop_before_pixels=True) for file in ct_files]
    ct = headers[0]
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        RTStructureSetStorage,
        generate_uid(entropy_srcs=[str(path)]),
    )
    dataset.PatientID, dataset.PatientName = ct.PatientID, ct.PatientName
    dataset.PatientBirthDate = ct.PatientBirthDate
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = ct.StudyInstanceUID, generate_uid()
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "Plan"
    dataset.StructureSetDate, dataset.StructureSetTime = "20250103", "120000"
    dataset.ReferencedFrameOfReferenceSequence = [_references(ct, headers)]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = ct.FrameOfReferenceUID
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(points, kind) for points in contours]
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)
    if change:
        change(dataset)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def _references(ct: Dataset, headers: Sequence[Dataset]) -> Dataset:
    frame, study, series = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = ct.FrameOfReferenceUID
    study.ReferencedSOPInstanceUID = ct.StudyInstanceUID
    series.SeriesInstanceUID = ct.SeriesInstanceUID
    series.ContourImageSequence = [_image(header) for header in headers]
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
    return frame


def _image(header: Dataset) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return image


def _contour(points: Points, kind: str) -> Dataset:
    contour = Dataset()
    contour.ContourGeometricType = kind
    contour.NumberOfContourPoints = len(points)
    contour.ContourData = [f"{value:.4f}" for value in np.asarray(points).ravel()]
    return contour
