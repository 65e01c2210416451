"""Operators decide about doubtful results: nothing of a held job is sent before somebody says so."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig

from daemon import migrations
from daemon.errors import IllegalTransition, StaleJob
from daemon.job_queue import SegmentedResult, migrate
from daemon.job_queue_engine import sqlite_engine
from daemon.jobs import DeliveryState, JobState
from tests.job_rows import (
    DOUBT,
    claimed,
    delivered,
    held,
    image,
    queue_in,
    result,
    segmented,
    send_next,
    url_in,
)


def test_nothing_of_a_held_job_is_sent_and_its_row_says_why(queue):
    job = held(queue)

    assert queue.claim_delivery("worker-1", 60) is None
    assert (queue.job(job).state, queue.job(job).reason) == (JobState.HELD, DOUBT)
    assert queue.job(job).reason_code == "doubtful"
    assert [(each.severity, each.structure) for each in queue.findings(job)] == [("hold", "Eye_L")]


def test_a_released_job_is_sent_and_its_age_counts_from_then(queue, clock):
    job = held(queue)
    released = clock.forward(days=3)

    queue.release(job, "released by a physicist")

    claim = queue.claim_delivery("worker-1", 60)
    assert claim is not None
    assert claim[0].created_at == released
    assert queue.job(job).reason is None


def test_a_refused_job_is_rejected_and_sends_nothing(queue):
    job = held(queue)

    queue.refuse(job, "rejected by a physicist: wrong side")

    assert (queue.job(job).state, queue.job(job).reason_code) == (JobState.REJECTED, "refused-by-operator")
    assert [each.state for each in queue.deliveries(job)] == [DeliveryState.CANCELLED]
    assert queue.claim_delivery("worker-1", 60) is None


@pytest.mark.parametrize("end", ["refuse", "cancel"])
def test_a_retry_does_not_get_around_the_decision(queue, end):
    job = held(queue)
    getattr(queue, end)(job, "by an operator")

    assert queue.retry(job) is JobState.HELD

    assert queue.job(job).reason == DOUBT
    assert queue.claim_delivery("worker-1", 60) is None
    queue.release(job, "released after all")
    assert queue.claim_delivery("worker-1", 60) is not None


def test_a_released_job_that_was_cancelled_is_sent_by_a_retry(queue):
    job = held(queue)
    queue.release(job, "released")
    queue.cancel(job, "by an operator")

    assert queue.retry(job) is JobState.SEGMENTED
    assert queue.claim_delivery("worker-1", 60) is not None


def test_what_was_stored_though_it_was_cancelled_cannot_be_sent_twice_by_a_retry(queue):
    """The destination had it already: a retry would otherwise contour anew and find the delivery there."""
    job = segmented(queue)
    delivery, _ = queue.claim_delivery("worker-1", 60)
    queue.cancel(job, "by an operator")
    queue.delivery_sent(delivery.id, 0)

    with pytest.raises(IllegalTransition, match="nothing is left to send"):
        queue.retry(job)

    assert queue.job(job).state is JobState.CANCELLED


def test_what_is_delivered_is_sent_once_more_as_if_it_had_never_been(queue, clock):
    job = segmented(queue, "TPS", "PACS")
    assert {send_next(queue), send_next(queue)} == {"TPS", "PACS"}
    first = queue.events(job)[-1].at
    clock.forward(days=3)

    queue.send_again(job, "TPS", "sent again by ada")

    assert queue.job(job).state is JobState.SEGMENTED
    claimed = queue.claim_delivery("worker-1", 60)
    assert (claimed[0].destination, claimed[0].attempts) == ("TPS", 1)
    assert [item.sent_at for item, _ in queue.delivery_items(claimed[0].id)] == [None]
    assert queue.claim_delivery("worker-2", 60) is None
    queue.delivery_sent(claimed[0].id, 0)
    assert queue.job(job).state is JobState.DELIVERED
    with closing(sqlite3.connect(queue._engine.url.database)) as table:
        (told,) = table.execute("SELECT delivered_utc FROM v_turnaround WHERE job = ?", (job,)).fetchone()
    assert told == f"{first:%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize("is_given_up", [False, True])
def test_a_cancelled_resend_leaves_the_job_delivered_as_it_was(queue, clock, is_given_up):
    """Cancelled, its images would count as never received: a late one would be contoured alone."""
    job = segmented(queue, "TPS", "PACS")
    assert {send_next(queue), send_next(queue)} == {"TPS", "PACS"}
    delivered_at = clock.now
    clock.forward(days=3)
    queue.send_again(job, "TPS", "sent again by ada")
    held_by_courier, _ = queue.claim_delivery("worker-1", 60)
    if is_given_up:
        queue.delivery_failed(held_by_courier.id, "connection", None, "no connection")
        assert queue.job(job).state is JobState.FAILED

    queue.cancel(job, "cancelled by ada")

    assert queue.job(job).state is JobState.DELIVERED
    assert [(each.state, each.sent_at) for each in queue.deliveries(job)] == [
        (DeliveryState.SENT, delivered_at)
    ] * 2
    assert [item.sent_at for item, _ in queue.delivery_items(held_by_courier.id)] == [delivered_at]
    assert queue.events(job)[-1].detail == "cancelled by ada; it was delivered before"
    assert queue.claim_delivery("worker-2", 60) is None
    later = clock.forward(seconds=4)
    assert queue.item_sent(queue.delivery_items(held_by_courier.id)[0][0].id) is False
    assert queue.events(job)[-1].detail == "cancelled too late: TPS got it once more"
    with pytest.raises(StaleJob):
        queue.delivery_sent(held_by_courier.id, 0)
    assert [each.sent_at for each in queue.deliveries(job)] == [later, delivered_at]
    queue.send_again(job, "PACS", "sent again by ada")
    clock.forward(hours=1)
    queue.cancel(job, "cancelled by ada")
    assert queue.deliveries(job)[1].sent_at == delivered_at
    late = queue.job_for_instance(image(9))
    assert queue.add_instance(late, image(9))
    assert len(queue.images(late)) == 3


def test_only_what_is_delivered_can_be_sent_again_and_only_to_where_it_was_sent(queue):
    done, waiting = delivered(queue, "1.2"), segmented(queue, "TPS", series="1.1")

    with pytest.raises(IllegalTransition, match="cannot be sent again"):
        queue.send_again(waiting, None, "sent again")
    with pytest.raises(IllegalTransition, match="was not sent to PACS"):
        queue.send_again(done, "PACS", "sent again")

    assert queue.job(done).state is JobState.DELIVERED


@pytest.mark.parametrize("decision", ["release", "refuse"])
def test_only_a_held_job_can_be_decided(queue, decision):
    job = segmented(queue)

    with pytest.raises(IllegalTransition, match="is segmented and cannot be"):
        getattr(queue, decision)(job, "by an operator")


def of_the_first_schema(folder, newer):
    """A job table as the first migration makes it, with what it can hold of a newer one."""
    engine = sqlite_engine(url_in(folder))
    with engine.begin() as connection:
        settings = AlembicConfig(attributes={"connection": connection})
        settings.set_main_option("script_location", str(Path(migrations.__file__).parent))
        command.upgrade(settings, "0001")
    engine.dispose()
    with closing(sqlite3.connect(folder / "oarlock.db")) as connection, connection:
        connection.execute("ATTACH ? AS newer", (str(newer),))
        names = connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in names:
            if table != "alembic_version":
                both = set.intersection(
                    *(
                        {row[1] for row in connection.execute(f"PRAGMA {schema}.table_info({table})")}
                        for schema in ("main", "newer")
                    )
                )
                some = ", ".join(sorted(both))
                connection.execute(f"INSERT INTO main.{table} ({some}) SELECT {some} FROM newer.{table}")  # noqa: S608 -- names of columns
        connection.execute("UPDATE jobs SET result_sha256 = 'abc'")


def test_results_from_before_there_were_several_are_still_delivered(tmp_path, clock):
    """A database of the first schema, with a structure set that waits for its destination."""
    (tmp_path / "newer").mkdir()
    queue = queue_in(tmp_path / "newer", clock)
    job = segmented(queue)
    uid = queue.job(job).result_sop_instance_uid
    queue.close()
    of_the_first_schema(tmp_path, tmp_path / "newer" / "oarlock.db")

    migrate(url_in(tmp_path))

    queue = queue_in(tmp_path, clock)
    claim = queue.claim_delivery("worker-1", 60)
    assert claim is not None
    ((item, stored),) = queue.delivery_items(claim[0].id)
    assert (item.sent_at, stored.sha256, stored.sop_instance_uid) == (None, "abc", uid)
    queue.close()


def test_the_doubt_is_told_again_and_not_a_remark(queue):
    job = claimed(queue)
    values = vars(result()) | {"held": DOUBT, "remarks": ["1 localizer left out"]}
    queue.segmented(job, "worker-1", SegmentedResult(**values))
    queue.refuse(job, "by an operator")
    assert queue.retry(job) is JobState.HELD
    assert queue.job(job).reason == DOUBT
