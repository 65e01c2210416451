"""The life of a process, the same for every role: start, tick, stop; signals, and word to systemd."""

import os
import select
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from types import FrameType
from typing import Protocol

import structlog

log = structlog.get_logger()

# A terminal and a supervisor, or systemd and a parent process, may both pass on one and the same request.
SAME_REQUEST_SECONDS = 1.0


class Service(Protocol):
    """What a role does; all of it is called from the main thread."""

    def start(self) -> None:
        """Come up completely or raise."""

    def tick(self) -> None:
        """Do what is due and return soon; an exception ends the process, as it must be restarted."""

    def stop(self) -> None:
        """Finish what was promised and go down."""

    def is_healthy(self) -> bool:
        """Whether the role can still do its work; a long no makes systemd restart the process."""

    def status(self) -> str:
        """What it is doing, in one line for `systemctl status`; never a patient's data."""


def run(service: Service, tick_seconds: float, environ: Mapping[str, str] = os.environ) -> None:
    """Run a service until SIGTERM or SIGINT asks it to stop; a second signal ends the process at once.

    Raises
    ------
    Exception
        Whatever `start`, `tick` or `stop` raised, after the service was stopped.
    """
    notifier = Notifier(environ)
    with _stop_requests() as requests:
        service.start()
        try:
            notifier.send("READY=1")
            log.info("service_started")
            _tick_until_asked(service, tick_seconds, notifier, requests)
        finally:
            notifier.send("STOPPING=1", "STATUS=finishing what is under way")
            log.info("service_stopping")
            with _alive_meanwhile(notifier):
                service.stop()
            log.info("service_stopped")


def _tick_until_asked(service: Service, tick_seconds: float, notifier: "Notifier", requests: int) -> None:
    """Tick every `tick_seconds`, and at least as often as the watchdog wants to hear from us."""
    period = min(tick_seconds, notifier.watchdog_seconds / 2)
    next_tick, status, healthy = time.monotonic(), "", service.is_healthy()
    while True:
        if time.monotonic() >= next_tick:
            service.tick()
            next_tick = time.monotonic() + tick_seconds
        if healthy != (healthy := service.is_healthy()):
            log.warning("service_recovered" if healthy else "service_unhealthy")
        if healthy:
            notifier.watchdog()
        if status != (status := service.status()):
            notifier.send(f"STATUS={status}")
        if select.select([requests], [], [], period)[0]:
            return


@contextmanager
def _stop_requests() -> Iterator[int]:
    """Yield a file descriptor that becomes readable with the first signal; the second takes its default.

    A pipe and no `threading.Event`: a handler runs between any two instructions of the main thread, also
    while that one holds the lock of the event it waits for.
    """
    readable, writable = os.pipe()
    asked_at: list[float] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not asked_at:
            asked_at.append(time.monotonic())
            os.write(writable, b"!")
        elif time.monotonic() - asked_at[0] > SAME_REQUEST_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield readable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(readable)
        os.close(writable)


@contextmanager
def _alive_meanwhile(notifier: "Notifier") -> Iterator[None]:
    """Keep the watchdog quiet while the service drains, which systemd limits by TimeoutStopSec."""
    done = Event()

    def ping() -> None:
        while not done.wait(min(notifier.watchdog_seconds / 2, 3600)):
            notifier.watchdog()

    pinging = Thread(target=ping, name="watchdog", daemon=True)
    pinging.start()
    try:
        yield
    finally:
        done.set()
        pinging.join()


class Notifier:
    """Messages to the service manager (sd_notify(3), sd_watchdog_enabled(3)); silent where there is none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        wanted = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds = int(wanted) / 1e6 if wanted.isdigit() and is_ours else float("inf")

    def send(self, *assignments: str) -> None:
        """Send `KEY=value` lines; that nobody listens is logged and never stops the service."""
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in assignments)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.sendto(message.encode(), self._address)
        except OSError as error:
            log.warning("notify_failed", reason=error.strerror)

    def watchdog(self) -> None:
        """Say that we are alive, where the service manager wants to know."""
        if self.watchdog_seconds != float("inf"):
            self.send("WATCHDOG=1")
