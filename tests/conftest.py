"""What many tests begin with: a clock that they set, an empty job table and an empty spool."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from daemon.job_queue import JobQueue
from daemon.spool import Spool
from tests.job_rows import Clock, queue_in

# pynetdicom's programs have the names of DCMTK's, and in an active environment would be found before them.
_OURS = str(Path(sys.executable).parent)
os.environ["PATH"] = os.pathsep.join(way for way in os.environ["PATH"].split(os.pathsep) if way != _OURS)


@pytest.fixture(autouse=True)
def logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command run within a test sets up logging for its process, which is that of all tests."""
    root = logging.getLogger()
    handlers, level = [*root.handlers], root.level
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    before = structlog.get_config() if structlog.is_configured() else None
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    if before:
        structlog.configure(**before)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> Iterator[JobQueue]:
    queue = queue_in(tmp_path, clock)
    yield queue
    queue.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path, 0)
    spool.prepare()
    return spool
