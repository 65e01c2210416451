"""The only writer of a job's state: every change names the state it comes from and leaves an event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Executable, bindparam, case, select, update
from sqlalchemy.orm import Session

from daemon.errors import IllegalTransition, NoSuchJob, StaleJob
from daemon.job_queue_rows import Base, Job, JobEvent, UtcDateTime
from daemon.jobs import TRANSITIONS, JobState

_NEW_EVENT = Base.metadata.tables[JobEvent.__tablename__].insert()
_TELL_WHY = frozenset({JobState.FAILED, JobState.REJECTED, JobState.HELD, JobState.CANCELLED})
_LEFT_BEHIND: dict[str, object] = {
    **dict.fromkeys(("lease_owner", "lease_expires_at", "not_before", "progress_stage", "progress_fraction")),
    "awaits": None,
    "discarding": False,
}
_NOW = bindparam("now", type_=UtcDateTime())
# The time of a step: a history does not run backwards, though the computer's clock may be set back.
_NOT_BEFORE_THE_LAST = case((Job.state_since > _NOW, Job.state_since), else_=_NOW)
_MOVE = update(Job).values(state_since=_NOT_BEFORE_THE_LAST, **_LEFT_BEHIND).returning(Job)
_TOLD: dict[str, object] = {"reason": bindparam("why"), "reason_code": bindparam("code")}


@dataclass(frozen=True)
class Move:
    """A change of state as a statement that gives the jobs: making it takes longer than carrying it out."""

    origin: JobState
    target: JobState
    statement: Executable


def a_move(which: ColumnElement[bool], origin: JobState, target: JobState, **values: object) -> Move:
    """How every job in `origin` that matches `which` comes to `target`.

    Lease, progress and waiting time end with the state they belong to, unless `values` sets them anew.
    The reason stays with states that need one and on a purged job.

    Raises
    ------
    IllegalTransition
        `target` does not follow `origin`.
    """
    if target not in TRANSITIONS[origin]:
        raise IllegalTransition(f"no job moves from {origin} to {target}; {_possible(origin)}")
    told = {} if target is JobState.PURGED else _TOLD
    statement = _MOVE.where(Job.state == origin, which).values(**{"state": target, **told, **values})
    # Carried out as an update of the ORM's own it would be copied, and looked at as a new one, every time.
    return Move(origin, target, select(Job).from_statement(statement))


def open_job(session: Session, job: Job, detail: str) -> int:
    """Add a job in the state it carries, with its first event."""
    session.add(job)
    session.flush()
    _tell(session, [job], job.created_at, None, detail)
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
) -> Sequence[Job]:
    """Make a move and carry it out; raises as `a_move`."""
    return carry_out(session, now, a_move(which, origin, target, **values), detail, reason_code)


def carry_out(
    session: Session,
    now: datetime,
    made: Move,
    detail: str,
    reason_code: str | None = None,
    **parameters: object,
) -> Sequence[Job]:
    """Move jobs and write their events.

    Parameters
    ----------
    parameters
        Of the move, where it was made before their values were known.

    Returns
    -------
    Sequence of Job
        The jobs that moved, as they are now; empty where none was in its origin.
    """
    why = detail if made.target in _TELL_WHY else None
    moved = session.scalars(
        made.statement,
        {"now": now, "why": why, "code": reason_code, **parameters},
        execution_options={"populate_existing": True},
    ).all()
    _tell(session, moved, None, made.origin, detail, reason_code)
    return moved


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
    _tell(session, [job], max(now, job.state_since), job.state, detail)


def was_told(session: Session, job_id: int, detail: str, since: datetime) -> bool:
    """Whether a job's history has said so since a time."""
    told = (
        select(JobEvent.id)
        .where(JobEvent.job_id == job_id, JobEvent.detail == detail, JobEvent.at >= since)
        .limit(1)
    )
    return session.scalar(told) is not None


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


def _tell(
    session: Session,
    jobs: Sequence[Job],
    at: datetime | None,
    origin: JobState | None,
    detail: str,
    code: str | None = None,
) -> None:
    """Write an event for each job: how it came from `origin` to where it is; without a time, when it did."""
    events = [
        {
            "job_id": job.id,
            "at": at or job.state_since,
            "from_state": origin,
            "to_state": job.state,
            "reason_code": code,
            "detail": detail,
        }
        for job in jobs
    ]
    if events:
        session.connection().execute(_NEW_EVENT, events)
