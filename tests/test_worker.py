"""The worker as a service: it segments and delivers side by side, watches itself, and loses nothing at a stop."""

from datetime import UTC, datetime
from threading import Event, Thread

import pytest
import structlog
from pydicom import dcmread
from structlog.testing import capture_logs

from daemon.jobs import MAX_ATTEMPTS, DeliveryState, JobState
from daemon.outgoing_association import Timeouts
from daemon.worker import STALLED_SECONDS, Worker
from tests.peers import ReceivingPeer, free_port, wait_until
from tests.stub_segmenter import StubSegmenter
from tests.workplace import SHORT, Workplace

# pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


def test_a_job_whose_workers_all_fell_silent_has_a_log_of_its_end(workplace, start):
    job = workplace.queue_phantom()
    for number in range(MAX_ATTEMPTS):
        assert workplace.queue.claim(f"dead-{number}", -1)
        if number < MAX_ATTEMPTS - 1:
            workplace.queue.release_expired()
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        start().tick()

    told = [(each["event"], each["log_level"]) for each in logs if each.get("job") == job]
    assert told == [("lease_expired", "warning"), ("job_failed", "error")]
    assert workplace.job(job).state is JobState.FAILED


class Gate:
    """Holds a segmentation until it is opened."""

    def __init__(self):
        self.reached, self.opened = Event(), Event()

    def __call__(self, _volume):
        """Wait, as the network does."""
        self.reached.set()
        assert self.opened.wait(60)


@pytest.fixture
def workplace(tmp_path):
    place = Workplace(tmp_path, clock=lambda: datetime.now(UTC))
    yield place
    place.queue.close()


@pytest.fixture
def start(workplace):
    workers = []

    def start(segmenter=None, timeouts=SHORT, **options):
        worker = Worker(
            workplace.queue,
            workplace.spool,
            segmenter or StubSegmenter(),
            workplace.settings,
            workplace.clock,
            timeouts=timeouts,
            **options,
        )
        worker.start()
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.stop()


def in_state(workplace, job, state):
    return lambda: workplace.job(job).state is state


def test_queued_series_is_delivered(workplace, start):
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.queue_phantom()
        worker = start()

        wait_until(in_state(workplace, job, JobState.DELIVERED), "the delivery")
        assert worker.is_healthy()
        worker.tick()
    assert workplace.result_bytes(job).endswith(tps.received[0].dataset_bytes)


def test_structure_set_is_delivered_when_it_is_there_and_not_at_the_next_round(workplace, start, monkeypatch):
    """A courier that found nothing is called; so is one that a stop finds waiting."""
    monkeypatch.setattr("daemon.worker.POLL_SECONDS", 3600.0)
    gate = Gate()
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.queue_phantom()
        start(StubSegmenter(before=gate))
        assert gate.reached.wait(60)  # long after the couriers have found nothing
        gate.opened.set()

        wait_until(in_state(workplace, job, JobState.DELIVERED), "the delivery")


def test_destination_that_hangs_holds_neither_segmentation_nor_other_destinations(workplace, start):
    with ReceivingPeer(mute=True) as hanging, ReceivingPeer() as tps:
        workplace.ports = {"hanging": hanging.port, "tps": tps.port}
        jobs = [workplace.queue_phantom(seed) for seed in range(3)]
        start(timeouts=Timeouts(response=60))

        wait_until(lambda: len(tps.received) == 3, "three structure sets at the other destination")
        assert hanging.requests == 1
        assert all(workplace.job(job).state is JobState.SEGMENTED for job in jobs)


def test_segmentation_under_way_is_finished_by_a_stop(workplace, start):
    workplace.ports = {"tps": free_port()}
    job, gate = workplace.queue_phantom(), Gate()
    worker = start(StubSegmenter(before=gate))
    gate.reached.wait(60)
    assert worker.status() == f"job {job}: network 0%"
    stopping = Thread(target=worker.stop)
    stopping.start()
    gate.opened.set()
    stopping.join(60)

    assert not stopping.is_alive()
    assert workplace.job(job).state is JobState.SEGMENTED
    assert (
        dcmread(workplace.spool.result_path(job)).SOPInstanceUID == workplace.job(job).result_sop_instance_uid
    )


def test_past_the_limit_a_stop_gives_the_job_back_at_once(workplace, start):
    workplace.ports = {"tps": free_port()}
    job, gate = workplace.queue_phantom(), Gate()
    worker = start(StubSegmenter(before=gate), drain_seconds=0)
    gate.reached.wait(60)
    stopping = Thread(target=worker.stop)
    stopping.start()
    wait_until(worker._runner._breaking_off.is_set, "the end of the patience")
    gate.opened.set()
    stopping.join(60)

    row = workplace.job(job)
    assert (row.state, row.attempts, row.not_before) == (JobState.QUEUED, 0, None)


def test_job_whose_thread_does_not_listen_is_given_back_too(workplace, start, monkeypatch):
    monkeypatch.setattr("daemon.worker.BREAK_OFF_SECONDS", 0)
    workplace.ports = {"tps": free_port()}
    job, gate = workplace.queue_phantom(), Gate()
    worker = start(StubSegmenter(before=gate), drain_seconds=0)
    gate.reached.wait(60)

    worker.stop()
    assert (workplace.job(job).state, workplace.job(job).attempts) == (JobState.QUEUED, 0)
    gate.opened.set()
    worker._threads["segmentation"].join(60)
    assert workplace.job(job).state is JobState.QUEUED


def test_delivery_under_way_is_finished_by_a_stop(workplace, start):
    with ReceivingPeer(delay_seconds=1) as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        worker = start(timeouts=Timeouts())
        wait_until(lambda: tps.requests == 1, "the request")
        worker.stop()

    assert workplace.job(job).state is JobState.DELIVERED


def test_stopped_worker_starts_nothing_new(workplace, start):
    workplace.ports = {"tps": free_port()}
    worker = start()
    worker.stop()
    job = workplace.queue_phantom()

    assert workplace.job(job).state is JobState.QUEUED
    assert not worker.is_healthy()


def test_error_that_ends_a_thread_ends_the_process(workplace, start):
    workplace.ports = {"tps": free_port()}
    workplace.queue_phantom()

    def broken(_volume):
        raise RuntimeError("CUDA error: unspecified launch failure")

    worker = start(StubSegmenter(before=broken))
    wait_until(lambda: not worker.is_healthy(), "the end of the thread")
    with pytest.raises(Exception, match="unspecified launch failure"):
        worker.tick()


def test_thread_without_progress_for_long_is_no_health_but_a_long_job_is(workplace, start):
    workplace.ports = {"tps": free_port()}
    workplace.queue_phantom()
    gate = Gate()
    worker = start(StubSegmenter(before=gate))
    gate.reached.wait(60)

    worker._beats["segmentation"] -= STALLED_SECONDS - 60
    assert worker.is_healthy()
    worker._beats["segmentation"] -= 60
    assert not worker.is_healthy()
    gate.opened.set()
    wait_until(worker.is_healthy, "progress")


def test_tick_takes_back_the_job_of_a_worker_that_died(workplace, start):
    workplace.ports = {"tps": free_port()}
    job = workplace.queue_phantom()
    assert workplace.queue.claim("a worker that died", lease_seconds=0)
    worker = start()
    worker.tick()

    wait_until(in_state(workplace, job, JobState.SEGMENTED), "the second run")
    assert workplace.job(job).attempts == 2


def keeps_nothing(workplace):
    """Have every job purged as soon as it is delivered."""
    settings = workplace.settings()
    retention = settings.retention.model_copy(update={"days": 0.0})
    workplace.settings = lambda: settings.model_copy(update={"retention": retention})


def test_tick_purges_what_is_old_enough(workplace, start):
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        workplace.deliver_all_due()
    keeps_nothing(workplace)
    start().tick()

    assert workplace.job(job).state is JobState.PURGED
    assert not workplace.spool.result_path(job).exists()


def test_a_tick_goes_on_with_the_next_where_much_is_to_be_purged(workplace, start, monkeypatch):
    """Else the supervisor would take the worker for dead, with the job under way."""
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        jobs = [workplace.segmented(seed) for seed in range(3)]
        workplace.deliver_all_due()
    keeps_nothing(workplace)
    monkeypatch.setattr("daemon.worker.TIDYING_SECONDS", 0.2)
    purge = workplace.spool.purge
    monkeypatch.setattr(workplace.spool, "purge", lambda job: (Event().wait(0.3), purge(job)))
    worker = start()

    def purged():
        return sum(workplace.job(job).state is JobState.PURGED for job in jobs)

    worker.tick()
    assert purged() == 1
    worker.tick()
    assert purged() == 2
    worker.tick()
    assert purged() == 3


def test_failed_delivery_of_one_job_does_not_hold_the_others(workplace, start):
    with ReceivingPeer(statuses=[0xC000]) as tps:
        workplace.ports = {"tps": tps.port}
        workplace.retry_for_hours = 0
        first, second = workplace.queue_phantom(1), workplace.queue_phantom(2)
        start()
        wait_until(in_state(workplace, first, JobState.FAILED), "the failure")
        wait_until(in_state(workplace, second, JobState.DELIVERED), "the delivery")

    assert workplace.delivery(first, "tps").state is DeliveryState.FAILED
