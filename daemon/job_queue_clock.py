"""Times in the job table that a clock set back or forward has made meaningless, set anew."""

from datetime import datetime, timedelta

from sqlalchemy import exists, update
from sqlalchemy.orm import Session

from daemon.job_queue_rows import Commitment, CommitmentRequest, Delivery, Job
from daemon.jobs import DeliveryState, JobState

LONGEST_LEASE = timedelta(seconds=60)
LONGEST_WAIT = timedelta(seconds=900)
"""No lease and no wait between two tries is longer; what reaches further was written by another clock."""
LONGEST_SILENCE = timedelta(hours=12)
"""Nor is the wait for an answer to a request of commitment that another clock has written down."""

_UNCHANGED = {"synchronize_session": False}


def clock_was_set(session: Session, now: datetime) -> None:
    """Count silence of senders and leases of workers anew, and cut waits.

    No lease is ended: a worker that lives renews it, one that died is found out a minute later.
    """
    receiving = update(Job).where(Job.state == JobState.RECEIVING)
    session.execute(receiving.values(last_instance_at=now), execution_options=_UNCHANGED)
    leased = update(Job).where(Job.state == JobState.SEGMENTING)
    session.execute(leased.values(lease_expires_at=now + LONGEST_LEASE), execution_options=_UNCHANGED)
    cut_times(session, now)


def cut_times(session: Session, now: datetime) -> None:
    """Cut leases and waits to the longest there are; changes nothing where the clock was not set back."""
    lease_end, wait_end = now + LONGEST_LEASE, now + LONGEST_WAIT
    fed = update(Job).where(Job.last_instance_at > now)
    session.execute(fed.values(last_instance_at=now), execution_options=_UNCHANGED)
    leased = update(Job).where(Job.state == JobState.SEGMENTING, Job.lease_expires_at > lease_end)
    session.execute(leased.values(lease_expires_at=lease_end), execution_options=_UNCHANGED)
    waiting = update(Job).where(Job.state == JobState.QUEUED, Job.not_before > wait_end)
    session.execute(waiting.values(not_before=wait_end), execution_options=_UNCHANGED)
    pending = update(Delivery).where(Delivery.state == DeliveryState.PENDING)
    session.execute(
        pending.where(Delivery.lease_expires_at > lease_end).values(lease_expires_at=lease_end),
        execution_options=_UNCHANGED,
    )
    awaits_answer = exists().where(
        CommitmentRequest.delivery_id == Delivery.id,
        CommitmentRequest.requested_at >= Delivery.created_at,
        CommitmentRequest.answered_at.is_(None),
    )
    # How long a destination may take is configured; only a request from the future says that its end is wrong.
    of_another_clock = awaits_answer.where(CommitmentRequest.requested_at > now)
    for which, end in ((~awaits_answer, wait_end), (of_another_clock, now + LONGEST_SILENCE)):
        session.execute(
            pending.where(which, Delivery.not_before > end).values(not_before=end),
            execution_options=_UNCHANGED,
        )
    unanswered = update(Commitment).where(Commitment.answered_at.is_(None), Commitment.not_before > wait_end)
    session.execute(unanswered.values(not_before=wait_end), execution_options=_UNCHANGED)
