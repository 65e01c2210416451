"""The greatest resident memory of this process while something runs."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PROCESS = Path("/proc/self")
_RESET_PEAK = "5"  # proc_pid_clear_refs(5)


def with_peak_mb(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gave, and the peak while it ran: libraries and all that was there before are part of it."""
    (_PROCESS / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    done = work()
    lines = (_PROCESS / "status").read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return done, int(peak) * 1024 / 1e6
