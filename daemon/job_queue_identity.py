"""Forgets whose job it was: names and numbers of the patient leave the rows, the history stays."""

from datetime import datetime

from sqlalchemy import ColumnElement, or_, update
from sqlalchemy.orm import Session

from daemon.job_queue_rows import Job
from daemon.job_queue_state import get, move, remark
from daemon.jobs import JobState

NOBODY: dict[str, str | None] = {
    "patient_name": None,
    "patient_id": "",
    "accession_number": "",
    "study_date": "",
    "study_description": "",
    "series_description": "",
}
"""What a row holds of a patient; descriptions are free text, in which some sites write names."""


def forget(session: Session, now: datetime, job_id: int, detail: str) -> None:
    """Take the patient out of a finished job's row, which is purged with it; raises IllegalTransition."""
    job = get(session, job_id)
    if job.state is JobState.PURGED:
        _blank(session, Job.id == job_id)
        remark(session, now, job_id, detail)
    else:
        move(session, now, Job.id == job_id, job.state, JobState.PURGED, detail=detail, **NOBODY)


def forget_aged(session: Session, before: datetime) -> int:
    """Take the patients out of purged jobs that were opened before a time; returns how many those were."""
    known = or_(*(getattr(Job, name).is_distinct_from(blank) for name, blank in NOBODY.items()))
    return _blank(session, (Job.state == JobState.PURGED) & (Job.created_at < before) & known)


def _blank(session: Session, which: ColumnElement[bool]) -> int:
    changed = update(Job).where(which).values(NOBODY).returning(Job.id)
    return len(session.scalars(changed, execution_options={"synchronize_session": False}).all())
