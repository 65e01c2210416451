"""Peak memory of a process that contours one series on the CPU, by the number of slices."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import record
from benchmarks.result import Curve, Goal, Point, Report, ResultsDifferError, Row, Sample, Unit
from tests.anatomy import write_average_series

SLICES = (100, 200, 300)
GOAL_MB = 4000.0

CHILD = """
import json, resource, sys
from datetime import UTC, datetime
from pathlib import Path
import torch
from daemon.result_header import ResultIdentity
from daemon.result_objects import STRUCTURE_SET
from daemon.segmentation import contour_series
from daemon.structure_template import DEFAULT_TEMPLATE
from model.bundle import DEFAULT_BUNDLE, Bundle
from model.segmenter import Segmenter

series, out = map(Path, sys.argv[1:])
segmenter = Segmenter(Bundle.load(DEFAULT_BUNDLE), "cpu", threads=1)

def store(name, content):
    (out / name).write_bytes(content)
    return out / name

identity = ResultIdentity("2.25.1", "2.25.2", datetime(2025, 1, 2, tzinfo=UTC))
done = contour_series(list(series.iterdir()), segmenter, identity, DEFAULT_TEMPLATE, [STRUCTURE_SET], store)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
print(json.dumps([peak, sorted(done.masks)]))
"""


def peak_mb(slices: int, height_share: float) -> tuple[float, list[str]]:
    """Of a process of its own, and the organs it found; the average anatomy, or its upper part, so finely cut."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        write_average_series(folder / "ct", slices, height_share)
        command = [sys.executable, "-c", CHILD, str(folder / "ct"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ResultsDifferError(f"the series was not contoured: {done.stderr[-1000:]}")
    peak, organs = json.loads(done.stdout)
    return float(peak), organs


def run(*, quick: bool) -> Report:
    """One process for each size."""
    sizes = (20,) if quick else SLICES
    peaks = {}
    for slices in sizes:
        peak, organs = peak_mb(slices, 0.3 if quick else 1.0)
        if "Brain" not in organs or (not quick and len(organs) < 21):
            raise ResultsDifferError(f"{slices} slices: only {', '.join(organs)} were found")
        peaks[slices] = Sample.of([peak])
    rows = tuple(
        Row(
            "peak of a process that contours",
            f"512 × 512 × {slices}",
            Unit.MB,
            peak,
            goal=Goal(at_most=GOAL_MB),
        )
        for slices, peak in peaks.items()
    )
    points = tuple(Point(slices, peak) for slices, peak in peaks.items())
    curves = (Curve("worker's peak memory", "slices", Unit.MB, points, ceiling=GOAL_MB),) if not quick else ()
    about = (
        "The greatest resident memory of a process that reads, contours, writes and checks one series on the CPU.",
        "Libraries and weights are part of it; all organs are found at every size.",
    )
    return Report("Memory", about, rows, curves, unmeasured=("The memory of a GPU: none was at hand.",))


if __name__ == "__main__":
    record.alone("memory", run)
