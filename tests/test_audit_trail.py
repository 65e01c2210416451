"""The audit trail leaves the job table as a file: everything, in order, and harmless to a spreadsheet."""

import csv
import io
import json
import stat

from daemon.audit_trail import write_csv, write_json
from tests.command import Oarlock, write_config
from tests.job_rows import NOON, delivered, fail_next, held, received, segmented, send_next


def test_every_event_of_the_period_is_a_line_with_what_identifies_its_job(queue, clock):
    delivered(queue, patient_id="4711")
    tomorrow = clock.forward(days=1)
    received(queue, "1.9")
    file = io.StringIO()

    write_csv(queue.audit_trail(NOON, tomorrow), file)

    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [row["to_state"] for row in rows] == [
        "receiving", "queued", "segmenting", "segmented", "delivered",
    ]  # fmt: skip
    assert {(row["job"], row["patient_id"], row["model"]) for row in rows} == {("1", "4711", "unet 1.0")}
    assert {row["at"] for row in rows} == {"2026-03-02T12:00:00+00:00"}


def test_json_has_the_same_rows(queue, clock):
    delivered(queue)
    end, file = clock.forward(days=1), io.StringIO()

    write_json(queue.audit_trail(NOON, end), file)

    assert [row["to_state"] for row in json.loads(file.getvalue())][-1] == "delivered"


def test_the_trail_tells_when_each_destination_had_it_and_who_decided_what(queue, clock):
    job = segmented(queue, "TPS", "PACS")
    send_next(queue)
    clock.forward(minutes=1)
    fail_next(queue)
    queue.retry(job, "a physicist")
    clock.forward(minutes=1)
    delivery, _ = queue.claim_delivery("worker-1", 60)
    queue.delivery_sent(delivery.id, 0xB000, "warning 0xB000: stored, with some elements changed")
    queue.release(other := held(queue, "1.9"), "released by a physicist: looked at every slice")
    trail = [(row.at - NOON, row.detail) for row in queue.audit_trail(NOON, clock.forward(days=1))]

    told = [(at.total_seconds() / 60, detail) for at, detail in trail]
    assert (0, "TPS: stored") in told
    assert (1, "PACS: connection refused; given up") in told
    assert (1, "retried by a physicist: PACS") in told
    assert (2, "PACS: warning 0xB000: stored, with some elements changed") in told
    assert (2, "stored by TPS, PACS") in told
    assert (2, "released by a physicist: looked at every slice") in told
    assert other != job


def test_nothing_happened_is_an_empty_list(queue):
    file = io.StringIO()
    write_json(queue.audit_trail(NOON, NOON), file)
    assert json.loads(file.getvalue()) == []


def test_a_patients_data_cannot_become_a_formula(queue, clock):
    received(queue, patient_id='=HYPERLINK("http://evil")')
    file = io.StringIO()

    write_csv(queue.audit_trail(NOON, clock.forward(days=1)), file)

    (row,) = csv.DictReader(io.StringIO(file.getvalue()))
    assert row["patient_id"] == '\'=HYPERLINK("http://evil")'


def test_the_file_is_its_owners_alone_and_never_overwritten(tmp_path, queue, capsys, monkeypatch):
    write_config(tmp_path)
    received(queue)
    oarlock = Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)
    target = tmp_path / "trail.csv"

    done = oarlock("export", "--since", "2026-03-01", "--until", "2026-03-04", "--output", target)

    assert done.code == 0
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert len(target.read_text().splitlines()) == 2
    assert oarlock("export", "--since", "2026-03-01", "--output", target).code == 2
