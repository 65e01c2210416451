"""The CT reader: the header as the listener reads it, and the series as the worker does."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from daemon.instance_header import HeaderUnreadable, read_header
from daemon.transfer_syntaxes import decodable_transfer_syntaxes
from model.ct import CTVolume, find_series, read_series
from model.dicom_file import _data_set_start
from model.errors import SeriesUnsuitable
from tests.fuzz.elements import elements, mutated_file
from tests.fuzz.oracle import Broken, require_typed
from tests.fuzz.target import Change, FuzzOne, Target
from tests.instances import ct_dataset, encoded
from tests.phantom import make_grid, write_series

SLICES = 3
FUZZED = 1
_SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
]


def _series(folder: Path, syntax: str = ExplicitVRLittleEndian) -> list[Path]:
    """Three small slices of the phantom (JPEG 2000 needs 32 × 32), each with a z of its own of the same length."""
    grid = make_grid(pixel_spacing_mm=(6.0, 6.0), size=(32, 32), offsets_mm=np.arange(SLICES) * 10.0 - 60)
    return write_series(folder, grid=grid, transfer_syntax=syntax, shuffled=False, intercept=-1024)


def seeds() -> list[bytes]:
    """A slice in each transfer syntax, and one that is deflated."""
    with TemporaryDirectory(prefix="oarlock-fuzz-") as folder:
        found = [_series(Path(folder) / syntax, syntax)[FUZZED].read_bytes() for syntax in _SYNTAXES]
    return [*found, _deflated(found[0]), encoded(ct_dataset("1.2.826.0.1.7")).file_bytes]


def _deflated(file: bytes) -> bytes:
    start = _data_set_start(file)
    meta = file[:start].replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99")
    length = int.from_bytes(meta[140:144], "little") + len(meta) - start
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return (
        meta[:140]
        + length.to_bytes(4, "little")
        + meta[144:]
        + deflater.compress(file[start:])
        + deflater.flush()
    )


def mutate(data: bytes, rng: Random, change: Change) -> bytes:
    return mutated_file(data, rng, change)


@contextmanager
def opened(folder: Path) -> Iterator[FuzzOne]:
    """Read each input as a header, and as one slice among good ones or as every slice of its series."""
    good = _series(folder / "good")
    places = [_place(path.read_bytes()) for path in good]
    beside, alike = folder / "beside", folder / "alike"
    beside.mkdir()
    alike.mkdir()
    copies = [alike / f"{index}.dcm" for index in range(SLICES)]
    syntaxes = decodable_transfer_syntaxes()

    def fuzz_one(data: bytes) -> None:
        _header(data, syntaxes)
        if zlib.crc32(data) % 2:
            for path, place in zip(copies, places, strict=True):
                path.write_bytes(_moved(data, places[FUZZED], place))
            _read(copies)
            return
        (beside / "fuzzed.dcm").write_bytes(data)
        find_series(beside)
        _read([*good[:FUZZED], beside / "fuzzed.dcm", *good[FUZZED + 1 :]])

    yield fuzz_one


def _header(data: bytes, syntaxes: list[str]) -> None:
    data_set = data[_data_set_start(data) :]
    named = next((syntax for syntax in reversed(syntaxes) if syntax.encode() in data[:600]), syntaxes[0])
    try:
        read_header(data_set, named)
    except HeaderUnreadable as error:
        require_typed(error)


def _place(file: bytes) -> list[bytes]:
    """What makes a slice another one of its series: SOP Instance UID and position."""
    tags = (b"\x08\x00\x18\x00", b"\x20\x00\x32\x00")
    return [
        file[each.value : each.end] for each in elements(file) if file[each.start : each.start + 4] in tags
    ]


def _moved(data: bytes, was: list[bytes], becomes: list[bytes]) -> bytes:
    """The same damage at another place of the series."""
    for old, new in zip(was, becomes, strict=True):
        data = data.replace(old, new)
    return data


def _read(paths: list[Path]) -> None:
    try:
        volume = read_series(paths, minimum_slices=3)
    except SeriesUnsuitable as error:
        require_typed(error)
        return
    _require_true(volume)


def _require_true(volume: CTVolume) -> None:
    """Refuse a volume that is not what its description says."""
    if volume.hu.shape != volume.grid.shape or volume.hu.dtype != np.int16 or volume.hu.min() < -1024:
        raise Broken(f"a volume of {volume.hu.shape} {volume.hu.dtype} on a grid of {volume.grid.shape}")
    if len(set(volume.sop_instance_uids)) != len(volume.hu):
        raise Broken("slices that share a SOP Instance UID")
    if not np.isfinite(volume.grid.positions_mm).all():
        raise Broken("slices nowhere")


TARGET = Target(
    (
        "model.ct",
        "model.slice_header",
        "model.suitability",
        "model.coded_frame",
        "model.dicom_file",
        "daemon.instance_header",
    ),
    seeds,
    mutate,
    opened,
)
