"""`oarlock serve`, `listen` and `work` as real processes: the whole path, and how they end."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import psutil
import pytest
from pydicom import dcmread

from daemon.jobs import JobState
from tests.band_bundle import write_band_bundle
from tests.command import started
from tests.conditions import free_port, wait_until
from tests.job_rows import queue_in
from tests.peers import ReceivingPeer
from tests.phantom import write_series
from tests.senders import send

CONFIG = """
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
ae_title = "SENDER"
[[destinations]]
name = "TPS"
ae_title = "RECEIVER"
host = "127.0.0.1"
port = {destination}
[[routes]]
doubtful = "send"
qa_sheet = "none"
destinations = ["TPS"]
"""


class Site:
    """A configuration in a folder, and processes that run with it."""

    def __init__(self, folder, bundle) -> None:
        self.folder, self.bundle, self.port = folder, bundle, free_port()
        self.config, self.log = folder / "oarlock.toml", folder / "log"
        self.configure(destination=1)

    def configure(self, destination: int) -> None:
        """Write the configuration with the destination at a port."""
        self.config.write_text(
            CONFIG.format(port=self.port, root=self.folder, bundle=self.bundle, destination=destination)
        )

    @contextmanager
    def running(self, role: str, log: str = "log"):
        """Run a role and end it by force if the test did not."""
        process = started(role, "--config", self.config, log=self.folder / log)
        try:
            yield process
        finally:
            if process.poll() is None:
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    each.kill()
                process.wait()

    def events(self) -> list[dict]:
        """Return the log so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def wait_for(self, event: str) -> dict:
        """Wait until an event is logged and return it."""
        wait_until(lambda: any(line["event"] == event for line in self.events()), event)
        return next(line for line in self.events() if line["event"] == event)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path, write_band_bundle(tmp_path / "bundle"))


def test_a_series_goes_in_and_its_structure_set_comes_out(site):
    """Listener, job table, worker and delivery work together, and SIGTERM ends them all with 0."""
    files = write_series(site.folder / "ct")
    with ReceivingPeer() as peer:
        site.configure(peer.port)
        with site.running("serve") as process:
            site.wait_for("all_children_ready")
            assert set(send(files, port=site.port)) == {0}
            wait_until(lambda: peer.received, "the structure set")
            queue = queue_in(site.folder)
            wait_until(lambda: queue.job(1).state is JobState.DELIVERED, "the job to be closed")
            queue.close()
            process.terminate()
            code = process.wait(30)
        (site.folder / "rs.dcm").write_bytes(peer.received[0].file_bytes)
    series = dcmread(files[0])
    structure_set = dcmread(site.folder / "rs.dcm")

    assert code == 0
    assert structure_set.StudyInstanceUID == series.StudyInstanceUID
    assert {roi.ROIName for roi in structure_set.StructureSetROISequence} >= {"Parotid_L", "Parotid_R"}
    assert {line["role"] for line in site.events()} == {"serve", "listen", "work"}
    log = site.log.read_text()
    assert all(str(secret) not in log for secret in (series.PatientName, series.PatientID))


def test_a_killed_worker_comes_back_and_the_port_stays_open(site):
    """The out-of-memory killer takes the worker; reception goes on and the worker is started again."""
    with site.running("serve") as process:
        site.wait_for("all_children_ready")
        worker = next(
            e["pid"] for e in site.events() if e["event"] == "child_started" and e["child"] == "work"
        )
        os.kill(worker, signal.SIGKILL)
        assert site.wait_for("child_crashed")["exit_code"] == -signal.SIGKILL
        send(write_series(site.folder / "ct")[:1], port=site.port)
        wait_until(lambda: sum(e["event"] == "child_started" for e in site.events()) == 3, "a new worker")
        wait_until(lambda: sum(e["event"] == "model_loaded" for e in site.events()) == 2, "its model")
        process.send_signal(signal.SIGINT)

        assert process.wait(30) == 0


def test_serve_fails_where_a_role_cannot_start(site):
    """The port is taken: exit code 1, the reason in the log, and no role left running."""
    with ReceivingPeer(port=site.port), site.running("serve") as process:
        assert process.wait(30) == 1

        failures = [e["reason"] for e in site.events() if e["event"] == "role_failed"]
        assert any(f"port {site.port} on 127.0.0.1 cannot be bound" in reason for reason in failures)
        assert any("`oarlock listen` ended with exit code 1" in reason for reason in failures)
        assert {e["child"] for e in site.events() if e["event"] == "child_stopped"} >= {"work"}


def test_a_second_listener_keeps_off(site):
    """Two listeners on one spool would remove each other's files: the second ends with 1."""
    with site.running("listen"):
        site.wait_for("listening")
        with site.running("listen", log="second") as second:
            assert second.wait(30) == 1
    assert "another listener already works on" in (site.folder / "second").read_text()


def test_a_worker_without_its_model_ends_with_1(site):
    """The operator learns what is wrong with the bundle, in one line."""
    (site.bundle / "weights.safetensors").unlink()
    with site.running("work") as process:
        assert process.wait(30) == 1
    (line,) = site.events()

    assert (line["event"], line["role"]) == ("role_failed", "work")
    assert "weights.safetensors cannot be read" in line["reason"]


def test_half_written_images_are_removed_at_the_start(site):
    """What was never acknowledged is gone after a restart, and the log says so."""
    with site.running("listen") as process:
        site.wait_for("listening")
        send(write_series(site.folder / "ct")[:1], port=site.port)
        process.kill()
    (stored,) = (site.folder / "jobs").rglob("*.dcm")
    half = stored.with_name("half.dcm.part")
    half.write_bytes(b"half")
    with site.running("listen"):
        assert site.wait_for("spool_tidied")["files"] == 1

    assert not half.exists()
    assert stored.exists()


@pytest.mark.parametrize("role", ["listen(config)", "work(config, path)"])
def test_a_role_looks_for_garbage_but_not_among_its_modules(site, role):
    """Modules are for ever; what comes after them, image by image, is collected."""
    program = f"""
import gc, pathlib, sys
from daemon import roles
from daemon.config import load_config
path = pathlib.Path(sys.argv[1])
config = load_config(path, {{}})
roles.run = lambda *_arguments: print(gc.isenabled(), gc.get_freeze_count() > len(gc.get_objects()))
roles.{role}
"""
    done = subprocess.run(
        [sys.executable, "-c", program, site.config], capture_output=True, text=True, check=False
    )

    assert done.stdout.split()[-2:] == ["True", "True"], done.stderr
