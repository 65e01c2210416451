"""A geometric phantom that looks different from every side, and any volume written as a DICOM CT series."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLossless,
    JPEGLosslessSV1,
    generate_uid,
)

from model.geometry import Mask, SliceGrid

# The phantom, in LPS mm: x to the left, y to the back, z to the head.


@dataclass(frozen=True)
class Part:
    """A solid of one HU; `contains` takes x, y, z in LPS mm."""

    name: str
    hu: int
    contains: Callable[..., NDArray[np.bool_]]


AIR_HU = -1000
PARTS = (
    Part("body", 40, lambda x, y, z: ((x / 80) ** 2 + (y / 95) ** 2 < 1) & (np.abs(z) < 95)),
    Part("left_ball", 300, lambda x, y, z: (x - 45) ** 2 + y**2 + z**2 < 22**2),
    Part("right_cube", 700, lambda x, y, z: np.max(np.abs([x + 42, y - 8, z + 6]), axis=0) < 17),
    Part(
        "anterior_cone",
        -300,
        lambda x, y, z: (y < -35) & (y > -85) & (x**2 + (z + 25) ** 2 < (22 * (y + 85) / 50) ** 2),
    ),
    Part(
        "superior_bar",
        1200,
        lambda x, y, z: (np.abs(x + 15) < 30) & (np.abs(y - 30) < 9) & (np.abs(z - 62) < 13),
    ),
)
"""A later part lies inside the body and replaces it."""


def phantom_hu(grid: SliceGrid, noise_hu: float = 0, seed: int = 0) -> NDArray[np.int16]:
    """(slices, rows, columns) HU of the phantom on any grid, each voxel by its centre."""
    hu = np.full(grid.shape, AIR_HU, dtype=np.int16)
    for index in range(len(hu)):
        points = _voxel_centres(grid, index)
        for part in PARTS:
            hu[index][part.contains(*points)] = part.hu
    if noise_hu:
        noise = np.random.default_rng(seed).normal(0, noise_hu, grid.shape)
        hu = np.maximum(hu + np.rint(noise), -1024).astype(np.int16)
    return hu


def phantom_masks(grid: SliceGrid) -> dict[str, Mask]:
    """The truth: each part's voxels on any grid, the body without the parts inside it."""
    hu = phantom_hu(grid)
    return {part.name: Mask.from_full(hu == part.hu) for part in PARTS}


def _voxel_centres(grid: SliceGrid, slice_index: int) -> NDArray[np.float64]:
    """(3, rows, columns) LPS mm of one slice's voxel centres."""
    indices = np.indices((grid.rows, grid.columns)).reshape(2, -1).T  # (rows * columns, 2)
    return grid.to_patient(slice_index, indices).T.reshape(3, grid.rows, grid.columns)


# Grids

ORIENTATIONS: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "HFS": ("HFS", (1, 0, 0), (0, 1, 0)),
    "HFP": ("HFP", (-1, 0, 0), (0, -1, 0)),
    "FFS": ("FFS", (-1, 0, 0), (0, 1, 0)),
    "FFP": ("FFP", (1, 0, 0), (0, -1, 0)),
    "HFDL": ("HFDL", (0, -1, 0), (1, 0, 0)),
    "HFDR": ("HFDR", (0, 1, 0), (-1, 0, 0)),
    "FFDL": ("FFDL", (0, 1, 0), (1, 0, 0)),
    "FFDR": ("FFDR", (0, -1, 0), (-1, 0, 0)),
    "FFS-unflipped": ("FFS", (1, 0, 0), (0, 1, 0)),
    "FFP-unflipped": ("FFP", (-1, 0, 0), (0, -1, 0)),
}
"""Name to Patient Position, row direction and column direction.

Feet first as scanners write it turns x, so that the normal points to the feet; some systems do not turn it.
"""


def make_grid(
    orientation: str = "HFS",
    *,
    offsets_mm: ArrayLike | None = None,
    pixel_spacing_mm: tuple[float, float] = (2.0, 1.5),
    size: tuple[int, int] = (120, 130),
    tilt_degrees: float = 0,
    centre_mm: tuple[float, float, float] = (0, 0, 0),
) -> SliceGrid:
    """Grid of slices with their centres at the given distances from `centre_mm` along the patient's z.

    Parameters
    ----------
    orientation
        A name in `ORIENTATIONS`.
    offsets_mm
        Table positions in any order; 5 mm apart from -100 to 100 mm if not given.
    size
        (rows, columns).
    tilt_degrees
        The slices turn about the left-right axis while the table moves on along z, as a gantry tilts.
    """
    _, row, column = ORIENTATIONS[orientation]
    angle = np.radians(tilt_degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    row_direction, column_direction = tilt @ np.array(row, float), tilt @ np.array(column, float)
    table = np.arange(-100, 100.1, 5) if offsets_mm is None else np.asarray(offsets_mm, float)
    half = (np.array(size) - 1) / 2 * pixel_spacing_mm
    corner = np.array(centre_mm) - half[0] * column_direction - half[1] * row_direction
    positions = corner + table[:, None] * np.array([0, 0, 1.0])
    order = np.argsort(positions @ np.cross(row_direction, column_direction), kind="stable")
    return SliceGrid(positions[order], row_direction, column_direction, pixel_spacing_mm, *size)


# DICOM files


def write_series(
    folder: Path,
    hu: NDArray[Any] | None = None,
    grid: SliceGrid | None = None,
    *,
    orientation: str = "HFS",
    offsets_mm: ArrayLike | None = None,
    pixel_spacing_mm: tuple[float, float] = (2.0, 1.5),
    tilt_degrees: float = 0,
    **options: Any,
) -> list[Path]:
    """Write the phantom, or any volume, as CT files; further options as in `write_ct`."""
    grid = grid or make_grid(
        orientation, offsets_mm=offsets_mm, pixel_spacing_mm=pixel_spacing_mm, tilt_degrees=tilt_degrees
    )
    position = ORIENTATIONS[orientation][0]
    hu = phantom_hu(grid) if hu is None else hu
    return write_ct(folder, hu, grid, **{"PatientPosition": position, **options})


def write_ct(
    folder: Path,
    hu: NDArray[Any],
    grid: SliceGrid,
    *,
    transfer_syntax: str = ExplicitVRLittleEndian,
    slope: float | Sequence[float] = 1,
    intercept: float | Sequence[float] = -1024,
    signed: bool = False,
    shuffled: bool = True,
    seed: int = 0,
    change: Callable[[int, Dataset], None] | None = None,
    **attributes: Any,
) -> list[Path]:
    """Write (slices, rows, columns) HU as CT Image Storage files; returns the paths in the order of the grid.

    Parameters
    ----------
    slope, intercept
        Rescaling, one for all or one per slice.
    signed
        Pixel Representation.
    shuffled
        File names and Instance Number in random order, so that nothing can depend on them.
    seed
        Fixes all UIDs and the order.
    change
        Called with slice index and dataset just before writing.
    **attributes
        DICOM keywords set on every slice, replacing what stands there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    slopes, intercepts = np.broadcast_to(slope, len(hu)), np.broadcast_to(intercept, len(hu))
    numbers = np.random.default_rng(seed).permutation(len(hu)) if shuffled else np.arange(len(hu))
    pixel_type = np.dtype(np.int16 if signed else np.uint16)
    paths = []
    for index, plane in enumerate(hu):
        dataset = _common_attributes(grid, seed)
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)
        dataset.SOPInstanceUID = _uid(seed, dataset.SeriesInstanceUID, index)
        dataset.InstanceNumber = int(numbers[index]) + 1
        dataset.ImagePositionPatient = [f"{v:.6f}" for v in grid.positions_mm[index]]
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slopes[index]:g}", f"{intercepts[index]:g}"
        dataset.PixelRepresentation = int(signed)
        stored = np.rint((plane.astype(np.float64) - intercepts[index]) / slopes[index])
        limits = np.iinfo(pixel_type)
        if stored.min() < limits.min or stored.max() > limits.max:
            raise ValueError(f"stored values {stored.min()} to {stored.max()} do not fit {pixel_type}")
        if change:
            change(index, dataset)
        path = folder / f"{numbers[index]:04d}.dcm"
        _save(dataset, stored.astype(pixel_type), UID(transfer_syntax), path)
        paths.append(path)
    return paths


def _uid(*sources: object) -> UID:
    return generate_uid(entropy_srcs=[str(s) for s in sources])


def _common_attributes(grid: SliceGrid, seed: int) -> Dataset:
    """What all slices of a series share, in the order of the CT Image IOD's modules (PS3.3 A.3)."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    # Patient
    dataset.PatientName, dataset.PatientID = "Phantom^Geometric", f"PHANTOM{seed}"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "O"
    # General Study
    dataset.StudyInstanceUID = _uid(seed, "study")
    dataset.StudyDate, dataset.StudyTime = "20250102", "101112"
    dataset.ReferringPhysicianName, dataset.StudyID, dataset.AccessionNumber = "", "1", f"ACC{seed}"
    dataset.StudyDescription = "Head and neck"
    # General Series
    dataset.Modality, dataset.SeriesInstanceUID = "CT", _uid(seed, "series")
    dataset.SeriesNumber, dataset.SeriesDescription = 2, "Planning CT"
    dataset.SeriesDate, dataset.SeriesTime = "20250102", "101113"
    dataset.PatientPosition, dataset.BodyPartExamined = "HFS", "HEADNECK"
    # Frame of Reference, General Equipment
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = _uid(seed, "frame"), ""
    dataset.Manufacturer, dataset.ManufacturerModelName = "Phantom maker", "Phantom"
    # General Image, Image Plane
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.AcquisitionNumber, dataset.ContentDate, dataset.ContentTime = 1, "20250102", "101113"
    dataset.PixelSpacing = [f"{v:.8g}" for v in grid.pixel_spacing_mm]
    dataset.ImageOrientationPatient = [f"{v:.10g}" for v in (*grid.row_direction, *grid.column_direction)]
    dataset.SliceThickness = f"{grid.spacing_mm[0]:g}"
    # Image Pixel, CT Image, SOP Common
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = grid.rows, grid.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.KVP, dataset.RescaleType = "120", "HU"
    dataset.SOPClassUID = CTImageStorage
    return dataset


def _save(dataset: Dataset, stored: NDArray[Any], transfer_syntax: UID, path: Path) -> None:
    by_gdcm = transfer_syntax in {JPEGLossless, JPEGLosslessSV1}
    is_plain = not transfer_syntax.is_encapsulated or by_gdcm
    if is_plain:
        is_big = transfer_syntax == ExplicitVRBigEndian
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">" if is_big else "<")).tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = (
        transfer_syntax if is_plain and not by_gdcm else ExplicitVRLittleEndian
    )
    if not is_plain:
        dataset.compress(transfer_syntax, stored, generate_instance_uid=False)
    dataset.save_as(path, enforce_file_format=True)
    if by_gdcm:
        _compress_with_gdcm(path, transfer_syntax)


def _compress_with_gdcm(path: Path, transfer_syntax: UID) -> None:
    """Rewrite a file in JPEG Lossless, which pydicom cannot encode."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(transfer_syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
