"""How many images a series must have: what its images say, and what their sender says when it is asked."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock, Thread

import structlog
from pydicom import Dataset, dcmread

from daemon.config import Series
from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Job
from daemon.spool import Spool

log = structlog.get_logger()

ASK_AGAIN = timedelta(minutes=1)
"""A sender that has more images than it sent is asked again: it may have counted what it has since dropped."""

ENQUIRIES = 4
"""So many senders may be slow at the same time before others wait for their turn."""


@dataclass(frozen=True)
class Evidence:
    """How many images a series has by somebody's word.

    Parameters
    ----------
    expected
        None where nobody knows.
    source
        Whose word it is, or why there is none; may be empty.
    """

    expected: int | None
    source: str


NOTHING = Evidence(None, "")


_WANTED = ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition", "AcquisitionNumber")


@dataclass(frozen=True)
class _Known:
    """What was found out, when, and while how many images were there."""

    evidence: Evidence
    images: int
    at: datetime


class EvidenceGatherer:
    """Finds out in threads of its own, so that a slow sender holds nobody up.

    Parameters
    ----------
    ask
        Asks a job's sender over the network, which may take its time; None where that is not configured.
    """

    def __init__(
        self,
        queue: JobQueue,
        spool: Spool,
        config: Series,
        ask: Callable[[Job], Evidence | None],
        is_asked: Callable[[Job], bool],
        clock: Callable[[], datetime],
    ) -> None:
        self._queue = queue
        self._spool = spool
        self._believed = config.believed_counts
        self._ask = ask
        self._is_asked = is_asked
        self._clock = clock
        self._lock = Lock()
        self._known: dict[int, _Known] = {}
        self._asking: set[int] = set()

    def about(self, job: Job) -> Evidence | None:
        """What is known about a job as it stands now; None while its sender is being asked."""
        with self._lock:
            known = self._known.get(job.id)
            if known and known.images != job.instance_count:
                known = None
            if known and (known.evidence.expected is None or abs(self._clock() - known.at) < ASK_AGAIN):
                return known.evidence
            if not self._is_asked(job):
                return self._note(job, self._from_headers(job))
            if job.id not in self._asking and len(self._asking) < ENQUIRIES:
                self._asking.add(job.id)
                Thread(target=self._enquire, args=(job,), name="evidence", daemon=True).start()
            return known.evidence if known else None

    def forget(self, job_id: int) -> None:
        """Drop what is known about a job that receives no longer."""
        with self._lock:
            self._known.pop(job_id, None)

    def _enquire(self, job: Job) -> None:
        try:
            told = self._ask(job) or NOTHING
        except Exception as error:  # noqa: BLE001 -- whatever it is, the quiet period decides
            told = Evidence(None, f"its sender could not be asked: {type(error).__name__}")
        log.info("sender_asked", job=job.id, expected=told.expected, source=told.source)
        with self._lock:
            self._asking.discard(job.id)
            self._note(job, told if told.expected is not None else self._from_headers(job, told))

    def _note(self, job: Job, evidence: Evidence) -> Evidence:
        self._known[job.id] = _Known(evidence, job.instance_count, self._clock())
        return evidence

    def _from_headers(self, job: Job, otherwise: Evidence = NOTHING) -> Evidence:
        images = self._queue.images(job.id)  # those of earlier revisions too
        paths = [self._spool.instance_path(each.job_id, each.sop_instance_uid) for each in images]
        return header_evidence(paths, self._believed) or otherwise


def header_evidence(paths: Sequence[Path], believed: Sequence[str]) -> Evidence | None:
    """Number of images by what the images themselves say; None where they say nothing.

    Number of Series Related Instances (0020,1209) speaks of the series; Images in Acquisition (0020,1002) of one
    acquisition, of which a series may hold several: their numbers are added up.
    """
    if "series" in believed and (count := _number(_read(paths[:1]), "NumberOfSeriesRelatedInstances")):
        return Evidence(count, "Number of Series Related Instances")
    if "acquisition" in believed:
        acquisitions = {_text(header, "AcquisitionNumber"): header for header in _read(paths)}
        count = sum(_number([header], "ImagesInAcquisition") for header in acquisitions.values())
        if count:
            return Evidence(count, "Images in Acquisition")
    return None


def _read(paths: Sequence[Path]) -> list[Dataset]:
    """Headers of those that can be read; for the others the segmentation has words."""
    headers: list[Dataset] = []
    for path in paths:
        with suppress(Exception):
            headers.append(dcmread(path, stop_before_pixels=True, specific_tags=[*_WANTED]))
    return headers


def _number(headers: Sequence[Dataset], keyword: str) -> int:
    """The number in the first header; 0 where there is none that makes sense."""
    try:
        return max(int(_text(headers[0], keyword)), 0)
    except (IndexError, ValueError):
        return 0


def _text(header: Dataset, keyword: str) -> str:
    """What stands there; nothing where that cannot be read, whatever pydicom raises for what a peer wrote."""
    with suppress(Exception):
        return str(header.get(keyword, ""))
    return ""
