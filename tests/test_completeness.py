"""A series is complete when nobody sends it any more and it has been quiet."""

import threading
from pathlib import Path
from unittest.mock import Mock

import pytest

from daemon.completeness import Completeness
from daemon.config import Series
from daemon.errors import StorageFull
from daemon.evidence import NOTHING, Evidence
from daemon.jobs import JobState
from tests.job_rows import Clock, image, queue_in

QUIET, MAX_WAIT = 60, 3600


class Bench:
    """A queue, its completeness and a clock that is moved by hand."""

    def __init__(self, folder: Path):
        self.clock = Clock()
        self.queue = queue_in(folder, self.clock)
        self.restart()

    def restart(self):
        """Begin anew on the same job table."""
        config = Series(quiet_seconds=QUIET, max_wait_seconds=MAX_WAIT)
        self.completeness = Completeness(self.queue, config, self.clock)

    def feed(self, association, number, series="1.2.3"):
        """Receive image `number` of a series; returns its job."""
        incoming = image(number, series)
        job = self.queue.job_for_instance(incoming)
        self.completeness.fed(association, job)
        self.queue.add_instance(job, incoming)
        return job

    def state_after(self, job, **duration):
        """State of a job after some time and a tick."""
        self.clock.forward(**duration)
        self.completeness.tick()
        return self.queue.job(job).state


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.completeness.association_opened(1)
    yield bench
    bench.queue.close()


def test_the_end_of_an_association_alone_completes_nothing(bench):
    job = bench.feed(1, 1)
    bench.completeness.association_closed(1)

    assert bench.state_after(job, seconds=QUIET - 1) == JobState.RECEIVING
    assert bench.state_after(job, seconds=1) == JobState.QUEUED


def test_silence_alone_completes_nothing_while_the_feeding_association_is_open(bench):
    job = bench.feed(1, 1)

    assert bench.state_after(job, seconds=MAX_WAIT - 1) == JobState.RECEIVING
    bench.completeness.association_closed(1)
    assert bench.state_after(job, seconds=0) == JobState.QUEUED


def test_an_open_association_that_never_fed_a_series_does_not_hold_it_up(bench):
    bench.completeness.association_opened(2)
    job = bench.feed(1, 1)
    bench.feed(2, 1, series="1.2.4")
    bench.completeness.association_closed(1)

    assert bench.state_after(job, seconds=QUIET) == JobState.QUEUED


def test_a_series_fed_by_two_associations_waits_for_both(bench):
    bench.completeness.association_opened(2)
    job = bench.feed(1, 1)
    bench.feed(2, 2)
    bench.completeness.association_closed(1)

    assert bench.state_after(job, seconds=2 * QUIET) == JobState.RECEIVING
    bench.completeness.association_closed(2)
    assert bench.state_after(job, seconds=0) == JobState.QUEUED


def test_an_association_that_stays_open_but_silent_holds_a_series_up_no_longer_than_the_limit(bench):
    job = bench.feed(1, 1)
    bench.clock.forward(seconds=MAX_WAIT - 10)
    bench.feed(1, 2)

    assert bench.state_after(job, seconds=MAX_WAIT - 1) == JobState.RECEIVING
    assert bench.state_after(job, seconds=1) == JobState.QUEUED


def test_the_limit_counts_the_silence_of_each_series_though_the_association_goes_on_with_others(bench):
    job = bench.feed(1, 1)
    bench.clock.forward(seconds=MAX_WAIT)
    bench.feed(1, 1, series="1.2.4")

    assert bench.state_after(job, seconds=0) == JobState.QUEUED


def test_one_image_per_association_makes_one_series(bench):
    for number in range(1, 30):
        bench.completeness.association_opened(number)
        job = bench.feed(number, number)
        bench.completeness.association_closed(number)
        assert bench.state_after(job, seconds=QUIET - 1) == JobState.RECEIVING

    assert bench.state_after(job, seconds=1) == JobState.QUEUED
    assert bench.queue.job(job).instance_count == 29


def test_an_image_sent_again_counts_as_feeding(bench):
    job = bench.feed(1, 1)
    bench.completeness.association_closed(1)
    bench.completeness.association_opened(2)
    bench.completeness.fed(2, job)

    assert bench.state_after(job, seconds=2 * QUIET) == JobState.RECEIVING


def test_an_image_that_is_counted_after_its_association_ended_holds_nothing_up(bench):
    bench.completeness.association_closed(1)
    job = bench.feed(1, 1)

    assert bench.state_after(job, seconds=QUIET) == JobState.QUEUED


def test_a_restart_forgets_associations_and_gives_the_sender_its_quiet_time_again(bench):
    job = bench.feed(1, 1)
    bench.clock.forward(hours=2)
    bench.restart()

    assert bench.state_after(job, seconds=QUIET - 1) == JobState.RECEIVING
    assert bench.state_after(job, seconds=1) == JobState.QUEUED


def test_a_late_image_before_the_claim_makes_the_series_wait_again(bench):
    job = bench.feed(1, 1)
    bench.completeness.association_closed(1)
    assert bench.state_after(job, seconds=QUIET) == JobState.QUEUED

    bench.completeness.association_opened(2)
    assert job == bench.feed(2, 2)

    assert bench.state_after(job, seconds=QUIET) == JobState.RECEIVING
    bench.completeness.association_closed(2)
    assert bench.state_after(job, seconds=0) == JobState.QUEUED


def test_a_job_without_any_image_is_cancelled_and_not_counted_as_complete(bench):
    job = bench.queue.job_for_instance(image())
    bench.clock.forward(seconds=QUIET)

    assert bench.completeness.tick() == 0
    assert bench.queue.job(job).state == JobState.CANCELLED


def test_a_job_cancelled_between_listing_and_completion_is_left_alone(bench, monkeypatch):
    job = bench.feed(1, 1)
    bench.completeness.association_closed(1)
    listed = bench.queue.receiving_jobs()
    bench.queue.cancel(job, "by an operator")
    monkeypatch.setattr(bench.queue, "receiving_jobs", lambda: listed)

    assert bench.state_after(job, seconds=QUIET) == JobState.CANCELLED


def test_a_series_that_cannot_be_judged_does_not_keep_others_waiting(bench):
    first, second = bench.feed(2, 1), bench.feed(2, 2, series="1.2.4")

    def evidence(job):
        if job.id == first:
            raise OverflowError("whatever a peer wrote into its images")
        return NOTHING

    bench.completeness = Completeness(bench.queue, Series(quiet_seconds=QUIET), bench.clock, None, evidence)

    assert bench.state_after(second, seconds=QUIET) == JobState.QUEUED
    assert bench.queue.job(first).state == JobState.RECEIVING


def test_what_a_series_waits_for_is_written_once_and_again_where_it_is_news(bench, monkeypatch):
    job = bench.feed(2, 1)
    awaits = Mock(wraps=bench.queue.awaits)
    monkeypatch.setattr(bench.queue, "awaits", awaits)
    expected = Evidence(3, "by its sender")
    config = Series(quiet_seconds=QUIET)
    bench.completeness = Completeness(bench.queue, config, bench.clock, None, lambda _: expected)

    for _ in range(3):
        bench.state_after(job, seconds=QUIET)
    expected = Evidence(4, "by its sender")
    bench.state_after(job, seconds=1)

    told = [f"1 of {count} images (by its sender)" for count in (3, 4)]
    assert [call.args for call in awaits.call_args_list] == [(job, what) for what in told]


def test_a_full_disk_does_not_end_the_listener(bench, monkeypatch):
    def full(*_):
        raise StorageFull("no room")

    job = bench.feed(1, 1)
    bench.completeness.association_closed(1)
    with monkeypatch.context() as broken:
        broken.setattr(bench.queue, "complete", full)
        assert bench.state_after(job, seconds=QUIET) == JobState.RECEIVING

    assert bench.state_after(job, seconds=0) == JobState.QUEUED


def test_associations_may_open_feed_and_close_while_series_are_completed(bench):
    """Eight threads feed while a ninth ticks: nothing is lost, nothing is left over."""
    done = threading.Event()

    def work(thread):
        for turn in range(20):
            association = 100 * thread + turn + 10
            bench.completeness.association_opened(association)
            bench.feed(association, turn + 1, series=f"1.2.{thread + 10}")
            bench.completeness.association_closed(association)

    def tick():
        while not done.is_set():
            bench.completeness.tick()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    ticking = threading.Thread(target=tick)
    for thread in [ticking, *workers]:
        thread.start()
    for worker in workers:
        worker.join()
    done.set()
    ticking.join()

    assert list(bench.completeness._last_fed) == [1]
    assert [job.instance_count for job in bench.queue.jobs()] == [20] * 8


def test_a_series_discarded_while_it_arrives_takes_the_rest_with_it(bench):
    job = bench.feed(1, 1)
    bench.queue.cancel(job, "cancelled by an operator: wrong patient")

    assert bench.feed(1, 2) == job
    assert bench.state_after(job, seconds=2 * QUIET) is JobState.CANCELLED
    assert bench.feed(1, 3) == job  # its association is still open
    bench.completeness.association_closed(1)
    bench.state_after(job, seconds=QUIET - 1)
    assert bench.feed(2, 4) == job
    bench.state_after(job, seconds=QUIET)

    assert bench.feed(2, 5) != job
    row = bench.queue.job(job)
    assert (row.state, row.instance_count, row.discarding) == (JobState.CANCELLED, 4, False)
    told = [event.detail for event in bench.queue.events(job)]
    assert told[-2:] == [
        "cancelled by an operator: wrong patient",
        "no image for 60 s; those sent from now on open a new job",
    ]


def test_a_discarded_series_that_is_sent_again_is_wanted_again(bench):
    job = bench.feed(1, 1)
    bench.feed(1, 2)
    bench.queue.cancel(job, "by an operator")

    again = bench.feed(2, 1)
    assert again != job
    assert {again} == {bench.feed(2, 2), bench.feed(2, 3)}


def test_a_discarded_series_can_be_taken_back_with_all_its_images(bench):
    job = bench.feed(1, 1)
    bench.queue.cancel(job, "by an operator")
    bench.feed(1, 2)

    assert bench.queue.retry(job) is JobState.QUEUED
    assert bench.feed(1, 3) == job
    bench.completeness.association_closed(1)
    assert bench.state_after(job, seconds=QUIET) is JobState.QUEUED
    assert len(bench.queue.images(job)) == 3


def test_a_job_cancelled_after_its_images_came_discards_nothing(bench):
    job = bench.feed(1, 1)
    bench.queue.complete(job, "said to be complete by an operator")
    bench.queue.cancel(job, "by an operator")

    assert bench.feed(1, 2) != job
