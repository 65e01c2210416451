"""Storage commitment requests in the job table: kept when they are accepted, until they are answered."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from daemon.job_queue_rows import Commitment, Instance, Job, SetAside
from daemon.jobs import JobState

_GONE = (JobState.CANCELLED, JobState.PURGED)


def keep(
    session: Session,
    now: datetime,
    not_before: datetime,
    transaction_uid: str,
    titles: tuple[str, str],
    address: str,
    references: str,
) -> int:
    """Write a request down; a repeated one is to be answered anew."""
    calling, called = titles
    request = session.scalar(
        select(Commitment).where(
            Commitment.transaction_uid == transaction_uid, Commitment.calling_ae_title == calling
        )
    )
    if request is None:
        request = Commitment(transaction_uid=transaction_uid, calling_ae_title=calling)
        session.add(request)
    request.called_ae_title, request.address, request.instance_references = called, address, references
    request.requested_at, request.not_before, request.attempts = now, not_before, 0
    request.answered_at = request.detail = None
    session.flush()
    return request.id


def claim(session: Session, now: datetime, until: datetime) -> Commitment | None:
    """The request due the longest; nobody else gets it before `until`."""
    due = session.scalar(
        select(Commitment)
        .where(Commitment.answered_at.is_(None), Commitment.not_before <= now)
        .order_by(Commitment.not_before, Commitment.id)
        .limit(1)
    )
    if due is not None:
        due.not_before, due.attempts = until, due.attempts + 1
        session.flush()
    return due


def answered(session: Session, now: datetime, commitment_id: int, detail: str) -> None:
    """Close a request: the peer confirmed the answer, or nobody will ever take it."""
    request = session.get_one(Commitment, commitment_id)
    request.answered_at, request.detail = now, detail


def postpone(session: Session, commitment_id: int, not_before: datetime, detail: str) -> None:
    """Try again later."""
    request = session.get_one(Commitment, commitment_id)
    request.not_before, request.detail = not_before, detail


def find_instances(session: Session, sop_instance_uid: str) -> list[Instance]:
    """Rows of an image in jobs whose files are kept."""
    return list(
        session.scalars(
            select(Instance)
            .join(Job, Job.id == Instance.job_id)
            .where(Instance.sop_instance_uid == sop_instance_uid, Job.state.not_in(_GONE))
        )
    )


def set_aside_from(session: Session, calling_ae_title: str) -> frozenset[str]:
    """SOP Instance UIDs under which a sender also sent bytes that were set aside, while the files are there."""
    sent = select(SetAside.sop_instance_uid).join(Job, Job.id == SetAside.job_id)
    return frozenset(
        session.scalars(sent.where(SetAside.calling_ae_title == calling_ae_title, Job.state.not_in(_GONE)))
    )
