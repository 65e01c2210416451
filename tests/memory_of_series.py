"""Memory that large series take, beside what their headers made us expect.

    python -m tests.memory_of_series

contours larger and larger series, each in a process of its own. One runs through the shipped network; for the
others its answer is made by thresholds, of the same size and type, as on two cores it would take an hour.
"""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from daemon.result_header import ResultIdentity
from daemon.result_objects import STRUCTURE_SET
from daemon.segmentation import contour_series
from daemon.structure_template import DEFAULT_TEMPLATE
from model.bundle import DEFAULT_BUNDLE, Bundle
from model.geometry import SliceGrid
from model.memory_need import memory_need
from model.preprocess import NetworkImage
from model.segmenter import Segmenter
from tests.anatomy import write_demo_series
from tests.phantom import make_grid, write_ct

SIZES = ((200, 512, 600.0), (800, 512, 480.0), (300, 1024, 450.0), (2000, 512, 1000.0))
"""Slices, rows as columns, and length in mm; 500 mm wide, of which the body fills nearly everything."""
WIDTH_MM = 500.0
FIRST_HU, STEP_HU = 100, 60
"""The structures' HU: each its own, far from tissue."""


def main() -> None:
    """Measure and show."""
    table = Table("Slices", "Matrix", "Length, mm", "Network", "Estimated, MB", "Peak, MB", "Share")
    with TemporaryDirectory(prefix="oarlock-memory-") as folder:
        demo = Path(folder) / "demo"
        write_demo_series(demo)
        table.add_row("156", "512 × 512", "388", "shipped", *measure(demo, "shipped"))
        for slices, matrix, length_mm in SIZES:
            series = write_barrel(Path(folder) / f"{slices}-{matrix}", slices, matrix, length_mm)
            about = (str(slices), f"{matrix} × {matrix}", f"{length_mm:g}", "thresholds")
            table.add_row(*about, *measure(series, "thresholds"))
    Console().print(table)


def measure(series: Path, network: str) -> tuple[str, str, str]:
    """Contour a folder in a new process; returns estimate and peak in MB, and the peak's share of the estimate."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.memory_of_series", str(series), network],
        capture_output=True,
        text=True,
        check=True,
    )
    need, peak = map(int, told.stdout.split())
    return f"{need / 1e6:.0f}", f"{peak / 1e6:.0f}", f"{peak / need:.0%}"


def contour(series: Path, network: str) -> None:
    """Contour a folder in this process and print estimate and peak in bytes."""
    segmenter = (Segmenter if network == "shipped" else _ByThresholds)(Bundle.load(DEFAULT_BUNDLE), "cpu")
    done = contour_series(
        sorted(series.iterdir()),
        segmenter,
        ResultIdentity("2.25.1", "2.25.2", datetime(2026, 3, 1, tzinfo=UTC)),
        DEFAULT_TEMPLATE,
        [STRUCTURE_SET],
        lambda name, content: _written(series.parent / f"{series.name}-{name}", content),
    )
    assert done.contoured.qa_sheet.png
    bundle = segmenter.bundle
    print(memory_need(done.volume.grid, bundle.preprocessing, len(bundle.structure_names)))  # noqa: T201
    print(peak_bytes())  # noqa: T201


def peak_bytes() -> int:
    """Highest resident memory of this process so far."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


class _ByThresholds(Segmenter):
    def _predict(self, image: NetworkImage, *_: object) -> NDArray[np.float16]:
        found = np.empty((len(self.bundle.structure_names), *image.hu.shape), np.float16)
        for index in range(len(found)):
            found[index] = np.abs(image.hu - (FIRST_HU + STEP_HU * index)) < STEP_HU / 2
        return found


def write_barrel(folder: Path, slices: int, matrix: int, length_mm: float) -> Path:
    """Write a body as wide as the image, with a ball for every structure the shipped model knows."""
    spacing_mm = WIDTH_MM / matrix
    grid = make_grid(
        offsets_mm=np.linspace(0, length_mm, slices),
        pixel_spacing_mm=(spacing_mm, spacing_mm),
        size=(matrix, matrix),
    )
    write_ct(folder, _barrel(grid), grid)
    return folder


def _barrel(grid: SliceGrid) -> NDArray[np.int16]:
    slices, rows, columns = grid.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    hu = np.empty(grid.shape, np.int16)
    hu[:] = np.where(x**2 + y**2 < 0.97**2, 40, -1000)
    balls = _balls()
    for index in range(slices):
        for number, (z0, y0, x0) in enumerate(balls):
            reach = 0.1**2 - (2 * (index / slices - z0)) ** 2
            hu[index][(y - y0) ** 2 + (x - x0) ** 2 < reach] = FIRST_HU + STEP_HU * number
    return hu


def _balls() -> list[tuple[float, float, float]]:
    """Centres (share of the length, then -1 to 1) for all structures, left ones on the left."""
    rng = np.random.default_rng(1)
    centres: dict[str, tuple[float, float, float]] = {}
    for name in Bundle.load(DEFAULT_BUNDLE).structure_names:
        z, y, x = rng.uniform((0.1, -0.6, 0.15), (0.9, 0.6, 0.6))
        side = name.removesuffix("_R") + "_L"
        if name.endswith("_R") and side in centres:
            z, y, x = centres[side][0], centres[side][1], -centres[side][2]
        centres[name] = (z, y, x if name.endswith(("_L", "_R")) else 0.0)
    return list(centres.values())


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


if __name__ == "__main__":
    if len(sys.argv) == 3:
        contour(Path(sys.argv[1]), sys.argv[2])
    else:
        main()
