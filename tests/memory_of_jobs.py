"""Memory of the worker over many jobs, measured from outside.

    python -m tests.memory_of_jobs --count 50

runs `oarlock work` with the shipped model and every kind of result, and draws the picture in docs/figures.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import psutil
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydicom.uid import (
    EncapsulatedPDFStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from rich.console import Console

from daemon.jobs import JobState
from daemon.spool import Spool
from model.bundle import DEFAULT_BUNDLE
from model.geometry import SliceGrid
from tests.acceptance.processes import Installation, install
from tests.anatomy import average_anatomy
from tests.conditions import wait_until
from tests.paths import REPOSITORY
from tests.peers import ReceivingPeer
from tests.phantom import write_ct
from tests.workplace import queue_images

PICTURE = REPOSITORY / "docs/figures/worker-memory.png"
EVERY_SECONDS = 0.5
SLICES = (48, 40, 60)
"""Of the series, which come in turn."""
OBJECTS = {
    "rtstruct": RTStructureSetStorage,
    "seg": SegmentationStorage,
    "secondary-capture": SecondaryCaptureImageStorage,
    "pdf": EncapsulatedPDFStorage,
}
_UNDER_WAY = {JobState.QUEUED, JobState.SEGMENTING, JobState.SEGMENTED}


@dataclass
class Course:
    """The worker's resident memory over time, and when each job ended."""

    seconds: list[float] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)
    job_seconds: list[float] = field(default_factory=list)

    def peak_of(self, jobs: slice) -> int:
        """Highest memory while some of the jobs ran."""
        begins = [0.0, *self.job_seconds]
        chosen = range(len(self.job_seconds))[jobs]
        low, high = begins[chosen[0]], self.job_seconds[chosen[-1]]
        return max(m for s, m in zip(self.seconds, self.resident_bytes, strict=True) if low <= s <= high)


@contextmanager
def watched(process_id: int, course: Course, began: float) -> Iterator[None]:
    """Write down a process's resident memory for the time of the block."""
    done = threading.Event()
    process = psutil.Process(process_id)

    def watch() -> None:
        while not done.wait(EVERY_SECONDS) and process.is_running():
            course.resident_bytes.append(process.memory_info().rss)
            course.seconds.append(time.monotonic() - began)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def run_jobs(installation: Installation, series: Sequence[Path], count: int, limit_seconds: float) -> Course:
    """Let a worker process do so many jobs, the series in turn.

    Every job is queued when the one before has been delivered, so that each stands alone in the picture.
    """
    course, began = Course(), time.monotonic()
    queue, spool = installation.queue(), Spool(installation.root, 0)
    spool.prepare()
    with installation.running("work") as worker, watched(worker.pid, course, began):
        for number in range(count):
            files = sorted(series[number % len(series)].iterdir())
            # A sender of its own, else the images would be known already.
            job = queue_images(queue, spool, files, calling=f"CT{number}")
            wait_until(
                lambda job=job: queue.job(job).state not in _UNDER_WAY, f"job {number + 1}", limit_seconds
            )
            assert queue.job(job).state is JobState.DELIVERED, queue.job(job).reason
            course.job_seconds.append(time.monotonic() - began)
    queue.close()
    return course


def head_series(folder: Path, slices: int) -> Path:
    """Write the middle of the average head, 160 mm wide: as few tiles for the network as still hold organs."""
    hu, grid, _ = average_anatomy(slices)
    low = len(hu) // 2 - slices // 2 + 15
    box = (slice(low, low + slices), slice(160, 320, 2), slice(176, 336, 2))
    part = SliceGrid(
        grid.positions_mm[box[0]],
        grid.row_direction,
        grid.column_direction,
        (2 * grid.pixel_spacing_mm[0], 2 * grid.pixel_spacing_mm[1]),
        80,
        80,
    )
    write_ct(folder, hu[box], part, seed=slices)
    return folder


def main(
    count: Annotated[int, typer.Option(help="How many jobs.")] = 50,
    picture: Annotated[Path, typer.Option(help="Where to draw.")] = PICTURE,
) -> None:
    """Run jobs through one worker process with the shipped model, and draw its memory."""
    console = Console()
    with (
        TemporaryDirectory(prefix="oarlock-memory-") as name,
        ReceivingPeer(sop_classes=list(OBJECTS.values())) as peer,
    ):
        folder = Path(name)
        installation = install(folder / "node", {"tps": peer.port})
        text = installation.config.read_text().replace(str(folder / "node/bundle"), str(DEFAULT_BUNDLE))
        text = text.replace('qa_sheet = "none"', 'qa_sheet = "pdf"').replace("threads = 1", "threads = 2")
        text = "\n".join(line for line in text.splitlines() if not line.startswith("structures"))
        text = text.replace('name = "tps"', f'name = "tps"\nobjects = {json.dumps(list(OBJECTS))}')
        installation.config.write_text(text)
        series = [head_series(folder / f"ct-{slices}", slices) for slices in SLICES]
        course = run_jobs(installation, series, count, 600)
    fifth = max(1, count // 5)
    first, last = course.peak_of(slice(fifth, 2 * fifth)), course.peak_of(slice(count - fifth, count))
    console.print(f"{count} jobs in {course.job_seconds[-1] / 60:.1f} minutes")
    console.print(f"highest in jobs {fifth + 1} to {2 * fifth}: {first / 1e6:.0f} MB")
    console.print(f"highest in jobs {count - fifth + 1} to {count}: {last / 1e6:.0f} MB")
    draw(course, picture)
    console.print(str(picture))


def draw(course: Course, path: Path) -> None:
    """Draw memory over time, a tick below for each job that ended."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    minutes = np.array(course.seconds) / 60
    axes.plot(minutes, np.array(course.resident_bytes) / 1e6, linewidth=0.8, color="#1f5fa8")
    axes.plot(np.array(course.job_seconds) / 60, np.zeros(len(course.job_seconds)), "|", color="#444444")
    axes.set(xlabel="minutes", ylabel="resident memory, MB", xlim=(0, None), ylim=(0, None))
    axes.set_title(f"Worker over {len(course.job_seconds)} jobs; a mark at the end of each", fontsize=10)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    typer.run(main)
