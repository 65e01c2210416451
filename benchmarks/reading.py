"""A CT series on disk to a volume in Hounsfield units, beside SimpleITK and highdicom."""

import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLosslessSV1

from benchmarks import record
from benchmarks.result import Goal, Report, ResultsDifferError, Row, Unit
from benchmarks.timer import take_turns, timed
from model.ct import read_series
from tests.anatomy import average_anatomy
from tests.phantom import write_ct

ROUNDS = 5
QUICK_SLICES = 12
OURS = "oarlock"
SYNTAXES = {"uncompressed": ExplicitVRLittleEndian, "JPEG Lossless": JPEGLosslessSV1}

Reader = Callable[[Path], NDArray[np.generic]]


def ours(folder: Path) -> NDArray[np.int16]:
    """With every check of a series."""
    return read_series(list(folder.iterdir())).hu


def simpleitk(folder: Path) -> NDArray[np.generic]:
    """Sort by GDCM, read by ITK."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return np.asarray(sitk.GetArrayFromImage(reader.Execute()))


def by_highdicom(folder: Path) -> NDArray[np.generic]:
    """Read by pydicom, sorted and rescaled by highdicom."""
    datasets = [dcmread(path) for path in folder.iterdir()]
    volume = highdicom.get_volume_from_series(datasets, dtype=np.float32)
    return np.asarray(volume.array)


PEERS: dict[str, Reader] = {"SimpleITK": simpleitk, "highdicom": by_highdicom}


def run(*, quick: bool) -> Report:
    """Compare the volumes, then measure."""
    hu, grid, _ = average_anatomy()
    chosen = np.linspace(0, len(hu) - 1, QUICK_SLICES if quick else 200).round().astype(int)
    first, last = grid.positions_mm[0], grid.positions_mm[-1]
    positions = first + np.linspace(0, 1 / (30 if quick else 1), len(chosen))[:, None] * (last - first)
    grid = type(grid)(
        positions, grid.row_direction, grid.column_direction, grid.pixel_spacing_mm, grid.rows, grid.columns
    )
    size = f"{grid.columns} × {grid.rows} × {len(chosen)}"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as root:
        for name, syntax in SYNTAXES.items():
            folder = Path(root) / name.replace(" ", "")
            write_ct(folder, hu[chosen], grid, transfer_syntax=syntax)
            for peer, read in PEERS.items():
                _require_equal(peer, ours(folder), read(folder))
            readers: dict[str, Reader] = {OURS: ours, **PEERS}
            programs = {each: timed(partial(read, folder)) for each, read in readers.items()}
            seconds = take_turns(programs, 1 if quick else ROUNDS, name, warm_up=not quick)
            rows += [
                Row(
                    f"series to volume, {name}",
                    size,
                    Unit.SECONDS,
                    seconds[OURS],
                    peer,
                    seconds[peer],
                    Goal(1),
                )
                for peer in PEERS
            ]
    about = (
        "From a series' files, in no order, to one sorted array in Hounsfield units; files are in the cache.",
        "Ours reads every header, makes all checks of a series and judges the values; neither peer does.",
        "All three give the same values at the same places.",
    )
    versions = tuple(f"{name} {version(name)}" for name in ("SimpleITK", "highdicom", "pydicom"))
    return Report("Reading", about, tuple(rows), versions=versions)


def _require_equal(peer: str, own: NDArray[np.int16], other: NDArray[np.generic]) -> None:
    """The same slices, by whichever end they begin."""
    if not any(np.array_equal(own, way) for way in (other, other[::-1])):
        raise ResultsDifferError(f"the volume differs from that of {peer}")


if __name__ == "__main__":
    record.alone("reading", run)
