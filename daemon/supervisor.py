"""`oarlock serve`: the roles as child processes of one terminal, restarted when they crash or hang."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

import structlog

from daemon.errors import CannotStart

log = structlog.get_logger()

FIRST_DELAY_SECONDS = 1.0
LONGEST_DELAY_SECONDS = 60.0
STEADY_SECONDS = 60.0
WATCHDOG_SECONDS = 180.0
"""A role that was ready and says nothing for so long hangs; WatchdogSec of the systemd units is the same."""
START_SECONDS = 300.0
"""One that is not ready after so long hangs; TimeoutStartSec of the worker's unit is the same."""
_PR_SET_PDEATHSIG = 1


class Child:
    """One role in a process of its own, which reports over a notify socket as it would to systemd."""

    def __init__(
        self,
        role: str,
        command: Sequence[str],
        watchdog_seconds: float = WATCHDOG_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        self.role = role
        self._command = tuple(command)
        self._watchdog_seconds = watchdog_seconds
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._wire: socket.socket | None = None
        self._delay_seconds = FIRST_DELAY_SECONDS
        self._started_at = self._start_again_at = self._heard_at = 0.0
        self.is_ready = self.was_ready = self._is_killed = False
        self.status = "starting"

    def start(self) -> None:
        """Start the process; its own session, so that Ctrl-C in the terminal reaches it only through us."""
        self._close_wire()
        self._wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._wire.bind("")  # Linux chooses an abstract name
        address = "@" + self._wire.getsockname()[1:].decode()
        left_out = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
        environ = {key: value for key, value in os.environ.items() if key not in left_out}
        self._process = subprocess.Popen(
            self._command,
            env={
                **environ,
                "NOTIFY_SOCKET": address,
                "WATCHDOG_USEC": str(int(self._watchdog_seconds * 1e6)),
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 -- this process has a single thread
        )
        self._started_at, self.is_ready, self._is_killed = time.monotonic(), False, False
        self.status = "starting"
        log.info("child_started", child=self.role, pid=self._process.pid)

    def tick(self) -> None:
        """Hear what the process says, end it when it hangs, start it again when it is gone and its delay is over.

        Raises
        ------
        CannotStart
            It ended before it was ready for the first time.
        """
        self._listen()
        if self._process is None:
            if time.monotonic() >= self._start_again_at:
                self.start()
        elif (code := self._process.poll()) is not None:
            self._process = None
            self._ended(code)
        elif self._hangs() and not self._is_killed:
            log.error("child_silent", child=self.role, was_ready=self.is_ready)
            self._process.kill()
            self._is_killed = True  # it may take a moment to die

    def _hangs(self) -> bool:
        now = time.monotonic()
        if self.is_ready:
            return now - self._heard_at > self._watchdog_seconds
        return now - self._started_at > self._start_seconds

    def _listen(self) -> None:
        while self._wire is not None:
            try:
                message = self._wire.recv(4096).decode(errors="replace")
            except BlockingIOError:
                return
            self._heard_at = time.monotonic()
            for line in message.splitlines():
                key, _, value = line.partition("=")
                if key == "READY":
                    self.is_ready = self.was_ready = True
                    self.status = "ready"
                elif key == "STATUS":
                    self.status = value

    def _ended(self, code: int) -> None:
        self.is_ready, self.status = False, f"ended with {code}"
        if not self.was_ready:
            msg = (
                f"`oarlock {self.role}` ended with exit code {code} before it was ready; its messages say why"
            )
            raise CannotStart(msg)
        if time.monotonic() - self._started_at > STEADY_SECONDS:
            self._delay_seconds = FIRST_DELAY_SECONDS
        log.error("child_crashed", child=self.role, exit_code=code, restart_in_seconds=self._delay_seconds)
        self._start_again_at = time.monotonic() + self._delay_seconds
        self._delay_seconds = min(2 * self._delay_seconds, LONGEST_DELAY_SECONDS)

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait until it is gone, however long it drains; a second signal to us is also its second."""
        if self._process is not None:
            code = self._process.wait()
            log.info("child_stopped", child=self.role, exit_code=code)
        self._close_wire()

    def _close_wire(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class Supervisor:
    """The children as one service."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = tuple(children)
        self._was_ready = False

    def start(self) -> None:
        """Start every child; `tick` sees them become ready, so that Ctrl-C works meanwhile."""
        for child in self._children:
            child.start()

    def tick(self) -> None:
        """Look after every child.

        Raises
        ------
        CannotStart
            One ended before it was ever ready.
        """
        for child in self._children:
            child.tick()
        if not self._was_ready and self.is_healthy():
            self._was_ready = True
            log.info("all_children_ready", children=[child.role for child in self._children])

    def stop(self) -> None:
        """Ask all to stop, the sender of work first, and wait for all."""
        for child in self._children:
            child.ask_to_stop()
        for child in self._children:
            child.wait()

    def is_healthy(self) -> bool:
        """Whether every role runs."""
        return all(child.is_ready for child in self._children)

    def status(self) -> str:
        """Every role with its own status."""
        return "; ".join(f"{child.role}: {child.status}" for child in self._children)


def _end_with_parent() -> None:
    """Have the kernel send this process SIGTERM should its parent be killed, so that no port stays taken."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
