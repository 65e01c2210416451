"""A sender that opens an association for every image, as some scanners do, against a listener of its own process.

python -m tests.one_by_one --images 2000
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import psutil
import typer
from rich.console import Console

from daemon.jobs import JobState
from tests.acceptance.processes import PROCESS_SECONDS, Installation, install
from tests.conditions import wait_until
from tests.instances import StoredInstance, ct_series
from tests.peers import Sender


def send_one_by_one(installation: Installation, series: list[StoredInstance]) -> list[int | None]:
    """Send each image over an association of its own; returns the statuses."""
    statuses = []
    for instance in series:
        with Sender(installation.port) as sender:
            answer = sender.store(
                instance.sop_class_uid,
                instance.sop_instance_uid,
                instance.transfer_syntax_uid,
                instance.dataset_bytes,
            )
            statuses.append(answer.status)
    return statuses


def images_of_the_only_job(installation: Installation) -> int:
    """Wait until the series is queued; returns how many images it has."""
    queue = installation.queue()
    try:
        wait_until(
            lambda: {job.state for job in queue.jobs()} == {JobState.QUEUED}, "one job", PROCESS_SECONDS
        )
        (job,) = queue.jobs()
        return job.instance_count
    finally:
        queue.close()


def main(images: Annotated[int, typer.Option(help="How many.")] = 2000) -> None:
    """Send, and show what the listener made of it."""
    with TemporaryDirectory(prefix="oarlock-one-by-one-") as folder:
        installation = install(Path(folder), {})
        text = installation.config.read_text().replace("quiet_seconds = 0.5", "quiet_seconds = 3")
        installation.config.write_text(text)
        with installation.running("listen") as listener:
            process, began = psutil.Process(listener.pid), time.monotonic()
            statuses = send_one_by_one(installation, ct_series(images))
            seconds, resident = time.monotonic() - began, process.memory_info().rss
            threads, files = process.num_threads(), process.num_fds()
            counted = images_of_the_only_job(installation)
    accepted = sum(status == 0 for status in statuses)
    Console().print(
        f"{accepted} of {images} images acknowledged in {seconds:.0f} s, {counted} in one job; listener after it: "
        f"{resident / 1e6:.0f} MB, {threads} threads, {files} open files"
    )
    raise typer.Exit(0 if accepted == counted == images else 1)


if __name__ == "__main__":
    typer.run(main)
