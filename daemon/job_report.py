"""Everything the job table knows about one job, gathered once, as rows for a table or as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.job_queue import JobQueue
from daemon.jobs import Base, Delivery, Finding, Job, JobEvent, Result, SetAside, StageTime, StructureRow


@dataclass(frozen=True)
class JobReport:
    """One job with its history, its deliveries and what was found."""

    job: Job
    events: Sequence[JobEvent]
    deliveries: Sequence[Delivery]
    structures: Sequence[StructureRow]
    stage_times: Sequence[StageTime]
    set_asides: Sequence[SetAside]
    results: Sequence[Result]
    findings: Sequence[Finding]

    def as_json(self) -> dict[str, Any]:
        """Return plain values under the names of the tables; times in ISO 8601, UTC."""
        rows = {
            "events": self.events,
            "deliveries": self.deliveries,
            "structures": self.structures,
            "stage_times": self.stage_times,
            "set_asides": self.set_asides,
            "results": self.results,
            "findings": self.findings,
        }
        return {**plain(self.job), **{name: [plain(row) for row in table] for name, table in rows.items()}}


def read_report(queue: JobQueue, job_id: int) -> JobReport:
    """Gather a job's rows; raises NoSuchJob."""
    return JobReport(
        queue.job(job_id),
        queue.events(job_id),
        queue.deliveries(job_id),
        queue.structures(job_id),
        queue.stage_times(job_id),
        queue.set_asides(job_id),
        queue.results(job_id),
        queue.findings(job_id),
    )


def plain(row: Base) -> dict[str, Any]:
    """Return a row's columns as JSON has them."""
    values = {column.key: getattr(row, column.key) for column in row.__table__.columns}
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in values.items()}
