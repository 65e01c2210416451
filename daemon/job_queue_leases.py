"""Work on a job under a lease: claiming, renewing, taking back, and the rows a finished one leaves."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, bindparam, case, or_, select, update
from sqlalchemy.orm import Session, aliased

from daemon.job_queue_rows import (
    Base,
    Delivery,
    DeliveryItem,
    Finding,
    Job,
    Result,
    StageTime,
    StructureRow,
    UtcDateTime,
)
from daemon.job_queue_state import a_move, carry_out, move, move_held, remark, stale
from daemon.job_queue_values import SegmentedResult, StoredObject
from daemon.jobs import MAX_ATTEMPTS, DeliveryState, JobState, QueueReason

_WAITING = aliased(Job)
_OLDEST_DUE = (
    select(_WAITING.id)
    .where(
        _WAITING.state == JobState.QUEUED,
        or_(_WAITING.not_before.is_(None), _WAITING.not_before <= bindparam("due", type_=UtcDateTime())),
    )
    .order_by(_WAITING.id)
    .limit(1)
    .scalar_subquery()
)
_IS_FIRST = Job.attempts == 0
_CLAIM = a_move(
    Job.id == _OLDEST_DUE,
    JobState.QUEUED,
    JobState.SEGMENTING,
    lease_owner=bindparam("owner"),
    lease_expires_at=bindparam("until", type_=UtcDateTime()),
    attempts=Job.attempts + 1,
    result_sop_instance_uid=case((_IS_FIRST, bindparam("instance")), else_=Job.result_sop_instance_uid),
    result_series_instance_uid=case((_IS_FIRST, bindparam("series")), else_=Job.result_series_instance_uid),
)


def claim(
    session: Session, now: datetime, owner: str, lease_seconds: float, new_uid: Callable[[], str]
) -> Job | None:
    """Lease the oldest queued job that is due, in one statement that counts the attempt.

    The first attempt gets UIDs of its own, which every later one keeps. Those that the job was opened with may
    stand in an older copy of the table too: put back, it would send another object under the UID of the one sent.
    """
    claimed = carry_out(
        session,
        now,
        _CLAIM,
        f"claimed by {owner}",
        due=now,
        owner=owner,
        until=now + timedelta(seconds=lease_seconds),
        instance=new_uid(),
        series=new_uid(),
    )
    return claimed[0] if claimed else None


def renew(
    session: Session,
    now: datetime,
    job_id: int,
    owner: str,
    lease_seconds: float,
    stage: str,
    fraction: float,
) -> None:
    """Prolong a lease and show the progress; raises StaleJob."""
    renewed = session.scalars(
        update(Job)
        .where(_held_by(job_id, owner))
        .values(
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            progress_stage=stage,
            progress_fraction=min(max(fraction, 0.0), 1.0),
        )
        .returning(Job.id),
        execution_options={"synchronize_session": False},
    ).all()
    if not renewed:
        raise stale(session, job_id, owner)


def release_expired(session: Session, now: datetime) -> list[Job]:
    """Take back the jobs whose lease ran out; returns them as they are now."""
    expired = and_(Job.state == JobState.SEGMENTING, Job.lease_expires_at <= now)
    jobs = session.scalars(select(Job).where(expired).order_by(Job.id)).all()
    for job in jobs:
        _try_again(session, now, job, None, f"its worker {job.lease_owner} fell silent")
    return list(jobs)


def requeue(
    session: Session, now: datetime, job_id: int, owner: str, not_before: datetime | None, detail: str
) -> JobState:
    """Return a job after a passing failure, or fail it; raises StaleJob."""
    job = session.scalar(select(Job).where(_held_by(job_id, owner)))
    if job is None:
        raise stale(session, job_id, owner)
    return _try_again(session, now, job, not_before, detail)


def give_back(
    session: Session, now: datetime, job_id: int, owner: str, detail: str, not_before: datetime | None
) -> None:
    """Return an unfinished job; the attempt does not count; raises StaleJob."""
    move_held(
        session,
        now,
        job_id,
        owner,
        JobState.QUEUED,
        detail=detail,
        attempts=Job.attempts - 1,
        reason=detail if not_before else None,
        not_before=not_before,
    )


def segmented(session: Session, now: datetime, job_id: int, owner: str, result: SegmentedResult) -> None:
    """Write down what was made and open its deliveries, held or not; raises StaleJob."""
    found = f"{sum(each.found for each in result.structures)} structures"
    move_held(
        session,
        now,
        job_id,
        owner,
        JobState.HELD if result.held else JobState.SEGMENTED,
        detail=result.held or found,
        reason_code=QueueReason.DOUBTFUL if result.held else None,
        model_name=result.model_name,
        model_version=result.model_version,
        model_digest=result.model_digest,
    )
    session.add_all(_rows_of(result, job_id))
    open_deliveries(session, now, job_id, result.destinations, result.objects)
    for detail in result.remarks:
        remark(session, now, job_id, detail)


def _held_by(job_id: int, owner: str) -> ColumnElement[bool]:
    return and_(Job.id == job_id, Job.state == JobState.SEGMENTING, Job.lease_owner == owner)


def _try_again(
    session: Session, now: datetime, job: Job, not_before: datetime | None, detail: str
) -> JobState:
    """Return a segmenting job to the queue; fail it where its attempts are used up."""
    which, origin = Job.id == job.id, JobState.SEGMENTING
    if job.attempts >= MAX_ATTEMPTS:
        code, detail = QueueReason.ATTEMPTS_USED_UP, f"{MAX_ATTEMPTS} attempts used up; the last: {detail}"
        move(session, now, which, origin, JobState.FAILED, detail=detail, reason_code=code)
        return JobState.FAILED
    move(session, now, which, origin, JobState.QUEUED, detail=detail, reason=detail, not_before=not_before)
    return JobState.QUEUED


def _rows_of(result: SegmentedResult, job_id: int) -> list[Base]:
    """Organs, findings, and seconds per stage."""
    return [
        *(StructureRow(job_id=job_id, **asdict(each)) for each in result.structures),
        *(Finding(job_id=job_id, **asdict(each)) for each in result.findings),
        *(
            StageTime(job_id=job_id, stage=stage, seconds=took)
            for stage, took in result.stage_seconds.items()
        ),
    ]


def open_deliveries(
    session: Session, now: datetime, job_id: int, destinations: Sequence[str], objects: Sequence[StoredObject]
) -> None:
    """Add a row per object, a delivery per destination, and an item for every object that one is to have."""
    deliveries = {
        name: Delivery(job_id=job_id, destination=name, state=DeliveryState.PENDING, created_at=now)
        for name in destinations
    }
    session.add_all(deliveries.values())
    for each in objects:
        values = asdict(each)
        receivers = values.pop("destinations")
        row = Result(job_id=job_id, **values)
        session.add(row)
        session.flush()
        session.add_all(DeliveryItem(delivery_id=deliveries[name].id, result_id=row.id) for name in receivers)
