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
