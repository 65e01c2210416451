"""Deliveries of a job's structure set: claiming, their outcomes, and the rule that closes the job."""

from datetime import datetime, timedelta

from sqlalchemy import exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from daemon.errors import StaleJob
from daemon.job_queue_rows import Delivery, DeliveryItem, Job, Result
from daemon.job_queue_state import get, move, remark, was_told
from daemon.jobs import DeliveryState, JobState, QueueReason

_UNCHANGED = {"synchronize_session": False}
STORED_BY = "stored by "
"""Begins the event with which a job is delivered."""
_DUE, _UNDER_WAY = aliased(Delivery), aliased(Delivery)
"""Not made anew for every claim: new ones must find each of their columns again."""


def claim(session: Session, now: datetime, owner: str, lease_seconds: float) -> tuple[Delivery, Job] | None:
    """Lease the delivery that has been due the longest; an expired lease is as good as none.

    A destination gets one at a time, so that one that hangs holds one worker thread and not all of them.
    """
    occupied = exists().where(
        _UNDER_WAY.destination == _DUE.destination,
        _UNDER_WAY.state == DeliveryState.PENDING,
        _UNDER_WAY.lease_expires_at > now,
    )
    longest_due = (
        select(_DUE.id)
        .join(Job, Job.id == _DUE.job_id)
        .where(
            Job.state == JobState.SEGMENTED,
            _DUE.state == DeliveryState.PENDING,
            or_(_DUE.not_before.is_(None), _DUE.not_before <= now),
            ~occupied,
        )
        .order_by(func.coalesce(_DUE.not_before, _DUE.created_at), _DUE.id)
        .limit(1)
        .scalar_subquery()
    )
    claimed = session.scalar(
        update(Delivery)
        .where(Delivery.id == longest_due)
        .values(
            lease_owner=owner,
            lease_expires_at=now + timedelta(seconds=lease_seconds),
            attempts=Delivery.attempts + 1,
        )
        .returning(Delivery.id),
        execution_options=_UNCHANGED,
    )
    if claimed is None:
        return None
    delivery = session.get_one(Delivery, claimed)
    return delivery, get(session, delivery.job_id)


def renew(session: Session, now: datetime, delivery_id: int, owner: str, lease_seconds: float) -> None:
    """Prolong the lease of a delivery under way; raises StaleJob."""
    renewed = session.scalars(
        update(Delivery)
        .where(
            Delivery.id == delivery_id,
            Delivery.state == DeliveryState.PENDING,
            Delivery.lease_owner == owner,
        )
        .values(lease_expires_at=now + timedelta(seconds=lease_seconds))
        .returning(Delivery.id),
        execution_options=_UNCHANGED,
    ).all()
    if not renewed:
        raise StaleJob(f"delivery {delivery_id} is no longer held by {owner}")


def items(session: Session, delivery_id: int) -> list[tuple[DeliveryItem, Result]]:
    """What a delivery consists of, in the order in which it is sent."""
    rows = session.execute(
        select(DeliveryItem, Result)
        .join(Result, Result.id == DeliveryItem.result_id)
        .where(DeliveryItem.delivery_id == delivery_id)
        .order_by(DeliveryItem.id)
    )
    return [(item, result) for item, result in rows]


def item_sent(session: Session, now: datetime, item_id: int, detail: str) -> bool:
    """Write down that the destination stored one object, so that it gets only the others again.

    What it had to say is told at once, as is that an operator's cancel came too late for this object.
    Returns whether the others are still to be sent.
    """
    item = session.get_one(DeliveryItem, item_id)
    item.sent_at = now
    delivery = session.get_one(Delivery, item.delivery_id)
    if detail:
        remark(session, now, delivery.job_id, f"{delivery.destination}: {detail}")
    if delivery.state is DeliveryState.CANCELLED:
        remark(session, now, delivery.job_id, f"cancelled too late: {_stored(session, delivery)}")
    elif delivery.state is DeliveryState.SENT:
        delivery.sent_at = now
        remark(session, now, delivery.job_id, f"cancelled too late: {delivery.destination} got it once more")
    return delivery.state is DeliveryState.PENDING


def _stored(session: Session, delivery: Delivery) -> str:
    all_items = items(session, delivery.id)
    stored = sum(item.sent_at is not None for item, _ in all_items)
    return f"{delivery.destination} has stored {stored} of {len(all_items)} objects already" if stored else ""


def sent(session: Session, now: datetime, delivery_id: int, status: int | None, detail: str) -> None:
    """Write down that the destination stored every object, even of a delivery cancelled meanwhile."""
    delivery = session.get_one(Delivery, delivery_id)
    if delivery.state is not DeliveryState.CANCELLED:
        _require_pending(delivery)
    elif not _stored(session, delivery):  # else it was told with the object
        remark(session, now, delivery.job_id, f"cancelled too late: {delivery.destination} has stored it")
    let_go(delivery, DeliveryState.SENT)
    delivery.sent_at, delivery.failure_kind = now, None
    delivery.last_status, delivery.detail = status, detail
    told = f"{delivery.destination}: {detail or 'stored'}"
    is_part = any(each.state is DeliveryState.PENDING for each in of_job(session, delivery.job_id))
    if (detail or is_part) and not was_told(session, delivery.job_id, told, delivery.created_at):
        remark(session, now, delivery.job_id, told)
    close(session, now, delivery.job_id)


def again(
    session: Session,
    now: datetime,
    delivery_id: int,
    not_before: datetime,
    kind: str,
    status: int | None,
    detail: str,
) -> None:
    """Keep a failed try pending; an event tells the first failure and every change of its kind."""
    delivery = session.get_one(Delivery, delivery_id)
    _require_pending(delivery)
    if delivery.failure_kind != kind:
        remark(session, now, delivery.job_id, f"{delivery.destination}: {detail}; will be tried again")
    let_go(delivery, DeliveryState.PENDING)
    delivery.not_before, delivery.failure_kind = not_before, kind
    delivery.last_status, delivery.detail = status, detail


def failed(
    session: Session, now: datetime, delivery_id: int, kind: str, status: int | None, detail: str
) -> None:
    """Give a delivery up."""
    delivery = session.get_one(Delivery, delivery_id)
    _require_pending(delivery)
    let_go(delivery, DeliveryState.FAILED)
    delivery.failure_kind, delivery.last_status, delivery.detail = kind, status, detail
    remark(session, now, delivery.job_id, f"{delivery.destination}: {detail}; given up")
    close(session, now, delivery.job_id)


def postpone(session: Session, destination: str, not_before: datetime) -> int:
    """Let the other deliveries to a destination that does not answer wait as well; returns how many."""
    postponed = session.scalars(
        update(Delivery)
        .where(
            Delivery.destination == destination,
            Delivery.state == DeliveryState.PENDING,
            Delivery.lease_owner.is_(None),
            or_(Delivery.not_before.is_(None), Delivery.not_before < not_before),
        )
        .values(not_before=not_before)
        .returning(Delivery.id),
        execution_options=_UNCHANGED,
    )
    return len(postponed.all())


def cancel(session: Session, now: datetime, job_id: int) -> None:
    """Stop what is still pending; a worker in the middle of sending may come too late to be stopped."""
    for delivery in of_job(session, job_id):
        if delivery.state is not DeliveryState.PENDING:
            continue
        let_go(delivery, DeliveryState.CANCELLED)
        if told := _stored(session, delivery):
            remark(session, now, job_id, f"cancelled too late: {told}")


def call_off(session: Session, job_id: int, sent_at: datetime) -> None:
    """End what is sent once more, as it was sent before."""
    for delivery in of_job(session, job_id):
        if delivery.state is DeliveryState.SENT:
            continue
        let_go(delivery, DeliveryState.SENT)
        delivery.sent_at, delivery.failure_kind = sent_at, None
        delivery.detail = "stored before it was sent again"
        for item, _ in items(session, delivery.id):
            item.sent_at = item.sent_at or sent_at


def start_ageing(session: Session, now: datetime, job_id: int) -> None:
    """Count the age of what is pending from now on: it was not to be sent before."""
    for delivery in of_job(session, job_id):
        if delivery.state is DeliveryState.PENDING:
            delivery.created_at = now


def ask_again(session: Session, now: datetime, job_id: int) -> list[str]:
    """Put what was not sent back to pending, with a new age; returns the destinations."""
    unsent = [
        delivery
        for delivery in of_job(session, job_id)
        if delivery.state in {DeliveryState.FAILED, DeliveryState.CANCELLED}
    ]
    for delivery in unsent:
        _begin_anew(delivery, now)
    return [delivery.destination for delivery in unsent]


def once_more(session: Session, now: datetime, job_id: int, destination: str | None) -> list[str]:
    """Put what was sent back to pending, every object of it; returns the destinations."""
    wanted = [each for each in of_job(session, job_id) if destination in {None, each.destination}]
    for delivery in wanted:
        _begin_anew(delivery, now)
        delivery.sent_at = None
        for item, _ in items(session, delivery.id):
            item.sent_at = item.committed_at = None
    return [delivery.destination for delivery in wanted]


def _begin_anew(delivery: Delivery, now: datetime) -> None:
    """Let a delivery be tried as if it had not been, with a new age."""
    let_go(delivery, DeliveryState.PENDING)
    delivery.created_at, delivery.attempts = now, 0
    delivery.failure_kind = delivery.last_status = delivery.detail = None


def close(session: Session, now: datetime, job_id: int) -> None:
    """Close the job once nothing is pending: delivered where all was sent, else failed with every reason."""
    session.flush()
    rows = of_job(session, job_id)
    if any(row.state is DeliveryState.PENDING for row in rows):
        return
    unreached = [f"{row.destination}: {row.detail}" for row in rows if row.state is DeliveryState.FAILED]
    if unreached:
        code, target, detail = QueueReason.DELIVERY_FAILED, JobState.FAILED, "; ".join(unreached)
    else:
        stored_by = ", ".join(row.destination for row in rows if row.state is DeliveryState.SENT)
        code, target, detail = None, JobState.DELIVERED, f"{STORED_BY}{stored_by}"
    # A cancelled job stays cancelled: nothing moves then, and that is right.
    move(session, now, Job.id == job_id, JobState.SEGMENTED, target, detail=detail, reason_code=code)


def of_job(session: Session, job_id: int) -> list[Delivery]:
    """Deliveries of a job in the order of its route."""
    return list(session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.id)))


def _require_pending(delivery: Delivery) -> None:
    if delivery.state is not DeliveryState.PENDING:
        raise StaleJob(
            f"delivery of job {delivery.job_id} to {delivery.destination} is already {delivery.state}"
        )


def let_go(delivery: Delivery, state: DeliveryState) -> None:
    """End a try: nobody holds the delivery, and nothing keeps it waiting."""
    delivery.state = state
    delivery.lease_owner = delivery.lease_expires_at = delivery.not_before = None
