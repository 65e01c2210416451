"""A patient can be forgotten: on request at once, and by age in rows whose files are long gone."""

import io
import json

import pytest

from daemon.jobs import JobState
from daemon.retention import forget_old, purge_old
from tests.command import Oarlock, write_config
from tests.instances import ct_instance
from tests.job_rows import claimed, delivered, held, image, queued
from tests.stored import store_image

WHO = {
    "patient_name": "Erasmus^Quillfeather",
    "patient_id": "ID-90125",
    "accession_number": "ACC-7731",
    "study_date": "20260301",
    "study_description": "Quillfeather H+N",
    "series_description": "planning Quillfeather",
}
TRACES = (b"Quillfeather", b"ID-90125", b"ACC-7731")


@pytest.fixture
def oarlock(tmp_path, capsys, monkeypatch):
    write_config(tmp_path)
    monkeypatch.setenv("SUDO_USER", "ada")
    return Oarlock(tmp_path / "oarlock.toml", capsys, monkeypatch)


def rejected(queue, series="1.2.3"):
    job = claimed(queue, series, **WHO)
    queue.reject(job, "worker-1", "not-ct", "MR")
    return job


def traces(folder):
    """Which of the patient's data stand in any file of the folder, the journal of the job table included."""
    content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    return {trace for trace in TRACES if trace in content}


def test_an_erased_patient_is_in_no_file_and_the_history_stays(oarlock, queue, spool, tmp_path):
    job = delivered(queue, **WHO)
    store_image(spool, job, "1.2.3.1", b"Quillfeather")
    assert traces(tmp_path) == set(TRACES)

    answer = oarlock("erase", job, "--yes")

    assert (answer.code, answer.out.splitlines()[-1]) == (0, f"job {job} is erased")
    assert traces(tmp_path) == set()
    assert queue.job(job).state is JobState.PURGED
    history = [(event.to_state, event.detail) for event in queue.events(job)]
    assert history[-1] == (JobState.PURGED, "erased by ada: files and identifiers")
    assert {state for state, _ in history} >= {JobState.RECEIVING, JobState.SEGMENTED, JobState.DELIVERED}


def test_all_jobs_of_a_patient_are_erased_and_nobody_elses(oarlock, queue, tmp_path):
    first, second = (delivered(queue, series=series, **WHO) for series in ("1.1", "1.2"))
    other = delivered(queue, series="1.3")

    assert oarlock("erase", "--patient", "ID-90125", "--yes").code == 0

    assert [queue.job(job).patient_id for job in (first, second, other)] == ["", "", "4711"]
    assert traces(tmp_path) == set()
    assert oarlock("erase", "--patient", "ID-90125", "--yes").code == 2


@pytest.mark.parametrize("how", ["among those of another patient", "in a job that nobody read", "set aside"])
def test_images_of_the_patient_in_jobs_of_another_are_found_and_erased(oarlock, queue, spool, how):
    """A job's row names the patient of its first image alone."""
    job = claimed(queue, patient_id="4711")
    if how == "in a job that nobody read":
        queue.cancel(job, "as it is")
    else:
        queue.reject(job, "worker-1", "not-ct" if how == "set aside" else "mixed-patient", "as it is")
    arrival = spool.arrive()
    arrival.write(ct_instance("1.2.3", 7, PatientID="ID-90125").file_bytes)
    if how == "set aside":
        name = spool.set_aside_arrival(job, arrival)
        queue.set_aside(job, image(1), name)
    else:
        spool.store_arrival(job, "1.2.3.7", arrival)

    assert oarlock("erase", "--patient", "ID-90125", "--yes").code == 0

    assert spool.instance_paths(job) + spool.set_aside_paths(job) == []
    assert queue.job(job).state is JobState.PURGED


def test_what_nobody_claims_is_not_searched_and_that_is_said(oarlock, queue, spool):
    job = delivered(queue, **WHO)
    store_image(spool, 77, "1.2.9", b"Quillfeather, of another table")
    spool.reconcile(queue.instance_uids)

    assert "unclaimed was not searched" in oarlock("erase", job, "--yes").err


def test_erasing_asks_first(oarlock, queue, monkeypatch):
    job = delivered(queue, **WHO)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    assert oarlock("erase", job).code == 1
    assert queue.job(job).patient_id == "ID-90125"


def test_what_is_unfinished_is_cancelled_before_it_is_erased(oarlock, queue):
    job = queued(queue, **WHO)

    refused = oarlock("erase", job, "--yes")
    assert refused.code == 1
    assert "cancel what is unfinished first" in refused.err
    assert queue.job(job).patient_id == "ID-90125"

    oarlock("cancel", job)
    assert oarlock("erase", job, "--yes").code == 0
    assert queue.job(job).patient_id == ""


def test_images_that_a_later_revision_needs_are_not_erased_under_it(oarlock, queue):
    first = rejected(queue)
    queue.job_for_instance(image(3, **WHO))

    assert oarlock("erase", first, "--yes").code == 1
    assert queue.job(first).patient_id == "ID-90125"


def test_a_revision_is_erased_after_those_that_would_be_contoured_with_its_images(oarlock, queue):
    """A retry of the later one would find a part of the series."""
    first = delivered(queue, **WHO)
    second = queue.job_for_instance(image(3, **WHO))
    queue.add_instance(second, image(3, **WHO))
    queue.complete(second, "all there")
    queue.cancel(second, "not wanted")

    assert oarlock("erase", first, "--yes").code == 1
    assert queue.job(first).patient_id == "ID-90125"
    assert oarlock("erase", "--patient", "ID-90125", "--yes").code == 0
    assert {queue.job(job).state for job in (first, second)} == {JobState.PURGED}


def test_a_purged_job_forgets_its_patient_after_a_year_and_not_before(queue, spool, clock):
    job = delivered(queue, **WHO)
    kept = delivered(queue, series="1.9", **WHO)
    queue.retry(rejected(queue, "1.8"))
    purge_old(queue, spool, clock.forward(days=31), 30)
    assert queue.job(job).patient_id == "ID-90125"

    assert forget_old(queue, clock.forward(days=333), 365) == 0
    assert forget_old(queue, clock.forward(days=2), 365) == 2
    assert forget_old(queue, clock.now, 365) == 0

    assert [queue.job(each).patient_id for each in (job, kept)] == ["", ""]
    assert queue.job(job).study_description == ""
    assert queue.jobs_of_patient("ID-90125")[0].state is JobState.QUEUED


def test_the_audit_trail_of_an_erased_job_names_nobody(oarlock, queue):
    job = delivered(queue, **WHO)
    oarlock("erase", job, "--yes")

    rows = json.loads(oarlock("export", "--since", "2020-01-01", "--json").out)

    assert {row["job"] for row in rows} == {job}
    assert not any(trace.decode() in json.dumps(rows) for trace in TRACES)


@pytest.mark.parametrize("told", ["because Quillfeather moved", "it is ID-90125 again", "born 19620714"])
def test_what_an_operator_writes_into_the_history_names_nobody(oarlock, queue, told):
    job = held(queue, **WHO)
    assert oarlock("reject", job, "--because", told).code == 0

    detail = queue.events(job)[-1].detail
    assert "[withheld]" in detail
    assert not any(word in detail for word in ("Quillfeather", "ID-90125", "19620714"))
