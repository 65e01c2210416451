"""The views for administrators: every query of the documentation runs and gives the right answer."""

import re
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.job_queue import open_queue
from daemon.job_runner import RunnerReason
from daemon.jobs import QueueReason
from model.errors import ReasonCode
from tests.job_rows import Clock, claimed, fail_next, held, image, queued, received, result, send_next, url_in

ROOT = Path(__file__).parent.parent
QUERIES = [
    pytest.param(query, id=f"{document.name}-{number}")
    for document in (ROOT / "docs" / "database.md", ROOT / "README.md")
    if document.exists()
    for number, query in enumerate(
        re.findall(r"^```sql\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL), 1
    )
]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A day's work; the jobs are numbered in the order they stand here."""
    folder = tmp_path_factory.mktemp("day")
    # Just after midnight the day's work lies a little in the future, so that it stays within one day.
    now = datetime.now(UTC).astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    clock = Clock(max(now - timedelta(minutes=5), midnight))
    queue = open_queue(url_in(folder), clock)
    studies = {"patient_id": "4711", "accession_number": "A-17", "study_description": "RT planning head"}

    # 1: delivered to two destinations
    job = received(queue, "1.1", images=3, **studies)
    queue.set_aside(job, image(1, "1.1", content=b"other"), "0a1b.dcm")
    clock.forward(seconds=100)
    queue.complete(job, "no image for 60 s")
    clock.forward(seconds=20)
    queue.claim("worker-1", 600)
    clock.forward(seconds=65)
    queue.segmented(job, "worker-1", result("TPS", "PACS"))
    send_next(queue)
    clock.forward(seconds=5)
    send_next(queue)
    # 2: rejected
    job = claimed(queue, "1.2", patient_id="4712", calling_ae_title="CT2")
    queue.reject(job, "worker-1", "missing-slice", "gap of 5.0 mm after slice 17; needed: all slices")
    # 3: sent to one destination, given up for the other
    job = claimed(queue, "1.3", patient_id="4713")
    queue.segmented(job, "worker-1", result("TPS", "PACS"))
    fail_next(queue, "connection refused")
    send_next(queue)
    # 4: waits for a destination that is down
    job = claimed(queue, "1.4", patient_id="4714")
    queue.segmented(job, "worker-1", result("TPS"))
    delivery, _job = queue.claim_delivery("worker-1", 60)
    next_try = clock.now + timedelta(minutes=5)
    queue.delivery_again(delivery.id, next_try, "status", 0xA700, "status 0xA700, out of resources")
    # 5: waits for another try, 6: is being segmented,
    # 7: waits for an operator, 8: waits for its turn, 9: is arriving
    job = claimed(queue, "1.5", patient_id="4715")
    queue.requeue(job, "worker-1", next_try, "out of GPU memory")
    job = claimed(queue, "1.6", patient_id="4716")
    queue.renew(job, "worker-1", 60, "predict", 0.4)
    held(queue, "1.7", patient_id="4717")
    queued(queue, "1.8", patient_id="4718")
    received(queue, "1.9", patient_id="4719")
    queue.close()
    with sqlite3.connect(f"file:{folder}/oarlock.db?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        yield connection
    connection.close()


@pytest.mark.parametrize("query", QUERIES)
def test_every_documented_query_answers(database, query):
    assert len(database.execute(query).fetchall()) > 0


def test_the_documentation_asks_every_view():
    asked = " ".join(str(query.values[0]) for query in QUERIES)

    assert {"v_jobs", "v_waiting", "v_failed", "v_deliveries", "v_findings", "v_turnaround"} <= set(
        re.findall(r"v_\w+", asked)
    )


@pytest.mark.parametrize("where", ["patient_id = '4711'", "accession_number = 'A-17'"])
def test_a_study_is_found_by_patient_or_accession(database, where):
    (row,) = database.execute(f"SELECT * FROM v_jobs WHERE {where}").fetchall()  # noqa: S608 -- our own words

    assert (
        row["job"],
        row["state"],
        row["images"],
        row["destinations"],
    ) == (1, "delivered", 3, "TPS sent, PACS sent")
    assert (
        row["structures"],
        row["images_set_aside"],
        row["model"],
        row["patient_name"],
    ) == (1, 1, "unet 1.0", "Test^Phantom")


def test_every_failure_tells_its_reason(database):
    rows = database.execute("SELECT job, state, reason_code, reason FROM v_failed ORDER BY job").fetchall()

    assert [tuple(row) for row in rows] == [
        (2, "rejected", "missing-slice", "gap of 5.0 mm after slice 17; needed: all slices"),
        (3, "failed", "delivery-failed", "TPS: connection refused"),
    ]


def test_everything_unfinished_tells_what_it_waits_for(database):
    rows = database.execute("SELECT job, waits_for, waiting_seconds FROM v_waiting ORDER BY job").fetchall()

    assert [(row["job"], row["waits_for"]) for row in rows] == [
        (4, "TPS: status 0xA700, out of resources"),
        (5, "another try: out of GPU memory"),
        (6, "predict 40 %"),
        (7, "an operator: Eye_L: 31 cm³, expected 6 to 11"),
        (8, "a worker"),
        (9, "more images, or a quiet period"),
    ]
    assert all(-600 < row["waiting_seconds"] < 600 for row in rows)


def test_deliveries_tell_their_last_status_and_next_try(database):
    rows = database.execute(
        "SELECT job, destination, state, last_status, next_try_utc IS NOT NULL FROM v_deliveries ORDER BY 1, 2"
    ).fetchall()

    assert [tuple(row) for row in rows] == [
        (1, "PACS", "sent", "0x0000", 0),
        (1, "TPS", "sent", "0x0000", 0),
        (3, "PACS", "sent", "0x0000", 0),
        (3, "TPS", "failed", None, 0),
        (4, "TPS", "pending", "0xA700", 1),
        (7, "TPS", "pending", None, 0),
    ]


def test_turnaround_is_split_into_its_stages(database):
    (row,) = database.execute("SELECT * FROM v_turnaround").fetchall()

    assert (
        row["job"],
        row["receiving_seconds"],
        row["queued_seconds"],
        row["segmenting_seconds"],
        row["delivering_seconds"],
        row["total_seconds"],
    ) == (1, 100.0, 20.0, 65.0, 5.0, 190.0)
    assert row["segmenting_stages"] == "read 2.5, predict 30.0"


def test_time_that_a_job_waits_for_an_operator_is_in_no_part_of_its_turnaround(tmp_path):
    clock = Clock()
    queue = open_queue(url_in(tmp_path), clock)
    # 1: all attempts fail, and it is retried hours later; 2: images stay missing, retried; 3: held, and released
    job = claimed(queue, "1.1")
    queue.fail(job, "worker-1", "output-rejected", "trouble")
    incomplete = received(queue, "1.2")
    clock.forward(seconds=60)
    queue.images_missing(incomplete, "2 of 4 images")
    waits = held(queue, "1.3")
    clock.forward(hours=5)
    for retried in (job, incomplete):
        queue.retry(retried)
        clock.forward(seconds=2)
        assert queue.claim("worker-1", 60).id == retried
        clock.forward(seconds=20)
        queue.segmented(retried, "worker-1", result("TPS"))
        clock.forward(seconds=3)
        send_next(queue)
    queue.release(waits, "released")
    clock.forward(seconds=4)
    send_next(queue)
    queue.close()

    with sqlite3.connect(tmp_path / "oarlock.db") as table:
        rows = table.execute(
            "SELECT job, receiving_seconds, queued_seconds, segmenting_seconds, delivering_seconds "
            "FROM v_turnaround ORDER BY job"
        ).fetchall()
    table.close()

    assert rows == [(1, 0.0, 2.0, 20.0, 3.0), (2, 60.0, 2.0, 20.0, 3.0), (3, 0.0, 0.0, 0.0, 4.0)]


def test_deliveries_that_nobody_wants_are_told_from_those_in_trouble(database):
    rows = database.execute(
        "SELECT job, job_state FROM v_deliveries WHERE state <> 'sent' ORDER BY job"
    ).fetchall()

    assert [tuple(row) for row in rows] == [(3, "failed"), (4, "segmented"), (7, "held")]


def test_the_documentation_names_every_table_and_state(database):
    text = (ROOT / "docs" / "database.md").read_text()
    tables = [
        name
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not name.startswith("sqlite_")
    ]

    assert all(f"| `{name}` |" in text for name in tables)


@pytest.mark.parametrize("code", [*ReasonCode, *QueueReason, *RunnerReason])
def test_every_reason_code_stands_in_the_document(code):
    assert f"`{code}`" in (ROOT / "docs" / "database.md").read_text()
