"""When training stops before its last step: time is up, or somebody asked by a signal."""

import math
import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStoppedError(Exception):
    """Training cannot go on; the message says at which step and what to change."""


class Stop:
    """Says between two steps whether to go on; a second signal ends the process at once.

    Parameters
    ----------
    seconds
        From now.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self.end = time.monotonic() + seconds
        self.signalled: signal.Signals | None = None

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as a wish to stop after the running step."""
        for number in SIGNALS:
            signal.signal(number, self._signalled)

    def wanted(self) -> bool:
        """Whether no further step is to begin."""
        return self.signalled is not None or time.monotonic() >= self.end

    def _signalled(self, number: int, _: FrameType | None) -> None:
        self.signalled = signal.Signals(number)
        signal.signal(number, signal.SIG_DFL)
