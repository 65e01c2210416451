"""The connection to the SQLite file: durability, locking, short transactions, and the schema's revision."""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from daemon.database_url import sqlite_file
from daemon.errors import CannotStart, StorageFull
from daemon.job_queue_looking import head_revision, known_revisions, revision_of
from daemon.job_queue_shared import SharedCommits

log = structlog.get_logger()

BUSY_SECONDS = 60
"""How long a connection waits for another process's write; each lasts milliseconds."""

_BEGIN = "oarlock_begin"
_MIGRATIONS = Path(__file__).parent / "migrations"


def sqlite_engine(url: str) -> Engine:
    """Engine on a SQLite file whose commits survive a power cut.

    The file is created readable and writable by its owner alone, because it holds patient identifiers;
    SQLite gives its journal files the same mode.

    Raises
    ------
    CannotStart
        The URL names no SQLite file, or the file cannot be created.
    """
    file = _file_of(url)
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
        file.chmod(0o600)
    except OSError as error:
        raise CannotStart(f"the job table {file} cannot be opened for writing: {error.strerror}") from error
    # Without `hide_parameters` an error quotes the row, and with it the patient, into the log.
    engine = create_engine(
        URL.create("sqlite", database=str(file)),
        connect_args={"timeout": BUSY_SECONDS}, max_overflow=-1, hide_parameters=True,
    )  # fmt: skip
    event.listen(engine, "connect", _prepare_connection)
    event.listen(engine, "begin", _begin)
    return engine


def migrate(url: str) -> None:
    """Bring the database to this program's schema, creating it where there is none.

    A file lock lets listener and worker start together; one transaction holds the whole upgrade.

    Raises
    ------
    CannotStart
        The database was written by a newer version of the program, or its file is damaged.
    """
    engine = sqlite_engine(url)
    try:
        _refuse_damage(engine, _file_of(url))
        with _alone(_file_of(url)), engine.execution_options(**{_BEGIN: "IMMEDIATE"}).begin() as connection:
            if _known_revision(connection) != head_revision():
                _upgrade(connection)
    finally:
        engine.dispose()


def forget_journal(engine: Engine) -> None:
    """Empty the write-ahead log, where what was blanked stands until it is overwritten.

    While another process reads an older state it stays, as where the disk is full, and the next call empties it.
    """
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        assert raw is not None, "a checked-out connection has its driver's"
        connection.rollback()  # a checkpoint cannot run within a transaction
        # It would wait for readers with SQLite's lock for writers in its hand, and nobody could write meanwhile.
        raw.execute("PRAGMA busy_timeout = 0")
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.OperationalError as error:
            log.warning("journal_not_emptied", reason=str(error))
        finally:
            raw.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")


class Transactions:
    """Short transactions on one engine: reading ones see a snapshot, writing ones begin IMMEDIATE.

    A plain BEGIN that reads and then writes fails with "database is locked" as soon as somebody else wrote in
    between, whatever the busy timeout.
    The threads of one process queue on a lock instead of on SQLite's busy timeout, which polls and is unfair.
    """

    def __init__(self, engine: Engine) -> None:
        self._read = sessionmaker(engine, expire_on_commit=False)
        self._write = sessionmaker(
            engine.execution_options(**{_BEGIN: "IMMEDIATE"}), expire_on_commit=False, autoflush=True
        )
        self._turn = threading.Lock()
        self.shared = SharedCommits(engine, self._turn, BUSY_SECONDS)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Read one consistent snapshot; never waits for a writer.

        Raises
        ------
        StorageFull
            The database could not be read.
        """
        try:
            with self._read() as session:
                yield session
        except OperationalError as error:
            raise StorageFull(f"the job table could not be read: {error.orig}") from error

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Read and write alone; commits at the end, rolls back on any exception.

        Raises
        ------
        StorageFull
            The database could not be written: disk full, disk fault, or locked beyond `BUSY_SECONDS`.
        """
        # Each that waits for its turn would otherwise wait for all before it as well, minutes in the end.
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise StorageFull(f"the job table could not be written: busy for {BUSY_SECONDS} s")
        try:
            with self._write.begin() as session:
                yield session
        except OperationalError as error:
            raise StorageFull(f"the job table could not be written: {error.orig}") from error
        finally:
            self._turn.release()


def _file_of(url: str) -> Path:
    try:
        return sqlite_file(url)
    except ValueError as error:
        raise CannotStart(f"the URL of the job table {error}") from error


def _prepare_connection(connection: sqlite3.Connection, _record: object) -> None:
    # The driver must not begin transactions of its own: `_begin` does, in the mode that is needed.
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        # 0x0000 was a promise: with WAL, only FULL syncs the journal at every commit.
        "synchronous = FULL",
        "foreign_keys = ON",
        # A patient's name blanked at the end of retention must not linger in free pages.
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get(_BEGIN, 'DEFERRED')}")


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Hold the lock file beside the database."""
    try:
        descriptor = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"{file}.lock cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _refuse_damage(engine: Engine, file: Path) -> None:
    """Leave a damaged file as it is: what can still be read from it is for a person to decide."""
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    except DatabaseError as error:
        if isinstance(error, OperationalError):
            raise CannotStart(f"the job table {file} cannot be read: {error.orig}") from error
        found = str(error.orig)
    if found != "ok":
        raise CannotStart(
            f"the job table {file} is damaged ({found}); nothing was changed. Put back a copy, or move the file "
            "aside with its -wal and -shm and run `oarlock recover`, which rebuilds it from the spool"
        )


def _known_revision(connection: Connection) -> str | None:
    """Where the schema stands, None before the first migration; one of a newer version is refused."""
    raw = connection.connection.driver_connection
    assert raw is not None, "a connection in use has its driver's"
    found = revision_of(raw)
    if found is not None and found not in known_revisions():
        raise CannotStart(
            f"the job table was written by a newer oarlock: its schema is {found}, this version knows up to "
            f"{head_revision()}; install the newer version again or restore the database from before"
        )
    return found


def _upgrade(connection: Connection) -> None:
    # Not above: a table that needs no upgrade would wait for them as long as for everything else.
    from alembic import command
    from alembic.config import Config as AlembicConfig

    settings = AlembicConfig(attributes={"connection": connection})
    settings.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    command.upgrade(settings, "head")
