"""A job table of any size, as years of work leave it behind, filled by SQL: what calls cost is measured on it."""

import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.job_queue import JobQueue, open_queue
from daemon.jobs import JobState

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
"""When the first purged jobs came."""

_JOBS = """
    WITH RECURSIVE numbers(n) AS (
        SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :first + :count)
    INSERT INTO jobs (
        id, state, revision, calling_ae_title, called_ae_title, study_instance_uid, series_instance_uid,
        patient_id, patient_name, accession_number, study_date, study_description, series_description,
        instance_count, byte_count, created_at, last_instance_at, state_since, attempts, reason, reason_code,
        result_sop_instance_uid, result_series_instance_uid)
    SELECT n, :state, 1, 'CT1', 'OARLOCK', '1.2.840.99.1.' || n, '1.2.840.99.2.' || n,
        'P' || (n / 3), 'Test^Phantom', 'A' || n, '20260302', 'Head and neck', 'CT', 1, 526000, :at, :at, :at, 1,
        :reason, :reason, '2.25.1' || n, '2.25.2' || n
    FROM numbers"""
_IMAGES = """
    INSERT INTO instances (job_id, sop_instance_uid, sha256, byte_count, transfer_syntax_uid, received_at)
    SELECT id, series_instance_uid || '.1', 'f00d', 526000, '1.2.840.10008.1.2.1', created_at
    FROM jobs WHERE id >= :first"""
# Purged jobs have a whole history, as long ago as the job's number is low.
_EVENTS = """
    INSERT INTO job_events (job_id, at, from_state, to_state, detail)
    SELECT jobs.id, strftime('%Y-%m-%d %H:%M:%f000', created_at, (60 * jobs.id + steps.seconds) || ' seconds'),
        steps.origin, steps.target, 'made'
    FROM jobs JOIN (
        SELECT NULL AS origin, 'receiving' AS target, 0 AS seconds
        UNION ALL SELECT 'receiving', 'queued', 90
        UNION ALL SELECT 'queued', 'segmenting', 91
        UNION ALL SELECT 'segmenting', 'segmented', 110
        UNION ALL SELECT 'segmented', 'delivered', 111
        UNION ALL SELECT 'delivered', 'purged', 2592000
    ) AS steps
    WHERE jobs.id >= :first AND (jobs.state = 'purged' OR steps.origin IS NULL)
    ORDER BY jobs.id, steps.seconds"""
_DELIVERIES = """
    INSERT INTO deliveries (job_id, destination, state, attempts, created_at, sent_at)
    SELECT id, 'TPS', :delivery, 0, created_at, CASE :delivery WHEN 'sent' THEN created_at END
    FROM jobs WHERE id >= :first"""


class JobTable:
    """A job table that grows."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "oarlock.db"
        self.queue: JobQueue = open_queue(f"sqlite:///{self.file}", lambda: NOW)
        self._next = 1

    def __len__(self) -> int:
        """Jobs so far."""
        return self._next - 1

    def close(self) -> None:
        """Close every connection."""
        self.queue.close()

    def ask(self, question: str) -> list[tuple[object, ...]]:
        """Put a question in SQL, as an administrator does."""
        connection = sqlite3.connect(self.file)
        try:
            return connection.execute(question).fetchall()
        finally:
            connection.close()

    def give_jobs_back(self) -> None:
        """Undo claims of jobs."""
        for job in self.queue.jobs(JobState.SEGMENTING):
            self.queue.give_back(job.id, str(job.lease_owner), "measured")

    def give_deliveries_back(self) -> None:
        """Undo claims of deliveries.

        Found by an index: a scan of all of them pushes out of the processor's caches what the next claim needs,
        which then takes twice as long.
        """
        with sqlite3.connect(self.file) as connection:
            connection.execute(
                "UPDATE deliveries SET lease_owner = NULL, lease_expires_at = NULL"
                " WHERE lease_expires_at IS NOT NULL"
            )
        connection.close()

    def add(self, count: int, state: JobState, delivery: str = "sent", reason: str | None = None) -> range:
        """Add jobs with an image, a history and a delivery each; returns their numbers."""
        first, self._next = self._next, self._next + count
        since = LONG_AGO if state is JobState.PURGED else NOW - timedelta(days=2)
        values = {
            "first": first,
            "count": count,
            "state": state.value,
            "at": f"{since:%Y-%m-%d %H:%M:%S.%f}",
            "delivery": delivery,
            "reason": reason,
        }
        with sqlite3.connect(self.file, isolation_level=None) as connection:
            # Nobody's data: no need to wait for the disk.
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA cache_size = -500000")  # kB
            connection.execute("BEGIN IMMEDIATE")
            statements = [_JOBS, _IMAGES, _EVENTS]
            if state not in {JobState.RECEIVING, JobState.QUEUED}:
                statements.append(_DELIVERIES)
            for statement in statements:
                connection.execute(statement, values)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        os.sync()  # what the system still owes the disk would be part of the next commit
        return range(first, self._next)
