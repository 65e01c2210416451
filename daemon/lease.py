"""Keeps a lease while its holder is busy, and tells when it is lost."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import structlog

from daemon.errors import StaleJob, StorageFull

log = structlog.get_logger()


@contextmanager
def kept(renew: Callable[[], None], every_seconds: float) -> Iterator[Event]:
    """Renew a lease from a thread of its own for the time of the block.

    Parameters
    ----------
    renew
        Prolongs the lease; StaleJob says that it is lost.

    Yields
    ------
    Event
        Set once the lease is lost: whatever the block makes from then on must not be used.
    """
    lost, done = Event(), Event()

    def keep() -> None:
        while not done.wait(every_seconds):
            try:
                renew()
            except StaleJob:
                lost.set()
                return
            except StorageFull as error:
                # The lease outlasts several renewals, so the next one may still come in time.
                log.warning("lease_not_renewed", reason=str(error))

    keeper = Thread(target=keep, name="lease", daemon=True)
    keeper.start()
    try:
        yield lost
    finally:
        done.set()
        keeper.join()
