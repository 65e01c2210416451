"""A receiving oarlock on a free port, built by hand as the command line builds it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from daemon.commitment_reports import CommitmentReports
from daemon.commitments import Commitments
from daemon.completeness import Completeness
from daemon.config import Config
from daemon.delivery_setback import Setbacks
from daemon.dicom_port import NetworkLimits
from daemon.evidence import EvidenceGatherer
from daemon.job_queue import JobQueue, open_queue
from daemon.listener import Listener
from daemon.outgoing_association import Timeouts
from daemon.reception import Reception
from daemon.series_query import SeriesQuery
from daemon.spool import Spool


@dataclass(frozen=True)
class ReceivingNode:
    """A running listener and what it fills."""

    listener: Listener
    queue: JobQueue
    spool: Spool
    reception: Reception
    completeness: Completeness

    @property
    def port(self) -> int:
        """Its DICOM port."""
        return self.listener.port


QUERY_TIMEOUTS = Timeouts(connection=1, association=2, response=2, stall=2)


def a_config(root: Path, **sections: Any) -> Config:
    """Anybody may send, any port, no waiting; sections replace."""
    values: dict[str, Any] = {
        "storage": {"root": root, "min_free_bytes": 0},
        "series": {"quiet_seconds": 0},
        "peers": [{"ae_title": "*"}],
    }
    node = {"host": "127.0.0.1", "port": 0} | sections.pop("node", {})
    return Config.model_validate(values | {"node": node} | sections)


def now() -> datetime:
    """Wall clock."""
    return datetime.now(UTC)


@contextmanager
def receiving_node(
    root: Path,
    *,
    limits: NetworkLimits | None = None,
    clock: Callable[[], datetime] = now,
    **sections: Any,
) -> Iterator[ReceivingNode]:
    """Start a listener on an empty spool and job table, and stop it at the end of the block."""
    config = a_config(root, **sections)
    spool = Spool(config.storage.root, config.storage.min_free_bytes)
    spool.prepare()
    queue = open_queue(config.database.url, clock)
    query = SeriesQuery(config, QUERY_TIMEOUTS)
    evidence = EvidenceGatherer(queue, spool, config.series, query.ask, query.is_asked, clock)
    completeness = Completeness(queue, config.series, clock, None, evidence.about, evidence.forget)
    reception = Reception(queue, spool, completeness, config.storage.max_image_bytes)
    commitments = Commitments(queue, spool, clock)
    reports = CommitmentReports(queue, Setbacks(queue, lambda: config, clock, lambda: 1.0))
    listener = Listener(config, reception, completeness, commitments, reports, limits)
    listener.start()
    try:
        yield ReceivingNode(listener, queue, spool, reception, completeness)
    finally:
        listener.stop()
        queue.close()
