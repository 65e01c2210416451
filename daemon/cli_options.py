"""What the commands of `oarlock` share: exit codes, the configuration option, and how failures are said."""

import os
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from daemon.errors import (
    CannotStart,
    ConfigError,
    IllegalTransition,
    ImagesUnread,
    NoSuchJob,
    OutputRejected,
    StaleJob,
    StorageFull,
)
from daemon.printable import printable
from model.errors import BundleError, SeriesUnsuitable

if TYPE_CHECKING:
    from daemon.config import Config

DEFAULT_CONFIG = Path("/etc/oarlock/oarlock.toml")
FAILED = 1
WRONG_USE = 2
_KNOWN_FAILURES = (
    BundleError,
    CannotStart,
    ImagesUnread,
    IllegalTransition,
    NoSuchJob,
    OutputRejected,
    SeriesUnsuitable,
    StaleJob,
    StorageFull,
)

ConfigFile = Annotated[
    Path,
    typer.Option(
        "--config",
        envvar="OARLOCK_CONFIG",
        metavar="FILE",
        help="The configuration; OARLOCK_SECTION__KEY in the environment, as OARLOCK_NODE__PORT, overrides a key.",
    ),
]


def load(path: Path) -> "Config":
    """Load the configuration; raises ConfigError with the file's name before every problem."""
    from daemon.config import load_config

    try:
        return load_config(path, os.environ)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def complain(*sentences: str) -> None:
    """Say on standard error what is wrong, one line each; what a peer put into it does nothing to the terminal."""
    for sentence in sentences:
        sys.stderr.write(f"oarlock: {printable(sentence)}\n")


def wrong_use(sentence: str) -> NoReturn:
    """Complain and end with the exit code for wrong use."""
    complain(sentence)
    raise typer.Exit(WRONG_USE)


def words(error: Exception) -> str | None:
    """Return a failure that may happen as a sentence; None for a mistake of ours.

    Of a failing database they are its own words, and never the values of its statement.
    """
    if isinstance(error, SeriesUnsuitable):
        return f"[{error.code}] {error}"
    if isinstance(error, _KNOWN_FAILURES):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    driver = getattr(error, "orig", error)  # SQLAlchemy wraps it
    return f"the job table: {driver}" if isinstance(driver, sqlite3.Error) else None
