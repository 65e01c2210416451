"""Runs the `oarlock` command, in this process for speed or in one of its own where that matters."""

import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from daemon import cli
from tests.paths import REPOSITORY

CONFIG = """
[node]
host = "127.0.0.1"
port = 0

[storage]
root = "{folder}"
min_free_bytes = {min_free_bytes}
"""


def write_config(folder: Path, more: str = "", min_free_bytes: str = "0") -> None:
    """Write `oarlock.toml` for a node whose storage is the folder itself, and more of it."""
    (folder / "oarlock.toml").write_text(CONFIG.format(folder=folder, min_free_bytes=min_free_bytes) + more)


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str


class Oarlock:
    """Runs commands with one configuration and remembers nothing of them."""

    def __init__(self, config: Path, capture: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> None:
        self.config = config
        self._capture = capture
        self._patch = patch
        patch.setenv("OARLOCK_CONFIG", str(config))

    def __call__(self, *arguments: object) -> Answer:
        """Run `oarlock` with these arguments."""
        self._patch.setattr(sys, "argv", ["oarlock", *map(str, arguments)])
        self._capture.readouterr()
        with _logging_kept():
            try:
                code = cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
        return Answer(code, *self._capture.readouterr())


@contextmanager
def _logging_kept() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    hooks = warnings.showwarning, threading.excepthook
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
        warnings.showwarning, threading.excepthook = hooks
        structlog.reset_defaults()


def command(*arguments: object) -> list[str]:
    """Return the command line of an `oarlock` in a process of its own; run it in the repository."""
    return [sys.executable, "-m", "daemon", *map(str, arguments)]


def started(*arguments: object, log: Path) -> subprocess.Popen[str]:
    """Start `oarlock` with its log in a file; the caller ends it."""
    with log.open("w") as stream:
        return subprocess.Popen(command(*arguments), cwd=REPOSITORY, stdout=stream, stderr=stream, text=True)
