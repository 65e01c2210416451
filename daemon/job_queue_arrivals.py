"""What every single image asks and writes, in SQLite's own words; see `daemon.job_queue_shared`.

Thousands of images come for each other row of the job table, and their senders wait for every one.
Whatever is needed less often stands in `daemon.job_queue_series`.
"""

import sqlite3
from datetime import UTC, datetime

from daemon.job_queue_values import IncomingInstance, KnownInstance, Place

_OF_SERIES = "series_instance_uid = :series AND calling_ae_title = :calling AND called_ae_title = :called"

# An image of a job without images counts as never received: sent again, it opens a new job.
_KNOWN = f"""
    SELECT instances.job_id, instances.sha256 FROM instances JOIN jobs ON jobs.id = instances.job_id
    WHERE instances.sop_instance_uid = :sop AND {_OF_SERIES} AND jobs.state NOT IN ('cancelled', 'purged')
    ORDER BY jobs.revision DESC LIMIT 1
"""  # noqa: S608 -- written here, values are bound
# As `job_queue_series.open_for`: of a series that is discarded while it arrives, the rest goes with it.
_OPEN = f"""
    SELECT id FROM jobs WHERE {_OF_SERIES} AND (state = 'receiving' OR (discarding AND NOT EXISTS (
        SELECT 1 FROM instances WHERE instances.job_id = jobs.id AND instances.sop_instance_uid = :sop
    ))) ORDER BY revision DESC LIMIT 1
"""  # noqa: S608 -- likewise
_IS_WAITING = f"SELECT 1 FROM jobs WHERE {_OF_SERIES} AND state IN ('receiving', 'queued') LIMIT 1"  # noqa: S608 -- likewise
_SAME = "SELECT sha256 FROM instances WHERE job_id = :job AND sop_instance_uid = :sop"
_COUNT = """
    UPDATE jobs SET instance_count = instance_count + 1, byte_count = byte_count + :bytes, last_instance_at = :now
    WHERE id = :job
"""
_ADD = """
    INSERT INTO instances (job_id, sop_instance_uid, sha256, byte_count, transfer_syntax_uid, received_at)
    SELECT id, :sop, :sha256, :bytes, :syntax, :now FROM jobs
    WHERE id = :job AND (state = 'receiving' OR discarding) ON CONFLICT DO NOTHING
"""


def _stored(moment: datetime) -> str:
    """Write a time as SQLAlchemy stores it in SQLite."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def place(database: sqlite3.Connection, series_uid: str, sop_uid: str, calling: str, called: str) -> Place:
    """Find the newest revision of a sender's series that holds an image, and the job that receives the series."""
    which = {"series": series_uid, "sop": sop_uid, "calling": calling, "called": called}
    known = database.execute(_KNOWN, which).fetchone()
    receiving = database.execute(_OPEN, which).fetchone()
    return Place(KnownInstance(*known) if known else None, receiving[0] if receiving else None)


def is_waiting(database: sqlite3.Connection, series_uid: str, calling: str, called: str) -> bool:
    """Whether a job of a sender's series receives, or is queued and could receive again."""
    which = {"series": series_uid, "calling": calling, "called": called}
    return database.execute(_IS_WAITING, which).fetchone() is not None


def add_instance(
    database: sqlite3.Connection, now: datetime, job_id: int, incoming: IncomingInstance
) -> bool:
    """Count an image that is on disk; False where the job no longer receives."""
    values = {
        "job": job_id,
        "sop": incoming.sop_instance_uid,
        "sha256": incoming.sha256,
        "bytes": incoming.byte_count,
        "syntax": incoming.transfer_syntax_uid,
        "now": _stored(now),
    }
    if database.execute(_ADD, values).rowcount:
        database.execute(_COUNT, values)
        return True
    return bool(database.execute(_SAME, values).fetchone() == (incoming.sha256,))
