"""Operators decide about doubtful results: nothing of a held job is sent before somebody says so."""

import sqlite3

import pytest

from daemon.errors import IllegalTransition
from daemon.job_queue import migrate
from daemon.jobs import DeliveryState, JobState
from tests.job_rows import DOUBT, held, queue_in, segmented, url_in


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


@pytest.mark.parametrize("decision", ["release", "refuse"])
def test_only_a_held_job_can_be_decided(queue, decision):
    job = segmented(queue)

    with pytest.raises(IllegalTransition, match="is segmented and cannot be"):
        getattr(queue, decision)(job, "by an operator")


def test_results_from_before_there_were_several_are_still_delivered(tmp_path, clock):
    """A database of the first schema, with a structure set that waits for its destination."""
    queue = queue_in(tmp_path, clock)
    job = segmented(queue)
    uid = queue.job(job).result_sop_instance_uid
    queue.close()
    with sqlite3.connect(tmp_path / "oarlock.db") as connection:
        for table in ("delivery_items", "results", "findings"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- names stand above
        connection.executescript(
            "DROP TABLE commitment_requests; DROP VIEW v_waiting; CREATE VIEW v_waiting AS SELECT 1;"
            "DROP INDEX ix_jobs_discarding;"
            "ALTER TABLE jobs DROP COLUMN awaits; ALTER TABLE jobs DROP COLUMN discarding;"
            "DROP INDEX ix_deliveries_due; DROP INDEX ix_deliveries_under_way;"
            "DROP INDEX ix_jobs_state_state_since;"
            "CREATE INDEX ix_deliveries_state_not_before ON deliveries (state, not_before);"
            "DROP TABLE commitments; DROP INDEX ix_instances_sop_instance_uid;"
            "DROP VIEW v_findings; DROP TABLE findings; DROP TABLE delivery_items; DROP TABLE results;"
            "ALTER TABLE jobs ADD COLUMN result_sha256 VARCHAR(64);"
            "UPDATE jobs SET result_sha256 = 'abc'; UPDATE alembic_version SET version_num = '0001';"
        )
    connection.close()

    migrate(url_in(tmp_path))

    queue = queue_in(tmp_path, clock)
    claim = queue.claim_delivery("worker-1", 60)
    assert claim is not None
    ((item, stored),) = queue.delivery_items(claim[0].id)
    assert (item.sent_at, stored.sha256, stored.sop_instance_uid) == (None, "abc", uid)
    queue.close()
