"""The whole path on one machine: a CT series goes in by C-STORE, a receiving peer gets the structure set.

Run by `make demo`: listener and worker are started as a hospital would, on free loopback ports and in a
temporary folder, which stays for you to look around in.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import typer
from pydicom import dcmread
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from daemon.job_queue import JobQueue, open_queue
from daemon.job_queue_looking import look_into
from daemon.job_records import JobRecord
from daemon.job_report import read_report
from daemon.jobs import JobState
from daemon.picture import draw
from daemon.tables import job_page
from model.contours import Contour, fill
from model.ct import CTVolume, find_series, read_series
from model.geometry import Mask
from tests.anatomy import write_demo_series
from tests.conditions import accepts_tcp, free_port, wait_until
from tests.peers import ReceivingPeer
from tests.senders import send

PATIENCE_SECONDS = 1800
RUNNING = {JobState.RECEIVING, JobState.QUEUED, JobState.SEGMENTING, JobState.SEGMENTED}

CONFIG = """\
[node]
ae_title = "OARLOCK"
host = "127.0.0.1"
port = {port}

[storage]
root = "{root}"
min_free_bytes = 100_000_000

[series]
quiet_seconds = 2

[[peers]]
ae_title = "SCANNER"
hosts = ["127.0.0.1"]

[[destinations]]
name = "tps"
ae_title = "TPS"
host = "127.0.0.1"
port = {destination_port}

[[routes]]
calling_ae_title = "SCANNER"
destinations = ["tps"]
"""


def main(
    ct: Path | None = typer.Argument(None, help="Folder of a CT series; without it one is made."),  # noqa: B008
) -> None:
    """Send a CT series through oarlock and show what came out."""
    console = Console(highlight=False)
    folder = Path(tempfile.mkdtemp(prefix="oarlock-demo-"))
    if ct is None:
        console.print("Making a head-and-neck CT: an average anatomy, no patient …")
        paths = write_demo_series(folder / "ct")
    else:
        paths = _chosen_series(ct, console)
    with ExitStack() as stack:
        peer = stack.enter_context(ReceivingPeer("TPS"))
        port = free_port()
        config = folder / "oarlock.toml"
        config.write_text(CONFIG.format(port=port, root=folder / "spool", destination_port=peer.port))
        listener = stack.enter_context(role("listen", config, folder))
        wait_until(lambda: accepts_tcp(port), "the listener to open its port", limit=60)
        worker = stack.enter_context(role("work", config, folder))
        url = f"sqlite:///{folder / 'spool' / 'oarlock.db'}"
        queue = open_queue(url, lambda: datetime.now(UTC))
        stack.callback(queue.close)
        _send(paths, port, console)
        job = _follow(queue, [listener, worker], console)
        with look_into(url) as table:
            console.print(job_page(read_report(table, job.id)))
        if job.state is not JobState.DELIVERED:
            console.print(f"\nThe job ended as {job.state}. Logs: {folder}/listen.log and work.log")
            raise typer.Exit(1)
        received = folder / "received.dcm"
        received.write_bytes(peer.received[0].file_bytes)
    picture = folder / "contours.png"
    volume = read_series(paths)
    draw(volume, masks_of(received, volume), picture, title="oarlock demonstration")
    console.print(f"\nStructure set that the peer received: {received}")
    console.print(f"Picture of its contours:              {picture}")
    console.print(f"Configuration, database, logs:        {folder}")


def masks_of(structure_set: Path, volume: CTVolume) -> Mapping[str, Mask]:
    """The contours of a structure set, filled again on the CT's grid: what a planning system would see."""
    dataset = dcmread(structure_set)
    names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.StructureSetROISequence}
    slice_of = {uid: index for index, uid in enumerate(volume.sop_instance_uids)}
    masks = {}
    for roi in dataset.ROIContourSequence:
        contours = []
        for item in roi.ContourSequence:
            index = slice_of[item.ContourImageSequence[0].ReferencedSOPInstanceUID]
            points = [float(value) for value in item.ContourData]
            triples = [points[start : start + 3] for start in range(0, len(points), 3)]
            contours.append(Contour(index, volume.grid.to_pixel(index, triples)))
        masks[names[roi.ReferencedROINumber]] = fill(contours, volume.grid.shape)
    return masks


def _chosen_series(folder: Path, console: Console) -> list[Path]:
    found = find_series(folder)
    if not found:
        console.print(f"no CT image under {folder}")
        raise typer.Exit(2)
    largest = max(found.values(), key=len)
    if len(found) > 1:
        console.print(f"{len(found)} CT series under {folder}; the largest is sent, {len(largest)} images")
    return largest


@contextmanager
def role(name: str, config: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One of oarlock's processes, its log in a file; ended by SIGTERM as systemd would."""
    command = [sys.executable, "-m", "daemon", name, "--config", str(config)]
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ})
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)


def _send(paths: list[Path], port: int, console: Console) -> None:
    began = time.monotonic()
    statuses = send(paths, port=port, calling="SCANNER", called="OARLOCK")
    refused = {status for status in statuses if status != 0}
    if refused:
        console.print(f"images were refused with {', '.join(f'0x{status or 0:04X}' for status in refused)}")
        raise typer.Exit(1)
    console.print(
        f"Sent {len(paths)} images by C-STORE in {time.monotonic() - began:.1f} s, each answered 0x0000."
    )


def _follow(queue: JobQueue, roles: list[subprocess.Popen[bytes]], console: Console) -> JobRecord:
    """Show where the job is until it has ended."""
    columns = (TextColumn("{task.description:34}"), BarColumn(), TimeElapsedColumn())
    deadline = time.monotonic() + PATIENCE_SECONDS
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("received", total=1.0)
        while True:
            job = queue.jobs()[0]
            stage = f": {job.progress_stage}" if job.state is JobState.SEGMENTING else ""
            bars.update(task, description=f"{job.state}{stage}", completed=job.progress_fraction or 0)
            if job.state not in RUNNING:
                bars.update(task, completed=1.0)
                return job
            if ended := [each for each in roles if each.poll() is not None]:
                console.print(f"`{' '.join(map(str, ended[0].args))}` ended with {ended[0].returncode}")
                return job
            if time.monotonic() > deadline:
                raise TimeoutError(f"job {job.id} is still {job.state}")
            time.sleep(0.2)


if __name__ == "__main__":
    typer.run(main)
