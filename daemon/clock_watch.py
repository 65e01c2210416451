"""Notices that the computer's clock was set: times written before and after do not belong together."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

TOLERANCE = timedelta(seconds=5)
"""What a time service corrects smoothly, or a busy machine takes between two looks at its two clocks."""

BELIEVED_AFTER = timedelta(days=1)
"""So long does an administrator have to correct a clock that ran ahead, before anything is purged by it."""


def boot_time() -> float:
    """Seconds since the machine was started, its sleep included; no one can set this clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ClockWatch:
    """Compares the wall clock with one that only ever counts on.

    Parameters
    ----------
    elapsed
        Seconds since any point in time.
    last_known
        A time at which the clock was believed; what has passed since then is not at once.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        elapsed: Callable[[], float] = boot_time,
        last_known: datetime | None = None,
    ) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._offset = self._now_offset()
        self._ahead = max(timedelta(0), clock() - last_known) if last_known else timedelta(0)
        self._ahead_since = elapsed()

    def jump(self) -> timedelta:
        """How far the clock was set, forward or (negative) back; 0 where it was not.

        It is told again until it is `settled`.
        """
        offset = self._now_offset()
        jumped = offset - self._offset
        if abs(jumped) < TOLERANCE:
            self._offset = offset
            return timedelta(0)
        return jumped

    def settled(self, jumped: timedelta) -> None:
        """All that follows from a jump is written down: from now on it is no news."""
        self._offset += jumped
        self._ahead, self._ahead_since = max(timedelta(0), self._ahead + jumped), self._elapsed()

    def cautious_now(self) -> datetime:
        """The time, but without what the clock was set forward within the last day: for what is irrevocable."""
        if self._elapsed() - self._ahead_since > BELIEVED_AFTER.total_seconds():
            self._ahead = timedelta(0)
        return self._clock() - self._ahead

    def _now_offset(self) -> timedelta:
        return (
            self._clock()
            - datetime.fromtimestamp(0, self._clock().tzinfo)
            - timedelta(seconds=self._elapsed())
        )
