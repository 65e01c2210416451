"""What becomes of a delivery that was set back: another try at its time, or the end of it."""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import structlog

from daemon.config import Config
from daemon.delivery_words import shown
from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Delivery
from daemon.retry import next_delivery

log = structlog.get_logger()


class Setbacks:
    """Decides by the age of a delivery; one rule for all that can go wrong with it.

    Parameters
    ----------
    settings
        Gives the configuration as it stands now.
    jitter
        A random number from 0 to 1 for each wait.
    """

    def __init__(
        self,
        queue: JobQueue,
        settings: Callable[[], Config],
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._clock = clock
        self._jitter = jitter

    def note(
        self, delivery: Delivery, kind: StrEnum, status: int | None, detail: str, *, passing: bool = True
    ) -> datetime | None:
        """Write a setback down and return when the next try is due; None where it was the last.

        Raises
        ------
        StaleJob
            The delivery is no longer pending.
        """
        again = self.next_try(delivery)
        if again is None or not passing:
            hours = self._settings().delivery.retry_for_hours
            tries = f" (tried {delivery.attempts} times in {hours:g} h)" if passing else ""
            self._queue.delivery_failed(delivery.id, kind, status, detail + tries)
            log.error("delivery_failed", kind=kind, status=shown(status), attempts=delivery.attempts)
            return None
        self._queue.delivery_again(delivery.id, again, kind, status, detail)
        log.warning(
            "delivery_postponed",
            kind=kind,
            status=shown(status),
            attempts=delivery.attempts,
            again_at=again.isoformat(timespec="seconds"),
        )
        return again

    def next_try(self, delivery: Delivery) -> datetime | None:
        """When a try that fails now would be repeated; None at the end of its time."""
        retry_for = timedelta(hours=self._settings().delivery.retry_for_hours)
        return next_delivery(self._clock(), delivery.created_at, retry_for, delivery.attempts, self._jitter())
