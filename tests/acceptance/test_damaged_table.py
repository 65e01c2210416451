"""A job table damaged while nothing ran: refused at the start, the spool untouched, rebuilt by one command."""

import pytest

from daemon.jobs import JobState
from tests.acceptance.processes import PROCESS_SECONDS, install
from tests.conditions import wait_until
from tests.peers import ReceivingPeer, send
from tests.workplace import small_series

pytestmark = pytest.mark.timeout(600)


def contents(folder):
    """Every file of the spool but those of the job table, with its bytes."""
    return {path: path.read_bytes() for path in (folder / "jobs").rglob("*") if path.is_file()}


def test_a_damaged_job_table_stops_both_roles_and_recovery_brings_every_image_to_its_end(tmp_path):
    with ReceivingPeer() as tps:
        installation = install(tmp_path, {"tps": tps.port})
        paths = small_series(tmp_path / "ct")
        with installation.running("listen"):
            assert set(send(paths, port=installation.port)) == {0}
        before = contents(installation.root)
        table = installation.root / "oarlock.db"
        for journal in installation.root.glob("oarlock.db-*"):
            journal.unlink()
        table.write_bytes(b"no database at all" + table.read_bytes()[18:])

        for role in ("listen", "work"):
            assert installation.start(role).wait(PROCESS_SECONDS) == 1
            assert "oarlock recover" in installation.log(role)
        assert contents(installation.root) == before

        table.rename(tmp_path / "damaged.db")
        assert installation.start("recover").wait(PROCESS_SECONDS) == 0
        with installation.running("listen"), installation.running("work"):
            queue = installation.queue()
            wait_until(
                lambda: {job.state for job in queue.jobs()} == {JobState.DELIVERED},
                "delivery",
                PROCESS_SECONDS,
            )
            (job,) = queue.jobs()
            assert job.instance_count == len(paths)
            queue.close()
    assert len(tps.received) == 1
