"""Made-up images, a clock that tests move by hand, and short cuts through a job's life."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from daemon.job_queue import (
    FindingResult,
    IncomingInstance,
    JobQueue,
    SegmentedResult,
    StoredObject,
    StructureResult,
    open_queue,
    uuid_uid,
)

DOUBT = "Eye_L: 31 cm³, expected 6 to 11"
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Tell the time."""
        return self.now

    def forward(self, **duration: float) -> datetime:
        """Let time pass, in the words of timedelta."""
        self.now += timedelta(**duration)
        return self.now


def url_in(folder: Path) -> str:
    return f"sqlite:///{folder}/oarlock.db"


def queue_in(folder: Path, clock: Clock | None = None) -> JobQueue:
    return open_queue(url_in(folder), clock or Clock())


def image(number: int = 1, series: str = "1.2.3", content: bytes = b"", **header: Any) -> IncomingInstance:
    """Image `number` of a series; other content gives other bytes under the same UID."""
    content = content or f"{series}.{number}".encode()
    values: dict[str, Any] = {
        "study_instance_uid": "1.2",
        "series_instance_uid": series,
        "sop_instance_uid": f"{series}.{number}",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": hashlib.sha256(content).hexdigest(),
        "byte_count": 526_000,
        "calling_ae_title": "CT1",
        "called_ae_title": "OARLOCK",
        "patient_id": "4711",
        "patient_name": "Test^Phantom",
    }
    return IncomingInstance(**values | header)


def received(queue: JobQueue, series: str = "1.2.3", images: int = 2, **header: Any) -> int:
    """Job with some images, still receiving."""
    for number in range(1, images + 1):
        incoming = image(number, series, **header)
        job = queue.job_for_instance(incoming)
        assert queue.add_instance(job, incoming)
    return job


def queued(queue: JobQueue, series: str = "1.2.3", **header: Any) -> int:
    job = received(queue, series, **header)
    queue.complete(job, "no image for 60 s")
    return job


def claimed(queue: JobQueue, series: str = "1.2.3", **header: Any) -> int:
    job = queued(queue, series, **header)
    taken = queue.claim("worker-1", 60)
    assert taken is not None
    assert taken.id == job
    return job


def result(*destinations: str) -> SegmentedResult:
    destinations = destinations or ("TPS",)
    return SegmentedResult(
        objects=[
            StoredObject("rtstruct", "generic", uuid_uid(), "5" * 64, "structure_set.dcm", destinations)
        ],
        model_name="unet",
        model_version="1.0",
        model_digest="d" * 64,
        destinations=destinations,
        structures=(
            StructureResult("Brain", 1301.5, 60, 60),
            StructureResult("Cochlea_L", 0.0, 0, 0, found=False),
        ),
        stage_seconds={"read": 2.5, "predict": 30.0},
    )


def segmented(queue: JobQueue, *destinations: str, series: str = "1.2.3", **header: Any) -> int:
    job = claimed(queue, series, **header)
    queue.segmented(job, "worker-1", result(*destinations))
    return job


def held(queue: JobQueue, series: str = "1.2.3", **header: Any) -> int:
    job = claimed(queue, series, **header)
    finding = FindingResult("volume", "hold", "Eye_L", DOUBT)
    values = vars(result()) | {"held": DOUBT, "findings": [finding]}
    queue.segmented(job, "worker-1", SegmentedResult(**values))
    return job


def delivered(queue: JobQueue, series: str = "1.2.3", **header: Any) -> int:
    job = segmented(queue, "TPS", series=series, **header)
    send_next(queue)
    return job


def send_next(queue: JobQueue) -> str:
    """Deliver what is due next; returns the destination."""
    due = queue.claim_delivery("worker-1", 60)
    assert due is not None
    queue.delivery_sent(due[0].id, 0x0000)
    return due[0].destination


def fail_next(queue: JobQueue, detail: str = "connection refused") -> str:
    """Give up the delivery that is due next; returns the destination."""
    due = queue.claim_delivery("worker-1", 60)
    assert due is not None
    queue.delivery_failed(due[0].id, "connection", None, detail)
    return due[0].destination
