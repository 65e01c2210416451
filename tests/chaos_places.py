"""Where a kill has hit: read from spool and job table between the death of a process and its next start."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

RECEIVING = "within an image"
BEFORE_ROW = "between an image's file and its row"
SEGMENTING = "while segmenting"
BEFORE_STATE = "between a result and its state"
DELIVERING = "within a delivery"
IDLE = "elsewhere"
PLACES = (RECEIVING, BEFORE_ROW, SEGMENTING, BEFORE_STATE, DELIVERING)


def places_hit(root: Path, victims: tuple[str, ...]) -> list[str]:
    """What the processes that were just killed have left half done; `IDLE` where that is nothing."""
    uri = f"file:{root / 'oarlock.db'}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=10)) as table:
        found = [*(_of_listener(root, table) if "listen" in victims else ())]
        found += _of_worker(root, table) if "work" in victims else ()
    return found or [IDLE]


def _of_listener(root: Path, table: sqlite3.Connection) -> Iterator[str]:
    """Only jobs that still receive can have been written to."""
    if any(root.glob("arriving/*.part")):
        yield RECEIVING
    for (job,) in table.execute("SELECT id FROM jobs WHERE state = 'receiving'").fetchall():
        uids = table.execute("SELECT sop_instance_uid FROM instances WHERE job_id = ?", (job,))
        known = {f"{hashlib.sha256(uid.encode()).hexdigest()[:32]}.dcm" for (uid,) in uids}
        images = [path.name for path in (root / f"jobs/{job:08d}/images").glob("*")]
        if any(name.endswith(".part") for name in images):
            yield RECEIVING
        if any(name.endswith(".dcm") and name not in known for name in images):
            yield BEFORE_ROW


def _of_worker(root: Path, table: sqlite3.Connection) -> Iterator[str]:
    leased = "SELECT id, strftime('%s', state_since) FROM jobs WHERE state = 'segmenting'"
    for job, since in table.execute(leased).fetchall():
        result = root / f"jobs/{job:08d}/structure_set.dcm"
        is_new = result.exists() and result.stat().st_mtime >= int(since)
        yield BEFORE_STATE if is_new else SEGMENTING
    under_way = "SELECT count(*) FROM deliveries WHERE state = 'pending' AND lease_owner IS NOT NULL"
    if table.execute(under_way).fetchone()[0]:
        yield DELIVERING
