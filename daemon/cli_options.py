"""What the commands of `oarlock` share: exit codes, the configuration option, and how failures are said."""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from daemon.config import Config, load_config
from daemon.errors import (
    CannotStart,
    ConfigError,
    IllegalTransition,
    NoSuchJob,
    OutputRejected,
    StaleJob,
    StorageFull,
)
from model.errors import BundleError, SeriesUnsuitable

FAILED = 1
WRONG_USE = 2
KNOWN_FAILURES = (
    BundleError,
    CannotStart,
    IllegalTransition,
    NoSuchJob,
    OutputRejected,
    SQLAlchemyError,
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
        help="The configuration; OARLOCK_<SECTION>__<KEY> in the environment overrides single keys.",
    ),
]


def load(path: Path) -> Config:
    """Load the configuration; raises ConfigError with the file's name before every problem."""
    try:
        return load_config(path, os.environ)
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def complain(*sentences: str) -> None:
    """Say on standard error what is wrong, one line each."""
    for sentence in sentences:
        sys.stderr.write(f"oarlock: {sentence}\n")


def wrong_use(sentence: str) -> NoReturn:
    """Complain and end with the exit code for wrong use."""
    complain(sentence)
    raise typer.Exit(WRONG_USE)


def words(error: Exception) -> str:
    """Return what is wrong as a sentence; a database's words, but never the values of its statement."""
    if isinstance(error, SeriesUnsuitable):
        return f"[{error.code}] {error}"
    if isinstance(error, SQLAlchemyError):
        return f"the job table: {getattr(error, 'orig', None) or type(error).__name__}"
    return str(error)
