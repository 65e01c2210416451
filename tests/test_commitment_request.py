"""Delivered means committed where that is configured: destinations that answer here, elsewhere, badly or never."""

import io
import sqlite3
from contextlib import contextmanager
from datetime import timedelta

import pytest
from pydicom.uid import RTStructureSetStorage, SegmentationStorage, generate_uid
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
)
from rich.console import Console

from daemon import tables
from daemon.commitment import FailureReason
from daemon.courier import LEASE_SECONDS
from daemon.job_queue_looking import look_into
from daemon.job_report import read_report
from daemon.jobs import DeliveryState, JobState
from daemon.outgoing_association import Timeouts
from tests.committing import Archive, call_back, calling
from tests.conditions import LIMIT_SECONDS, wait_until
from tests.job_rows import url_in
from tests.nodes import receiving_node
from tests.peers import ReceivingPeer, free_port, orthanc
from tests.workplace import Workplace

pytestmark = pytest.mark.filterwarnings(
    # pynetdicom leaves the socket of a failed connection to the garbage collector, which Python remarks upon.
    "ignore:Exception ignored in. <:pytest.PytestUnraisableExceptionWarning"
)

OBJECTS = (RTStructureSetStorage, SegmentationStorage)
PATIENT = Timeouts(
    connection=1, association=2, response=LIMIT_SECONDS, stall=LIMIT_SECONDS, report=LIMIT_SECONDS
)


@pytest.fixture
def workplace(tmp_path):
    place = Workplace(tmp_path, commitment=True)
    yield place
    place.queue.close()


@contextmanager
def listening(workplace):
    """The listener on the same job table and spool."""
    settings = workplace.settings()
    sections = {name: getattr(settings, name).model_dump() for name in ("storage", "delivery")}
    destinations = [each.model_dump() for each in settings.destinations]
    with receiving_node(
        workplace.root,
        clock=workplace.clock,
        peers=[{"ae_title": "CT1"}],
        destinations=destinations,
        **sections,
    ) as node:
        yield node


@contextmanager
def segmented(workplace, archive, **peer):
    """A destination, and a job that is on its way to it."""
    with ReceivingPeer(sop_classes=OBJECTS, on_commitment=archive, **peer) as tps:
        workplace.ports = {"tps": tps.port}
        yield workplace.segmented(), tps


def patiently(workplace):
    """Deliver with time enough for an answer on the same association."""
    courier = workplace.courier()
    courier._timeouts = PATIENT
    while courier.deliver_next():
        pass


def shown(workplace, job):
    """What the view of all that waits and `oarlock show` say, where they agree."""
    with sqlite3.connect(workplace.root / "oarlock.db") as table:
        ((waits_for,),) = table.execute("SELECT waits_for FROM v_waiting").fetchall()
    table.close()
    page = Console(width=200, record=True, file=io.StringIO())
    with look_into(url_in(workplace.root)) as table:
        page.print(tables.job_page(read_report(table, job)))
    _, _, detail = waits_for.partition(": ")
    assert detail in page.export_text()
    return waits_for


def told(workplace, job):
    return [event.detail for event in workplace.queue.events(job)]


def test_what_is_committed_on_the_association_of_the_request_is_delivered(workplace):
    archive = Archive({})
    workplace.objects = ["rtstruct", "seg"]
    with segmented(workplace, archive, statuses=[0xB007]) as (job, _):
        patiently(workplace)
        wait_until(lambda: archive.answers, "our response")

    results = [row.sop_instance_uid for row in workplace.queue.results(job)]
    assert [uids for _, uids in archive.requests] == [results]
    assert archive.answers == [0x0000]
    row = workplace.delivery(job, "tps")
    assert (row.state, row.attempts, row.detail) == (DeliveryState.SENT, 1, "stored and committed")
    assert workplace.job(job).state is JobState.DELIVERED
    assert all(item.committed_at for item, _ in workplace.queue.delivery_items(row.id))


@pytest.mark.parametrize("with_role", [True, False], ids=["role selected", "no role selection"])
def test_stored_is_not_delivered_until_the_destination_calls_and_says_so(workplace, with_role):
    archive = Archive()
    with segmented(workplace, archive) as (job, tps), listening(workplace) as node:
        workplace.deliver_all_due()
        row = workplace.delivery(job, "tps")
        assert (len(tps.received), row.state, row.last_status) == (1, DeliveryState.PENDING, 0x0000)
        assert row.detail == "stored; waits for storage commitment"
        assert "stored; waits for storage commitment" in shown(workplace, job)
        assert workplace.job(job).state is JobState.SEGMENTED
        assert workplace.deliver_all_due() == 0

        ((transaction, uids),) = archive.requests
        assert call_back(node.port, transaction, uids, with_role=with_role) == 0x0000
        assert call_back(node.port, transaction, uids) == 0x0000  # said twice, true once

    assert workplace.job(job).state is JobState.DELIVERED
    assert workplace.delivery(job, "tps").state is DeliveryState.SENT
    assert workplace.queue.events(job)[-1].detail == "stored by tps"
    assert len(tps.received) == 1


def test_what_is_not_committed_is_sent_again_and_nothing_else(workplace):
    archive = Archive(lambda uids: {uids[1]: FailureReason.NO_SUCH_OBJECT_INSTANCE}, {})
    workplace.objects = ["rtstruct", "seg"]
    with segmented(workplace, archive) as (job, tps):
        patiently(workplace)
        row = workplace.delivery(job, "tps")
        assert (row.state, row.failure_kind, row.last_status) == (
            DeliveryState.PENDING,
            "not-committed",
            0x0112,
        )
        assert "0x0112 no such object instance" in str(row.detail)
        assert any("0x0112" in detail for detail in told(workplace, job))

        workplace.clock.forward(seconds=10)
        patiently(workplace)

    first, second = [row.sop_instance_uid for row in workplace.queue.results(job)]
    assert [one.sop_instance_uid for one in tps.received] == [first, second, second]
    assert [uids for _, uids in archive.requests] == [[first, second], [second]]
    assert workplace.job(job).state is JobState.DELIVERED
    assert workplace.delivery(job, "tps").last_status == 0x0000


def test_a_destination_that_never_commits_ends_visibly_with_its_reason(workplace):
    archive = Archive(*[lambda uids: dict.fromkeys(uids, FailureReason.RESOURCE_LIMITATION)] * 50)
    workplace.retry_for_hours = 1
    with segmented(workplace, archive) as (job, tps):
        patiently(workplace)
        while workplace.delivery(job, "tps").state is DeliveryState.PENDING:
            workplace.clock.now = workplace.delivery(job, "tps").not_before
            patiently(workplace)

    assert workplace.job(job).state is JobState.FAILED
    assert "0x0213 resource limitation" in str(workplace.job(job).reason)
    assert len(tps.received) == workplace.delivery(job, "tps").attempts == 11


def test_silence_is_asked_again_ever_less_often_and_then_given_up(workplace):
    archive = Archive()
    with segmented(workplace, archive) as (job, tps):
        began, waits = workplace.clock.now, []
        workplace.deliver_all_due()
        while workplace.delivery(job, "tps").state is DeliveryState.PENDING:
            due = workplace.delivery(job, "tps").not_before
            waits.append((due - workplace.clock.now) / timedelta(hours=1))
            workplace.clock.now = due
            workplace.deliver_all_due()

    assert waits == [1, 2, 4, 8, 12, 12, 9]
    assert workplace.clock.now - began == timedelta(hours=48)
    assert len({transaction for transaction, _ in archive.requests}) == len(archive.requests) == 7
    assert len(tps.received) == 1
    assert workplace.job(job).state is JobState.FAILED
    assert "stored, but not committed: no answer to 7 requests" in str(workplace.job(job).reason)
    assert any("no answer to 1 request" in detail for detail in told(workplace, job))


def test_requests_that_never_came_to_the_destination_are_no_silence_of_it(workplace):
    """Else the first that it takes would be waited for as long as if it had been silent for a day."""
    archive = Archive()
    with ReceivingPeer(sop_classes=OBJECTS) as tps:  # its service of commitment is not enabled yet
        workplace.ports = {"tps": tps.port}
        job = workplace.segmented()
        for _ in range(4):
            workplace.deliver_all_due()
            workplace.clock.now = workplace.delivery(job, "tps").not_before
    with ReceivingPeer(sop_classes=OBJECTS, on_commitment=archive, port=tps.port):
        workplace.deliver_all_due()

    delivery = workplace.delivery(job, "tps")
    assert len(archive.requests) == 1
    assert delivery.not_before - workplace.clock.now == timedelta(hours=1)
    assert delivery.detail == "stored; waits for storage commitment"


def test_a_late_answer_to_an_earlier_request_counts(workplace):
    archive = Archive()
    with segmented(workplace, archive) as (job, _), listening(workplace) as node:
        workplace.deliver_all_due()
        workplace.clock.forward(hours=1)
        workplace.deliver_all_due()
        (transaction, uids), _ = archive.requests
        call_back(node.port, transaction, uids)

    assert workplace.job(job).state is JobState.DELIVERED


def test_a_report_that_leaves_an_object_out_is_no_commitment_of_it(workplace):
    archive = Archive()
    workplace.objects = ["rtstruct", "seg"]
    with segmented(workplace, archive) as (job, tps), listening(workplace) as node:
        workplace.deliver_all_due()
        ((transaction, uids),) = archive.requests
        assert call_back(node.port, transaction, uids[:1]) == 0x0000
        assert workplace.job(job).state is JobState.SEGMENTED
        assert "leaves out" in str(workplace.delivery(job, "tps").detail)

        workplace.clock.forward(seconds=10)
        workplace.deliver_all_due()
        assert archive.requests[1][1] == uids[1:]
        call_back(node.port, *archive.requests[1])

    assert len(tps.received) == 2
    assert workplace.job(job).state is JobState.DELIVERED


@pytest.mark.parametrize(
    ("archive", "kind", "words"),
    [
        (Archive(status=0x0110), "status", "0x0110"),
        (None, "context", "offers no Storage Commitment Push Model"),
    ],
    ids=["refused", "no such service"],
)
def test_a_request_that_is_not_taken_is_told_and_tried_again(workplace, archive, kind, words):
    with segmented(workplace, archive) as (job, tps):
        workplace.deliver_all_due()

        row = workplace.delivery(job, "tps")
        assert (row.state, row.failure_kind) == (DeliveryState.PENDING, kind)
        assert "stored, but its commitment could not be asked for" in str(row.detail)
        assert words in str(row.detail)
        workplace.clock.forward(seconds=10)
        assert workplace.deliver_all_due() == 1
    assert len(tps.received) == 1


def test_a_courier_that_dies_at_any_point_loses_no_answer(workplace, monkeypatch):
    """Kill -9 leaves rows alone: stored but not asked; asked and not known whether it left."""
    archive = Archive()
    with segmented(workplace, archive) as (job, tps), listening(workplace) as node:
        for point in ("ask_commitment", "await_commitment"):
            with monkeypatch.context() as dying:
                dying.setattr(workplace.queue, point, _dies)
                with pytest.raises(KeyboardInterrupt):
                    workplace.courier().deliver_next()
            assert workplace.delivery(job, "tps").state is DeliveryState.PENDING
            workplace.clock.forward(seconds=LEASE_SECONDS)
        ((transaction, uids),) = archive.requests
        assert call_back(node.port, transaction, uids) == 0x0000

    assert len(tps.received) == 1
    assert workplace.job(job).state is JobState.DELIVERED


def _dies(*_):
    raise KeyboardInterrupt


def test_the_transaction_is_in_the_table_before_the_request_leaves(workplace):
    known = []

    def archive(event):
        transaction = event.action_information.TransactionUID
        known.append(workplace.queue.commitment_reported(transaction, (), {}) is not None)
        return 0x0000

    with segmented(workplace, archive):
        workplace.deliver_all_due()
    assert known == [True]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"transaction": generate_uid()}, 0x0115),
        ({"transaction": ""}, 0x0115),
        ({"event_type": 3}, 0x0113),
    ],
    ids=["unknown transaction", "none", "unknown event"],
)
def test_a_report_about_nothing_of_ours_is_refused_and_changes_nothing(workplace, change, status):
    archive = Archive()
    with segmented(workplace, archive) as (job, _), listening(workplace) as node:
        workplace.deliver_all_due()
        ((transaction, uids),) = archive.requests
        values = {"transaction": transaction, "uids": uids} | change
        assert call_back(node.port, **values) == status
        assert workplace.delivery(job, "tps").state is DeliveryState.PENDING


def test_a_destination_may_call_to_report_and_not_to_send_images(workplace):
    with segmented(workplace, Archive()) as (_, _tps), listening(workplace) as node:
        with calling(node.port, contexts=(StorageCommitmentPushModel, CTImageStorage)) as association:
            accepted = [context.abstract_syntax for context in association.accepted_contexts]
        assert accepted == [StorageCommitmentPushModel]
        with calling(node.port, title="STRANGER") as association:
            assert not association.is_established


def test_reports_are_taken_below_the_watermark_as_only_they_make_room(workplace):
    archive = Archive()
    with segmented(workplace, archive) as (job, _), listening(workplace) as node:
        workplace.deliver_all_due()
        node.spool._min_free_bytes = 2**62
        with calling(node.port, title="CT1", contexts=(CTImageStorage,)) as association:
            assert not association.is_established
        with calling(node.port, contexts=(StorageCommitmentPushModel, CTImageStorage)) as association:
            assert not association.is_established
        assert call_back(node.port, *archive.requests[0]) == 0x0000

    assert workplace.job(job).state is JobState.DELIVERED


def test_a_job_cancelled_while_it_waits_says_that_the_destination_has_it(workplace):
    archive = Archive()
    with segmented(workplace, archive) as (job, _), listening(workplace) as node:
        workplace.deliver_all_due()
        workplace.queue.cancel(job, "by an operator")
        assert any("tps has stored 1 of 1 objects" in detail for detail in told(workplace, job))
        call_back(node.port, *archive.requests[0])

    assert workplace.job(job).state is JobState.CANCELLED
    assert workplace.delivery(job, "tps").state is DeliveryState.SENT


def test_an_answer_after_the_end_is_told_and_a_retry_sends_nothing(workplace):
    archive = Archive()
    workplace.retry_for_hours = 1
    with segmented(workplace, archive) as (job, tps), listening(workplace) as node:
        workplace.deliver_all_due()
        workplace.clock.forward(hours=1)
        workplace.deliver_all_due()
        assert workplace.job(job).state is JobState.FAILED

        assert call_back(node.port, *archive.requests[0]) == 0x0000
        assert workplace.job(job).state is JobState.FAILED
        assert any("committed it after it was given up" in detail for detail in told(workplace, job))
        workplace.queue.retry(job)
        workplace.deliver_all_due()

    assert len(tps.received) == 1
    assert workplace.job(job).state is JobState.DELIVERED


def test_orthanc_commits_on_an_association_of_its_own(workplace, tmp_path):
    with orthanc(tmp_path / "orthanc") as pacs:
        workplace.ports, workplace.ae_title = {"pacs": pacs.port}, "ORTHANC"
        job = workplace.segmented()
        with listening(workplace) as node:
            pacs.add_modality("oarlock", "OARLOCK", node.port)
            workplace.deliver_all_due()
            wait_until(lambda: workplace.job(job).state is JobState.DELIVERED, "the commitment")

            assert workplace.delivery(job, "pacs").detail == "stored and committed"
            assert len(pacs.instances()) == 1


def test_orthanc_does_not_commit_what_it_has_lost(workplace, tmp_path):
    """It reports 0x0112 on an association of its own, and the same object goes there again."""
    with orthanc(tmp_path / "orthanc") as pacs:
        workplace.ports, workplace.ae_title = {"pacs": pacs.port}, "ORTHANC"
        job = workplace.segmented()
        with listening(workplace) as node:
            workplace.deliver_all_due()  # Orthanc does not know us yet, and refuses
            assert workplace.delivery(job, "pacs").state is DeliveryState.PENDING
            (identifier,) = pacs.instances()
            pacs.request("DELETE", f"/instances/{identifier}")
            pacs.add_modality("oarlock", "OARLOCK", node.port)
            workplace.clock.forward(hours=1)
            workplace.deliver_all_due()
            wait_until(lambda: workplace.delivery(job, "pacs").failure_kind == "not-committed", "the refusal")
            assert "0x0112" in str(workplace.delivery(job, "pacs").detail)
            workplace.clock.forward(hours=1)
            workplace.deliver_all_due()
            wait_until(lambda: workplace.job(job).state is JobState.DELIVERED, "the commitment")
            assert len(pacs.instances()) == 1


def test_a_dead_destination_cannot_be_asked(workplace):
    with segmented(workplace, Archive(status=0x0110)) as (job, _):
        workplace.deliver_all_due()
    workplace.ports = {"tps": free_port()}
    workplace.clock.forward(seconds=10)
    workplace.deliver_all_due()

    row = workplace.delivery(job, "tps")
    assert (row.state, row.failure_kind) == (DeliveryState.PENDING, "connection")
