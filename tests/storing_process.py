"""A listener-like process: stores images for ever and prints each name once its file and row are safe."""

import sys
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from daemon.job_queue import open_queue
from daemon.spool import Spool
from tests.job_rows import image, url_in
from tests.stored import store_image


def main(root: Path, start: int) -> None:
    """Store until killed; a new series every 20 images, each completed."""
    queue, spool = open_queue(url_in(root), lambda: datetime.now(UTC)), Spool(root, 0)
    spool.prepare()
    for number in count(start):
        content = f"{number}".encode() * 4000
        incoming = image(number, f"1.2.{number // 20}", content)
        job = queue.job_for_instance(incoming)
        store_image(spool, job, incoming.sop_instance_uid, content)
        assert queue.add_instance(job, incoming)
        sys.stdout.write(f"{job} {incoming.sop_instance_uid} {incoming.sha256}\n")
        sys.stdout.flush()
        if number % 20 == 19:
            queue.complete(job, "20 images")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
