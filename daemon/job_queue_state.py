"""The only writer of a job's state: every change names the state it comes from and leaves an event."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, case, update
from sqlalchemy.orm import Session

from daemon.errors import IllegalTransition, NoSuchJob, StaleJob
from daemon.job_queue_rows import Job, JobEvent
from daemon.jobs import TRANSITIONS, JobState

_TELL_WHY = frozenset({JobState.FAILED, JobState.REJECTED, JobState.HELD, JobState.CANCELLED})
_LEFT_BEHIND: dict[str, object] = {
    **dict.fromkeys(("lease_owner", "lease_expires_at", "not_before", "progress_stage", "progress_fraction")),
    "awaits": None,
    "discarding": False,
}


def open_job(session: Session, job: Job, detail: str) -> int:
    """Add a job in the state it carries, with its first event."""
    session.add(job)
    session.flush()
    session.add(_event(job.id, job.created_at, None, job.state, None, detail))
    return job.id


def move(
    session: Session,
    now: datetime,
    which: ColumnElement[bool],
    origin: JobState,
    target: JobState,
    *,
    detail: str,
    reason_code: str | None = None,
    **values: object,
) -> Sequence[int]:
    """Move every job in `origin` that matches `which` to `target`, in one statement.

    Lease, progress and waiting time end with the state they belong to, unless `values` sets them anew.
    The reason stays with states that need one and on a purged job.

    Returns
    -------
    Sequence of int
        The jobs that moved; empty where none was in `origin`.

    Raises
    ------
    IllegalTransition
        `target` does not follow `origin`.
    """
    if target not in TRANSITIONS[origin]:
        raise IllegalTransition(f"no job moves from {origin} to {target}; {_possible(origin)}")
    if target is not JobState.PURGED:
        values.setdefault("reason", detail if target in _TELL_WHY else None)
        values.setdefault("reason_code", reason_code)
    moved = session.execute(
        update(Job)
        .where(Job.state == origin, which)
        .values(state=target, state_since=_not_before_the_last(now), **(_LEFT_BEHIND | values))
        .returning(Job.id, Job.state_since),
        execution_options={"synchronize_session": False},
    ).all()
    session.add_all(_event(job_id, since, origin, target, reason_code, detail) for job_id, since in moved)
    return [job_id for job_id, _ in moved]


def _not_before_the_last(now: datetime) -> ColumnElement[datetime]:
    """The time of a step: a history does not run backwards, though the computer's clock may be set back."""
    return case((Job.state_since > now, Job.state_since), else_=now)


def move_held(
    session: Session,
    now: datetime,
    job_id: int,
    owner: str,
    target: JobState,
    *,
    detail: str,
    reason_code: str | None = None,
    **values: object,
) -> None:
    """Move a job that `owner` is segmenting.

    Raises
    ------
    StaleJob
        The job is cancelled, or its lease went to somebody else.
    """
    which = (Job.id == job_id) & (Job.lease_owner == owner)
    origin = JobState.SEGMENTING
    if not move(session, now, which, origin, target, detail=detail, reason_code=reason_code, **values):
        raise stale(session, job_id, owner)


def remark(session: Session, now: datetime, job_id: int, detail: str) -> None:
    """Write an event that changes nothing."""
    job = get(session, job_id)
    session.add(_event(job_id, max(now, job.state_since), job.state, job.state, None, detail))


def get(session: Session, job_id: int) -> Job:
    """Row of a job; raises NoSuchJob."""
    job = session.get(Job, job_id, populate_existing=True)
    if job is None:
        raise NoSuchJob(job_id)
    return job


def stale(session: Session, job_id: int, owner: str) -> StaleJob:
    """Error for a job that is no longer the owner's."""
    job = get(session, job_id)
    return StaleJob(
        f"job {job_id} is no longer held by {owner}: it is {job.state}, held by {job.lease_owner}"
    )


def refusal(job: Job, wish: str) -> IllegalTransition:
    """Error for an operator's wish that the job's state does not allow."""
    return IllegalTransition(f"job {job.id} is {job.state} and cannot be {wish}; {_possible(job.state)}")


def _possible(origin: JobState) -> str:
    followers = sorted(TRANSITIONS[origin])
    return f"from {origin} it may become {', '.join(followers)}" if followers else f"{origin} is the end"


def _event(
    job_id: int, at: datetime, origin: JobState | None, target: JobState, code: str | None, detail: str
) -> JobEvent:
    return JobEvent(job_id=job_id, at=at, from_state=origin, to_state=target, reason_code=code, detail=detail)
