"""A look into the job table without SQLAlchemy, whose loading takes longer than all that is looked up."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from daemon.database_url import sqlite_file
from daemon.errors import NoSuchJob, StorageFull
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
from daemon.jobs import DeliveryState, JobState

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Record = TypeVar("_Record", bound="DataclassInstance")

_MIGRATIONS = Path(__file__).parent / "migrations" / "versions"
_TABLES: dict[type, str] = {
    JobRecord: "jobs",
    SetAsideRecord: "set_asides",
    EventRecord: "job_events",
    ResultRecord: "results",
    FindingRecord: "findings",
    DeliveryRecord: "deliveries",
    StructureRecord: "structures",
    StageTimeRecord: "stage_times",
}


@contextmanager
def look_into(url: str) -> Iterator[sqlite3.Connection]:
    """See one consistent state of a job table that is there; nothing can be changed by it.

    Raises
    ------
    StorageFull
        The database could not be read.
    """
    place = f"{sqlite_file(url).as_uri()}?mode=rw"  # who may only read gets no more by it
    try:
        with closing(sqlite3.connect(place, uri=True, isolation_level=None)) as database:
            database.execute("PRAGMA query_only = ON")
            database.execute("BEGIN")
            yield database
    except sqlite3.OperationalError as error:
        raise StorageFull(f"the job table could not be read: {error}") from error


def schema_revision(url: str) -> str | None:
    """Revision the database stands at; None before the first migration, also where there is no file yet."""
    if not sqlite_file(url).exists():
        return None
    with look_into(url) as database:
        return revision_of(database)


def revision_of(database: sqlite3.Connection) -> str | None:
    """What Alembic has written down; None before the first migration."""
    tables = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'alembic_version'"
    if not database.execute(tables).fetchone()[0]:
        return None
    found = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found[0]) if found else None


def head_revision() -> str:
    """Revision this program needs."""
    return max(known_revisions())


def known_revisions() -> Sequence[str]:
    """Of all migrations: each file's name begins with its own."""
    return [path.stem.partition("_")[0] for path in _MIGRATIONS.glob("[0-9]*.py")]


def what_to_do(revision: str | None) -> str:
    """For whoever found a job table that stands at another revision than this program needs."""
    if revision is None:
        return "it is empty: move it aside, then run `oarlock recover` or put back a copy"
    if revision < head_revision():
        return "restart the services"
    return "install the newer version again"


def jobs(database: sqlite3.Connection, state: JobState | None, limit: int) -> list[JobRecord]:
    """Newest jobs first."""
    where, values = ("", ()) if state is None else ("WHERE state = ?", (state.value,))
    return _read(database, JobRecord, f"{where} ORDER BY id DESC LIMIT ?", *values, limit)


def job(database: sqlite3.Connection, job_id: int) -> JobRecord:
    """One job; raises NoSuchJob."""
    found = _read(database, JobRecord, "WHERE id = ?", job_id)
    if not found:
        raise NoSuchJob(job_id)
    return found[0]


def is_purged(database: sqlite3.Connection, job_id: int) -> bool:
    """Whether there is such a job, and it is purged."""
    which = (job_id, JobState.PURGED.value)
    return database.execute("SELECT 1 FROM jobs WHERE id = ? AND state = ?", which).fetchone() is not None


def of_patient(database: sqlite3.Connection, patient_id: str) -> list[JobRecord]:
    """Jobs of a Patient ID, oldest first."""
    return _read(database, JobRecord, "WHERE patient_id = ? ORDER BY id", patient_id)


def of_several(database: sqlite3.Connection) -> list[JobRecord]:
    """Jobs whose files are there and may be of several patients: never contoured, or with images set aside.

    Contoured is only what was read and found to be of one patient.
    """
    is_mixed = "model_digest IS NULL OR EXISTS (SELECT 1 FROM set_asides WHERE job_id = jobs.id)"
    return _read(database, JobRecord, f"WHERE state != ? AND ({is_mixed}) ORDER BY id", JobState.PURGED.value)


def of_job(database: sqlite3.Connection, kind: type[_Record], job_id: int) -> list[_Record]:
    """Rows of one kind that belong to a job, in the order in which they were written."""
    return _read(database, kind, "WHERE job_id = ? ORDER BY id", job_id)


def _read(database: sqlite3.Connection, kind: type[_Record], which: str, *values: object) -> list[_Record]:
    converters = _converters(kind)
    query = f"SELECT {', '.join(converters)} FROM {_TABLES[kind]} {which}"  # noqa: S608 -- values are bound
    return [
        kind(**{name: read(value) for (name, read), value in zip(converters.items(), row, strict=True)})
        for row in database.execute(query, values)
    ]


@cache
def _converters(kind: "type[DataclassInstance]") -> dict[str, Callable[[Any], Any]]:
    """Each column of a table and what makes the field's type of what SQLite holds."""
    hints = get_type_hints(kind)
    return {field.name: _converter(hints[field.name]) for field in fields(kind)}


def _converter(hint: object) -> Callable[[Any], Any]:
    """By the field's type; what may be None stays None."""
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    read = _READ.get(kinds[0])
    return _as_it_is if read is None else lambda value: None if value is None else read(value)


def _as_it_is(value: object) -> object:
    return value


def _moment(text: str) -> datetime:
    """A time as SQLAlchemy stores it in SQLite: UTC without its zone."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


_READ: dict[object, Callable[[Any], Any]] = {
    bool: bool,
    datetime: _moment,
    DeliveryState: DeliveryState,
    JobState: JobState,
}
