"""What the header of one CT file says about its place and its values, read without its pixels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset

from model.dicom_file import Header, read_header

_ATTRIBUTES = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "FrameOfReferenceUID",
    "ImageType",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "LossyImageCompression",
    "PixelSpacing",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    # What a decoder of the pixels wants to know.
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
]


LARGEST = 1e9
"""No length in mm, direction or scale of HU is larger: whatever is, was damaged on the way."""


@dataclass(frozen=True)
class SliceHeader:
    """What one file says; None, 0 or empty where it says nothing that can be used.

    Positions and directions are LPS mm, `pixel_spacing_mm` is (between rows, between columns),
    `padding` the lowest and highest stored value that is no image, `file` what was read of the file.
    """

    path: Path
    file: Header
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    patient_name: str
    birth_date: str
    frame_of_reference_uid: str
    image_type: tuple[str, ...]
    samples_per_pixel: int
    is_lossy: bool
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing_mm: tuple[float, ...] | None
    rows: int
    columns: int
    rescale_slope: float | None
    rescale_intercept: float | None
    rescale_type: str
    padding: tuple[int, int] | None


def slice_header(path: Path) -> SliceHeader:
    """Read one header; what is missing or malformed in it is left for the checks to judge.

    Raises
    ------
    Exception
        Whatever pydicom raises for files that are no DICOM, or broken.
    """
    file = read_header(path, specific_tags=list(_ATTRIBUTES))
    dataset = file.dataset
    spacing = _floats(dataset, "PixelSpacing", 2)
    return SliceHeader(
        path=path,
        file=file,
        sop_class_uid=_text(dataset, "SOPClassUID"),
        sop_instance_uid=_identity(dataset),
        study_instance_uid=_text(dataset, "StudyInstanceUID"),
        series_instance_uid=_text(dataset, "SeriesInstanceUID"),
        patient_id=_text(dataset, "PatientID"),
        patient_name=_name(dataset),
        birth_date=_text(dataset, "PatientBirthDate"),
        frame_of_reference_uid=_text(dataset, "FrameOfReferenceUID"),
        image_type=_texts(dataset, "ImageType"),
        samples_per_pixel=_integer(dataset, "SamplesPerPixel", 1),
        is_lossy=_text(dataset, "LossyImageCompression") == "01",
        position_mm=_floats(dataset, "ImagePositionPatient", 3),
        orientation=_floats(dataset, "ImageOrientationPatient", 6),
        pixel_spacing_mm=spacing if spacing and min(spacing) > 0 else None,
        rows=_integer(dataset, "Rows", 0),
        columns=_integer(dataset, "Columns", 0),
        rescale_slope=_float(dataset, "RescaleSlope"),
        rescale_intercept=_float(dataset, "RescaleIntercept"),
        rescale_type=_text(dataset, "RescaleType").upper(),
        padding=_padding(dataset),
    )


def _identity(dataset: Dataset) -> str:
    """SOP Instance UID: by it copies are known, and contours say on which image they were drawn."""
    uid = dataset.SOPInstanceUID
    if not isinstance(uid, str) or not uid:
        raise ValueError(
            f"{type(uid).__name__} of length {len(uid or ())} as SOP Instance UID instead of one UID"
        )
    return uid


def _name(dataset: Dataset) -> str:
    """Patient's Name as it is compared: without case and empty components; "" where it cannot be decoded."""
    try:
        return "=".join(group.rstrip("^ ") for group in _text(dataset, "PatientName").casefold().split("="))
    except (LookupError, ValueError):
        return ""


def _values(dataset: Dataset, keyword: str) -> tuple[object, ...]:
    """The values of an attribute; none if it is absent, empty or malformed."""
    try:
        value = dataset.get(keyword)
    except (ValueError, TypeError, OverflowError):
        return ()
    if value is None or value == "":
        return ()
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def _floats(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(float(str(v)) for v in _values(dataset, keyword))
    except ValueError:
        return None
    return values if len(values) == count and all(abs(value) <= LARGEST for value in values) else None


def _float(dataset: Dataset, keyword: str) -> float | None:
    values = _floats(dataset, keyword, 1)
    return values[0] if values else None


def _integer(dataset: Dataset, keyword: str, otherwise: int) -> int:
    value = _float(dataset, keyword)
    return otherwise if value is None else int(value)


def _texts(dataset: Dataset, keyword: str) -> tuple[str, ...]:
    return tuple(str(v).strip().upper() for v in _values(dataset, keyword))


def _text(dataset: Dataset, keyword: str) -> str:
    values = _values(dataset, keyword)
    return str(values[0]).strip() if values else ""


def _padding(dataset: Dataset) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2).

    The value may be written signed where pixels are unsigned, or the other way round: the bits count.
    """
    value = _float(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _float(dataset, "PixelPaddingRangeLimit")
    bits = _integer(dataset, "BitsAllocated", 16)
    is_signed = _integer(dataset, "PixelRepresentation", 0) == 1
    stored = [int(v) % 2**bits for v in (value, value if limit is None else limit)]
    if is_signed:
        stored = [v - 2**bits if v >= 2 ** (bits - 1) else v for v in stored]
    return min(stored), max(stored)
