"""Destinations that break in the middle: nothing is believed, nothing hangs, and the object goes there again."""

import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from daemon.config import Destination
from daemon.delivery import send
from daemon.jobs import DeliveryState, JobState
from daemon.outgoing_association import OutcomeKind
from tests.conditions import wait_until
from tests.peers import ReceivingPeer
from tests.raw_receivers import (
    aborts_half_way,
    announces_four_gigabytes,
    answers_a_broken_command,
    answers_http,
    answers_noise,
    raw_receiver,
    resets_half_way,
)
from tests.workplace import SHORT, Workplace

pytestmark = pytest.mark.filterwarnings(
    # pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
    "ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture
def workplace(tmp_path):
    place = Workplace(tmp_path)
    yield place
    place.queue.close()


@pytest.fixture
def large_file(workplace, tmp_path) -> Path:
    """An object that no socket buffer takes whole."""
    workplace.ports = {"tps": 1}
    dataset = dcmread(workplace.spool.result_path(workplace.segmented()))
    dataset.add_new("EncapsulatedDocument", "OB", bytes(30_000_000))
    path = tmp_path / "large.dcm"
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (answers_http, "association"),
        (answers_noise, "unknown"),
        pytest.param(
            answers_a_broken_command,
            "unknown",
            # It ends pynetdicom's network thread; the answer is then waited for in vain, as long as ever.
            marks=pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
        ),
        (announces_four_gigabytes, "unknown"),
    ],
)
def test_a_destination_that_answers_garbage_is_believed_nothing_and_tried_again(workplace, behaviour, kind):
    threads = threading.active_count()
    with raw_receiver(behaviour) as port:
        workplace.ports = {"tps": port}
        job = workplace.segmented()
        workplace.deliver_all_due()

    row = workplace.delivery(job, "tps")
    assert (row.state, row.failure_kind, row.last_status) == (DeliveryState.PENDING, kind, None)
    wait_until(lambda: threading.active_count() <= threads, "the threads of the association to end")
    with ReceivingPeer() as mended:
        workplace.ports = {"tps": mended.port}
        workplace.clock.forward(seconds=10)
        workplace.deliver_all_due()
    assert workplace.job(job).state is JobState.DELIVERED
    assert workplace.result_bytes(job).endswith(mended.received[0].dataset_bytes)


@pytest.mark.parametrize("behaviour", [aborts_half_way, resets_half_way])
def test_a_destination_that_breaks_off_within_the_object_leaves_it_unknown(large_file, behaviour):
    threads = threading.active_count()
    with raw_receiver(behaviour) as port:
        node = Destination(name="tps", ae_title="RECEIVER", host="127.0.0.1", port=port)
        outcome = send([large_file], node, "OARLOCK", SHORT)

    assert (outcome.kind, outcome.status) == (OutcomeKind.UNKNOWN, None)
    wait_until(lambda: threading.active_count() <= threads, "the threads of the association to end")


def test_a_destination_that_is_full_for_an_hour_has_it_at_the_first_try_after(workplace):
    with ReceivingPeer(statuses=[0xA700] * 10, comment="disk full") as tps:
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        began, states = workplace.clock.now, []
        while workplace.job(job).state is JobState.SEGMENTED:
            assert workplace.deliver_all_due() == 1
            row = workplace.delivery(job, "tps")
            states.append((row.state, row.last_status))
            workplace.clock.now = row.not_before or workplace.clock.now

    assert states == [(DeliveryState.PENDING, 0xA700)] * 10 + [(DeliveryState.SENT, 0x0000)]
    assert 3600 < (workplace.clock.now - began).total_seconds() < 4500
    assert len(tps.received) == 1
    told = [event.detail for event in workplace.queue.events(job) if "disk full" in event.detail]
    assert len(told) == 1  # the history tells a failure once and not at every try
