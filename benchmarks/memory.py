"""Peak memory of a worker by the number of slices, and of a listener by the number of images it has received."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from benchmarks import record
from benchmarks.bulk_sender import SIDE, images, send
from benchmarks.peak_memory import peak_mb
from benchmarks.receivers import OUR_AE_TITLE, listener
from benchmarks.result import Curve, Goal, Point, Report, ResultsDifferError, Row, Sample, Unit
from benchmarks.turnaround import running_node, turn
from tests.anatomy import write_average_series
from tests.peers import ReceivingPeer

SLICES, QUICK_SLICES = (100, 200, 300), (20,)
IMAGES, QUICK_IMAGES = (50, 200, 800), (2, 4)
QUICK_SIDE = 64
ROUNDS = 3
GOAL_MB = 4000.0
ORGANS = 21
UID = "1.2.826.0.1.3680043.10.1.8"
ABOUT = (
    "The greatest resident memory of processes as they are installed, on the CPU; libraries are part of it.",
    "Worker: a new process for every figure, with its weights and all cores, from one series to its delivery.",
    "It reads, contours, writes, checks and draws the QA sheet; all organs are found at every size.",
    f"Listener: one process takes images of 0.5 MB, each {IMAGES[0]} a series over an association of its own.",
)


def worker_peak(slices: int, *, quick: bool) -> float:
    """MB that a worker took at most for one job; the average anatomy, or its upper part, so finely cut."""
    with tempfile.TemporaryDirectory() as root, ReceivingPeer("TPS") as peer:
        folder = Path(root)
        series = write_average_series(folder / "ct", slices, 0.3 if quick else 1.0)
        with running_node(folder, peer.port, threads=1 if quick else 0) as node:
            report = turn(node, peer, series)
            peak = peak_mb(node.worker_id)
        sheets = list(node.spool.glob("jobs/*/qa_sheet.png"))
    organs = {each.name for each in report.structures if each.contours}
    if "Brain" not in organs or (not quick and len(organs) < ORGANS):
        raise ResultsDifferError(f"{slices} slices: only {', '.join(sorted(organs))} were found")
    if len(sheets) != 1:
        raise ResultsDifferError(f"{len(sheets)} QA sheets of one job")
    return peak


def listener_peaks(counts: Sequence[int], side: int) -> dict[int, float]:
    """MB that one listener had taken at most after so many images; the first count is the size of every series."""
    peaks = {}
    with tempfile.TemporaryDirectory() as root, listener(Path(root) / "node") as own:
        for received in range(counts[0], counts[-1] + 1, counts[0]):
            send(own.port, OUR_AE_TITLE, [images(f"{UID}.{received}", counts[0], side)])
            if received in counts:
                peaks[received] = peak_mb(own.process_id)
        if own.images != counts[-1]:
            raise ResultsDifferError(f"the listener holds {own.images} images, {counts[-1]} were sent")
    return peaks


def run(*, quick: bool) -> Report:
    """All processes, and all of them again in every round."""
    sizes, counts, side = (QUICK_SLICES, QUICK_IMAGES, QUICK_SIDE) if quick else (SLICES, IMAGES, SIDE)
    workers: dict[int, list[float]] = {each: [] for each in sizes}
    listeners: dict[int, list[float]] = {each: [] for each in counts}
    rounds = range(1 if quick else ROUNDS)
    for _ in track(rounds, "memory", console=Console(stderr=True), transient=True):
        for slices in sizes:
            workers[slices].append(worker_peak(slices, quick=quick))
        for count, peak in listener_peaks(counts, side).items():
            listeners[count].append(peak)
    of_workers = {size: Sample.of(peaks) for size, peaks in workers.items()}
    of_listeners = {count: Sample.of(peaks) for count, peaks in listeners.items()}
    goal = Goal(at_most=GOAL_MB)
    return Report(
        "Memory",
        ABOUT,
        (
            *(_row("worker's peak", f"512 × 512 × {size}", peak, goal) for size, peak in of_workers.items()),
            *(_row("listener's peak", f"{count} images", peak) for count, peak in of_listeners.items()),
        ),
        _curves(of_workers, of_listeners),
        unmeasured=("The memory of a GPU: none was at hand.",),
    )


def _row(what: str, size: str, peak: Sample, goal: Goal | None = None) -> Row:
    return Row(what, size, Unit.MB, peak, goal=goal)


def _curves(workers: Mapping[int, Sample], listeners: Mapping[int, Sample]) -> tuple[Curve, ...]:
    """The listener's is to be flat; without one of the worker's where there is a single size."""
    worker, own = (tuple(map(Point, peaks, peaks.values())) for peaks in (workers, listeners))
    flat = Curve("listener's peak memory", "images received", Unit.MB, own, steepest=0.0)
    if len(worker) < 2:
        return (flat,)
    return (Curve("worker's peak memory", "slices", Unit.MB, worker, ceiling=GOAL_MB), flat)


if __name__ == "__main__":
    record.alone("memory", run)
