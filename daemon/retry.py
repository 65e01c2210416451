"""When to try again after a failure that may pass: pure decisions, no clock, no dice of their own."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Backoff:
    """Exponential waiting: doubles from the first wait to the longest."""

    first_seconds: float
    longest_seconds: float

    def wait_seconds(self, attempts: int, jitter: float) -> float:
        """Return how long to wait after the `attempts`-th failure in a row (1 is the first).

        `whole = min(longest, first * 2 ** (attempts - 1))`, `wait = whole * (1 + jitter) / 2`:
        half of the wait is certain, the other half spreads those that failed together.

        Parameters
        ----------
        attempts
            Failures so far, at least 1.
        jitter
            A random number from 0 to 1.
        """
        doublings = min(max(attempts, 1) - 1, 64)  # beyond that a float is only larger, never different
        whole = min(self.longest_seconds, self.first_seconds * 2.0**doublings)
        return whole * (1 + jitter) / 2


DELIVERY_BACKOFF = Backoff(first_seconds=10, longest_seconds=900)
JOB_BACKOFF = Backoff(first_seconds=30, longest_seconds=900)


def next_delivery(
    now: datetime, promised_at: datetime, retry_for: timedelta, attempts: int, jitter: float
) -> datetime | None:
    """Return when a destination that did not take an object is tried again; None when it was the last try.

    `DELIVERY_BACKOFF` after each failure until `promised_at + retry_for`.
    A wait that would end later is cut short, so that the last try happens at that age and not before.
    """
    give_up_at = promised_at + retry_for
    if now >= give_up_at:
        return None
    wait = timedelta(seconds=DELIVERY_BACKOFF.wait_seconds(attempts, jitter))
    return min(now + wait, give_up_at)


def next_run(now: datetime, attempts: int, jitter: float) -> datetime:
    """Return when a job that failed in passing runs again; how often at all is the queue's rule."""
    return now + timedelta(seconds=JOB_BACKOFF.wait_seconds(attempts, jitter))
