"""Reading a header alone: what comes out is what the whole file says, of which most was not read."""

import weakref
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from model import dicom_file
from model.dicom_file import read_after, read_file, read_header
from tests.phantom import make_grid, write_series

TWO_SLICES = make_grid(offsets_mm=[0, 3], size=(384, 384), pixel_spacing_mm=(1, 1))

Said = Dataset | type[Exception]


@pytest.fixture
def image(tmp_path: Path) -> Callable[..., Path]:
    """Writes a slice of 300 kB without its private element, which stands before the pixels."""

    def write(syntax: str = ExplicitVRLittleEndian, private_bytes: int = 0) -> Path:
        path = write_series(tmp_path / "ct", grid=TWO_SLICES, transfer_syntax=syntax)[0]
        dataset = dcmread(path)
        dataset.add_new(0x00091001, "OB", bytes(private_bytes))
        dataset.save_as(path)
        return path

    return write


def said(read: Callable[[], Dataset]) -> Said:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - which one is compared
        return type(error)


@pytest.mark.parametrize("private_bytes", [0, dicom_file._HEAD_BYTES - 900, 3 * dicom_file._HEAD_BYTES])
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_header_and_rest_are_the_whole_file(
    image: Callable[..., Path], syntax: str, private_bytes: int
) -> None:
    path = image(syntax, private_bytes)
    assert read_header(path).dataset == read_file(path, stop_before_pixels=True)
    some = {"specific_tags": ["SOPInstanceUID", "PixelSpacing"]}
    assert read_header(path, **some).dataset == read_file(path, stop_before_pixels=True, **some)

    assert read_after(read_header(path), path) == read_file(path)


@pytest.mark.parametrize("keep", [0, 100, 200, 700, 70_000])
def test_of_a_file_cut_short_it_is_the_same_too(image: Callable[..., Path], keep: int) -> None:
    """Whatever of it can be read, and otherwise the same error."""
    path = image(private_bytes=100_000)
    path.write_bytes(path.read_bytes()[:keep])
    assert said(lambda: read_header(path).dataset) == said(lambda: read_file(path, stop_before_pixels=True))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_header_holds_on_to_none_of_the_bytes_it_was_read_from(
    image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    """The headers of a series are there at once: what each keeps is kept for every slice."""
    read = []

    class Known(BytesIO):
        def __init__(self, content: bytes) -> None:
            super().__init__(content)
            read.append(weakref.ref(self))

    monkeypatch.setattr(dicom_file, "BytesIO", Known)
    header = read_header(image(syntax))
    assert header.dataset.Rows
    assert read
    assert not any(reference() for reference in read)


def test_the_pixels_are_not_fetched(image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path, fetched = image(), []

    class Counting(BytesIO):
        def __init__(self, content: bytes) -> None:
            fetched.append(len(content))
            super().__init__(content)

    monkeypatch.setattr(dicom_file, "BytesIO", Counting)
    assert read_header(path).dataset.Rows
    assert sum(fetched) < path.stat().st_size / 2
