"""CT files to one volume in Hounsfield units, or the reason why they do not make one."""

import filecmp
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag
from pydicom.uid import UID, CTImageStorage, JPEGTransferSyntaxes, MediaStorageDirectoryStorage, RLELossless

from model.body_sections import CoarseVolume, Sections, body_sections, coarse_volume
from model.coded_frame import frame_size
from model.dicom_file import read_after, read_header, require_bounded
from model.errors import ReasonCode, SeriesUnsuitable
from model.geometry import SliceGrid
from model.slice_header import SliceHeader, slice_header
from model.suitability import MINIMUM_SLICES, counted, stack_slices

LOWEST_HU = -1024
"""Air on the scale every CT uses; padding and all that lies below becomes this."""

IMAGE_HU = (-900, 31000)
"""HU that images really have, the extended scale for metal included: a padding value among them is ignored.

Obeyed, it would cut holes into the patient wherever tissue happens to have that value.
"""

AIR_BELOW_HU = -700
SOFT_TISSUE_HU = (-200, 200)
LEAST_SHARE = 0.005
"""Share of voxels that air and soft tissue must each have; a patient's CT in HU has far more of both."""

READERS = 2
"""Slices read at once: while one waits for its file or is computed with, the other is decoded."""

_RLE_HEADER_BYTES = 64
_INT32 = (np.iinfo(np.int32).min, np.iinfo(np.int32).max)

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT series as one volume.

    Parameters
    ----------
    hu
        (slices, rows, columns) int16 Hounsfield units, never below -1024; padding is -1024.
    grid
        Where the voxels are.
    sop_instance_uids
        SOP Instance UID of each slice, in the order of `hu`.
    header
        The first slice's attributes, without pixel data.
    remarks
        What is worth telling a reader about how the volume came about.
    """

    hu: NDArray[np.int16]
    grid: SliceGrid
    sop_instance_uids: tuple[str, ...]
    header: Dataset
    remarks: tuple[str, ...] = ()

    @cached_property
    def coarse(self) -> CoarseVolume | None:
        """The image at about 4 mm with the body in it; None where nothing is dense."""
        return coarse_volume(self.hu, self.grid)

    @cached_property
    def sections(self) -> Sections | None:
        """Sections of the body, 8 mm apart; None where it is shorter than two of them."""
        return None if self.coarse is None else body_sections(self.coarse)


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Series Instance UID to files, for every CT image under a folder, localizers included.

    File names and extensions do not matter; what is no DICOM file or no CT Image Storage is passed over.
    """
    series = defaultdict(list)
    for path in _files(folder):
        if series_uid := _ct_series_uid(path):
            series[series_uid].append(path)
    return dict(series)


def unreadable_files(folder: Path) -> list[Path]:
    """Files under a folder that are empty, damaged or no DICOM; images may be among them."""
    return [path for path in _files(folder) if _ct_series_uid(path) is None]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_series(
    paths: Sequence[Path],
    progress: Callable[[float], None] | None = None,
    *,
    minimum_slices: int = MINIMUM_SLICES,
    before_pixels: Callable[[SliceGrid], None] | None = None,
) -> CTVolume:
    """Read the CT images of one series into one volume, sorted along the normal of the slices.

    Every header is read and judged before any pixels are decoded.

    Parameters
    ----------
    paths
        Files in any order; localizers and other objects among them are left out, with a remark.
    progress
        Called with the share done, 0 to 1.
    minimum_slices
        Fewer slices are refused.
    before_pixels
        Called with the grid once all headers are judged; may refuse what is too large.

    Raises
    ------
    SeriesUnsuitable
        The files make no volume that could be contoured; also for whatever is wrong inside a file.
    OSError
        A file is gone or cannot be read.
    """
    report = progress or (lambda _share: None)
    headers, copies = _leave_out_copies([_unless_corrupt(slice_header, path, path) for path in paths])
    stack = stack_slices(headers, minimum_slices)
    report(0.1)
    if before_pixels:
        before_pixels(stack.grid)
    hu = np.empty(stack.grid.shape, dtype=np.int16)

    def place(index: int) -> None:
        header = stack.headers[index]
        hu[index] = _unless_corrupt(_read_hu, header, header.path)

    with ThreadPoolExecutor(READERS) as readers:
        for done, _ in enumerate(readers.map(place, range(len(hu))), start=1):
            report(0.1 + 0.9 * (done / len(hu)))
    seen = hu[:, ::4, ::4].copy()  # (slices, rows / 4, columns / 4), enough to judge by; gathered once
    _require_plausible(seen)
    _refuse_blank_slices(seen, stack.grid)
    first = stack.headers[0].path
    return CTVolume(
        hu=hu,
        grid=stack.grid,
        sop_instance_uids=tuple(h.sop_instance_uid for h in stack.headers),
        header=_unless_corrupt(read_header, first, first).dataset,
        remarks=(*copies, *stack.remarks, *_padding_remarks(stack.headers)),
    )


def _ct_series_uid(path: Path) -> str | None:
    """Series Instance UID of a CT image, empty for another object, None for what is no DICOM that can be read.

    Reads no further than it needs.
    """

    def is_after_series(tag: BaseTag, _vr: str | None, _length: int) -> bool:
        return int(tag) > 0x0020000E

    try:
        require_bounded(path)
        with path.open("rb") as file:
            header = read_partial(file, is_after_series, specific_tags=[0x00080016, 0x0020000E])
            if "SOPClassUID" not in header:
                is_directory = header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
                return "" if is_directory else None
            is_ct = header.SOPClassUID == CTImageStorage
            return str(header.get("SeriesInstanceUID", "")) if is_ct else ""
    except Exception:  # noqa: BLE001 - a stray corrupt file among others can raise anything, and is no CT image
        return None


def _unless_corrupt(read: Callable[[_Argument], _Result], argument: _Argument, path: Path) -> _Result:
    """Whatever is wrong in a file is the file's fault, and said so; that it cannot be had is the system's."""
    try:
        return read(argument)
    except (SeriesUnsuitable, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # decoders raise some without a number
            raise
        raise SeriesUnsuitable(
            ReasonCode.UNDECODABLE,
            f"{path.name} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:300]}); "
            "needed is a complete DICOM file in a transfer syntax that can be decoded",
        ) from error


def _leave_out_copies(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], list[str]]:
    """Drop byte for byte copies of files; one SOP Instance UID on different files is refused."""
    known: dict[str, SliceHeader] = {}
    for header in headers:
        first = known.setdefault(header.sop_instance_uid, header)
        if first is not header and not filecmp.cmp(first.path, header.path, shallow=False):
            raise SeriesUnsuitable(
                ReasonCode.DUPLICATE_INSTANCE,
                f"{first.path.name} and {header.path.name} differ but share the SOP Instance UID "
                f"{header.sop_instance_uid}; needed is one image per UID",
            )
    copies = len(headers) - len(known)
    return list(known.values()), [f"{counted(copies, 'copied file')} left out"] if copies else []


def _read_hu(header: SliceHeader) -> NDArray[np.int32]:
    """(rows, columns) of one slice in HU of 16 bits (PS3.3 C.11.1.1.2), padding and what is below air as air."""
    image = read_after(header.file, header.path)
    _require_frame_as_described(image)
    stored, _ = get_decoder(image.file_meta.TransferSyntaxUID).as_array(image, raw=True)
    if stored.shape != (header.rows, header.columns):
        raise ValueError(f"pixel data of shape {stored.shape} instead of {(header.rows, header.columns)}")
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    if slope == 1 and intercept.is_integer():
        hu = np.add(stored, int(intercept), dtype=np.int32)
    else:
        hu = np.rint(stored * slope + intercept).clip(*_INT32).astype(np.int32)
    if header.padding and not _is_among_image_values(header):
        hu[(stored >= header.padding[0]) & (stored <= header.padding[1])] = LOWEST_HU
    clipped: NDArray[np.int32] = np.clip(hu, LOWEST_HU, np.iinfo(np.int16).max, out=hu)
    return clipped


def _require_frame_as_described(image: Dataset) -> None:
    """Let no decoder at pixels that are not what the header says; raises ValueError."""
    frames = image.get("NumberOfFrames") or 1
    if frames != 1:
        raise ValueError(f"{frames} frames instead of one")
    syntax = UID(image.file_meta.TransferSyntaxUID)
    if not syntax.is_encapsulated and image.get("HighBit", image.BitsStored - 1) != image.BitsStored - 1:
        raise ValueError(
            f"High Bit {image.HighBit} of {image.BitsStored} stored bits, not {image.BitsStored - 1}"
        )
    line_bytes, expected_bytes = _native_bytes(image)
    if not syntax.is_encapsulated:
        found = len(image.PixelData)
        # Less than a row or a column too much is padding, as some systems write it.
        if not expected_bytes <= found < expected_bytes + line_bytes:
            raise ValueError(f"Pixel Data of {found} bytes, where rows and columns need {expected_bytes}")
        return
    if syntax == RLELossless:
        found = len(get_frame(image.PixelData, 0, number_of_frames=1))
        # Two bytes may become 128, so what is longer than without compression could become anything.
        if found > 2 * expected_bytes + _RLE_HEADER_BYTES:
            raise ValueError(f"{found} bytes of RLE for an image of {expected_bytes}")
        return
    size = frame_size(get_frame(image.PixelData, 0, number_of_frames=1))
    expected = (image.Rows, image.Columns, image.get("SamplesPerPixel", 1))
    if (size.rows, size.columns, size.samples) != expected or size.bits > image.BitsAllocated:
        raise ValueError(f"compressed pixels of {size}, described as {expected}, {image.BitsAllocated} bits")
    if syntax in JPEGTransferSyntaxes and -(-size.bits // 8) != image.BitsAllocated // 8:
        raise ValueError(
            f"samples of {size.bits} bits in {image.BitsAllocated}, which the decoder cannot place"
        )


def _native_bytes(image: Dataset) -> tuple[int, int]:
    """Bytes of the shorter of a row and a column, and of the whole image, without compression."""
    pixel = image.get("SamplesPerPixel", 1) * image.BitsAllocated // 8
    return min(image.Rows, image.Columns) * pixel, image.Rows * image.Columns * pixel


def _is_among_image_values(header: SliceHeader) -> bool:
    """Whether the padding reaches into the HU that a patient can have."""
    slope, intercept = header.rescale_slope or 1.0, header.rescale_intercept or 0.0
    low, high = sorted(value * slope + intercept for value in header.padding or ())
    return high >= IMAGE_HU[0] and low <= IMAGE_HU[1]


def _padding_remarks(headers: Sequence[SliceHeader]) -> list[str]:
    ignored = sum(h.padding is not None and _is_among_image_values(h) for h in headers)
    return (
        [f"Pixel Padding Value ignored on {counted(ignored, 'slice')}: tissue has it too"] if ignored else []
    )


def _require_plausible(seen: NDArray[np.int16]) -> None:
    """Refuse numbers that are no Hounsfield units, whatever the header says."""
    air = float((seen < AIR_BELOW_HU).mean())
    tissue = float(((seen > SOFT_TISSUE_HU[0]) & (seen < SOFT_TISSUE_HU[1])).mean())
    if min(air, tissue) < LEAST_SHARE:
        raise SeriesUnsuitable(
            ReasonCode.IMPLAUSIBLE_HU,
            f"{air:.1%} of the voxels are air (below {AIR_BELOW_HU} HU) and {tissue:.1%} soft tissue "
            f"({SOFT_TISSUE_HU[0]} to {SOFT_TISSUE_HU[1]} HU), values are {seen.min()} to {seen.max()}; "
            f"needed are {LEAST_SHARE:.1%} of each, as in a CT of a patient in Hounsfield units",
        )


def _refuse_blank_slices(seen: NDArray[np.int16], grid: SliceGrid) -> None:
    """Refuse a slice without an image between others: it cuts the patient in two, as one that is missing would."""
    low, high = seen.min(axis=(1, 2)), seen.max(axis=(1, 2))
    shows = np.flatnonzero((high >= AIR_BELOW_HU) & (high > low))
    blank = np.setdiff1d(np.arange(shows.min(initial=len(seen)), shows.max(initial=0)), shows)
    if len(blank):
        raise SeriesUnsuitable(
            ReasonCode.MISSING_SLICE,
            f"{counted(len(blank), 'slice')} of nothing but air, or of one value, between others, the first at "
            f"z = {grid.positions_mm[blank[0], 2]:.2f} mm; needed is an image of every slice",
        )
