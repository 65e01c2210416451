"""Storage commitment that we ask of destinations: transactions, their answers, and what an answer moves."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from daemon import job_queue_deliveries as delivering
from daemon.job_queue_rows import CommitmentRequest, Delivery
from daemon.job_queue_state import remark
from daemon.jobs import DeliveryState

COMMITTED = "stored and committed"


@dataclass(frozen=True)
class CommitmentAnswer:
    """What a report did: the delivery it is about, and for which objects the destination answers no longer.

    Parameters
    ----------
    failed
        SOP Instance UID to Failure Reason (0008,1197).
    is_setback
        Whether the delivery needs another try: this is news, and something of it is still not committed.
    """

    delivery: Delivery
    failed: Mapping[str, int]
    is_setback: bool


def ask(
    session: Session, now: datetime, delivery_id: int, transaction_uid: str, status: int | None, detail: str
) -> None:
    """Write a request down; from now on its answer is known, whenever and however it comes."""
    delivery = session.get_one(Delivery, delivery_id)
    sent = [item.sent_at for item, _ in delivering.items(session, delivery_id) if item.sent_at]
    # Whatever a clock that is set back says, it is asked about what was sent.
    requested_at = max((now, *sent))
    if status is not None:
        delivery.last_status = status
        if detail:
            remark(session, now, delivery.job_id, f"{delivery.destination}: {detail}")
    elif delivery.failure_kind is not None:
        delivery.last_status = None  # that of a try before the one that stored it
    session.add(
        CommitmentRequest(delivery_id=delivery_id, transaction_uid=transaction_uid, requested_at=requested_at)
    )


def not_taken(session: Session, transaction_uid: str, detail: str) -> None:
    """Write down that a request never came to its destination, so that nobody waits for its answer."""
    request = _request(session, transaction_uid)
    assert request is not None, "written down before it was sent"
    if request.answered_at is None:
        request.detail = detail


def times_asked(session: Session, delivery_id: int, since: datetime) -> int:
    """How often a destination took a request for a delivery's commitment since a time and did not answer."""
    unanswered = select(func.count()).where(
        CommitmentRequest.delivery_id == delivery_id,
        CommitmentRequest.requested_at >= since,
        CommitmentRequest.answered_at.is_(None),
        CommitmentRequest.detail.is_(None),
    )
    return session.scalar(unanswered) or 0


def wait(session: Session, now: datetime, transaction_uid: str, until: datetime, detail: str) -> None:
    """Leave a delivery to its answer, and ask again at `until`; nothing where the answer is there already."""
    request = _request(session, transaction_uid)
    assert request is not None, "written down before it was sent"
    delivery = session.get_one(Delivery, request.delivery_id)
    if request.answered_at is not None or delivery.state is not DeliveryState.PENDING:
        return
    if delivery.detail != detail:
        remark(session, now, delivery.job_id, f"{delivery.destination}: {detail}")
    delivering.let_go(delivery, DeliveryState.PENDING)
    delivery.not_before, delivery.failure_kind, delivery.detail = until, None, detail


def answer(
    session: Session,
    now: datetime,
    transaction_uid: str,
    committed: Collection[str],
    failed: Mapping[str, int],
) -> CommitmentAnswer | None:
    """Write down what a destination reports; None where no such request was made.

    What it does not answer for counts as not sent; what it says nothing about stays stored and uncommitted.
    Once it answers for everything the delivery is done.
    A repeated report sets nothing back again; an answer to an earlier request counts as well, but for no object
    that has been sent again since, or that is to be.
    """
    request = _request(session, transaction_uid)
    if request is None:
        return None
    delivery = session.get_one(Delivery, request.delivery_id)
    items = delivering.items(session, delivery.id)
    is_news = request.answered_at is None
    lost: dict[str, int] = {}
    for item, result in items:
        uid = result.sop_instance_uid
        is_asked_about = item.sent_at is not None and request.requested_at >= item.sent_at
        if item.committed_at is not None or not is_asked_about:
            continue
        if uid in committed:
            item.committed_at = now
        elif uid in failed and is_news:
            item.sent_at = None
            lost[uid] = failed[uid]
    if is_news:
        request.answered_at, request.detail = now, f"{len(committed)} committed, {len(failed)} failed"
    if not any(item.committed_at is None for item, _ in items):
        _done(session, now, delivery)
    session.flush()
    return CommitmentAnswer(delivery, lost, is_news and delivery.state is DeliveryState.PENDING)


def _done(session: Session, now: datetime, delivery: Delivery) -> None:
    """Close a delivery that is stored and committed; one that was given up is left to the operator's retry."""
    if delivery.state in {DeliveryState.PENDING, DeliveryState.CANCELLED}:
        delivering.sent(session, now, delivery.id, delivery.last_status, COMMITTED)
    elif delivery.state is DeliveryState.FAILED:
        remark(session, now, delivery.job_id, f"{delivery.destination} committed it after it was given up")


def _request(session: Session, transaction_uid: str) -> CommitmentRequest | None:
    return session.scalar(
        select(CommitmentRequest).where(CommitmentRequest.transaction_uid == transaction_uid)
    )
