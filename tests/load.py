"""The listener under load: thousands of images and of associations, its memory, threads and files from outside.

    python -m tests.load --instances 10000 --associations 2000

runs `oarlock listen` as a process of its own and draws the picture in docs/figures.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.bulk_sender import images
from daemon.jobs import JobState
from tests.acceptance.processes import PROCESS_SECONDS, Installation, install
from tests.conditions import wait_until
from tests.crowd import store_series, visit
from tests.paths import REPOSITORY

PICTURE = REPOSITORY / "docs/figures/listener-memory.png"
TOLERANCE_BYTES = 8_000_000
"""By how much memory may grow from the second to the last fifth of a phase: 1.3 KB for each of 6,000 images."""

IMAGE_SAMPLES = 200
"""So many while images are stored; of associations one in each round, when all of it are open."""

SERIES = 40
SIDE = 64
"""Rows and columns of an image: 8 KB of pixels."""

THREADS_AT_REST = 2
"""The main thread and the one that accepts connections."""

TABLE_FILES = 15
"""Of the job table: two for each of five pooled connections, one that reads and one that commits, and one more."""

SETTLE_SECONDS = 30
"""How long threads and connections may take to end."""

_ROOT = "1.2.826.0.1.3680043.10.1.21"


@dataclass(frozen=True)
class Sample:
    """The listener at one instant, in seconds since the beginning."""

    seconds: float
    resident_bytes: int
    threads: int
    files: int
    """Sockets, images, logs: every descriptor but those of the job table."""
    table_files: int


class Watch:
    """Looks at a process from outside."""

    def __init__(self, process_id: int) -> None:
        self._process, self._began = psutil.Process(process_id), time.monotonic()

    def sample(self) -> Sample:
        """The process now."""
        with self._process.oneshot():
            resident, threads = self._process.memory_info().rss, self._process.num_threads()
        table, files = 0, 0
        for entry in Path(f"/proc/{self._process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                is_of_table = entry.readlink().name.startswith("oarlock.db")
                table, files = table + is_of_table, files + (not is_of_table)
        return Sample(time.monotonic() - self._began, resident, threads, files, table)

    def settled(self, is_settled: Callable[[Sample], bool]) -> Sample:
        """The process as soon as it is settled, or after a while that is long enough for every timer."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while not is_settled(now := self.sample()) and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        return now


Advance = Callable[[str, int], None]
"""Told the name of a phase and by how much it has gone on."""


@dataclass
class Phase:
    """One kind of load, from its first to its last request."""

    name: str
    count: int
    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0

    @contextmanager
    def watched(self, watch: Watch, every: int, advance: Advance) -> Iterator[Callable[[int], None]]:
        """Take the time of the block, and a sample whenever so many requests have been told to what it gives."""
        lock, done, began = threading.Lock(), 0, time.monotonic()

        def went_on(by: int) -> None:
            nonlocal done
            with lock:
                if (done + by) // every > done // every:
                    self.samples.append(watch.sample())
                done += by
            advance(self.name, by)

        yield went_on
        self.seconds = time.monotonic() - began

    def resident_in_fifth(self, number: int) -> float:
        """Median memory in bytes in one fifth of the samples, counted from 0."""
        size = len(self.samples)
        part = self.samples[size * number // 5 : size * (number + 1) // 5]
        return statistics.median(sample.resident_bytes for sample in part)

    @property
    def grown_bytes(self) -> float:
        """Memory in the last fifth beyond that in the second; the first is on its way to the level."""
        return self.resident_in_fifth(4) - self.resident_in_fifth(1)


@dataclass
class Load:
    """What was done to a listener, and what became of it."""

    storing: Phase
    visiting: Phase
    start: Sample
    end: Sample
    acknowledged: set[str]
    queued: set[str]
    """SOP Instance UIDs that were answered 0x0000, and those in the job table as images of queued jobs."""

    def violations(self) -> list[str]:
        """Name everything that is not as it must be."""
        found = []
        if len(self.acknowledged) != self.storing.count:
            found.append(f"{len(self.acknowledged)} of {self.storing.count} images were answered 0x0000")
        if self.acknowledged != self.queued:
            found.append(
                f"{len(self.acknowledged ^ self.queued)} images differ between senders and job table"
            )
        if self.end.threads > self.start.threads:
            found.append(f"{self.end.threads} threads, {self.start.threads} before")
        if self.end.files > self.start.files:
            found.append(f"{self.end.files} open files, {self.start.files} before")
        if self.end.table_files > TABLE_FILES:
            found.append(f"{self.end.table_files} open files of the job table")
        return found + [
            f"{phase.name}: memory grew by {phase.grown_bytes / 1e6:.1f} MB"
            for phase in (self.storing, self.visiting)
            if phase.grown_bytes > TOLERANCE_BYTES
        ]


def load(
    folder: Path,
    instances: int,
    associations: int,
    at_once: int,
    side: int = SIDE,
    advance: Advance = lambda _name, _done: None,
) -> Load:
    """Put load on a listener of its own; raises ConnectionError where an association is refused."""
    installation = install(folder, {})
    text = installation.config.read_text()
    # Those of a round that were aborted may still be counted when the next one comes.
    text = text.replace("[node]", f"[node]\nmax_associations = {4 * at_once}")
    installation.config.write_text(text)
    sent = [
        images(f"{_ROOT}.{number}", instances // SERIES + (number < instances % SERIES), side)
        for number in range(SERIES)
    ]
    storing, visiting = Phase("images", instances), Phase("associations", associations)
    with installation.running("listen") as listener:
        watch = Watch(listener.pid)
        wait_until(lambda: "service_started" in installation.log("listen"), "the start", PROCESS_SECONDS)
        start = watch.settled(lambda now: now.threads == THREADS_AT_REST)
        with storing.watched(watch, instances // IMAGE_SAMPLES, advance) as went_on:
            acknowledged = store_series(installation.port, sent, lambda: went_on(1))
        with visiting.watched(watch, 1, advance) as went_on:
            visit(installation.port, associations, at_once, went_on)
        queued = _queued(installation)
        end = watch.settled(lambda now: now.threads <= start.threads and now.files <= start.files)
    return Load(storing, visiting, start, end, acknowledged, queued)


def _queued(installation: Installation) -> set[str]:
    """Wait until every series is complete; returns the SOP Instance UIDs of queued jobs."""
    queue = installation.queue()
    try:
        wait_until(
            lambda: {job.state for job in queue.jobs(limit=1000)} == {JobState.QUEUED},
            "every series to be queued",
            PROCESS_SECONDS,
        )
        jobs = queue.jobs(limit=1000)
        return {each.sop_instance_uid for job in jobs for each in queue.instances(job.id)}
    finally:
        queue.close()


def _table(result: Load) -> Table:
    table = Table(
        "Load",
        "Count",
        "Seconds",
        "Each second",
        "MB, second fifth",
        "MB, last fifth",
        "Most threads",
        "Most files",
    )
    for phase in (result.storing, result.visiting):
        table.add_row(
            phase.name,
            str(phase.count),
            f"{phase.seconds:.1f}",
            f"{phase.count / phase.seconds:.0f}",
            f"{phase.resident_in_fifth(1) / 1e6:.1f}",
            f"{phase.resident_in_fifth(4) / 1e6:.1f}",
            str(max(sample.threads for sample in phase.samples)),
            str(max(sample.files + sample.table_files for sample in phase.samples)),
        )
    return table


def draw(result: Load, path: Path) -> None:
    """Draw memory, threads and open files over time."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    memory, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    samples = [result.start, *result.storing.samples, *result.visiting.samples, result.end]
    seconds = [sample.seconds for sample in samples]
    memory.plot(seconds, [sample.resident_bytes / 1e6 for sample in samples], linewidth=0.8, color="#1f5fa8")
    counts.plot(seconds, [sample.threads for sample in samples], linewidth=0.8, label="threads")
    counts.plot(
        seconds, [sample.files + sample.table_files for sample in samples], linewidth=0.8, label="open files"
    )
    for axes in (memory, counts):
        axes.axvline(result.visiting.samples[0].seconds, color="#444444", linewidth=0.8, linestyle="--")
        axes.grid(alpha=0.3)
        axes.set(xlim=(0, None), ylim=(0, None))
    memory.set_ylabel("resident memory, MB")
    counts.set(xlabel="seconds", ylabel="number")
    counts.legend(loc="upper left", fontsize=8)
    title = f"Listener: {result.storing.count} images, then {result.visiting.count} associations"
    memory.set_title(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main(
    instances: Annotated[int, typer.Option(help="How many images to store.", min=IMAGE_SAMPLES)] = 10_000,
    associations: Annotated[int, typer.Option(help="How many associations to open.", min=1)] = 2_000,
    at_once: Annotated[int, typer.Option(help="How many of these at the same time.", min=1)] = 50,
    picture: Annotated[Path, typer.Option(help="Where to draw.")] = PICTURE,
) -> None:
    """Load a listener, show and draw what became of it; exit code 1 where anything is not as it must be."""
    console = Console()
    with TemporaryDirectory(prefix="oarlock-load-") as folder, Progress(console=console) as bars:
        tasks = {
            name: bars.add_task(name, total=total)
            for name, total in (("images", instances), ("associations", associations))
        }
        result = load(
            Path(folder) / "node",
            instances,
            associations,
            at_once,
            advance=lambda name, done: bars.advance(tasks[name], done),
        )
    console.print(_table(result))
    for name, sample in (("start", result.start), ("end", result.end)):
        console.print(
            f"{name}: {sample.resident_bytes / 1e6:.1f} MB, {sample.threads} threads, "
            f"{sample.files} open files and {sample.table_files} of the job table"
        )
    console.print(f"{len(result.acknowledged)} images answered 0x0000, {len(result.queued)} in queued jobs")
    draw(result, picture)
    console.print(str(picture))
    violations = result.violations()
    for violation in violations:
        console.print(f"[red]{violation}")
    raise typer.Exit(1 if violations else 0)


if __name__ == "__main__":
    typer.run(main)
