"""The audit trail: what became of every job, row by row, for files that outlive the job table."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.job_queue_rows import Job, JobEvent

_AT_A_TIME = 1000


@dataclass(frozen=True)
class AuditRow:
    """One event of one job; the fields are the columns of the export."""

    at: datetime
    job: int
    from_state: str | None
    to_state: str
    reason_code: str | None
    detail: str
    patient_id: str
    accession_number: str
    study_instance_uid: str
    series_instance_uid: str
    sender: str
    called: str
    images: int
    model: str | None
    model_digest: str | None
    result_sop_instance_uid: str


def trail(session: Session, since: datetime, until: datetime) -> Iterator[AuditRow]:
    """Events of a period, oldest first, without holding all of them in memory."""
    found = session.execute(
        select(JobEvent, Job)
        .join(Job, Job.id == JobEvent.job_id)
        .where(JobEvent.at >= since, JobEvent.at < until)
        .order_by(JobEvent.at, JobEvent.id)
        .execution_options(yield_per=_AT_A_TIME)
    )
    for event, job in found:
        yield _row(event, job)


def _row(event: JobEvent, job: Job) -> AuditRow:
    return AuditRow(
        at=event.at,
        job=job.id,
        from_state=event.from_state,
        to_state=event.to_state,
        reason_code=event.reason_code,
        detail=event.detail,
        patient_id=job.patient_id,
        accession_number=job.accession_number,
        study_instance_uid=job.study_instance_uid,
        series_instance_uid=job.series_instance_uid,
        sender=job.calling_ae_title,
        called=job.called_ae_title,
        images=job.instance_count,
        model=f"{job.model_name} {job.model_version}" if job.model_name else None,
        model_digest=job.model_digest,
        result_sop_instance_uid=job.result_sop_instance_uid,
    )
