"""What a job is: its states, and the moves between them."""

from collections.abc import Mapping
from enum import StrEnum

MAX_ATTEMPTS = 3
"""Claims a job may use up, so that one that kills its worker does not kill it for ever."""


class JobState(StrEnum):
    """Where a series stands on its way from the sender to its destinations."""

    RECEIVING = "receiving"
    """Images are arriving; the series is not complete."""
    QUEUED = "queued"
    """Complete; waits for a worker, or for `not_before` after a passing failure."""
    SEGMENTING = "segmenting"
    """A worker holds it under a lease."""
    SEGMENTED = "segmented"
    """The structure set is on disk and checked; deliveries are due."""
    DELIVERED = "delivered"
    """Every destination has stored the structure set."""
    HELD = "held"
    """The results are on disk, but something about them is doubtful: an operator releases or rejects them."""
    REJECTED = "rejected"
    """The series is unsuitable, or an operator refused its results; the reason says why."""
    FAILED = "failed"
    """Attempts used up, output check failed, or a destination not reached in time."""
    CANCELLED = "cancelled"
    """An operator stopped it, or no image of it could be stored."""
    PURGED = "purged"
    """Its files are gone; the row stays."""


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.RECEIVING: frozenset({JobState.QUEUED, JobState.REJECTED, JobState.CANCELLED}),
    JobState.QUEUED: frozenset({JobState.RECEIVING, JobState.SEGMENTING, JobState.CANCELLED}),
    JobState.SEGMENTING: frozenset(
        {
            JobState.SEGMENTED,
            JobState.QUEUED,
            JobState.REJECTED,
            JobState.HELD,
            JobState.FAILED,
            JobState.CANCELLED,
        }
    ),
    JobState.HELD: frozenset({JobState.SEGMENTED, JobState.REJECTED, JobState.CANCELLED}),
    JobState.SEGMENTED: frozenset({JobState.DELIVERED, JobState.FAILED, JobState.CANCELLED}),
    JobState.DELIVERED: frozenset({JobState.SEGMENTED, JobState.PURGED}),
    # A retry starts where the work stopped: at the segmentation, at the operator who is to decide, or at the
    # deliveries still missing. What is delivered may be sent again, and stays delivered where that is cancelled.
    JobState.REJECTED: frozenset({JobState.QUEUED, JobState.HELD, JobState.PURGED}),
    JobState.FAILED: frozenset(
        {JobState.QUEUED, JobState.SEGMENTED, JobState.CANCELLED, JobState.DELIVERED, JobState.PURGED}
    ),
    JobState.CANCELLED: frozenset({JobState.QUEUED, JobState.HELD, JobState.SEGMENTED, JobState.PURGED}),
    JobState.PURGED: frozenset(),
}
"""The states each state may move to; nothing else is possible."""

FINISHED = frozenset({JobState.DELIVERED, JobState.FAILED, JobState.REJECTED, JobState.CANCELLED})
"""Nothing more happens to these by itself."""

DECIDED = frozenset({JobState.DELIVERED, JobState.REJECTED, JobState.CANCELLED})
"""Sent, or found not to be sent by a gate or a person: retention may purge these. A failure awaits a decision."""

SETTLED = frozenset({JobState.DELIVERED, JobState.PURGED})
"""Never segmented again: their images are needed no more."""


class DeliveryState(StrEnum):
    """Where the structure set stands on its way to one destination."""

    PENDING = "pending"
    SENT = "sent"
    FAILED = "failed"
    CANCELLED = "cancelled"


class QueueReason(StrEnum):
    """Reason codes that the queue itself gives; all others come from segmentation."""

    ATTEMPTS_USED_UP = "attempts-used-up"
    DELIVERY_FAILED = "delivery-failed"
    DOUBTFUL = "doubtful"
    RECOVERED = "recovered"
    REFUSED_BY_OPERATOR = "refused-by-operator"
    NO_IMAGES = "no-images"
    IMAGES_MISSING = "images-missing"
    """The sender has more images of the series than it sent."""
