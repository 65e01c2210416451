"""Job table locked or read-only, spool read-only, a log that cannot be written: what senders and jobs see."""

import json
import logging
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import structlog
from sqlalchemy import event

from daemon import job_queue_engine, logs
from daemon.errors import CannotStart, StorageFull
from daemon.job_queue_engine import forget_journal
from daemon.job_queue_shared import SharedCommits
from daemon.jobs import JobState
from daemon.listener_lock import alone
from daemon.spool import Spool
from tests.acceptance.processes import PROCESS_SECONDS, install
from tests.conditions import wait_until
from tests.disks import needs_mount, read_only, small_disk
from tests.instances import ct_series
from tests.job_rows import Clock, delivered, image, queue_in
from tests.nodes import receiving_node
from tests.peers import ReceivingPeer, Sender, send
from tests.senders import store
from tests.workplace import Workplace, small_series


@contextmanager
def locked(folder):
    """Hold the job table's write lock, as a backup or a forgotten sqlite3 shell does."""
    with closing(sqlite3.connect(folder / "oarlock.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


# The job table


def test_while_another_process_holds_the_job_table_each_sender_gets_an_answer_in_time(tmp_path, monkeypatch):
    """Eight senders at once: none waits for the patience of all the others."""
    monkeypatch.setattr(job_queue_engine, "BUSY_SECONDS", 1)
    instances = ct_series(8)
    with receiving_node(tmp_path) as node:
        senders = [Sender(node.port) for _ in instances]
        with ThreadPoolExecutor(len(senders)) as pool:
            with locked(tmp_path):
                refused = list(pool.map(store, senders, instances))
                node.listener.tick()
                assert node.listener.is_healthy()
            stored = list(pool.map(store, senders, instances))
        for sender in senders:
            sender.release()

        assert [response.status for response in refused] == [0xA700] * 8
        assert [response.status for response in stored] == [0x0000] * 8
        (job,) = node.queue.jobs()
        assert job.instance_count == 8


def test_what_waits_together_for_a_locked_job_table_waits_once(tmp_path, monkeypatch):
    """However many senders come one after the other: what they share fails for all of them at once."""
    monkeypatch.setattr(job_queue_engine, "BUSY_SECONDS", 0.2)
    tries = []
    commit = SharedCommits._commit
    monkeypatch.setattr(
        SharedCommits, "_commit", lambda self, pieces: (tries.append(len(pieces)), commit(self, pieces))[1]
    )
    with closing(queue_in(tmp_path, Clock())) as queue:
        job = queue.job_for_instance(image(1))
        queue._shared._turn.acquire()  # nobody's turn comes before all have asked
        with locked(tmp_path), ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(queue.add_instance, job, image(number)) for number in range(6)]
            wait_until(lambda: len(queue._shared._waiting) == 6, "all to wait")
            queue._shared._turn.release()
            failures = [each.exception() for each in asked]

    assert all(isinstance(failure, StorageFull) for failure in failures)
    assert tries == [6]


def test_patients_are_forgotten_without_holding_up_anybody_while_somebody_reads(tmp_path):
    """A pager with an export in it keeps an old state for as long as somebody reads."""
    with (
        closing(queue_in(tmp_path, Clock())) as queue,
        closing(sqlite3.connect(tmp_path / "oarlock.db")) as pager,
    ):
        delivered(queue)
        pager.execute("BEGIN")
        pager.execute("SELECT count(*) FROM jobs").fetchone()
        queue.job_for_instance(image(1, "1.9"))
        forgetting = threading.Thread(target=forget_journal, args=(queue._engine,), daemon=True)
        forgetting.start()

        forgetting.join(job_queue_engine.BUSY_SECONDS / 2)

        assert not forgetting.is_alive()
        pager.execute("ROLLBACK")


@needs_mount
def test_a_disk_that_is_full_when_patients_are_forgotten_ends_nothing(tmp_path):
    """The table's file must grow for what stands in its journal, and the journal is emptied another time."""
    with small_disk(tmp_path) as disk, closing(queue_in(disk.path, Clock())) as queue:
        delivered(queue)
        journal = disk.path / "oarlock.db-wal"
        with closing(sqlite3.connect(disk.path / "oarlock.db", isolation_level=None)) as other:
            other.execute("PRAGMA wal_autocheckpoint = 0")
            other.execute("CREATE TABLE ballast AS SELECT randomblob(1000000) AS bytes")
            disk.leave(0)

            forget_journal(queue._engine)

            assert journal.stat().st_size > 1_000_000
            disk.empty()
            forget_journal(queue._engine)
            assert journal.stat().st_size == 0
        with queue._engine.connect() as connection:
            waits = connection.exec_driver_sql("PRAGMA busy_timeout").scalar()
        assert waits == 1000 * job_queue_engine.BUSY_SECONDS


def test_who_waits_for_a_turn_at_the_job_table_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(job_queue_engine, "BUSY_SECONDS", 0.05)
    workplace = Workplace(tmp_path)
    job, done = workplace.queue_phantom(), threading.Event()

    def hold():
        with workplace.queue._writing():
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    wait_until(workplace.queue._writing.__self__._turn.locked, "the turn to be taken")
    with pytest.raises(StorageFull, match="busy"):
        workplace.queue.note(job, "a remark")
    done.set()
    holder.join()
    workplace.queue.note(job, "a remark")
    workplace.queue.close()


def test_a_job_table_locked_for_long_loses_no_work_of_the_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(job_queue_engine, "BUSY_SECONDS", 0.2)
    with ReceivingPeer() as tps:
        workplace = Workplace(tmp_path, ports={"tps": tps.port})
        job = workplace.queue_phantom()
        with locked(tmp_path), pytest.raises(StorageFull, match="locked"):
            workplace.runner().run_next()
        assert workplace.runner().run_next()
        with locked(tmp_path), pytest.raises(StorageFull, match="locked"):
            workplace.courier().deliver_next()
        assert workplace.deliver_all_due() == 1

        assert workplace.job(job).state is JobState.DELIVERED
        assert len(tps.received) == 1
        workplace.queue.close()


def test_a_job_table_that_became_read_only_is_answered_as_out_of_resources_and_nothing_is_lost(tmp_path):
    def refuse_writes(connection, _record):
        connection.execute("PRAGMA query_only = ON")

    first, second = ct_series(2)
    with receiving_node(tmp_path) as node, Sender(node.port) as sender:
        assert store(sender, first).status == 0x0000
        event.listen(node.queue._engine, "connect", refuse_writes)
        node.queue.close()
        assert store(sender, second).status == 0xA700
        event.remove(node.queue._engine, "connect", refuse_writes)
        node.queue.close()

        assert store(sender, second).status == 0x0000
        assert node.queue.job(1).instance_count == 2


# The spool


@needs_mount
def test_on_a_file_system_that_became_read_only_images_are_refused_and_work_waits(tmp_path):
    """As the kernel remounts a disk with errors; not even root can write then."""
    root = tmp_path / "spool"
    root.mkdir()
    first, second = ct_series(2)
    with receiving_node(root) as node:
        with Sender(node.port) as sender:
            assert store(sender, first).status == 0x0000
        node.queue.close()
        with read_only(root), Sender(node.port) as sender:
            assert store(sender, second).status == 0xA700
            node.listener.tick()
            with pytest.raises(StorageFull):
                Spool(root, 0).prepare()
            node.queue.close()
        with Sender(node.port) as sender:
            assert store(sender, second).status == 0x0000
        assert node.queue.job(1).instance_count == 2


@needs_mount
def test_a_lock_file_that_cannot_be_made_is_said_with_its_name(tmp_path):
    root = tmp_path / "spool"
    root.mkdir()
    with read_only(root), pytest.raises(CannotStart, match=r"listener\.lock cannot be written"), alone(root):
        pytest.fail("locked without a file")


@needs_mount
def test_listener_and_worker_live_through_a_disk_that_is_full_with_their_logs_on_it(tmp_path):
    """Real processes: spool, job table and both logs lie on one small file system, filled in the middle."""
    with small_disk(tmp_path / "disk", 24) as disk, ReceivingPeer() as tps:
        installation = install(disk.path, {"tps": tps.port})
        paths = small_series(tmp_path / "ct")
        with installation.running("listen") as listener, installation.running("work") as worker:
            assert set(send(paths[:10], port=installation.port)) == {0}
            disk.leave(0)
            refused = send(paths[10:], port=installation.port)
            assert set(refused) == {0xA700}
            disk.empty()
            assert set(send(paths, port=installation.port)) == {0}
            queue = installation.queue()
            wait_until(
                lambda: {job.state for job in queue.jobs()} == {JobState.DELIVERED},
                "the delivery",
                PROCESS_SECONDS,
            )
            latest = max(queue.jobs(), key=lambda job: job.id)
            assert len(queue.images(latest.id)) == len(paths)
            queue.close()
            assert listener.poll() is None
            assert worker.poll() is None
        assert len(tps.received) >= 1


# The log


def test_a_log_that_cannot_be_written_ends_nothing():
    program = (
        "from daemon import logs; import structlog, logging; logs.configure(role='work');"
        "structlog.get_logger().warning('something'); logging.getLogger('x').warning('more'); print('went on')"
    )
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=full, check=False
        )

    assert told.stdout == b"went on\n"


def test_a_log_that_can_be_written_again_goes_on():
    class Stream:
        """Full at first."""

        def __init__(self):
            self.full, self.text = True, ""

        def write(self, text):
            if self.full:
                raise OSError(28, "No space left on device")
            self.text += text

        def flush(self):
            """Nothing is kept back."""

        def isatty(self):
            """A file."""
            return False

    stream = Stream()
    before = structlog.get_config(), logging.getLogger().handlers[:], logging.getLogger().level
    try:
        logs.configure(stream, {})
        structlog.get_logger().warning("lost")
        stream.full = False
        structlog.get_logger().warning("written")
    finally:
        structlog.configure(**before[0])
        logging.getLogger().handlers[:] = before[1]
        logging.getLogger().setLevel(before[2])
    assert json.loads(stream.text)["event"] == "written"
