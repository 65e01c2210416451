"""The greatest resident memory of a process, and of this one while something runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

_RESET_PEAK = "5"  # proc_pid_clear_refs(5)


def with_peak_mb(work: Callable[[], T]) -> tuple[T, float]:
    """What the work gave, and the peak while it ran: libraries and all that was there before are part of it."""
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    done = work()
    return done, peak_mb("self")


def peak_mb(process_id: int | Literal["self"]) -> float:
    """Of a process that runs, since its start: VmHWM of proc_pid_status(5)."""
    lines = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e6
