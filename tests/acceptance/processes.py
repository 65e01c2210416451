"""oarlock's roles as processes of their own, as systemd starts them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.job_queue import JobQueue, open_queue
from tests.band_bundle import write_band_bundle
from tests.conditions import accepts_tcp, free_port, wait_until

REPOSITORY = Path(__file__).parents[2]
PROCESS_SECONDS = 180.0
"""How long anything may take that includes the start of a process on a busy machine."""

CONFIG = """\
[node]
host = "127.0.0.1"
port = {port}

[storage]
root = "{root}"
min_free_bytes = 0

[series]
quiet_seconds = 0.5

[model]
bundle = "{bundle}"
device = "cpu"
threads = 1

[[peers]]
ae_title = "*"

{destinations}
[[routes]]
doubtful = "send"
qa_sheet = "none"
destinations = {names}
structures = ["Brain", "Bone_Mandible", "Parotid_L", "Parotid_R"]
"""
DESTINATION = """\
[[destinations]]
name = "{name}"
ae_title = "RECEIVER"
host = "127.0.0.1"
port = {port}
"""


@dataclass(frozen=True)
class Installation:
    """One configuration file with its spool and job table."""

    folder: Path
    port: int

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "oarlock.toml"

    @property
    def root(self) -> Path:
        """The spool."""
        return self.folder / "spool"

    def queue(self, later: timedelta = timedelta(0)) -> JobQueue:
        """The job table, seen now or at a later time."""
        return open_queue(f"sqlite:///{self.root}/oarlock.db", lambda: datetime.now(UTC) + later)

    def forget_leases(self) -> None:
        """Let a minute pass for the leases of workers that were killed."""
        queue = self.queue(later=timedelta(minutes=2))
        queue.release_expired()
        queue.close()

    def start(self, role: str, *launcher: str) -> subprocess.Popen[bytes]:
        """Start a role; a launcher replaces `-m daemon`."""
        command = [sys.executable, *(launcher or ("-m", "daemon")), role, "--config", str(self.config)]
        with (self.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=REPOSITORY, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    @contextmanager
    def running(self, role: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a role for the time of the block; it must then end by SIGTERM, in peace, unless it is dead."""
        process = self.start(role)
        try:
            if role == "listen":
                wait_until(
                    lambda: accepts_tcp(self.port) or process.poll() is not None,
                    "the listener",
                    PROCESS_SECONDS,
                )
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                assert process.wait(PROCESS_SECONDS) == 0, self.log(role)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def log(self, role: str) -> str:
        """What a role has logged."""
        return (self.folder / f"{role}.log").read_text(encoding="utf-8")


def install(folder: Path, destinations: Mapping[str, int]) -> Installation:
    """Write configuration and bundle for destinations on ports of the loopback."""
    installation = Installation(folder, free_port())
    installation.root.mkdir(parents=True)
    text = CONFIG.format(
        port=installation.port,
        root=installation.root,
        bundle=write_band_bundle(folder / "bundle"),
        destinations="\n".join(
            DESTINATION.format(name=name, port=port) for name, port in destinations.items()
        ),
        names=list(destinations),
    )
    installation.config.write_text(text.replace("'", '"'), encoding="utf-8")
    return installation
