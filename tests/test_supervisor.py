"""The supervisor of `oarlock serve` with small processes of its own."""

import sys

from structlog.testing import capture_logs

from daemon.supervisor import Child
from tests.conditions import wait_until

READY_AND_SILENT = """
import os, socket, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
    wire.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
time.sleep(600)
"""


HANGS_AT_ITS_SECOND_START = """
import os, pathlib, socket, sys, time
before = pathlib.Path(sys.argv[1])
if before.exists():
    time.sleep(600)
before.touch()
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
    wire.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""


def test_a_child_that_hangs_while_it_starts_is_ended_too(tmp_path):
    """As systemd's TimeoutStartSec does; the port of a listener would stay closed for ever."""
    command = [sys.executable, "-c", HANGS_AT_ITS_SECOND_START, str(tmp_path / "started")]
    child = Child("listen", command, start_seconds=3)
    with capture_logs() as logs:
        child.start()
        try:
            wait_until(lambda: child.tick() or any(e["event"] == "child_silent" for e in logs), "an end")
            wait_until(lambda: child.tick() or [e["event"] for e in logs].count("child_crashed") == 2, "it")
        finally:
            child.ask_to_stop()
            child.wait()

    assert [e["event"] for e in logs].count("child_silent") == 1
    assert [e["exit_code"] for e in logs if e["event"] == "child_crashed"] == [0, -9]


def test_a_child_that_hangs_is_ended_and_started_again():
    """A role that was ready and reports nothing any more is killed, as systemd's watchdog would."""
    child = Child("work", [sys.executable, "-c", READY_AND_SILENT], watchdog_seconds=0.2)
    with capture_logs() as logs:
        child.start()
        try:
            wait_until(
                lambda: child.tick() or sum(e["event"] == "child_started" for e in logs) == 2, "a restart"
            )
        finally:
            child.ask_to_stop()
            child.wait()

    assert [e["event"] for e in logs][:4] == [
        "child_started",
        "child_silent",
        "child_crashed",
        "child_started",
    ]
