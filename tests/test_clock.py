"""The computer's clock is set back or forward while work goes on: nothing is stuck, cut short or purged early."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from unittest.mock import Mock

import pytest

from daemon.clock_watch import BELIEVED_AFTER, ClockWatch
from daemon.completeness import Completeness
from daemon.config import Series
from daemon.errors import StorageFull
from daemon.jobs import JobState
from daemon.retention import purge_old
from daemon.spool import Spool
from daemon.worker import Worker
from tests.conditions import wait_until
from tests.job_rows import Clock, claimed, delivered, queue_in, received, segmented
from tests.peers import ReceivingPeer
from tests.stub_segmenter import StubSegmenter
from tests.workplace import SHORT, Workplace

QUIET = 60
SETTINGS = pytest.mark.parametrize("hours", [-5, 5], ids=["back", "forward"])


class Time:
    """A wall clock that can be set, and the time that really passes."""

    def __init__(self):
        self.wall = Clock()
        self.seconds = 1000.0
        self.watch = ClockWatch(self.wall, lambda: self.seconds)

    def passes(self, seconds):
        """Let both clocks count on."""
        self.seconds += seconds
        self.wall.forward(seconds=seconds)

    def is_set(self, hours):
        """Set the wall clock alone."""
        self.wall.forward(hours=hours)

    def is_told(self):
        """Settle a jump; returns how far it was."""
        jump = self.watch.jump()
        self.watch.settled(jump)
        return jump


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def queue(tmp_path, time):
    queue = queue_in(tmp_path, time.wall)
    yield queue
    queue.close()


def test_a_setting_is_noticed_once_and_time_that_passes_is_none(time):
    time.passes(86400)
    assert not time.watch.jump()
    time.is_set(hours=-2)
    assert time.watch.jump() == timedelta(hours=-2)
    assert time.is_told() == timedelta(hours=-2)
    assert not time.watch.jump()


@SETTINGS
def test_a_series_is_complete_after_its_quiet_time_and_not_before(queue, time, hours):
    completeness = Completeness(queue, Series(quiet_seconds=QUIET), time.wall, time.watch)
    time.passes(10)
    job = received(queue)
    time.is_set(hours)

    completeness.tick()
    time.passes(QUIET - 1)
    completeness.tick()
    assert queue.job(job).state is JobState.RECEIVING
    time.passes(1)
    completeness.tick()
    assert queue.job(job).state is JobState.QUEUED


def test_a_setting_is_not_forgotten_where_the_job_table_was_busy_at_that_moment(queue, time, monkeypatch):
    completeness = Completeness(queue, Series(quiet_seconds=QUIET), time.wall, time.watch)
    job = received(queue)
    time.is_set(hours=5)
    with monkeypatch.context() as busy:
        busy.setattr(queue, "clock_was_set", Mock(side_effect=StorageFull("busy")))
        completeness.tick()

    completeness.tick()

    assert queue.job(job).state is JobState.RECEIVING


@SETTINGS
def test_the_job_of_a_worker_that_lives_stays_and_that_of_a_dead_one_comes_back_in_a_minute(
    queue, time, hours
):
    job = claimed(queue)
    time.is_set(hours)
    queue.clock_was_set()
    assert queue.release_expired() == []
    queue.renew(job, "worker-1", 60, "network", 0.5)

    time.passes(61)
    assert len(queue.release_expired()) == 1
    assert queue.job(job).state is JobState.QUEUED


def test_waits_written_before_the_clock_was_set_back_end_within_the_longest_wait(queue, time):
    first = claimed(queue)
    queue.requeue(first, "worker-1", time.wall.now + timedelta(seconds=600), "trouble")
    segmented(queue, "TPS", series="1.9")
    due = queue.claim_delivery("worker-1", 60)
    time.is_set(hours=-5)
    queue.clock_was_set()

    time.passes(901)
    again = queue.claim("worker-2", 60)
    assert again is not None
    assert again.id == first
    taken = queue.claim_delivery("worker-2", 60)
    assert taken is not None
    assert due is not None
    assert taken[0].id == due[0].id


def test_an_answer_that_was_asked_for_by_another_clock_is_not_waited_for_longer_than_half_a_day(queue, time):
    segmented(queue, "TPS")
    delivery, _ = queue.claim_delivery("worker-1", 60)
    transaction = queue.ask_commitment(delivery.id, 0, "")
    queue.await_commitment(transaction, time.wall.now + timedelta(hours=72), "asked")
    time.is_set(hours=-1000)

    queue.cut_times()

    (waiting,) = queue.deliveries(delivery.job_id)
    assert waiting.not_before == time.wall.now + timedelta(hours=12)


@pytest.mark.parametrize("hours", [8, 72])
def test_a_start_leaves_the_wait_for_a_destinations_answer_as_it_is(queue, time, hours):
    segmented(queue, "TPS")
    delivery, _ = queue.claim_delivery("worker-1", 60)
    until = time.wall.now + timedelta(hours=hours)
    queue.await_commitment(queue.ask_commitment(delivery.id, 0, ""), until, "asked")

    queue.cut_times()

    (waiting,) = queue.deliveries(delivery.job_id)
    assert waiting.not_before == until


def test_a_clock_set_back_while_nothing_ran_is_made_up_for_at_the_next_start(queue, time):
    claimed(queue)
    time.is_set(hours=-5)
    queue.cut_times()

    time.passes(61)
    assert len(queue.release_expired()) == 1


def test_a_series_that_came_while_the_clock_was_ahead_waits_no_longer_than_others(queue, time):
    job = received(queue)
    time.is_set(hours=-3)
    queue.cut_times()

    assert queue.job(job).last_instance_at == time.wall.now


def test_a_clock_that_is_ahead_at_the_start_purges_nothing_for_a_day(queue, time, tmp_path):
    spool = Spool(tmp_path, 0)
    spool.prepare()
    job = delivered(queue)
    time.passes(60)
    last_known = time.wall.now - timedelta(seconds=60)
    time.is_set(hours=24 * 40)
    watch = ClockWatch(time.wall, lambda: time.seconds, queue.last_event_at())
    assert watch.cautious_now() == last_known
    assert purge_old(queue, spool, watch.cautious_now(), 30) == 0

    time.passes(BELIEVED_AFTER.total_seconds() + 1)
    assert purge_old(queue, spool, watch.cautious_now(), 30) == 1
    assert queue.job(job).state is JobState.PURGED


def test_a_clock_that_runs_ahead_purges_nothing_for_a_day_and_nothing_if_it_is_set_right(
    queue, time, tmp_path
):
    spool = Spool(tmp_path, 0)
    spool.prepare()
    job = delivered(queue)
    time.is_set(hours=24 * 365)
    time.is_told()
    assert purge_old(queue, spool, time.watch.cautious_now(), 30) == 0
    time.is_set(hours=-24 * 365)
    time.is_told()
    assert time.watch.cautious_now() == time.wall.now

    time.is_set(hours=24 * 365)
    time.is_told()
    time.passes(BELIEVED_AFTER.total_seconds() + 1)
    assert purge_old(queue, spool, time.watch.cautious_now(), 30) == 1
    assert queue.job(job).state is JobState.PURGED


@SETTINGS
def test_a_worker_whose_clock_is_set_in_the_middle_delivers_with_durations_that_are_none_below_zero(
    tmp_path, hours
):
    time = Time()
    with ReceivingPeer() as tps:
        workplace = Workplace(tmp_path, ports={"tps": tps.port}, clock=time.wall)
        job = workplace.queue_phantom()
        segmenter = StubSegmenter(before=lambda _volume: time.is_set(hours))
        worker = Worker(
            workplace.queue,
            workplace.spool,
            segmenter,
            workplace.settings,
            time.wall,
            timeouts=SHORT,
            watch=time.watch,
        )
        worker.start()

        def is_delivered():
            worker.tick()
            return workplace.job(job).state is JobState.DELIVERED

        wait_until(is_delivered, "the delivery")
        worker.stop()
        assert len(tps.received) == 1
        assert all(stage.seconds >= 0 for stage in workplace.queue.stage_times(job))
        assert workplace.job(job).attempts == 1
        steps = [event.at for event in workplace.queue.events(job)]
        assert steps == sorted(steps)
        workplace.queue.close()
    with closing(sqlite3.connect(tmp_path / "oarlock.db")) as table:
        (durations,) = table.execute(
            "SELECT receiving_seconds, queued_seconds, segmenting_seconds, delivering_seconds, total_seconds "
            "FROM v_turnaround"
        ).fetchall()
    assert all(seconds >= 0 for seconds in durations)
