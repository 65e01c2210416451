"""A look into the job table sees every column of every row, one state of it, and changes nothing."""

import sqlite3
from dataclasses import astuple, fields
from datetime import datetime

import pytest
from sqlalchemy.orm import Session

from daemon.errors import StorageFull
from daemon.job_queue_looking import _TABLES, job, jobs, look_into, of_job
from daemon.job_queue_rows import Base
from daemon.job_records import EventRecord
from tests.job_rows import delivered, held, image, queue_in, queued, segmented, url_in


@pytest.fixture
def queue(tmp_path):
    """A job of every kind of row."""
    queue = queue_in(tmp_path)
    delivered(queue, "1.2.1")
    segmented(queue, "TPS", "PACS", series="1.2.2")
    refused = held(queue, "1.2.3")
    queue.set_aside(refused, image(1, "1.2.3", content=b"other"), "other.dcm")
    queued(queue, "1.2.4")
    yield queue
    queue.close()


@pytest.mark.parametrize("kind", _TABLES, ids=lambda kind: kind.__name__)
def test_records_are_the_rows_sqlalchemy_reads(queue, tmp_path, kind):
    """Columns, values and types: what two ways of reading one table could differ in."""
    row = next(each.class_ for each in Base.registry.mappers if each.class_.__tablename__ == _TABLES[kind])
    names = [column.key for column in row.__table__.columns]
    with Session(queue._engine) as session:
        rows = session.query(row).order_by(row.id).all()
        expected = [tuple(getattr(each, name) for name in names) for each in rows]
    with look_into(url_in(tmp_path)) as database:
        if _TABLES[kind] == "jobs":
            found = jobs(database, None, 10)[::-1]
        else:
            found = [each for number in range(1, 5) for each in of_job(database, kind, number)]

    assert sorted(field.name for field in fields(kind)) == sorted(names)
    assert expected
    found.sort(key=lambda each: each.id)
    assert [tuple(getattr(each, name) for name in names) for each in found] == expected
    assert [[type(value) for value in astuple(each)] for each in found] == [
        [type(getattr(each, field.name)) for field in fields(kind)] for each in rows
    ]


def test_a_look_changes_nothing(queue, tmp_path):
    with look_into(url_in(tmp_path)) as database, pytest.raises(sqlite3.OperationalError, match="readonly"):
        database.execute("DELETE FROM jobs")

    assert len(queue.jobs()) == 4


def test_a_look_sees_one_state_whatever_is_written_meanwhile(queue, tmp_path):
    """A job and its history belong together, though a worker writes between the two questions."""
    with look_into(url_in(tmp_path)) as database:
        before = job(database, 4)
        queue.cancel(4, "cancelled by a test")
        events = of_job(database, EventRecord, 4)

    assert events[-1].to_state is before.state
    assert isinstance(events[-1].at, datetime)
    assert queue.job(4).state is not before.state


def test_a_table_that_is_not_there_is_told_and_not_created(tmp_path):
    with pytest.raises(StorageFull, match="could not be read"), look_into(url_in(tmp_path)):
        pass

    assert not list(tmp_path.iterdir())
