"""DICOM files as data sets, in no more memory than their size justifies."""

import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import Dataset, dcmread
from pydicom.filereader import read_dataset

MAX_INFLATED_BYTES = 128 * 2**20
"""More than any CT slice or structure set; a small file must not inflate without bound."""

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 1024
"""In so many from the beginning the transfer syntax stands."""

_META_START = 128 + len("DICM")

_HEAD_BYTES = 64 * 2**10
"""More than what stands before the pixels of almost every image."""


def read_file(path: Path, **options: Any) -> Dataset:  # noqa: ANN401 - those of pydicom's `dcmread`
    """Read a file.

    It is read as bytes first: asked for the 4 GB that a length field claims, an open file would reserve them.

    Raises
    ------
    ValueError
        A deflated file that inflates to more than 128 MB.
    Exception
        Whatever pydicom raises for files that are no DICOM, or broken.
    """
    content = path.read_bytes()
    if _DEFLATED in content[:_META_BYTES]:
        _require_bounded(content)
    return _read(BytesIO(content), **options)


def _read(content: BytesIO, **options: Any) -> Dataset:  # noqa: ANN401 - those of pydicom's `dcmread`
    """Read bytes, which pydicom would keep as long as the data set: for a series, all of its files."""
    dataset = dcmread(content, **options)
    dataset.buffer = None
    return dataset


class Header(NamedTuple):
    """What stands before the pixels, and at which byte of the file their element begins; None where unknown."""

    dataset: Dataset
    pixels_at: int | None


def read_header(path: Path, **options: Any) -> Header:  # noqa: ANN401 - those of pydicom's `dcmread`
    """Read a file as `read_file` does, up to its pixels, of which most are not fetched from the disk."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if len(head) == _HEAD_BYTES and _DEFLATED not in head[:_META_BYTES]:
        beginning = BytesIO(head)
        with suppress(Exception):  # a head that is cut anywhere can raise anything; the whole file decides
            dataset = _read(beginning, stop_before_pixels=True, **options)
            if beginning.tell() < len(head):  # it stopped at the pixels: all that stands before them is there
                return Header(dataset, beginning.tell())
    return Header(read_file(path, stop_before_pixels=True, **options), None)


def read_after(header: Header, path: Path) -> Dataset:
    """Read the rest of a file, from its pixels on, to what was read of its header.

    Raises
    ------
    Exception
        As `read_file`.
    """
    if header.pixels_at is None:
        return read_file(path)
    with path.open("rb") as file:
        file.seek(header.pixels_at)
        rest = read_dataset(BytesIO(file.read()), *header.dataset.original_encoding)
    rest.update(header.dataset)
    rest.file_meta = header.dataset.file_meta
    return rest


def require_bounded(path: Path) -> None:
    """Raise ValueError for a deflated file that inflates to more than 128 MB; of others, only the head is read."""
    with path.open("rb") as file:
        head = file.read(_META_BYTES)
    if _DEFLATED in head:
        _require_bounded(path.read_bytes())


def _require_bounded(content: bytes) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflater.decompress(content[_data_set_start(content) :], MAX_INFLATED_BYTES)
    except zlib.error:
        return  # pydicom will say so
    if inflater.unconsumed_tail:
        raise ValueError(f"inflates to more than {MAX_INFLATED_BYTES // 2**20} MB")


def _data_set_start(content: bytes) -> int:
    """Where the File Meta Information ends: group 0002, in explicit VR little endian (PS3.10 section 7.1)."""
    at = _META_START
    while content[at : at + 2] == b"\2\0":
        is_long = content[at + 4 : at + 6] in {b"OB", b"UN"}
        length = content[at + 8 : at + 12] if is_long else content[at + 6 : at + 8]
        at += (12 if is_long else 8) + int.from_bytes(length, "little")
    return at
