"""When a series is complete: nobody is sending it any more, and it has been quiet for a while."""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

import structlog

from daemon.clock_watch import ClockWatch
from daemon.config import Series
from daemon.errors import StaleJob, StorageFull
from daemon.job_queue import JobQueue
from daemon.jobs import Job, JobState

log = structlog.get_logger()


class Completeness:
    """Watches the receiving jobs and queues those that are complete.

    C-STORE has no end of a series: some senders open an association per image, others spread one study over
    several, and an abort says nothing about what is still to come.
    So a series is complete after `quiet_seconds` without an image *and* without an open association that
    has fed it; one that stays open but silent for `max_wait_seconds` no longer counts.
    Which images came when stands in the job table, so that a restart forgets only the associations, which
    end with the process anyway.
    """

    def __init__(
        self,
        queue: JobQueue,
        config: Series,
        clock: Callable[[], datetime],
        watch: ClockWatch | None = None,
    ) -> None:
        self._queue = queue
        self._quiet = timedelta(seconds=config.quiet_seconds)
        self._max_wait = timedelta(seconds=config.max_wait_seconds)
        self._clock = clock
        self._watch = watch
        # While we were down nobody could send: our own outage is no silence of the sender.
        self._listening_since = clock()
        self._lock = Lock()
        self._last_fed: dict[int, dict[int, datetime]] = {}

    def association_opened(self, association_id: int) -> None:
        """From now on the association holds up whatever it feeds."""
        with self._lock:
            self._last_fed[association_id] = {}

    def fed(self, association_id: int, job_id: int) -> None:
        """Note an image for a job, new or known; after the end of its association this means nothing."""
        with self._lock:
            if association_id in self._last_fed:
                self._last_fed[association_id][job_id] = self._clock()

    def association_closed(self, association_id: int) -> None:
        """Released, aborted or lost: it holds up nothing any more; repeatable."""
        with self._lock:
            self._last_fed.pop(association_id, None)

    def tick(self) -> int:
        """Queue every series that is complete now; returns how many."""
        try:
            if self._watch and (jump := self._watch.jump()):
                log.warning("clock_was_set", seconds=round(jump.total_seconds()))
                self._count_silence_anew()
            return sum(self._complete(job) for job in self._queue.receiving_jobs() if self._is_complete(job))
        except StorageFull as error:
            log.warning("series_not_queued", reason=str(error))
            return 0

    def _count_silence_anew(self) -> None:
        self._queue.clock_was_set()
        self._listening_since = now = self._clock()
        with self._lock:
            self._last_fed = {number: dict.fromkeys(fed, now) for number, fed in self._last_fed.items()}

    def _is_complete(self, job: Job) -> bool:
        now = self._clock()
        if now - max(job.last_instance_at, self._listening_since) < self._quiet:
            return False
        with self._lock:
            fed = [last_fed[job.id] for last_fed in self._last_fed.values() if job.id in last_fed]
        return all(now - last >= self._max_wait for last in fed)

    def _complete(self, job: Job) -> bool:
        try:
            state = self._queue.complete(job.id, f"no image for {self._quiet.total_seconds():g} s")
        except StaleJob:
            return False  # cancelled since it was listed
        log.info(
            "series_complete" if state is JobState.QUEUED else "series_empty",
            job=job.id,
            series=job.series_instance_uid,
            revision=job.revision,
            images=job.instance_count,
        )
        return state is JobState.QUEUED
