"""A CT series on disk to a volume in Hounsfield units, beside SimpleITK and highdicom."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
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

PLACES_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Volume:
    """Values (slices, rows, columns), and the patient's place of any voxel.

    Parameters
    ----------
    place_mm
        (3,) LPS of a slice, row and column.
    """

    values: NDArray[np.generic]
    place_mm: Callable[[int, int, int], NDArray[np.float64]]

    def corners_mm(self) -> NDArray[np.float64]:
        """(slices, 3, 3): of every slice the first voxel, the last of its first row, the first of its last row."""
        slices, rows, columns = self.values.shape
        corners = ((0, 0), (0, columns - 1), (rows - 1, 0))
        return np.array([[self.place_mm(k, *corner) for corner in corners] for k in range(slices)])


Reader = Callable[[Path], Volume]


def ours(folder: Path) -> Volume:
    """With every check of a series."""
    volume = read_series(list(folder.iterdir()))
    return Volume(volume.hu, lambda k, y, x: volume.grid.to_patient(k, [(y, x)])[0])


def simpleitk(folder: Path) -> Volume:
    """Sort by GDCM, read by ITK."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    values = sitk.GetArrayFromImage(image)
    return Volume(values, lambda k, y, x: np.array(image.TransformIndexToPhysicalPoint((x, y, k))))


def by_highdicom(folder: Path) -> Volume:
    """Read by pydicom, sorted and rescaled by highdicom."""
    datasets = [dcmread(path) for path in folder.iterdir()]
    volume = highdicom.get_volume_from_series(datasets, dtype=np.float32)
    return Volume(volume.array, lambda k, y, x: volume.map_indices_to_reference(np.array([[k, y, x]]))[0])


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
        f"All three give the same values, and the corners of every slice at the same places to {PLACES_MM:g} mm.",
    )
    versions = tuple(f"{name} {version(name)}" for name in ("SimpleITK", "highdicom", "pydicom"))
    return Report("Reading", about, tuple(rows), versions=versions)


def _require_equal(peer: str, own: Volume, other: Volume) -> None:
    """The same slices at the same places, by whichever end they begin."""
    ours_mm, theirs_mm = own.corners_mm(), other.corners_mm()
    if not any(
        np.array_equal(own.values, other.values[::step])
        and np.allclose(ours_mm, theirs_mm[::step], rtol=0, atol=PLACES_MM)
        for step in (1, -1)
    ):
        raise ResultsDifferError(f"the volume differs from that of {peer}")


if __name__ == "__main__":
    record.alone("reading", run)
