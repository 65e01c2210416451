"""Rows for jobs that only the spool remembers."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from daemon import job_queue_series as series
from daemon.errors import IllegalTransition
from daemon.job_queue_leases import open_deliveries
from daemon.job_queue_rows import Instance, Job
from daemon.job_queue_state import move, open_job
from daemon.job_queue_values import RecoveredJob
from daemon.jobs import JobState, QueueReason

_UNKNOWN = (
    "recovered from the spool without its history: whether its results were delivered, doubtful or refused is "
    "not known; look at them before you release it"
)


def enter(session: Session, now: datetime, recovered: RecoveredJob, new_uid: Callable[[], str]) -> JobState:
    """Add a job under its old number: held with results, rejected with a doubt, else receiving."""
    if session.get(Job, recovered.job_id):
        raise IllegalTransition(f"the job table already has a job {recovered.job_id}; recover into a new one")
    first = recovered.instances[0]
    reason = _UNKNOWN if recovered.results else recovered.doubt
    stopped = JobState.HELD if recovered.results else JobState.REJECTED
    state = stopped if reason else JobState.RECEIVING
    if state is JobState.RECEIVING:
        _give_way(session, now, recovered)
    job = Job(
        id=recovered.job_id,
        state=state,
        revision=_next_revision(session, first.series_instance_uid),
        calling_ae_title=first.calling_ae_title,
        called_ae_title=first.called_ae_title,
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        patient_id=first.patient_id,
        patient_name=first.patient_name,
        accession_number=first.accession_number,
        study_date=first.study_date,
        study_description=first.study_description,
        series_description=first.series_description,
        instance_count=len(recovered.instances),
        byte_count=sum(each.byte_count for each in recovered.instances),
        created_at=now,
        last_instance_at=now,
        state_since=now,
        reason_code=QueueReason.RECOVERED if reason else None,
        reason=reason or None,
        result_sop_instance_uid=next((each.sop_instance_uid for each in recovered.results), new_uid()),
        result_series_instance_uid=new_uid(),
    )
    open_job(session, job, reason or "recovered from the spool")
    session.add_all(
        Instance(
            job_id=job.id,
            sop_instance_uid=each.sop_instance_uid,
            sha256=each.sha256,
            byte_count=each.byte_count,
            transfer_syntax_uid=each.transfer_syntax_uid,
            received_at=now,
        )
        for each in recovered.instances
    )
    names = dict.fromkeys(name for each in recovered.results for name in each.destinations)
    open_deliveries(session, now, job.id, tuple(names), recovered.results)
    return state


def _give_way(session: Session, now: datetime, later: RecoveredJob) -> None:
    """End an earlier revision that has no results either: the later one is contoured with its images too."""
    earlier = series.receiving_now(session, later.instances[0])
    if earlier is not None:
        detail = f"recovered from the spool; job {later.job_id} is contoured with these images too"
        which, code = Job.id == earlier, QueueReason.RECOVERED
        move(session, now, which, JobState.RECEIVING, JobState.REJECTED, detail=detail, reason_code=code)


def _next_revision(session: Session, series_instance_uid: str) -> int:
    last = session.scalar(
        select(func.max(Job.revision)).where(Job.series_instance_uid == series_instance_uid)
    )
    return (last or 0) + 1
