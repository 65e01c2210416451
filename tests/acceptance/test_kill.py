"""Whatever is killed and whenever: each series ends as exactly one structure set at its destination."""

import subprocess
from pathlib import Path

import pytest

from daemon.job_queue import JobQueue
from daemon.jobs import JobState
from daemon.spool import Spool
from tests.acceptance.dying_worker import POINTS
from tests.acceptance.processes import PROCESS_SECONDS, Installation, install
from tests.conditions import free_port, wait_until
from tests.peers import ReceivingPeer
from tests.phantom import make_grid, write_series
from tests.senders import send
from tests.workplace import queue_images

pytestmark = pytest.mark.timeout(900)

DYING_WORKER = "tests.acceptance.dying_worker"


def series(folder: Path, seed: int = 0) -> list[Path]:
    """The phantom, coarse."""
    grid = make_grid(pixel_spacing_mm=(3.0, 3.0), size=(70, 65), offsets_mm=range(-100, 101, 5))
    return write_series(folder, grid=grid, seed=seed)


@pytest.fixture
def peer():
    with ReceivingPeer() as peer:
        yield peer


@pytest.fixture
def installation(tmp_path, peer):
    return install(tmp_path, {"tps": peer.port})


@pytest.fixture
def queue(installation):
    queue = installation.queue()
    yield queue
    queue.close()


def only_job(queue: JobQueue) -> int:
    (job,) = queue.jobs()
    return job.id


def wait_for(queue: JobQueue, *states: JobState) -> None:
    """Wait until every job is in one of the states."""
    wait_until(
        lambda: queue.jobs() and all(job.state in states for job in queue.jobs()),
        " or ".join(states),
        PROCESS_SECONDS,
    )


def require_one_object_each(queue: JobQueue, spool: Spool, peer: ReceivingPeer) -> None:
    """Every job delivered; however often the peer got an object, it was the same one."""
    for job in queue.jobs():
        copies = {
            one.dataset_bytes for one in peer.received if one.sop_instance_uid == job.result_sop_instance_uid
        }
        assert job.state is JobState.DELIVERED
        assert len(copies) == 1
        assert spool.result_path(job.id).read_bytes().endswith(copies.pop())
    assert {job.result_sop_instance_uid for job in queue.jobs()} == {
        one.sop_instance_uid for one in peer.received
    }


def test_worker_killed_in_every_stage_and_restarted_gives_one_structure_set_each(
    installation, queue, peer, tmp_path
):
    spool = Spool(installation.root, 0)
    spool.prepare()
    for seed in range(len(POINTS)):
        queue_images(queue, spool, series(tmp_path / f"ct-{seed}", seed))
    dying = installation.start("work", "-m", DYING_WORKER)
    assert dying.wait(5 * PROCESS_SECONDS) == 0, installation.log("work")
    left_behind = {job.id: spool.result_path(job.id) for job in queue.jobs()}
    before = {job: path.read_bytes() for job, path in left_behind.items() if path.exists()}
    assert before

    with installation.running("work"):
        wait_for(queue, JobState.DELIVERED)
    require_one_object_each(queue, spool, peer)
    assert len(POINTS) == len(queue.jobs())
    assert before == {job: left_behind[job].read_bytes() for job in before}


def test_both_processes_killed_in_the_middle_lose_and_double_nothing(installation, queue, peer, tmp_path):
    paths = series(tmp_path / "ct")
    with installation.running("listen") as listener:
        assert set(send(paths[:20], port=installation.port)) == {0}
        listener.kill()
        listener.wait()
    with installation.running("listen"), installation.running("work") as worker:
        assert set(send(paths, port=installation.port)) == {0}
        wait_until(
            lambda: queue.job(only_job(queue)).state not in {JobState.RECEIVING, JobState.QUEUED},
            "the claim",
            PROCESS_SECONDS,
        )
        worker.kill()
        worker.wait()
        installation.forget_leases()
        with installation.running("work"):
            wait_for(queue, JobState.DELIVERED)

    require_one_object_each(queue, Spool(installation.root, 0), peer)
    assert len(queue.instances(only_job(queue))) == len(paths)


def test_sigterm_finishes_the_job_under_way_and_the_next_start_delivers_the_rest(
    installation, queue, peer, tmp_path
):
    spool = Spool(installation.root, 0)
    spool.prepare()
    for seed in range(3):
        queue_images(queue, spool, series(tmp_path / f"ct-{seed}", seed))
    with installation.running("work"):
        wait_until(
            lambda: any(job.state is not JobState.QUEUED for job in queue.jobs()), "a claim", PROCESS_SECONDS
        )
    unfinished = {job.state for job in queue.jobs()} - {JobState.QUEUED}
    assert unfinished <= {JobState.SEGMENTED, JobState.DELIVERED}
    assert all(job.lease_owner is None for job in queue.jobs())

    with installation.running("work"):
        wait_for(queue, JobState.DELIVERED)
    require_one_object_each(queue, spool, peer)


def test_sigterm_finishes_the_delivery_under_way(installation, queue, tmp_path):
    with ReceivingPeer(delay_seconds=2) as slow:
        _send_to(installation, slow.port)
        spool = Spool(installation.root, 0)
        spool.prepare()
        queue_images(queue, spool, series(tmp_path / "ct"))
        with installation.running("work"):
            wait_until(lambda: slow.requests == 1, "the request", PROCESS_SECONDS)
        assert queue.job(only_job(queue)).state is JobState.DELIVERED
        require_one_object_each(queue, spool, slow)


def test_destination_corrected_in_the_file_gets_it_without_a_restart(installation, queue, peer, tmp_path):
    _send_to(installation, free_port())
    spool = Spool(installation.root, 0)
    spool.prepare()
    queue_images(queue, spool, series(tmp_path / "ct"))
    with installation.running("work"):
        wait_for(queue, JobState.SEGMENTED)
        wait_until(lambda: queue.deliveries(only_job(queue))[0].failure_kind == "connection", "a failed try")
        _send_to(installation, peer.port)
        wait_for(queue, JobState.DELIVERED)
    require_one_object_each(queue, spool, peer)


def test_log_of_a_worker_names_no_patient(installation, queue, tmp_path):
    spool = Spool(installation.root, 0)
    spool.prepare()
    queue_images(queue, spool, series(tmp_path / "ct"))
    with installation.running("work"):
        wait_for(queue, JobState.DELIVERED)

    log = installation.log("work")
    assert "delivery_sent" in log
    for secret in ("Phantom^Geometric", "Geometric", "PHANTOM0", "ACC0", "19700101"):
        assert secret not in log


def test_worker_without_its_bundle_says_so_and_exits(installation, tmp_path):
    (tmp_path / "bundle" / "weights.safetensors").unlink()
    worker = installation.start("work")

    assert worker.wait(PROCESS_SECONDS) in {1, 2}
    assert "weights.safetensors" in installation.log("work")


def _send_to(installation: Installation, port: int) -> None:
    """Change the destination's port as an administrator does: the file is replaced."""
    lines = installation.config.read_text(encoding="utf-8").splitlines()
    at = lines.index('name = "tps"') + 3
    lines[at] = f"port = {port}"
    other = installation.config.with_suffix(".new")
    other.write_text("\n".join(lines) + "\n", encoding="utf-8")
    other.replace(installation.config)


def test_nobody_needs_the_worker_to_receive(installation, queue, tmp_path):
    with installation.running("listen") as listener:
        assert set(send(series(tmp_path / "ct"), port=installation.port)) == {0}
        wait_for(queue, JobState.QUEUED)
        assert isinstance(listener, subprocess.Popen)
