"""Programs take turns, A B A B, so that a machine that slows down slows all of them."""

import math
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import track

from benchmarks.result import Sample

Timed = Callable[[], float]
"""Does its work once and tells the seconds it took, such as a peer's process that watches its own clock."""


def timed(program: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> Timed:
    """Measure a program by the clock of the wall, or by another such as `time.process_time`."""

    def run() -> float:
        started = clock()
        program()
        return clock() - started

    return run


def take_turns(
    programs: Mapping[str, Timed],
    rounds: int,
    said: str,
    *,
    warm_up: bool = True,
    enough_seconds: float = math.inf,
) -> dict[str, Sample]:
    """Seconds of every program.

    Parameters
    ----------
    said
        What a person who waits is told.
    warm_up
        Run a first round that does not count.
    enough_seconds
        No further round begins after so long, on a machine that is slow or busy.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    started = time.monotonic()
    for number in track(range(rounds + warm_up), said, console=Console(stderr=True), transient=True):
        if number > warm_up and time.monotonic() - started > enough_seconds:
            break
        for name, program in programs.items():
            taken = program()
            if number >= warm_up:
                seconds[name].append(taken)
    return {name: Sample.of(values) for name, values in seconds.items()}


def said_rounds(rounds: int) -> str:
    """For the title of a table."""
    return "once" if rounds == 1 else f"median of {rounds} rounds"
