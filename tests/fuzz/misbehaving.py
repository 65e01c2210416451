"""A reader that does, on request, each thing that none may: by it the fuzzer is tested."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.fuzz.oracle import require_typed
from tests.fuzz.target import FuzzOne, Target


def seeds() -> list[bytes]:
    """The way to misbehave, from the environment."""
    return [os.environ["MISBEHAVE"].encode()]


def _write_outside(folder: Path) -> None:
    path = folder.parent / "oarlock-fuzz-outside"
    path.write_text("lies here")
    path.unlink()


def _hide_that_memory_ran_out(_folder: Path) -> None:
    error = ValueError("refused")
    error.__cause__ = MemoryError()
    require_typed(error)


def _loop(_folder: Path) -> None:
    while True:
        pass


def _fail_in_a_thread(_folder: Path) -> None:
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()


_WAYS: Mapping[bytes, Callable[[Path], object]] = {
    b"raise": lambda _folder: 1 / 0,
    b"hide": _hide_that_memory_ran_out,
    b"write": _write_outside,
    b"allocate": lambda _folder: len(bytearray(os.urandom(1)) * 600_000_000),
    b"loop": _loop,
    b"die": lambda _folder: os.abort(),
    b"start": lambda _folder: threading.Thread(target=threading.Event().wait, daemon=True).start(),
    b"fail in a thread": _fail_in_a_thread,
}


@contextmanager
def opened(folder: Path) -> Iterator[FuzzOne]:
    """Misbehave as each input says."""
    yield lambda data: _WAYS[data](folder)


TARGET = Target((), seeds, lambda data, _rng, _change: data, opened)
