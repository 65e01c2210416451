"""The CT images that a structure set is held against: their headers, and where their slices are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DSfloat

from daemon.lint_view import UNREADABLE, text
from model.ct import CTVolume
from model.dicom_file import read_header

PATIENT = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
STUDY = ("StudyID", "StudyDate", "StudyTime", "AccessionNumber")
_HEADER = (
    *PATIENT,
    *STUDY,
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "SpecificCharacterSet",
)


@dataclass(frozen=True, eq=False)
class SlicePlane:
    """Where one image lies.

    Parameters
    ----------
    position_mm
        (3,) LPS, centre of the first voxel.
    row_direction, column_direction
        (3,) unit vectors of increasing column index and of increasing row index.
    spacing_mm
        Between columns, between rows.
    size
        Columns, rows.
    """

    position_mm: NDArray[np.float64]
    row_direction: NDArray[np.float64]
    column_direction: NDArray[np.float64]
    spacing_mm: tuple[float, float]
    size: tuple[int, int]

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,) unit vector across the slice."""
        return np.cross(self.row_direction, self.column_direction)


@dataclass(frozen=True, eq=False)
class CTImages:
    """Headers of CT images, of one series or more.

    Parameters
    ----------
    headers
        One for each image, without pixels.
    """

    headers: tuple[Dataset, ...]

    @cached_property
    def by_uid(self) -> dict[str, Dataset]:
        """Header by SOP Instance UID."""
        return {text(header, "SOPInstanceUID"): header for header in self.headers}

    def values(self, keyword: str) -> set[str]:
        """Return all values of an attribute, empty ones left out."""
        return {value for header in self.headers if (value := text(header, keyword))}

    def of_series(self, uids: Iterable[str]) -> "CTImages":
        """Return the images of these series, or all if there is none of them."""
        wanted = set(uids)
        chosen = tuple(each for each in self.headers if text(each, "SeriesInstanceUID") in wanted)
        return CTImages(chosen) if chosen else self

    @cached_property
    def planes(self) -> dict[str, SlicePlane]:
        """Plane by SOP Instance UID, of the images that say where they lie; localizers are left out."""
        found = {}
        for uid, header in self.by_uid.items():
            plane = None if "LOCALIZER" in text(header, "ImageType") else _plane(header)
            if plane is not None:
                found[uid] = plane
        return found


def images_of(volume: CTVolume) -> CTImages:
    """Return a volume's slices as images that structure sets can be held against."""
    grid, headers = volume.grid, []
    for uid, position in zip(volume.sop_instance_uids, grid.positions_mm, strict=True):
        header = Dataset()
        for keyword in _HEADER:
            if keyword in volume.header:
                setattr(header, keyword, volume.header[keyword].value)
        header.SOPInstanceUID = uid
        header.ImagePositionPatient = [_decimal(value) for value in position]
        header.ImageOrientationPatient = [
            _decimal(value) for value in (*grid.row_direction, *grid.column_direction)
        ]
        header.PixelSpacing = [_decimal(value) for value in grid.pixel_spacing_mm]
        header.Rows, header.Columns = grid.rows, grid.columns
        headers.append(header)
    return CTImages(tuple(headers))


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)


def read_images(folder: Path) -> CTImages:
    """Read the headers of every CT image under a folder; whatever else is there is passed over.

    File names and extensions do not matter.
    """
    headers = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        try:
            header = read_header(path, specific_tags=list(_HEADER)).dataset
        except (InvalidDicomError, *UNREADABLE):
            continue
        if text(header, "SOPClassUID") == CTImageStorage:
            headers.append(header)
    return CTImages(tuple(headers))


def _plane(header: Dataset) -> SlicePlane | None:
    try:
        position, orientation = (
            _vector(header, "ImagePositionPatient", 3),
            _vector(header, "ImageOrientationPatient", 6),
        )
        between_rows, between_columns = _vector(header, "PixelSpacing", 2)
        size = int(header.Columns), int(header.Rows)
    except UNREADABLE:
        return None
    if min(between_rows, between_columns, *size) <= 0:
        return None
    return SlicePlane(position, orientation[:3], orientation[3:], (between_columns, between_rows), size)


def _vector(header: Dataset, keyword: str, length: int) -> NDArray[np.float64]:
    vector = np.array([float(each) for each in text(header, keyword).split("\\")])
    if len(vector) != length or not np.isfinite(vector).all():
        raise ValueError(f"{keyword} has {len(vector)} values")
    return vector


def common_normal(planes: Sequence[SlicePlane]) -> NDArray[np.float64]:
    """(3,) unit vector across the slices; the patient's z without any."""
    return planes[0].normal if planes else np.array([0.0, 0.0, 1.0])
