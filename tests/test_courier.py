"""Structure sets reach every destination that will have them; what fails is visible and tried again."""

import hashlib

import pytest
from pydicom.uid import RTStructureSetStorage, SegmentationStorage

from daemon.jobs import DeliveryState, JobState
from daemon.segmentation import STAGES
from tests.peers import ReceivingPeer, free_port, storescp
from tests.workplace import Workplace, small_series

# pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)


SOP_CLASSES = (RTStructureSetStorage, SegmentationStorage)


@pytest.fixture
def workplace(tmp_path):
    place = Workplace(tmp_path)
    yield place
    place.queue.close()


def test_structure_set_of_the_spool_goes_to_every_destination_and_closes_the_job(workplace, tmp_path):
    with ReceivingPeer() as tps, storescp(tmp_path / "pacs", ae_title="RECEIVER") as pacs:
        workplace.ports = {"tps": tps.port, "pacs": pacs.port}
        job = workplace.segmented()

        assert workplace.deliver_all_due() == 2
        (stored,) = pacs.files()
        stored_bytes = stored.read_bytes()

    assert workplace.job(job).state is JobState.DELIVERED
    sent = workplace.result_bytes(job)
    assert sent.endswith(tps.received[0].dataset_bytes)
    assert stored_bytes.endswith(tps.received[0].dataset_bytes)
    assert workplace.job(job).result_sop_instance_uid == tps.received[0].sop_instance_uid
    assert list(STAGES) == [row.stage for row in workplace.queue.stage_times(job)]


def test_a_destination_that_quotes_the_patient_is_written_down_without_him(workplace):
    comment = "unknown patient PHANTOM^ERASMUS, born 19620714"
    with ReceivingPeer(statuses=[0xA700], comment=comment) as tps:
        workplace.ports = {"tps": tps.port}
        series = small_series(workplace.root / "sent", PatientName="Phantom^Erasmus")
        job = workplace.queue_series(series)
        workplace.runner().run_next()
        workplace.deliver_all_due()

    detail = str(workplace.delivery(job, "tps").detail)
    assert "unknown patient [withheld]" in detail
    assert not any(word in detail.lower() for word in ("phantom", "erasmus", "19620714"))


def test_dead_destination_is_retried_with_backoff_until_its_age_limit_while_the_other_has_it(workplace):
    with ReceivingPeer() as tps:
        workplace.ports = {"dead": free_port(), "tps": tps.port}
        workplace.retry_for_hours = 1
        job = workplace.segmented()
        workplace.deliver_all_due()

        assert len(tps.received) == 1
        assert workplace.delivery(job, "tps").state is DeliveryState.SENT
        dead = workplace.delivery(job, "dead")
        assert (dead.state, dead.attempts, dead.failure_kind) == (DeliveryState.PENDING, 1, "connection")
        assert "refused" in str(dead.detail)

        began, waits = workplace.clock.now, []
        while workplace.delivery(job, "dead").state is DeliveryState.PENDING:
            due = workplace.delivery(job, "dead").not_before
            assert due is not None
            waits.append((due - workplace.clock.now).total_seconds())
            workplace.clock.now = due
            assert workplace.deliver_all_due() == 1

        assert waits == [10, 20, 40, 80, 160, 320, 640, 900, 900, 530]
        assert (workplace.clock.now - began).total_seconds() == 3600
        dead = workplace.delivery(job, "dead")
        assert (dead.state, dead.attempts) == (DeliveryState.FAILED, 11)
        assert "tried 11 times in 1 h" in str(dead.detail)
        assert workplace.job(job).state is JobState.FAILED
        assert "dead: " in str(workplace.job(job).reason)
        assert len(tps.received) == 1


def test_operators_retry_sends_only_what_was_not_sent_and_the_same_bytes(workplace):
    with ReceivingPeer() as tps:
        workplace.ports = {"dead": free_port(), "tps": tps.port}
        workplace.retry_for_hours = 0
        job = workplace.segmented()
        workplace.deliver_all_due()
        assert workplace.job(job).state is JobState.FAILED

        with ReceivingPeer() as mended:
            workplace.ports["dead"] = mended.port
            assert workplace.queue.retry(job) is JobState.SEGMENTED
            assert workplace.deliver_all_due() == 1

    assert workplace.job(job).state is JobState.DELIVERED
    assert [one.dataset_bytes for one in tps.received] == [one.dataset_bytes for one in mended.received]


def test_out_of_resources_is_no_success_and_the_next_try_delivers(workplace):
    with ReceivingPeer(statuses=[0xA700, 0x0000], comment="disk full") as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()

        workplace.deliver_all_due()
        row = workplace.delivery(job, "tps")
        assert (row.state, row.failure_kind, row.last_status) == (DeliveryState.PENDING, "status", 0xA700)
        assert "disk full" in str(row.detail)
        assert workplace.job(job).state is JobState.SEGMENTED

        workplace.clock.forward(seconds=10)
        workplace.deliver_all_due()
        row = workplace.delivery(job, "tps")
        assert (row.state, row.attempts, row.last_status) == (DeliveryState.SENT, 2, 0x0000)
        assert workplace.job(job).state is JobState.DELIVERED


def test_duplicate_counts_as_delivered_and_the_row_says_so(workplace):
    with ReceivingPeer(statuses=[0x0111]) as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        workplace.deliver_all_due()

    row = workplace.delivery(job, "tps")
    assert (row.state, row.last_status) == (DeliveryState.SENT, 0x0111)
    assert "has this object already" in str(row.detail)
    assert workplace.job(job).state is JobState.DELIVERED


@pytest.mark.parametrize("behaviour", [{"abort_at": 1}, {"mute": True}])
def test_no_status_is_unknown_and_the_same_object_is_sent_again(workplace, behaviour):
    with ReceivingPeer(**behaviour) as silent:
        workplace.ports = {"tps": silent.port}
        job = workplace.segmented()
        workplace.deliver_all_due()

    row = workplace.delivery(job, "tps")
    assert (row.state, row.failure_kind, row.last_status) == (DeliveryState.PENDING, "unknown", None)
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        workplace.clock.forward(seconds=10)
        workplace.deliver_all_due()
    assert workplace.job(job).state is JobState.DELIVERED
    assert workplace.result_bytes(job).endswith(tps.received[0].dataset_bytes)


def test_changed_configuration_counts_at_the_next_try(workplace):
    workplace.ports = {"tps": free_port()}
    job = workplace.segmented()
    workplace.deliver_all_due()

    with ReceivingPeer() as moved:
        workplace.ports = {"tps": moved.port}
        workplace.clock.forward(seconds=10)
        workplace.deliver_all_due()

    assert workplace.job(job).state is JobState.DELIVERED


def test_destination_that_is_not_configured_for_a_while_gets_its_structure_sets_afterwards(workplace):
    """As while its table is being moved within the file."""
    with ReceivingPeer() as tps:
        workplace.ports = {"old": tps.port}
        job = workplace.segmented()
        workplace.ports, workplace.routed = {"new": free_port()}, ["new"]
        workplace.deliver_all_due()

        row = workplace.delivery(job, "old")
        assert (row.state, row.failure_kind) == (DeliveryState.PENDING, "unconfigured")
        assert "add [[destinations]] with this name" in str(row.detail)

        workplace.ports, workplace.routed = {"old": tps.port}, ["old"]
        workplace.clock.now = row.not_before
        workplace.deliver_all_due()
    assert workplace.job(job).state is JobState.DELIVERED


def test_silent_destination_is_asked_for_one_job_and_not_for_each(workplace):
    workplace.ports = {"dead": free_port()}
    jobs = [workplace.segmented(seed) for seed in range(3)]

    assert workplace.deliver_all_due() == 1
    assert [workplace.delivery(job, "dead").attempts for job in jobs] == [1, 0, 0]
    workplace.clock.forward(seconds=10)
    assert workplace.deliver_all_due() == 1
    assert sum(workplace.delivery(job, "dead").attempts for job in jobs) == 2


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "was altered"),
    ],
)
def test_file_that_is_not_what_was_checked_is_never_sent(workplace, harm, words):
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        harm(workplace.spool.result_path(job))
        workplace.deliver_all_due()

    row = workplace.delivery(job, "tps")
    assert (row.state, row.failure_kind) == (DeliveryState.FAILED, "file")
    assert words in str(row.detail)
    assert tps.requests == 0


def test_delivery_cancelled_while_under_way_is_told_as_stored_too_late(workplace):
    with ReceivingPeer() as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        settings = workplace.settings

        def cancelled_meanwhile():
            if workplace.job(job).state is JobState.SEGMENTED:
                workplace.queue.cancel(job, "by an operator")
            return settings()

        workplace.settings = cancelled_meanwhile
        workplace.deliver_all_due()

    assert workplace.job(job).state is JobState.CANCELLED
    assert any("cancelled too late" in event.detail for event in workplace.queue.events(job))


def test_digest_of_the_row_is_that_of_the_file(workplace):
    workplace.ports = {"tps": free_port()}
    job = workplace.segmented()

    (row,) = workplace.queue.results(job)
    assert row.sha256 == hashlib.sha256(workplace.result_bytes(job)).hexdigest()


def test_objects_that_were_stored_are_not_sent_again_when_another_one_was_not(workplace):
    workplace.objects = ["rtstruct", "seg"]
    with ReceivingPeer(statuses=[0x0000, 0xA700, 0x0000], sop_classes=SOP_CLASSES) as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        workplace.deliver_all_due()
        assert workplace.job(job).state is JobState.SEGMENTED
        assert "Segmentation Storage" in str(workplace.delivery(job, "tps").detail)

        workplace.clock.forward(seconds=10)
        workplace.deliver_all_due()

    first, second = workplace.queue.results(job)
    assert [one.sop_instance_uid for one in tps.received] == [first.sop_instance_uid, second.sop_instance_uid]
    assert tps.requests == 3
    assert workplace.job(job).state is JobState.DELIVERED
