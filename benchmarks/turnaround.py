"""From the last image of a series to its structure set at the destination: the whole node, stage by stage."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from pydicom import dcmread
from rich.console import Console
from rich.progress import track

from benchmarks import record
from benchmarks.result import Goal, Report, ResultsDifferError, Row, Sample, Table, Unit
from benchmarks.timer import said_rounds
from daemon.job_queue_looking import jobs, look_into
from daemon.job_records import JobRecord
from daemon.job_report import JobReport, read_report
from daemon.jobs import JobState
from tests.anatomy import write_average_series
from tests.conditions import accepts_tcp, free_port, wait_until
from tests.demo import RUNNING, role
from tests.peers import ReceivingPeer
from tests.senders import send

ROUNDS = 3
SLICES = 200
GOAL_SECONDS = 30.0
QUIET_SECONDS = 0.5
PATIENCE_SECONDS = 600.0

CONFIG = """\
[node]
host = "127.0.0.1"
port = {port}

[storage]
root = "{root}"
min_free_bytes = 0

[series]
quiet_seconds = {quiet}

[model]
device = "cpu"
threads = {threads}

[[peers]]
ae_title = "SCANNER"

[[destinations]]
name = "tps"
ae_title = "TPS"
host = "127.0.0.1"
port = {destination_port}

[[routes]]
doubtful = "send"
destinations = ["tps"]
"""


@dataclass(frozen=True)
class Node:
    """A listener and a worker that has loaded its model, as processes of their own."""

    port: int
    worker_id: int
    spool: Path

    @property
    def url(self) -> str:
        """Of the job table."""
        return f"sqlite:///{self.spool}/oarlock.db"

    def newest(self) -> JobRecord:
        """The job of the series sent last."""
        with look_into(self.url) as table:
            return jobs(table, None, 1)[0]


@contextmanager
def running_node(folder: Path, destination_port: int, threads: int) -> Iterator[Node]:
    """Start a node that sends to a port of the loopback, with so many threads, or all cores where that is 0."""
    port, config = free_port(), folder / "oarlock.toml"
    text = CONFIG.format(
        port=port,
        root=(spool := folder / "spool"),
        quiet=QUIET_SECONDS,
        threads=threads,
        destination_port=destination_port,
    )
    config.write_text(text, encoding="utf-8")
    with role("listen", config, folder) as listener:
        wait_until(lambda: accepts_tcp(port) or listener.poll() is not None, "the listener", PATIENCE_SECONDS)
        with role("work", config, folder) as worker:
            log = folder / "work.log"
            wait_until(
                lambda: b"model_loaded" in log.read_bytes() or worker.poll() is not None,
                "the worker",
                PATIENCE_SECONDS,
            )
            yield Node(port, worker.pid, spool)


def turn(node: Node, peer: ReceivingPeer, images: Sequence[Path]) -> JobReport:
    """Send one series and wait for its structure set; what arrived must be what the job table says."""
    statuses = send(images, port=node.port, calling="SCANNER")
    if any(statuses):
        raise ResultsDifferError(f"images were refused: {statuses}")
    wait_until(lambda: node.newest().state not in RUNNING, "the structure set", PATIENCE_SECONDS)
    with look_into(node.url) as table:
        report = read_report(table, jobs(table, None, 1)[0].id)
    if report.job.state is not JobState.DELIVERED:
        raise ResultsDifferError(f"the job ended as {report.job.state}: {report.job.reason}")
    said = {row.name: row.contours for row in report.structures if row.contours}
    got = contours_by_name(peer.received[-1].file_bytes)
    if got != said or not said:
        raise ResultsDifferError(f"contours by organ in the job table {said}, as received {got}")
    return report


def contours_by_name(structure_set: bytes) -> dict[str, int]:
    """Number of contours of every structure that has any."""
    dataset = dcmread(BytesIO(structure_set))
    names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.StructureSetROISequence}
    items = {
        names[each.ReferencedROINumber]: each.get("ContourSequence") for each in dataset.ROIContourSequence
    }
    return {name: len(contours) for name, contours in items.items() if contours}


def seconds_by_stage(report: JobReport) -> dict[str, float]:
    """From the last image to *delivered* without the quiet period: the parts add up to the whole."""
    reached = {each.to_state: each.at for each in reversed(report.events)}
    stages = {each.stage: each.seconds for each in report.stage_times}
    moments = (
        report.job.last_instance_at,
        *(
            reached[state]
            for state in (JobState.QUEUED, JobState.SEGMENTING, JobState.SEGMENTED, JobState.DELIVERED)
        ),
    )
    complete, taken, segmented, delivered = (
        (after - before).total_seconds() for before, after in pairwise(moments)
    )
    return {
        "see that the series is complete, after the quiet period": complete - QUIET_SECONDS,
        "be taken by the worker": taken,
        **stages,
        "draw the QA sheet, write to the job table": segmented - sum(stages.values()),
        "send": delivered,
    }


def run(*, quick: bool) -> Report:
    """One node, one series after another."""
    slices, threads = (20, 1) if quick else (SLICES, 0)
    rounds = range(1) if quick else range(ROUNDS + 1)
    with tempfile.TemporaryDirectory() as root, ReceivingPeer("TPS") as peer:
        series = [
            write_average_series(Path(root) / f"ct{seed}", slices, 0.3 if quick else 1.0, seed=seed)
            for seed in rounds
        ]
        with running_node(Path(root), peer.port, threads) as node:
            said = track(series, "turnaround", console=Console(stderr=True), transient=True)
            reports = [turn(node, peer, images) for images in said]
    counted = [seconds_by_stage(each) for each in (reports if quick else reports[1:])]
    whole = Sample.of([sum(each.values()) for each in counted])
    by_stage = {stage: Sample.of([each.get(stage, 0.0) for each in counted]) for stage in counted[0]}
    table = Table(
        f"From the last image to delivered, by stage: {said_rounds(len(counted))}",
        ("stage", "s", "share"),
        tuple(
            (stage, f"{took.median:.2f}", f"{took.median / whole.median:.0%}")
            for stage, took in by_stage.items()
        ),
    )
    row = Row(
        "last image received to structure set delivered",
        f"512 × 512 × {slices}",
        Unit.SECONDS,
        whole,
        goal=Goal(at_most=GOAL_SECONDS),
        note="on the CPU, without the quiet period",
    )
    about = (
        "A listener and a worker as processes of their own, with the weights that ship, already loaded.",
        "From the moment the last image is on record, just before its 0x0000, until the job is *delivered*.",
        "A job is *delivered* when the destination has answered the C-STORE of its structure set with 0x0000.",
        f"The quiet period is taken off: {QUIET_SECONDS:g} s here, a minute where nobody changes it.",
        "All times are of the job table; the first series, which warms up, does not count.",
        "In every round the destination received the structures, with as many contours, that the job table lists.",
    )
    unmeasured = (
        "The same on an H200, whose goal is 5 s.",
        "A peer that takes images by C-STORE and sends contours back: none was compared.",
    )
    return Report("Turnaround", about, (row,), tables=(table,), unmeasured=unmeasured)


if __name__ == "__main__":
    record.alone("turnaround", run)
