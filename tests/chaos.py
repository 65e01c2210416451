"""Everything is killed, again and again, while studies stream in; then what senders and receivers saw is counted.

    python -m tests.chaos --minutes 60

Listener and worker are processes of their own, ended by SIGKILL at random instants and started again.
At the end the proof is made from outside: what was acknowledged is on disk, and every series ended as exactly one
structure set at every destination, however often it had to be sent.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from pydicom import dcmread
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Job
from daemon.jobs import TRANSITIONS, DeliveryState, JobState, QueueReason
from daemon.part10 import read_part10
from daemon.spool import Spool
from tests.acceptance.processes import Installation, install
from tests.chaos_places import places_hit
from tests.conditions import accepts_tcp, wait_until
from tests.peers import ReceivingPeer, dcmtk_send
from tests.phantom import make_grid, write_series

LEASE_SECONDS = 1.0
"""Of killed workers, so that their jobs need not wait a minute; other waits are shortened likewise."""

DESTINATIONS = ("tps", "pacs")
SENDERS = 3
IMAGES = 21
"""Of each series."""
_ENDS = (JobState.DELIVERED, JobState.REJECTED)
"""A series of which a kill let too little arrive in time is rejected; its next revision has all of it."""
_PRELOADED = ["daemon.roles", "daemon.listener", "daemon.worker", "model.segmenter", "tests.stub_segmenter"]


def run_role(role: str, config: str) -> None:
    """What a child process does: the role as the command line builds it, but with little patience."""
    log = os.open(Path(config).with_name(f"{role}.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    from daemon import courier, logs, retry, roles, worker
    from daemon.config import load_config
    from model import segmenter
    from tests.stub_segmenter import StubSegmenter

    logs.configure(role=role)
    retry.DELIVERY_BACKOFF = retry.JOB_BACKOFF = retry.Backoff(first_seconds=0.2, longest_seconds=2)
    courier.SILENT_SECONDS = courier.LEASE_SECONDS = LEASE_SECONDS
    worker.Worker.__init__.__kwdefaults__["lease_seconds"] = LEASE_SECONDS  # type: ignore[index]
    worker.EXPIRY_SECONDS = 0.2
    _widen(Spool, "store_arrival", 0.02)
    _widen(Spool, "store_result", 0.3)
    _widen(courier, "send", 0.3)
    stub = StubSegmenter(before=lambda _volume: time.sleep(random.uniform(0, 0.3)))
    segmenter.Segmenter = lambda *_arguments: stub  # type: ignore[assignment, misc]
    loaded = load_config(Path(config), {})
    if role == "listen":
        roles.listen(loaded)
    else:
        roles.work(loaded, Path(config))


def _widen(owner: Any, name: str, seconds: float) -> None:
    """Let time pass between a file and what is written down of it, so that kills fall there too."""
    original = getattr(owner, name)

    def slower(*arguments: Any) -> Any:
        done = original(*arguments)
        time.sleep(random.uniform(0, seconds))
        return done

    setattr(owner, name, slower)


@dataclass
class Tally:
    """What senders and receivers saw."""

    acknowledged: dict[str, str] = field(default_factory=dict)  # SOP Instance UID: SHA-256 of the data set
    series_sent: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)  # what a kill left half done
    violations: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        """Figures for a document."""
        return json.dumps(
            {
                "kills": dict(self.kills),
                "places": dict(self.places),
                "series": self.series_sent,
                "instances": len(self.acknowledged),
                "violations": self.violations,
            }
        )


class Roles:
    """Listener and worker, forked from a process that has imported everything: a start takes milliseconds."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._processes: dict[str, Any] = {}

    def start(self, *names: str) -> None:
        """Start roles that do not run."""
        for name in names:
            process = self._context.Process(target=run_role, args=(name, str(self._installation.config)))
            process.start()
            self._processes[name] = process

    def ended(self) -> list[str]:
        """Roles that ended without having been killed, and how."""
        codes = {name: process.exitcode for name, process in self._processes.items()}
        return [f"{name} ended by itself with {code}" for name, code in codes.items() if code is not None]

    def kill(self, *names: str) -> None:
        """End roles as the out-of-memory killer does."""
        for name in names:
            self._processes[name].kill()
        for name in names:
            self._processes[name].join()

    def stop(self) -> None:
        """End what still runs."""
        for process in self._processes.values():
            process.terminate()
            process.join(30)
            process.kill()


class Senders:
    """Scanners that send one series after the other until they are told to stop, and never give one up."""

    def __init__(self, folder: Path, port: int, tally: Tally) -> None:
        self._folder = folder
        self._port = port
        self._tally = tally
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._send_on, args=(n,)) for n in range(SENDERS)]

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Let every sender end its series."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _send_on(self, number: int) -> None:
        grid = make_grid(pixel_spacing_mm=(6.0, 6.0), size=(40, 32), offsets_mm=range(-100, 101, 10))
        for count in range(1_000_000):
            if self._stopping.is_set():
                return
            folder = self._folder / f"{number}-{count}"
            paths = write_series(folder, grid=grid, seed=number * 1_000_000 + count)
            self._send_all(paths, f"CT{number}")
            with self._lock:
                self._tally.series_sent += 1
            shutil.rmtree(folder)

    def _send_all(self, paths: list[Path], calling: str) -> None:
        """Send until everything is acknowledged, as the queue of a scanner does."""
        missing = list(paths)
        while missing:
            stored = self._storescu(missing, calling)
            for path in missing[:stored]:
                self._note(path)
            missing = missing[stored:]
            if missing:
                time.sleep(0.05)

    def _storescu(self, paths: list[Path], calling: str) -> int:
        """How many of the files, from the first on, DCMTK's storescu got a success for before it gave up."""
        told = dcmtk_send(
            "storescu", "--verbose", "-aet", calling, "-aec", "OARLOCK", "127.0.0.1", str(self._port), *paths
        )
        return (told.stdout + told.stderr).count("Received Store Response (Success)")

    def _note(self, path: Path) -> None:
        _, dataset_bytes = read_part10(path)
        with self._lock:
            self._tally.acknowledged[_uid(path)] = hashlib.sha256(dataset_bytes).hexdigest()


def _uid(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def wreak_havoc(
    roles: Roles,
    root: Path,
    tally: Tally,
    rng: random.Random,
    go_on: Callable[[], bool],
    beat: Callable[[], None],
) -> None:
    """Kill and start again at random instants."""
    victims = (("listen",), ("listen",), ("work",), ("work",), ("listen", "work"))
    while go_on():
        # Now and then a worker lives long enough to reach its deliveries.
        time.sleep(rng.choice((rng.uniform(0.1, 1.0), rng.uniform(0.1, 1.0), rng.uniform(1.0, 4.0))))
        chosen = rng.choice(victims)
        tally.violations += roles.ended()
        roles.kill(*chosen)
        tally.kills.update(chosen)
        tally.places.update(places_hit(root, chosen))
        time.sleep(rng.choice((0.0, 0.0, 0.1)))
        roles.start(*chosen)
        beat()


def settle(installation: Installation, roles: Roles, tally: Tally, limit_seconds: float) -> None:
    """Wait until every job is at its end; an operator starts again what used up its attempts by dying."""
    queue = installation.queue()

    def at_rest() -> bool:
        for job in queue.jobs(JobState.FAILED):
            if job.reason_code == QueueReason.ATTEMPTS_USED_UP:
                queue.retry(job.id)
        return all(job.state in _ENDS for job in queue.jobs(limit=1_000_000))

    try:
        wait_until(lambda: at_rest() or roles.ended(), "every job to be delivered", limit_seconds)
        tally.violations += roles.ended()
    finally:
        queue.close()


def verify(installation: Installation, peers: dict[str, ReceivingPeer], tally: Tally) -> None:
    """Hold the job table, the spool and the receivers against what the senders were told."""
    queue = installation.queue()
    jobs = queue.jobs(limit=1_000_000)
    tally.violations += [
        *_false_states(queue, jobs),
        *_impossible_histories(queue, jobs),
        *_damage(installation.root),
        *_lost_images(queue, jobs, Spool(installation.root, 0), tally.acknowledged),
        *_incomplete_series(queue, jobs, tally.series_sent),
        *_lost_or_doubled_results(jobs, peers),
        *_mixed_up_results(queue, jobs, peers),
    ]
    queue.close()


def _false_states(queue: JobQueue, jobs: list[Job]) -> Iterator[str]:
    for job in jobs:
        if job.state not in _ENDS or job.lease_owner:
            yield f"job {job.id} is {job.state}, held by {job.lease_owner}"
        for delivery in queue.deliveries(job.id):
            if delivery.state is not DeliveryState.SENT:
                yield f"job {job.id}: delivery to {delivery.destination} is {delivery.state}"


def _lost_images(
    queue: JobQueue, jobs: list[Job], spool: Spool, acknowledged: dict[str, str]
) -> Iterator[str]:
    on_disk: dict[str, str] = {}
    for job in jobs:
        for row in queue.instances(job.id):
            _, dataset_bytes = read_part10(spool.instance_path(job.id, row.sop_instance_uid))
            on_disk[row.sop_instance_uid] = hashlib.sha256(dataset_bytes).hexdigest()
            if on_disk[row.sop_instance_uid] != row.sha256:
                yield f"{row.sop_instance_uid}: the file is not what its row says"
    for uid, digest in acknowledged.items():
        if on_disk.get(uid) != digest:
            yield f"{uid} was acknowledged and is not on disk with its bytes"


def _impossible_histories(queue: JobQueue, jobs: list[Job]) -> Iterator[str]:
    """A history begins with nothing, takes only steps that exist, and ends where the job is."""
    for job in jobs:
        at: JobState | None = None
        for event in queue.events(job.id):
            is_step = event.from_state is None or event.to_state in TRANSITIONS[event.from_state]
            if event.from_state is not at or not (is_step or event.from_state is event.to_state):
                yield f"job {job.id} went from {event.from_state} to {event.to_state} while it was {at}"
            at = event.to_state
        if at is not job.state:
            yield f"job {job.id} is {job.state}, its history ends with {at}"


def _damage(root: Path) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(root / "oarlock.db")) as table:
        found = table.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        yield f"the job table is damaged: {found}"
    if any(path.is_dir() for path in root.glob("unclaimed/*")):  # an image is one that was never acknowledged
        yield "a folder of images belonged to no job"


def _incomplete_series(queue: JobQueue, jobs: list[Job], sent: int) -> Iterator[str]:
    latest = {job.series_instance_uid: job for job in sorted(jobs, key=lambda job: job.id)}
    if len(latest) != sent:
        yield f"{sent} series were sent, {len(latest)} are in the job table"
    for job in latest.values():
        if job.state is not JobState.DELIVERED:
            yield f"the last revision of a series, job {job.id}, is {job.state}: {job.reason}"
        if (images := len(queue.images(job.id))) != IMAGES:
            yield f"job {job.id} was segmented from {images} of {IMAGES} images"


def _lost_or_doubled_results(jobs: list[Job], peers: dict[str, ReceivingPeer]) -> Iterator[str]:
    expected = {job.result_sop_instance_uid for job in jobs if job.state is JobState.DELIVERED}
    for name, peer in peers.items():
        copies: dict[str, set[bytes]] = defaultdict(set)
        for one in peer.received:
            copies[one.sop_instance_uid].add(one.dataset_bytes)
        if set(copies) != expected:
            yield f"{name} has {len(copies)} objects of {len(expected)} jobs"
        for uid, found in copies.items():
            if len(found) > 1:
                yield f"{name} got {uid} with different bytes"


def _mixed_up_results(queue: JobQueue, jobs: list[Job], peers: dict[str, ReceivingPeer]) -> Iterator[str]:
    """Every object refers to the series of its own job and to no image of another."""
    own = {job.result_sop_instance_uid: job for job in jobs}
    seen: set[str] = set()
    for one in (each for peer in peers.values() for each in peer.received):
        job = own.get(one.sop_instance_uid)
        if job is None or one.sop_instance_uid in seen:
            continue  # what nobody expected is told elsewhere; copies have the same bytes
        seen.add(one.sop_instance_uid)
        dataset = dcmread(BytesIO(one.file_bytes))
        (frame,) = dataset.ReferencedFrameOfReferenceSequence
        (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
        images = {image.ReferencedSOPInstanceUID for image in series.ContourImageSequence}
        if series.SeriesInstanceUID != job.series_instance_uid or dataset.PatientID != job.patient_id:
            yield f"the object of job {job.id} is of another series or patient"
        if not images <= {row.sop_instance_uid for row in queue.images(job.id)}:
            yield f"the object of job {job.id} refers to images that are not its own"


@contextlib.contextmanager
def receivers() -> Iterator[dict[str, ReceivingPeer]]:
    """Two destinations; one of them is often short of resources."""
    statuses = [0xA700 if number % 3 == 0 else 0x0000 for number in range(300)]
    with ReceivingPeer() as tps, ReceivingPeer(statuses=statuses) as pacs:
        yield dict(zip(DESTINATIONS, (tps, pacs), strict=True))


def chaos(
    folder: Path,
    seed: int,
    go_on: Callable[[Tally], bool],
    beat: Callable[[Tally], None] = lambda _tally: None,
    settle_seconds: float = 1200,
) -> Tally:
    """Run until `go_on` says no, settle, verify; the tally has what happened and every violation."""
    tally, rng = Tally(), random.Random(seed)
    with receivers() as peers:
        installation = install(folder, {name: peer.port for name, peer in peers.items()})
        roles = Roles(installation)
        senders = Senders(folder / "ct", installation.port, tally)
        try:
            roles.start("listen", "work")
            wait_until(lambda: accepts_tcp(installation.port), "the listener", 120)
            senders.start()
            wreak_havoc(roles, installation.root, tally, rng, lambda: go_on(tally), lambda: beat(tally))
            senders.finish()
            settle(installation, roles, tally, settle_seconds)
            verify(installation, peers, tally)
        finally:
            senders.finish()
            roles.stop()
    return tally


def main(
    minutes: Annotated[float, typer.Option(help="How long to kill.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the instants; another one each time by default.")] = 0,
) -> None:
    """Kill for a while and show what came of it; exit code 1 where anything was lost, doubled or untrue."""
    console = Console()
    seed = seed or int(datetime.now(UTC).timestamp())
    end = datetime.now(UTC) + timedelta(minutes=minutes)
    began = time.monotonic()
    with TemporaryDirectory(prefix="oarlock-chaos-") as folder, Progress(console=console) as bars:
        task = bars.add_task("killing", total=minutes * 60)

        def beat(tally: Tally) -> None:
            text = f"{sum(tally.kills.values())} kills, {tally.series_sent} series"
            bars.update(task, completed=time.monotonic() - began, description=text)

        tally = chaos(Path(folder) / "node", seed, lambda _tally: datetime.now(UTC) < end, beat)
    table = Table(
        "Seed", "Minutes", "Kills of listener", "Kills of worker", "Series", "Instances", "Violations"
    )
    table.add_row(
        str(seed),
        f"{minutes:g}",
        str(tally.kills["listen"]),
        str(tally.kills["work"]),
        str(tally.series_sent),
        str(len(tally.acknowledged)),
        str(len(tally.violations)),
    )
    console.print(table)
    for place, count in tally.places.most_common():
        console.print(f"{count:5} kills {place}")
    for violation in tally.violations:
        console.print(f"[red]{violation}")
    raise typer.Exit(1 if tally.violations else 0)


if __name__ == "__main__":
    typer.run(main)
