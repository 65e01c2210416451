"""The Secondary Capture Image IOD (PS3.3 A.8.1): the QA sheet as a picture in the CT's study."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom.uid import SecondaryCaptureImageStorage

from daemon.result_header import (
    ModelIdentity,
    ResultIdentity,
    date_and_time,
    new_result,
    referenced_slices,
    series_description,
)
from model.ct import CTVolume

SERIES_NUMBER = 902
SERIES_DESCRIPTION = "Automatic contours, QA sheet - NEEDS REVIEW"


def build_secondary_capture(
    rgb: NDArray[np.uint8],
    volume: CTVolume,
    identity: ResultIdentity,
    model: ModelIdentity,
    *,
    identifies: bool,
    doubts: Sequence[str] = (),
) -> SOPClass:
    """Make a secondary capture of a picture; the same arguments make the same bytes.

    It has no frame of reference: nobody shall measure on it or lay it over anything.

    Parameters
    ----------
    rgb
        (rows, columns, 3) uint8; `rgb_of_png` makes one from a file's bytes.
    volume
        The CT; its header gives patient and study, and its slices are named as the source.
    identifies
        Whether the picture names the patient (Burned In Annotation).
    doubts
        What is doubtful, for the series' description, as in the structure set.

    Raises
    ------
    ValueError
        The array is no RGB picture of 8 bits.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"{rgb.dtype} {rgb.shape} is no picture; needed is uint8 (rows, columns, 3)")
    result = new_result(
        SecondaryCaptureImageStorage,
        volume,
        identity,
        model,
        modality="OT",
        series_number=SERIES_NUMBER,
        series_description=series_description(SERIES_DESCRIPTION, doubts),
    )
    result.Laterality = None
    # SC Equipment (C.8.6.1) and SC Image (C.8.6.2)
    result.ConversionType = "SYN"
    result.DateOfSecondaryCapture, result.TimeOfSecondaryCapture = date_and_time(identity.created)
    # General Image (C.7.6.1) and Reference (C.12.4)
    result.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    result.PatientOrientation = None  # the sheet shows several views
    result.BurnedInAnnotation = "YES" if identifies else "NO"
    result.DerivationDescription = "Automatic contours on the CT; not reviewed by a person"
    result.SourceImageSequence = referenced_slices(volume.sop_instance_uids)
    # Image Pixel (C.7.6.3)
    result.SamplesPerPixel = 3
    result.PhotometricInterpretation = "RGB"
    result.PlanarConfiguration = 0
    result.Rows, result.Columns = rgb.shape[:2]
    result.BitsAllocated, result.BitsStored, result.HighBit = 8, 8, 7
    result.PixelRepresentation = 0
    pixels = rgb.tobytes()
    result.PixelData = pixels + b"\0" * (len(pixels) % 2)
    result["PixelData"].VR = "OB"
    return result


def rgb_of_png(png: bytes) -> NDArray[np.uint8]:
    """(rows, columns, 3) uint8 of a PNG; what is transparent is not blended."""
    import matplotlib.image  # where a PNG is, it is loaded already; most workers never need it

    picture = matplotlib.image.imread(BytesIO(png), format="png")
    return np.asarray(np.rint(picture[..., :3] * 255), dtype=np.uint8)
