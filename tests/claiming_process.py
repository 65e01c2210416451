"""A worker process that claims and finishes every job it can get in two threads, and prints them."""

import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from daemon.job_queue import open_queue
from tests.job_rows import result


def main(url: str, name: str) -> None:
    """Claim until nothing is left."""
    queue = open_queue(url, lambda: datetime.now(UTC))

    def work(thread: int) -> list[int]:
        owner, done = f"{name}-{thread}", []
        while job := queue.claim(owner, 60):
            queue.renew(job.id, owner, 60, "predict", 0.5)
            queue.segmented(job.id, owner, result())
            done.append(job.id)
        return done

    with ThreadPoolExecutor(2) as threads:
        for done in threads.map(work, range(2)):
            sys.stdout.write("".join(f"{job}\n" for job in done))


if __name__ == "__main__":
    main(*sys.argv[1:])
