"""How long until a command answers and a role is ready, from the start of its process."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import record
from benchmarks.result import Goal, Report, ResultsDifferError, Row, Unit
from benchmarks.timer import take_turns
from daemon.job_queue import open_queue
from daemon.roles import utc_now
from model.bundle import DEFAULT_BUNDLE
from tests.acceptance.processes import install

ROUNDS = 5
PATIENCE_SECONDS = 300.0


def answered(command: Sequence[str]) -> float:
    """Seconds until a command has ended well."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise ResultsDifferError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]!r}")
    return seconds


def ready(command: Sequence[str], folder: Path) -> float:
    """Seconds until a role tells systemd that it is ready."""
    address = folder / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(address))
        notified.settimeout(PATIENCE_SECONDS)
        started = time.perf_counter()
        role = subprocess.Popen(
            command, env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            while b"READY=1" not in notified.recv(4096):
                pass
            return time.perf_counter() - started
        finally:
            role.terminate()
            role.wait()


def run(*, quick: bool) -> Report:
    """Start each again and again."""
    with tempfile.TemporaryDirectory() as root:
        node = install(Path(root), {"tps": 1})
        text = node.config.read_text().replace(str(Path(root) / "bundle"), str(DEFAULT_BUNDLE))
        node.config.write_text(text)
        node.root.mkdir(exist_ok=True)
        open_queue(f"sqlite:///{node.root}/oarlock.db", utc_now).close()
        options = ("--config", str(node.config))
        oarlock = (sys.executable, "-m", "daemon")
        jobs, listener, worker = ("oarlock jobs", "listener ready", "worker ready, model loaded")
        programs = {
            jobs: lambda: answered((*oarlock, "jobs", *options)),
            listener: lambda: ready((*oarlock, "listen", *options), node.folder),
            worker: lambda: ready((*oarlock, "work", *options), node.folder),
        }
        seconds = take_turns(programs, 1 if quick else ROUNDS, "starts", warm_up=not quick)
    goals = {jobs: 0.3, listener: 1.0, worker: 5.0}
    rows = tuple(
        Row(name, "an empty job table", Unit.SECONDS, seconds[name], goal=Goal(at_most=goals[name]))
        for name in programs
    )
    about = (
        "From the start of the process until the command has ended, or the role has told systemd READY=1.",
        "The program's files are in the cache, as after a first start.",
    )
    return Report("Start", about, rows)


if __name__ == "__main__":
    record.alone("start", run)
