"""The life of a process: real children, real signals, a real notify socket."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from daemon.errors import CannotStart
from daemon.service import Notifier
from daemon.supervisor import Child, Supervisor

LIMIT_SECONDS = 20

ROLE = """
import sys, time
from daemon import logs
from daemon.service import run

class Role:
    ticks = 0
    def start(self): {start}
    def tick(self):
        self.ticks += 1
        {tick}
    def stop(self):
        print("stopping", flush=True)
        {stop}
        print("stopped", flush=True)
    def is_healthy(self): return {healthy}
    def status(self): return f"patience\\n{{min(self.ticks, 3)}}"

logs.configure()
run(Role(), tick_seconds=0.01)
"""


def role(start="pass", tick="pass", stop="pass", healthy="True") -> list[str]:
    program = textwrap.dedent(ROLE).format(start=start, tick=tick, stop=stop, healthy=healthy)
    return [sys.executable, "-c", program]


class ServiceManager:
    """The other end of the notify socket."""

    def __init__(self, address: str) -> None:
        self.wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.wire.settimeout(LIMIT_SECONDS)
        self.wire.bind(address)
        self.heard: list[str] = []

    def wait_for(self, line: str) -> None:
        """Hear messages until one says `line`."""
        while line not in self.heard:
            self.heard += self.wire.recv(4096).decode().splitlines()


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"\0oarlock-test-{os.getpid()}"
    manager = ServiceManager(address)
    manager.environ = {**os.environ, "NOTIFY_SOCKET": address.replace("\0", "@")}
    yield manager
    manager.wire.close()


@contextmanager
def running(manager, command, **environ):
    process = subprocess.Popen(
        command, env={**manager.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_and_the_process_ends_in_order(manager, number):
    """READY after the start, STOPPING at the signal, the service stopped, exit code 0."""
    with running(manager, role()) as process:
        manager.wait_for("READY=1")
        process.send_signal(number)
        manager.wait_for("STOPPING=1")
        output, _ = process.communicate(timeout=LIMIT_SECONDS)

    assert output.splitlines() == ["stopping", "stopped"]
    assert process.returncode == 0


def test_the_second_signal_forces(manager):
    """A service that does not finish is ended by the second signal, and the exit status says by which."""
    with running(manager, role(stop="time.sleep(1000)")) as process:
        manager.wait_for("READY=1")
        process.terminate()
        manager.wait_for("STOPPING=1")
        assert process.stdout.readline() == "stopping\n"
        deadline = time.monotonic() + LIMIT_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)

    assert process.returncode == -signal.SIGTERM


def test_one_request_passed_on_twice_does_not_force(manager):
    """A supervisor and a terminal that pass on the same request still let the service finish."""
    with running(manager, role(stop="time.sleep(0.3)")) as process:
        manager.wait_for("READY=1")
        process.terminate()
        manager.wait_for("STOPPING=1")
        process.terminate()
        output, _ = process.communicate(timeout=LIMIT_SECONDS)

    assert output.splitlines() == ["stopping", "stopped"]
    assert process.returncode == 0


def test_a_signal_while_starting_is_not_lost(manager):
    """Asked to stop before it was ready, the service starts, stops and ends with 0."""
    slow = "print('starting', flush=True); time.sleep(0.3)"
    with running(manager, role(start=slow)) as process:
        assert process.stdout.readline() == "starting\n"
        process.terminate()
        output, _ = process.communicate(timeout=LIMIT_SECONDS)

    assert output.splitlines() == ["stopping", "stopped"]
    assert process.returncode == 0


def test_status_is_told_in_one_line(manager):
    """What the service does shows in `systemctl status`, whatever line breaks it uses."""
    with running(manager, role()):
        manager.wait_for("STATUS=patience 3")


def test_the_watchdog_hears_of_a_healthy_service_also_while_it_stops(manager):
    """WATCHDOG=1 comes within the period that systemd asks for, also while the service drains."""
    with running(manager, role(stop="time.sleep(1000)"), WATCHDOG_USEC="200000") as process:
        manager.wait_for("WATCHDOG=1")
        process.terminate()
        manager.wait_for("STOPPING=1")
        manager.heard.clear()
        manager.wait_for("WATCHDOG=1")


def test_the_watchdog_does_not_hear_of_a_sick_service(manager):
    """A service that says it is not healthy lets the watchdog run out."""
    with running(manager, role(healthy="self.ticks < 0"), WATCHDOG_USEC="100000"):
        manager.wait_for("STATUS=patience 3")
        for _ in range(3):
            manager.wait_for("READY=1")

    assert "WATCHDOG=1" not in manager.heard


def test_a_watchdog_for_another_process_is_not_ours():
    """WATCHDOG_PID tells whom the watchdog is meant for (sd_watchdog_enabled(3))."""
    other = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid() + 1)}
    ours = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}

    assert Notifier(other).watchdog_seconds == float("inf")
    assert Notifier(ours).watchdog_seconds == 1


def test_a_failing_tick_stops_the_service_and_ends_the_process(manager):
    """What the service cannot handle restarts the process, after it was stopped in order."""
    with running(manager, role(tick="1 / 0")) as process:
        output, errors = process.communicate(timeout=LIMIT_SECONDS)

    assert output.splitlines() == ["stopping", "stopped"]
    assert process.returncode == 1
    assert "ZeroDivisionError" in errors


def test_nobody_listening_is_no_reason_to_fail(tmp_path):
    """A notify socket that is gone is logged and nothing more."""
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).send("READY=1")
    Notifier({}).send("READY=1")


def until(condition, supervisor):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, supervisor.status()
        supervisor.tick()
        time.sleep(0.01)


@pytest.fixture
def supervised():
    """Start a supervisor over the given commands; whatever still runs afterwards is stopped."""
    started = []

    def start(*commands):
        children = [Child(f"role{number}", command) for number, command in enumerate(commands)]
        supervisor = Supervisor(children)
        started.append(supervisor)
        supervisor.start()
        return supervisor, children

    yield start
    for supervisor in started:
        supervisor.stop()


def test_children_report_when_they_are_ready(supervised):
    """The supervisor is healthy when every role said READY, and shows their status."""
    supervisor, _ = supervised(role(), role())

    assert not supervisor.is_healthy()
    until(lambda: supervisor.is_healthy() and supervisor.status().count("patience 3") == 2, supervisor)


def test_a_crashed_child_is_started_again(supervised):
    """A role that was ready and died comes back, as another process, after its delay."""
    supervisor, (first, second) = supervised(role(), role())
    until(supervisor.is_healthy, supervisor)
    before, other = first._process.pid, second._process.pid
    os.kill(before, signal.SIGKILL)
    until(lambda: not supervisor.is_healthy(), supervisor)
    until(supervisor.is_healthy, supervisor)

    assert first._process.pid != before
    assert second._process.pid == other


def test_a_child_that_cannot_start_is_an_error(supervised):
    """A role that ends before it was ever ready makes the supervisor give up, naming role and code."""
    supervisor, _ = supervised(role(), role(start="sys.exit(3)"))
    with pytest.raises(CannotStart, match="role1` ended with exit code 3"):
        until(lambda: False, supervisor)


def test_stopping_waits_for_the_children_to_finish(supervised, tmp_path):
    """The supervisor returns when every role has finished what it promised."""
    done = tmp_path / "done"
    supervisor, _ = supervised(role(stop=f"time.sleep(0.3); open({str(done)!r}, 'w').close()"))
    until(supervisor.is_healthy, supervisor)
    supervisor.stop()

    assert done.exists()


def test_children_end_with_a_killed_parent(tmp_path):
    """Even SIGKILL of the supervisor leaves no role behind that holds the port."""
    child = tmp_path / "child.py"
    child.write_text(role()[2])
    parent = f"""
import sys, time
from daemon import logs
from daemon.supervisor import Child
logs.configure()
child = Child("role", [sys.executable, {str(child)!r}])
child.start()
while not child.is_ready: child.tick()
print(child._process.pid, flush=True)
time.sleep(1000)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        pid = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + LIMIT_SECONDS
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not Path(f"/proc/{pid}").exists()
