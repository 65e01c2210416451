"""What an operator decides about a job: start it again, stop it, let held results go or refuse them."""

from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from daemon import job_queue_deliveries as delivering
from daemon.errors import IllegalTransition
from daemon.job_queue_rows import Job, JobEvent, Result
from daemon.job_queue_series import is_needed
from daemon.job_queue_state import get, move, refusal, remark
from daemon.jobs import SETTLED, TRANSITIONS, JobState, QueueReason

_CONTOURED_OR_STOPPED = SETTLED | {JobState.SEGMENTED, JobState.HELD, JobState.CANCELLED}
"""States in which a later revision asks for no images of the earlier ones."""


def retry(session: Session, now: datetime, job_id: int, by: str) -> JobState:
    """Start a job again where its work stopped; what no operator has released is held again."""
    job = get(session, job_id)
    if job.state not in {JobState.FAILED, JobState.REJECTED, JobState.CANCELLED}:
        raise refusal(job, "retried")
    has_results = _has_results(session, job_id)
    unsent = delivering.ask_again(session, now, job_id) if has_results else []
    if has_results and not unsent:
        raise IllegalTransition(
            f"job {job_id} is {job.state}, but its destinations had stored everything before: nothing is left to "
            "send; for new contours send the series again"
        )
    doubt = _unresolved_doubt(session, job_id) if unsent else None
    if doubt:
        remark(session, now, job_id, f"retried by {by}")
        target, code, detail = JobState.HELD, QueueReason.DOUBTFUL, doubt
    else:
        target, code = JobState.SEGMENTED if unsent else JobState.QUEUED, None
        detail = f"retried by {by}: {', '.join(unsent) or 'segmentation'}"
    _move(session, now, job, target, detail, code, attempts=0)
    return target


def send_again(session: Session, now: datetime, job_id: int, destination: str | None, detail: str) -> None:
    """Have a delivered job's results delivered once more, to one destination or to all."""
    job = get(session, job_id)
    if job.state is not JobState.DELIVERED:
        raise refusal(job, "sent again")
    wanted = delivering.once_more(session, now, job_id, destination)
    if not wanted:
        raise IllegalTransition(f"job {job_id} was not sent to {destination}; see `oarlock show {job_id}`")
    _move(session, now, job, JobState.SEGMENTED, f"{detail}: {', '.join(wanted)}")


def cancel(session: Session, now: datetime, job_id: int, detail: str) -> JobState:
    """Stop an unfinished job and what it still had to send; not one whose images a later revision waits for.

    A job that was delivered and is being sent once more is delivered again: its destinations have stored it.
    """
    job = get(session, job_id)
    delivered_at = _delivered_at(session, job) if JobState.DELIVERED in TRANSITIONS[job.state] else None
    if delivered_at is not None:
        delivering.call_off(session, job_id, delivered_at)
        _move(session, now, job, JobState.DELIVERED, f"{detail}; it was delivered before")
        return JobState.DELIVERED
    if JobState.CANCELLED not in TRANSITIONS[job.state]:
        raise refusal(job, "cancelled")
    needed = select(Job.id).where(Job.id == job_id, is_needed(_CONTOURED_OR_STOPPED))
    if session.scalar(needed) is not None:
        raise IllegalTransition(
            f"job {job_id} cannot be cancelled: a later revision of its series is contoured with its images too; "
            "cancel that first, or wait for its end"
        )
    _move(session, now, job, JobState.CANCELLED, detail, discarding=job.state is JobState.RECEIVING)
    delivering.cancel(session, now, job_id)
    return JobState.CANCELLED


def release(session: Session, now: datetime, job_id: int, detail: str) -> None:
    """Let a held job's results go to their destinations."""
    _move(session, now, _held(session, job_id, "released"), JobState.SEGMENTED, detail)
    delivering.start_ageing(session, now, job_id)


def refuse(session: Session, now: datetime, job_id: int, detail: str) -> None:
    """Refuse a held job's results: nothing of it is sent."""
    job, code = _held(session, job_id, "rejected"), QueueReason.REFUSED_BY_OPERATOR
    _move(session, now, job, JobState.REJECTED, detail, code)
    delivering.cancel(session, now, job_id)


def _held(session: Session, job_id: int, wish: str) -> Job:
    job = get(session, job_id)
    if job.state is not JobState.HELD:
        raise refusal(job, wish)
    return job


def _move(
    session: Session,
    now: datetime,
    job: Job,
    target: JobState,
    detail: str,
    code: QueueReason | None = None,
    **values: object,
) -> None:
    move(session, now, Job.id == job.id, job.state, target, detail=detail, reason_code=code, **values)


def _delivered_at(session: Session, job: Job) -> datetime | None:
    """When every destination had stored a job's results the last time."""
    return session.scalar(
        select(func.max(JobEvent.at)).where(
            JobEvent.job_id == job.id,
            JobEvent.to_state == JobState.DELIVERED,
            JobEvent.detail.startswith(delivering.STORED_BY),  # else it was delivered before
        )
    )


def _has_results(session: Session, job_id: int) -> bool:
    return session.scalar(select(exists().where(Result.job_id == job_id))) is True


def _unresolved_doubt(session: Session, job_id: int) -> str | None:
    """Why the job was held, where nobody has released it since; None where it may be sent."""
    last = session.scalar(
        select(JobEvent)
        .where(
            JobEvent.job_id == job_id,
            (JobEvent.to_state == JobState.HELD) | (JobEvent.to_state == JobState.SEGMENTED),
            JobEvent.from_state.is_distinct_from(JobEvent.to_state),
        )
        .order_by(JobEvent.id.desc())
        .limit(1)
    )
    return last.detail if last is not None and last.to_state is JobState.HELD else None
