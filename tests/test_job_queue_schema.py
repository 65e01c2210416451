"""The file of the job table: migrations, durability, permissions."""

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from daemon import migrations
from daemon.errors import CannotStart
from daemon.job_queue import head_revision, migrate, schema_revision
from daemon.job_queue_engine import sqlite_engine
from daemon.job_queue_rows import Base
from tests.job_rows import (
    received,
    url_in,
)


def test_the_latest_migration_is_told_without_alembic():
    """Names of files say what Alembic finds in them; loading Alembic would double the time of `oarlock jobs`."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))

    assert head_revision() == scripts.get_current_head()


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_models_and_migrations_agree(tmp_path):
    """An index of an expression, which cannot be reflected, is compared as SQL like all others."""
    migrate(url_in(tmp_path))
    engine = sqlite_engine(url_in(tmp_path))
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        migrated = schema_of(connection)
    engine.dispose()
    plain = create_engine("sqlite://")
    Base.metadata.create_all(plain)
    with plain.connect() as connection:
        assert schema_of(connection) == migrated
    plain.dispose()


def test_migrating_twice_changes_nothing(tmp_path):
    migrate(url_in(tmp_path))
    migrate(url_in(tmp_path))

    assert schema_revision(url_in(tmp_path)) == head_revision()


def test_a_table_at_the_latest_migration_is_opened_without_alembic(tmp_path):
    """Loading it takes a good part of a listener's start."""
    migrate(url_in(tmp_path))
    program = f"""
import sys
from daemon.job_queue import migrate
migrate({url_in(tmp_path)!r})
sys.exit("alembic" in sys.modules)
"""

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_asking_for_the_revision_creates_no_database(tmp_path):
    assert schema_revision(url_in(tmp_path)) is None
    assert not list(tmp_path.iterdir())


def test_a_database_from_a_newer_version_is_refused_untouched(tmp_path):
    migrate(url_in(tmp_path))
    with sqlite3.connect(tmp_path / "oarlock.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    with pytest.raises(CannotStart, match="newer oarlock: its schema is 9999"):
        migrate(url_in(tmp_path))
    assert schema_revision(url_in(tmp_path)) == "9999"


@pytest.mark.parametrize("url", ["postgresql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_only_a_sqlite_file_is_taken(url):
    with pytest.raises(CannotStart, match="SQLite file"):
        migrate(url)


def test_a_folder_that_is_not_there_is_told_to_the_operator(tmp_path):
    with pytest.raises(CannotStart, match="cannot be opened"):
        migrate(url_in(tmp_path / "missing"))


def test_listener_and_worker_may_start_together(tmp_path):
    program = f"from daemon.job_queue import migrate; migrate({url_in(tmp_path)!r})"
    starting = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE) for _ in range(3)]

    assert [process.communicate()[1] for process in starting] == [b"", b"", b""]
    assert schema_revision(url_in(tmp_path)) == head_revision()


def test_every_connection_is_durable_and_checks_references(queue):
    with queue._engine.connect() as connection:
        found = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }

    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def test_only_the_owner_may_read_the_files(queue, tmp_path):
    received(queue)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert {"oarlock.db", "oarlock.db-wal", "oarlock.db-shm"} <= set(modes)
    assert set(modes.values()) == {0o600}


def schema_of(connection):
    """Every table and index as SQL, without the views and Alembic's own table."""
    rows = connection.execute(
        text("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL")
    )
    return {name: constraints_sorted(sql) for name, sql in rows if name != "alembic_version"}


def constraints_sorted(sql):
    """Columns and constraints, each alone; a column that was added later stands in the line of another."""
    parts, depth = [""], 0
    for character in sql[sql.index("(") + 1 : sql.rindex(")")]:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [sql[: sql.index("(")].strip(), *sorted(" ".join(part.split()) for part in parts)]
