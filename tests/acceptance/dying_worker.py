"""`oarlock work` again and again, killed by SIGKILL at another point of a job's life each time.

Each is a process of its own; they are forked from one that has imported everything, as that takes seconds.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from daemon import courier, job_runner, worker
from daemon.cli import main
from daemon.job_queue import JobQueue
from daemon.segmentation import STAGES

POINTS = (*STAGES, "before the row", "after the row", "before the send", "after the send")
SHORT_LEASE_SECONDS = 3.0


def die(*_arguments: object) -> None:
    """End as by the out-of-memory killer: nothing is flushed, closed or released."""
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    """Make the worker die at a point; its leases are short, so that the next worker need not wait a minute."""
    courier.LEASE_SECONDS = SHORT_LEASE_SECONDS
    worker.Worker.__init__.__kwdefaults__["lease_seconds"] = SHORT_LEASE_SECONDS
    # Jobs of workers that died before stay for the one that survives.
    worker.Worker.tick = lambda _self: None  # type: ignore[method-assign]
    if point in STAGES:
        job_runner.contour_series = _dying_at(point, job_runner.contour_series)
    elif point.endswith("the row"):
        JobQueue.segmented = _around(JobQueue.segmented, point)  # type: ignore[method-assign]
    else:
        courier.send = _around(courier.send, point)


def _dying_at(stage: str, contour: Callable[..., Any]) -> Callable[..., Any]:
    def contour_series(*arguments: Any, **named: Any) -> Any:
        *others, progress = arguments

        def report(entered: str, share: float) -> None:
            progress(entered, share)
            if entered == stage:
                die()

        return contour(*others, report, **named)

    return contour_series


def _around(function: Callable[..., Any], point: str) -> Callable[..., Any]:
    def dying(*arguments: Any) -> Any:
        if point.startswith("before"):
            die()
        function(*arguments)
        return die()

    return dying


def die_at_every_point() -> None:
    """Let one worker after the other die; exits 1 where one ends in another way."""
    import model.segmenter  # noqa: F401 -- imported once for all of them

    for point in POINTS:
        child = os.fork()
        if not child:
            arm(point)
            main()
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            sys.exit(f"at {point!r} the worker did not die but ended with {status}")


if __name__ == "__main__":
    die_at_every_point()
