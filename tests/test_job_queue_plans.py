"""Every statement that runs often finds its rows by an index, however many rows there are."""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from daemon.job_queue import JobQueue
from daemon.jobs import JobState
from tests.job_rows import NOON, delivered, image, queue_in, queued, received, segmented

Statement = tuple[str, Any]


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[JobQueue]:
    """A job in every state of a day."""
    queue = queue_in(tmp_path)
    delivered(queue, "1.1")
    segmented(queue, "TPS", "PACS", series="1.2")
    segmented(queue, "TPS", series="1.3")
    queued(queue, "1.4")
    received(queue, "1.5")
    yield queue
    queue.close()


@contextmanager
def statements_of(queue: JobQueue) -> Iterator[list[Statement]]:
    """All that is executed meanwhile, with its parameters."""
    seen: list[Statement] = []

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "COMMIT", "PRAGMA")):
            seen.append((statement, parameters))

    def overhear(database: sqlite3.Connection) -> None:
        """Hear what does not go through SQLAlchemy, its parameters written out."""
        database.set_trace_callback(lambda statement: hear(None, None, statement.strip(), ()))

    queue._shared.read(overhear)
    queue._shared.write(overhear)
    seen.clear()
    event.listen(queue._engine, "before_cursor_execute", hear)
    yield seen
    event.remove(queue._engine, "before_cursor_execute", hear)


def plan(file: Path, statement: str, parameters: Any = ()) -> list[str]:
    """How SQLite would find the rows."""
    connection = sqlite3.connect(file)
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    finally:
        connection.close()


def scans(steps: list[str]) -> list[str]:
    """Steps that read a whole table, by an index or without; not what a part of the statement has found."""
    return [step for step in steps if re.match(r"SCAN (?!CONSTANT ROW|\(subquery|entered)", step)]


CALLS: dict[str, Callable[[JobQueue], object]] = {
    "place": lambda queue: queue.place("1.1", "1.1.1", "CT1", "OARLOCK"),
    "job_for_instance": lambda queue: queue.job_for_instance(image(3, "1.5")),
    "job_for_instance, a new series": lambda queue: queue.job_for_instance(image(1, "1.9")),
    "job_for_instance, back to receiving": lambda queue: queue.job_for_instance(image(3, "1.4")),
    "add_instance": lambda queue: queue.add_instance(5, image(3, "1.5")),
    "set_aside": lambda queue: queue.set_aside(5, image(1, "1.5"), "x.dcm"),
    "receiving_jobs": JobQueue.receiving_jobs,
    "complete": lambda queue: queue.complete(5, "quiet"),
    "claim": lambda queue: queue.claim("worker-1", 60),
    "release_expired": JobQueue.release_expired,
    "images": lambda queue: queue.images(4),
    "claim_delivery": lambda queue: queue.claim_delivery("worker-1", 60),
    "postpone_destination": lambda queue: queue.postpone_destination("TPS", NOON),
    "delivery_sent": lambda queue: queue.delivery_sent(2, 0),
    "delivery_items": lambda queue: queue.delivery_items(2),
    "claim_commitment": lambda queue: queue.claim_commitment(NOON),
    "find_instances": lambda queue: queue.find_instances("1.1.1"),
    "purgeable": lambda queue: queue.purgeable(NOON + timedelta(days=1), [JobState.DELIVERED]),
    "purged": lambda queue: queue.purged(
        queue.purgeable(NOON + timedelta(days=1), [JobState.DELIVERED])[0], "files removed"
    ),
    "is_purged": lambda queue: queue.is_purged(1),
    "jobs in a state": lambda queue: queue.jobs(JobState.FAILED),
    "audit_trail": lambda queue: list(queue.audit_trail(NOON, NOON + timedelta(days=1))),
    "events": lambda queue: queue.events(1),
    "structures": lambda queue: queue.structures(1),
    "stage_times": lambda queue: queue.stage_times(1),
    "findings": lambda queue: queue.findings(1),
    "results": lambda queue: queue.results(1),
    "deliveries": lambda queue: queue.deliveries(1),
    "instances": lambda queue: queue.instances(1),
}


@pytest.mark.parametrize("call", CALLS)
def test_no_statement_of_a_call_that_is_made_often_reads_a_whole_table(
    call: str, queue: JobQueue, tmp_path: Path
) -> None:
    with statements_of(queue) as seen:
        CALLS[call](queue)

    assert seen
    for statement, parameters in seen:
        assert not scans(plan(tmp_path / "oarlock.db", statement, parameters)), statement


def test_the_newest_jobs_are_read_without_sorting_or_reading_the_others(
    queue: JobQueue, tmp_path: Path
) -> None:
    """`oarlock jobs` goes backwards through the table and stops."""
    with statements_of(queue) as seen:
        queue.jobs(limit=100)

    ((statement, parameters),) = seen
    steps = plan(tmp_path / "oarlock.db", statement, parameters)
    assert steps == ["SCAN jobs"], steps  # no "USE TEMP B-TREE FOR ORDER BY"
    assert "LIMIT" in statement


@pytest.mark.usefixtures("queue")
def test_the_newest_turnarounds_are_told_without_grouping_or_sorting_all_others(tmp_path: Path) -> None:
    """The view goes backwards through the jobs, looks up the moments of each, and stops."""
    steps = plan(
        tmp_path / "oarlock.db", "SELECT job, total_seconds FROM v_turnaround ORDER BY job DESC LIMIT 20"
    )
    moments = [step for step in steps if "job_events" in step]

    assert scans(steps) == ["SCAN jobs"]
    assert moments
    assert all(step.startswith("SEARCH job_events USING COVERING INDEX") for step in moments)
    assert not any("MATERIALIZE" in step or "GROUP BY" in step for step in steps)
    assert "USE TEMP B-TREE FOR ORDER BY" not in steps


def test_a_claimed_delivery_does_not_compare_every_pending_one_with_every_other(
    queue: JobQueue, tmp_path: Path
) -> None:
    """Whether a destination is busy is looked up by its name and lease, for each delivery that waits."""
    with statements_of(queue) as seen:
        queue.claim_delivery("worker-1", 60)

    steps = plan(tmp_path / "oarlock.db", *seen[0])
    assert any("(destination=? AND lease_expires_at>?)" in step for step in steps), steps
    assert not any("TEMP B-TREE" in step for step in steps), steps


VIEWS = {
    "v_jobs of a patient": "SELECT * FROM v_jobs WHERE patient_id = '4711'",
    "v_jobs of an accession number": "SELECT * FROM v_jobs WHERE accession_number = 'A-17'",
    "v_jobs by number": "SELECT * FROM v_jobs WHERE job = 7",
    "v_jobs in a state": "SELECT * FROM v_jobs WHERE state = 'segmented'",
    "v_waiting": "SELECT * FROM v_waiting",
    "v_failed": "SELECT * FROM v_failed",
    "v_deliveries of a job": "SELECT * FROM v_deliveries WHERE job = 7",
    "v_turnaround of a job": "SELECT * FROM v_turnaround WHERE job = 7",
}


@pytest.mark.parametrize("view", VIEWS)
def test_an_administrators_usual_question_reads_no_whole_table(
    view: str, queue: JobQueue, tmp_path: Path
) -> None:
    del queue

    assert not scans(plan(tmp_path / "oarlock.db", VIEWS[view]))
