"""Cost against work: rows, studies that wait, slices, organs, associations. Nothing may be worse than linear."""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from benchmarks import record
from benchmarks.bulk_sender import images, send
from benchmarks.contour_readers import IDENTITY, MODEL
from benchmarks.job_table import LONG_AGO, NOW, JobTable
from benchmarks.receivers import OUR_AE_TITLE, Listener, listener
from benchmarks.result import Curve, Point, Report, ResultsDifferError, Sample, Unit
from daemon.jobs import JobState
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from daemon.structure_template import ROI, apply_template, template_of
from model.contours import fill, trace_all
from model.ct import CTVolume, read_series
from model.geometry import Mask, SliceGrid
from tests.instances import ct_dataset
from tests.job_rows import image
from tests.phantom import make_grid, write_ct

ROWS = (1_000, 10_000, 100_000, 1_000_000)
WAITING = (1, 10, 100, 1_000, 10_000)
SLICES = (50, 100, 200, 500, 1_000, 2_000)
ORGANS = (1, 3, 10, 21, 50, 117)
ASSOCIATIONS = (1, 5, 20, 50, 100, 200)
IMAGE_SIDE = 64
UID = "1.2.826.0.1.3680043.10.1.9"
CALLS, ROUNDS = 21, 3
CLAIM_MS = 2.0


def run(*, quick: bool) -> Report:
    """All curves."""
    few = slice(0, 2) if quick else slice(None)
    calls, rounds = (2, 1) if quick else (CALLS, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        curves = [
            *by_rows(root / "rows", ROWS[few] if not quick else (10, 100), calls),
            *by_waiting(root / "waiting", WAITING[few], calls),
            *by_slices(root / "slices", SLICES[few], rounds),
            by_organs(ORGANS[few], rounds),
            by_associations(root / "associations", ASSOCIATIONS[few], rounds),
        ]
    return Report(
        title="Cost against work",
        about=(
            "A call of the job table is one durable transaction, its sync to the disk included.",
            "Rows are purged jobs with an image, six events and a delivery each; 30 more jobs are under way.",
            "Slices are of 64 × 64 pixels, so that it is the number that costs and not the pixels.",
            f"A listener in its own process takes {IMAGE_SIDE} × {IMAGE_SIDE} pixels over each association;",
            "all stand before the clock starts at the first C-STORE request, and it stops at the last response.",
        ),
        curves=tuple(curves),
    )


# The job table


def by_rows(folder: Path, sizes: Sequence[int], calls: int) -> list[Curve]:
    """What calls cost in a table that years have filled; the jobs under way are as many at every size."""
    folder.mkdir()
    table = JobTable(folder)
    costs: dict[str, list[Point]] = {}
    for state, delivery in ((JobState.QUEUED, ""), (JobState.RECEIVING, ""), (JobState.SEGMENTED, "pending")):
        table.add(10, state, delivery)
    for size in track(sizes, "scale: rows", console=Console(stderr=True), transient=True):
        table.add(size + 30 - len(table), JobState.PURGED)
        for what, cost in _call_costs(table, calls).items():
            costs.setdefault(what, []).append(Point(size, cost))
    table.close()
    ceilings = {_CLAIM: CLAIM_MS}
    return [
        Curve(what, "rows in the job table", Unit.MILLISECONDS, tuple(points), ceiling=ceilings.get(what))
        for what, points in costs.items()
    ]


_CLAIM = "claim of a job"


def _call_costs(table: JobTable, calls: int) -> dict[str, Sample]:
    queue, new = table.queue, iter(range(1, 1000))
    receiving = queue.receiving_jobs()[0]
    series = receiving.series_instance_uid

    return {
        _CLAIM: _timed(lambda: queue.claim("worker", 60), calls, table.give_jobs_back),
        "claim of a delivery": _timed(
            lambda: queue.claim_delivery("worker", 60), calls, table.give_deliveries_back
        ),
        "an image counted": _timed(
            lambda: queue.add_instance(receiving.id, image(len(table) + next(new), series)), calls
        ),
        "a known image found": _timed(
            lambda: queue.place(series, f"{series}.1", "CT1", "OARLOCK").known, calls
        ),
        "jobs to purge": _timed(
            lambda: queue.purgeable(NOW - timedelta(days=30), [JobState.DELIVERED]), calls
        ),
        "oarlock jobs": _timed(lambda: queue.jobs(limit=100), calls),
        "an hour of the audit trail": _timed(
            lambda: list(queue.audit_trail(LONG_AGO, LONG_AGO + timedelta(hours=1))), calls
        ),
        "the newest of v_turnaround": _timed(
            lambda: table.ask("SELECT * FROM v_turnaround ORDER BY job DESC LIMIT 20"), calls
        ),
        "v_jobs of a patient": _timed(
            lambda: table.ask("SELECT * FROM v_jobs WHERE patient_id = 'P3'"), calls
        ),
    }


def by_waiting(folder: Path, sizes: Sequence[int], calls: int) -> list[Curve]:
    """What calls cost while so many studies wait for the worker, or for a destination that is down."""
    folder.mkdir()
    table = JobTable(folder)
    queue = table.queue
    points: dict[str, list[Point]] = {_CLAIM: [], "claim of a delivery": [], "v_waiting": []}
    queued = 0
    for size in track(sizes, "scale: waiting", console=Console(stderr=True), transient=True):
        table.add(size - queued, JobState.QUEUED)
        table.add(size - queued, JobState.SEGMENTED, "pending")
        queued = size
        measured = {
            _CLAIM: _timed(lambda: queue.claim("worker", 60), calls, table.give_jobs_back),
            "claim of a delivery": _timed(
                lambda: queue.claim_delivery("worker", 60), calls, table.give_deliveries_back
            ),
            "v_waiting": _timed(lambda: table.ask("SELECT * FROM v_waiting"), calls),
        }
        for what, cost in measured.items():
            points[what].append(Point(size, cost))
    table.close()
    return [
        Curve(
            what,
            "studies waiting",
            Unit.MILLISECONDS,
            tuple(each),
            ceiling=CLAIM_MS if what == _CLAIM else None,
        )
        for what, each in points.items()
    ]


# Volumes


def by_slices(folder: Path, sizes: Sequence[int], rounds: int) -> list[Curve]:
    """Reading a series, and contours of an organ that goes through all of it to the bytes of the file."""
    reading, contouring = [], []
    for size in track(sizes, "scale: slices", console=Console(stderr=True), transient=True):
        grid = _grid(size)
        hu = np.where(_tube(grid).full(), 40, -1000).astype(np.int16)
        paths = write_ct(folder / str(size), hu, grid)
        reading.append(Point(size, _timed(lambda paths=paths: read_series(paths), rounds).scaled(1e-3)))
        volume = read_series(paths)
        rois = apply_template(template_of(["Brainstem"]), {"Brainstem": _tube(grid)}, grid)
        contouring.append(
            Point(size, _timed(lambda volume=volume, rois=rois: _written(volume, rois), rounds).scaled(1e-3))
        )
    return [
        Curve("series to volume", "slices", Unit.SECONDS, tuple(reading)),
        Curve("mask to structure set", "slices", Unit.SECONDS, tuple(contouring)),
    ]


def by_organs(sizes: Sequence[int], rounds: int) -> Curve:
    """Masks of so many organs to the bytes of the file."""
    grid = _grid(100)
    (one,) = apply_template(template_of(["Brainstem"]), {"Brainstem": _tube(grid)}, grid)
    series = [ct_dataset("1.2.3", number) for number in range(1, 101)]
    uids = tuple(str(each.SOPInstanceUID) for each in series)
    volume = CTVolume(np.zeros((0, 0, 0), np.int16), grid, uids, series[0])
    points = []
    for size in track(sizes, "scale: organs", console=Console(stderr=True), transient=True):
        rois = [replace(one, number=number, name=f"Organ_{number}") for number in range(1, size + 1)]
        points.append(Point(size, _timed(lambda rois=rois: _written(volume, rois), rounds).scaled(1e-3)))
    return Curve("masks to structure set", "organs of 100 slices", Unit.SECONDS, tuple(points))


def _written(volume: CTVolume, rois: Sequence[ROI]) -> bytes:
    traced = trace_all([roi.mask for roi in rois], volume.grid.pixel_spacing_mm)
    with_contours = [replace(roi, contours=each) for roi, each in zip(rois, traced, strict=True)]
    if any(fill(roi.contours, roi.mask.shape).count != roi.mask.count for roi in with_contours[:1]):
        raise ResultsDifferError(f"contours of {len(rois)} organs do not give the mask back")
    return encode(build_structure_set(volume, with_contours, IDENTITY, MODEL))


def _grid(slices: int) -> SliceGrid:
    return make_grid(offsets_mm=np.arange(slices) * 1.0, size=(64, 64), pixel_spacing_mm=(4.0, 4.0))


def _tube(grid: SliceGrid) -> Mask:
    """A round organ that wanders through all slices."""
    slices, rows, columns = grid.shape
    z, y, x = np.ogrid[:slices, :rows, :columns]
    return Mask.from_full((y - 32 - 6 * np.sin(z / 9)) ** 2 + (x - 32) ** 2 < 18**2)


# Reception


def by_associations(folder: Path, sizes: Sequence[int], rounds: int) -> Curve:
    """So many associations, all open; each sends one image of its own series, all at once."""
    points = []
    for size in track(sizes, "scale: associations", console=Console(stderr=True), transient=True):
        with listener(folder / str(size), max_associations=max(sizes)) as own:
            seconds = [_sent_at_once(own, f"{UID}.{size}.{number}", size) for number in range(rounds + 1)]
            if own.images != size * (rounds + 1):
                raise ResultsDifferError(f"{own.images} of {size * (rounds + 1)} images were stored")
        points.append(Point(size, Sample.of(seconds[1:])))
    return Curve("an image each, received", "associations at once", Unit.SECONDS, tuple(points))


def _sent_at_once(own: Listener, root: str, associations: int) -> float:
    series = [images(f"{root}.{number}", 1, IMAGE_SIDE) for number in range(associations)]
    os.sync()
    return send(own.port, OUR_AE_TITLE, series)


def _timed(call: Callable[[], object], rounds: int, undo: Callable[[], object] = lambda: None) -> Sample:
    """Milliseconds, after a call that does not count; `undo` is not timed."""
    taken = []
    for number in range(rounds + 1):
        started = time.perf_counter()
        call()
        if number:
            taken.append((time.perf_counter() - started) * 1000)
        undo()
    return Sample.of(taken)


if __name__ == "__main__":
    record.alone("scale", run)
