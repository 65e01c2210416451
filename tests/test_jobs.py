"""The states of a job and the moves between them."""

from datetime import datetime

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from daemon.job_queue_rows import Base, Job
from daemon.jobs import FINISHED, TRANSITIONS, JobState
from tests.job_rows import NOON

ALLOWED = {
    "receiving": "queued rejected cancelled",
    "queued": "receiving segmenting cancelled",
    "segmenting": "segmented queued rejected held failed cancelled",
    "segmented": "delivered failed cancelled",
    "held": "segmented rejected cancelled",
    "delivered": "segmented purged",
    "rejected": "queued held purged",
    "failed": "queued segmented cancelled delivered purged",
    "cancelled": "queued held segmented purged",
    "purged": "",
}


def job_row(**values: object) -> Job:
    row: dict[str, object] = {
        "state": JobState.RECEIVING,
        "revision": 1,
        "calling_ae_title": "CT1",
        "called_ae_title": "OARLOCK",
        "study_instance_uid": "1.2",
        "series_instance_uid": "1.2.3",
        "patient_id": "",
        "accession_number": "",
        "study_date": "",
        "study_description": "",
        "series_description": "",
        "created_at": NOON,
        "last_instance_at": NOON,
        "state_since": NOON,
        "result_sop_instance_uid": "2.25.1",
        "result_series_instance_uid": "2.25.2",
    }
    return Job(**row | values)


@pytest.fixture
def session():
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session
    engine.dispose()


@pytest.mark.parametrize("origin", JobState)
def test_a_state_moves_exactly_where_the_design_says(origin):
    assert set(ALLOWED[origin].split()) == TRANSITIONS[origin]


def test_every_state_can_be_reached_and_left_for_good():
    reached = {JobState.RECEIVING}.union(*TRANSITIONS.values())

    assert set(JobState) == reached
    assert all(JobState.PURGED in TRANSITIONS[state] for state in FINISHED)


@pytest.mark.parametrize(
    "values",
    [
        {"state": JobState.SEGMENTING},
        {"lease_owner": "worker-1", "lease_expires_at": NOON},
        {"state": JobState.SEGMENTING, "lease_owner": "worker-1"},
        {"state": JobState.FAILED},
        {"progress_fraction": 1.5},
    ],
    ids=["segmenting unleased", "lease unsegmenting", "lease without end", "failed without reason", "150 %"],
)
def test_the_database_refuses_a_row_that_contradicts_itself(session, values):
    session.add(job_row(**values))

    with pytest.raises(IntegrityError):
        session.flush()


def test_the_database_refuses_a_state_that_does_not_exist(session):
    session.add(job_row())
    session.flush()

    with pytest.raises(IntegrityError):
        session.execute(text("UPDATE jobs SET state = 'lost'"))


def test_the_database_refuses_two_receiving_jobs_of_one_series_and_sender(session):
    session.add(job_row())
    session.flush()
    session.add(job_row(revision=2))

    with pytest.raises(IntegrityError):
        session.flush()


def test_a_job_number_is_never_used_again(session):
    session.add(job_row())
    session.commit()
    session.execute(text("DELETE FROM jobs"))
    session.add(again := job_row())
    session.flush()

    assert again.id == 2


def test_a_time_without_zone_is_refused(session):
    session.add(job_row(created_at=datetime(2026, 3, 2)))  # noqa: DTZ001 -- that is the case

    with pytest.raises(Exception, match="without zone"):
        session.flush()
