"""The lock of a spool's one listener: a second one would remove at its start what the first is writing."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.errors import CannotStart

_NAME = "listener.lock"


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold the lock; raises CannotStart where another process does, or where there can be none."""
    try:
        descriptor = os.open(root / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"{root / _NAME} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CannotStart(f"another listener already works on {root}") from error
    finally:
        os.close(descriptor)


def is_held(root: Path) -> bool:
    """Whether a listener works on a spool; no, where that cannot be seen."""
    try:
        descriptor = os.open(root / _NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
