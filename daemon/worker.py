"""The worker: one thread segments, a few deliver, and the main thread tidies and watches them."""

import os
import random
import socket
import time
from collections.abc import Callable
from datetime import datetime
from threading import Condition, Event, Thread
from uuid import uuid4

import structlog

from daemon.clock_watch import ClockWatch
from daemon.commitment_reporter import CommitmentReporter
from daemon.config import Config
from daemon.courier import Courier
from daemon.errors import StaleJob, StorageFull
from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Job
from daemon.job_runner import LEASE_SECONDS, JobRunner
from daemon.jobs import JobState
from daemon.outgoing_association import Timeouts
from daemon.retention import forget_old, purge_old
from daemon.segmentation import SegmentsVolumes
from daemon.spool import Spool

log = structlog.get_logger()

COURIERS = 4
"""So many destinations may hang at the same time before others wait for them."""
POLL_SECONDS = 1.0
CLAIM_SECONDS = 0.25
"""How often a job is looked for; it comes from another process, which cannot call."""
EXPIRY_SECONDS = 10.0
RETENTION_SECONDS = 600.0
TIDYING_SECONDS = 10.0
"""Of a tick for what is to be purged: a supervisor hears nothing meanwhile."""
STALLED_SECONDS = 1800.0
"""Without any progress for so long a thread hangs; a slow CPU reports more often, a delivery ends sooner."""
DRAIN_SECONDS = 1200.0
"""What a stop waits for the job under way; systemd's TimeoutStopSec must be longer."""
BREAK_OFF_SECONDS = 30.0


class Worker:
    """The worker role, as `daemon.service.run` wants it.

    Parameters
    ----------
    settings
        Gives the configuration as it stands now; see `ConfigFile.current`.
    timeouts
        Of deliveries.
    drain_seconds
        After this a stop gives the job under way back to the queue instead of finishing it.
    """

    def __init__(
        self,
        queue: JobQueue,
        spool: Spool,
        segmenter: SegmentsVolumes,
        settings: Callable[[], Config],
        clock: Callable[[], datetime],
        *,
        timeouts: Timeouts | None = None,
        jitter: Callable[[], float] = random.random,
        drain_seconds: float = DRAIN_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        watch: ClockWatch | None = None,
    ) -> None:
        owner = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"
        self._queue = queue
        self._spool = spool
        self._settings = settings
        self._clock = clock
        self._watch = watch or ClockWatch(clock, last_known=queue.last_event_at())
        self._drain_seconds = drain_seconds
        self._courier = Courier(queue, spool, settings, clock, owner, jitter, timeouts)
        self._commitments = CommitmentReporter(queue, spool, settings, clock, jitter)
        self._runner = JobRunner(
            queue,
            spool,
            segmenter,
            settings,
            clock,
            owner,
            jitter,
            on_progress=lambda: self._beat("segmentation"),
            lease_seconds=lease_seconds,
        )
        self._stopping = Event()
        self._handed_over = Condition()  # a job has ended, and may have something to deliver
        self._beats: dict[str, float] = {}
        self._threads: dict[str, Thread] = {}
        self._fatal: Exception | None = None
        self._next_expiry = self._next_retention = time.monotonic()

    def start(self) -> None:
        """Start the threads."""
        self._queue.cut_times()
        steps = {"segmentation": (self._segment_next, self._wait_for_jobs)}
        steps["commitment"] = (self._commitments.report_next, self._wait_for_deliveries)
        couriers = (f"delivery-{number}" for number in range(1, COURIERS + 1))
        steps |= dict.fromkeys(couriers, (self._courier.deliver_next, self._wait_for_deliveries))
        for name, (step, wait) in steps.items():
            self._beat(name)
            self._threads[name] = Thread(target=self._repeat, args=(name, step, wait), name=name, daemon=True)
        for thread in self._threads.values():
            thread.start()

    def tick(self) -> None:
        """Tidy what is due; raises what ended a thread, as only a new process mends that."""
        if self._fatal is not None:
            raise self._fatal
        now = time.monotonic()
        try:
            if jump := self._watch.jump():
                self._queue.clock_was_set()
                self._watch.settled(jump)
                log.warning("clock_was_set", seconds=round(jump.total_seconds()))
            if now >= self._next_expiry:
                self._next_expiry = now + EXPIRY_SECONDS
                for job in self._queue.release_expired():
                    _tell_released(job)
            if now >= self._next_retention:
                self._next_retention = now + RETENTION_SECONDS
                self._tidy(until=now + TIDYING_SECONDS)
        except StorageFull as error:
            log.warning("tidying_postponed", reason=str(error))

    def _tidy(self, until: float) -> None:
        """Purge and forget what is due; of much only so much that the rest of the tick does not wait for it."""
        retention = self._settings().retention
        cautious_now = self._watch.cautious_now()
        purge_old(
            self._queue,
            self._spool,
            cautious_now,
            retention.days,
            retention.failed_days,
            lambda: time.monotonic() < until,
        )
        forget_old(self._queue, cautious_now, retention.identifiers_days)
        if time.monotonic() >= until:
            self._next_retention = until

    def stop(self) -> None:
        """Finish the job and the deliveries under way; past the limit the job goes back to the queue at once.

        A delivery that is broken off is repeated with the same object when its lease runs out.
        """
        self._stopping.set()
        self._call_couriers()
        if doing := self._runner.doing:
            log.info("worker_draining", doing=doing)
        deadline = time.monotonic() + self._drain_seconds
        segmentation = self._threads["segmentation"]
        segmentation.join(self._drain_seconds)
        if segmentation.is_alive():
            self._runner.break_off()
            segmentation.join(BREAK_OFF_SECONDS)
        if segmentation.is_alive():
            self._abandon()
        for thread in self._threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))

    def is_healthy(self) -> bool:
        """Whether every thread lives and has come further lately."""
        latest = time.monotonic() - STALLED_SECONDS
        return all(thread.is_alive() and self._beats[name] > latest for name, thread in self._threads.items())

    def status(self) -> str:
        """What is under way."""
        return self._runner.doing or "waiting for work"

    def _segment_next(self) -> bool:
        """Run a job and call the couriers, who would otherwise come at their next round."""
        was_busy = self._runner.run_next()
        if was_busy:
            self._call_couriers()
        return was_busy

    def _call_couriers(self) -> None:
        with self._handed_over:
            self._handed_over.notify_all()

    def _wait_for_jobs(self) -> None:
        self._stopping.wait(CLAIM_SECONDS)

    def _wait_for_deliveries(self) -> None:
        with self._handed_over:
            if not self._stopping.is_set():
                self._handed_over.wait(POLL_SECONDS)

    def _repeat(self, name: str, step: Callable[[], bool], wait: Callable[[], None]) -> None:
        """Take step after step until the worker stops, with a pause where there was nothing to do."""
        while not self._stopping.is_set():
            self._beat(name)
            try:
                is_busy = step()
            except StorageFull as error:
                log.warning("worker_waits_for_storage", thread=name, reason=str(error))
                is_busy = False
            except Exception as error:  # noqa: BLE001 -- the main thread raises it and ends the process
                self._fatal = error
                return
            if not is_busy:
                wait()

    def _abandon(self) -> None:
        try:
            self._runner.abandon()
        except (StaleJob, StorageFull) as error:
            log.warning("job_left_to_its_lease", reason=str(error))

    def _beat(self, thread: str) -> None:
        self._beats[thread] = time.monotonic()


def _tell_released(job: Job) -> None:
    """Log a job whose worker fell silent, as the worker would have that found it failing."""
    with structlog.contextvars.bound_contextvars(job=job.id, series=job.series_instance_uid):
        log.warning("lease_expired", attempt=job.attempts)
        if job.state is JobState.FAILED:
            log.error("job_failed", attempts=job.attempts)
