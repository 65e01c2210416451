"""The roles do their work within what their units leave them, as the kernel enforces it, and nothing else."""

import ctypes.util
import shutil

import pytest

from daemon.jobs import JobState
from tests.acceptance.confined import allowed_calls
from tests.acceptance.processes import PROCESS_SECONDS, install
from tests.conditions import accepts_tcp, wait_until
from tests.paths import REPOSITORY
from tests.peers import ReceivingPeer, send
from tests.workplace import small_series

LISTENER, WORKER = (REPOSITORY / "systemd" / f"oarlock-{role}.service" for role in ("listener", "worker"))

pytestmark = pytest.mark.skipif(
    not (shutil.which("systemd-analyze") and ctypes.util.find_library("seccomp")),
    reason="needs systemd-analyze and libseccomp",
)


def test_a_study_goes_through_a_listener_that_cannot_call_and_a_worker_that_cannot_be_called(tmp_path):
    with ReceivingPeer() as tps:
        installation = install(tmp_path, {"tps": tps.port})
        with installation.config.open("a") as config:
            config.write('[[peers]]\nae_title = "CT1"\nhosts = ["scanner.invalid"]\n')
        started = []
        try:
            for role, unit in (("listen", LISTENER), ("work", WORKER)):
                launcher = ("-m", "tests.acceptance.confined", str(unit), str(tps.port))
                started.append(installation.start(role, *launcher))
            wait_until(lambda: accepts_tcp(installation.port), "the listener", PROCESS_SECONDS)
            assert set(send(small_series(tmp_path / "ct"), port=installation.port)) == {0}
            wait_until(lambda: tps.received, "the structure set", PROCESS_SECONDS)
            queue = installation.queue()
            wait_until(lambda: queue.job(1).state is JobState.DELIVERED, "the row")
            queue.close()
        finally:
            for process in started:
                process.terminate()
            codes = [process.wait(PROCESS_SECONDS) for process in started]

    assert codes == [0, 0], installation.log("listen") + installation.log("work")
    assert "probe: connect=EPERM listen=done" in installation.log("listen")
    assert '"peer_host_unknown"' in installation.log("listen")
    assert "probe: connect=done listen=EPERM" in installation.log("work")


def test_the_filter_is_read_as_systemd_reads_it():
    calls = allowed_calls(LISTENER.read_text())
    assert {"accept4", "listen", "openat", "fsync"} <= calls
    assert not {"connect", "mount", "chown", "setuid", "reboot", "sched_setaffinity"} & calls
    assert {"connect", "sched_setaffinity"} <= allowed_calls(WORKER.read_text())
    assert "connect" in allowed_calls(LISTENER.read_text() + "\nSystemCallFilter=connect\n")
