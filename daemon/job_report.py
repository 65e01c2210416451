"""Everything the job table knows about one job, gathered once, as rows for a table or as JSON."""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from daemon.job_queue_looking import job, of_job
from daemon.job_records import (
    DeliveryRecord,
    EventRecord,
    FindingRecord,
    JobRecord,
    ResultRecord,
    SetAsideRecord,
    StageTimeRecord,
    StructureRecord,
)

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class JobReport:
    """One job with its history, its deliveries and what was found."""

    job: JobRecord
    events: Sequence[EventRecord]
    deliveries: Sequence[DeliveryRecord]
    structures: Sequence[StructureRecord]
    stage_times: Sequence[StageTimeRecord]
    set_asides: Sequence[SetAsideRecord]
    results: Sequence[ResultRecord]
    findings: Sequence[FindingRecord]

    def as_json(self) -> dict[str, Any]:
        """Return plain values under the names of the tables; times in ISO 8601, UTC."""
        rows: dict[str, Sequence[DataclassInstance]] = {
            "events": self.events,
            "deliveries": self.deliveries,
            "structures": self.structures,
            "stage_times": self.stage_times,
            "set_asides": self.set_asides,
            "results": self.results,
            "findings": self.findings,
        }
        return {**plain(self.job), **{name: [plain(row) for row in table] for name, table in rows.items()}}


def read_report(database: sqlite3.Connection, job_id: int) -> JobReport:
    """Gather a job's rows; raises NoSuchJob."""
    return JobReport(
        job(database, job_id),
        of_job(database, EventRecord, job_id),
        of_job(database, DeliveryRecord, job_id),
        of_job(database, StructureRecord, job_id),
        of_job(database, StageTimeRecord, job_id),
        of_job(database, SetAsideRecord, job_id),
        of_job(database, ResultRecord, job_id),
        of_job(database, FindingRecord, job_id),
    )


def plain(record: "DataclassInstance") -> dict[str, Any]:
    """Return a row's columns as JSON has them."""
    return {
        key: value.isoformat() if isinstance(value, datetime) else value
        for key, value in asdict(record).items()
    }
