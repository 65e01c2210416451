"""`oarlock jobs`, `show`, `retry`, `cancel`, `release` and `reject`: the job table from a terminal."""

import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import make_url

from daemon import tables
from daemon.cli_options import ConfigFile, load
from daemon.config import DEFAULT_CONFIG
from daemon.errors import CannotStart
from daemon.job_queue import JobQueue, head_revision, schema_revision
from daemon.job_queue_engine import sqlite_engine
from daemon.job_report import plain, read_report
from daemon.jobs import JobState
from daemon.roles import utc_now

app = typer.Typer()

JobNumber = Annotated[int, typer.Argument(metavar="JOB", help="Its number, as in `oarlock jobs`.", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="For programs; times are UTC.")]


@contextmanager
def _queue(path: Path) -> Iterator[JobQueue]:
    """Open the job table as it is: looking at it must neither create nor migrate it under a running node."""
    url = load(path).database.url
    file = Path(make_url(url).database or "")
    if not file.exists():
        raise CannotStart(f"there is no job table {file} yet; the first start of `oarlock serve` creates it")
    if (revision := schema_revision(url)) != head_revision():
        raise CannotStart(
            f"{file} has schema {revision}, this version needs {head_revision()}; restart the services"
        )
    queue = JobQueue(sqlite_engine(url), utc_now)
    try:
        yield queue
    finally:
        queue.close()


@app.command(rich_help_panel="Look after jobs")
def jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most this many, newest first.")] = 100,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """List jobs, newest first.

    Examples: `oarlock jobs --state failed`; `oarlock jobs --json | jq '.[].series_instance_uid'`.
    """
    with _queue(config) as queue:
        found = queue.jobs(state, limit)
    if as_json:
        typer.echo(json.dumps([plain(job) for job in found], indent=1))
    elif found:
        tables.console().print(tables.jobs_table(found))
    else:
        typer.echo("no jobs")


@app.command(rich_help_panel="Look after jobs")
def show(job: JobNumber, *, as_json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Show one job: every state with time and reason, deliveries with their tries, structures, stage times."""
    with _queue(config) as queue:
        report = read_report(queue, job)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=1))
    else:
        tables.console().print(tables.job_page(report))


@app.command(rich_help_panel="Look after jobs")
def retry(job: JobNumber, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Start a failed, rejected or cancelled job again where its work stopped: segmentation or delivery."""
    with _queue(config) as queue:
        typer.echo(f"job {job} is {queue.retry(job)}")


@app.command(rich_help_panel="Look after jobs")
def cancel(job: JobNumber, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Stop a job that is not finished; nothing more of it is sent."""
    with _queue(config) as queue:
        queue.cancel(job, f"cancelled by {_operator()}")
        typer.echo(f"job {job} is {JobState.CANCELLED}")


@app.command(rich_help_panel="Look after jobs")
def release(job: JobNumber, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Send the results of a held job after all: somebody has looked at them and takes the word for it."""
    with _queue(config) as queue:
        queue.release(job, f"released by {_operator()}")
        typer.echo(f"job {job} is {JobState.SEGMENTED}")


@app.command(rich_help_panel="Look after jobs")
def reject(
    job: JobNumber,
    *,
    because: Annotated[str, typer.Option(help="Why, for the history.")] = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Refuse the results of a held job: nothing of it is sent."""
    with _queue(config) as queue:
        queue.refuse(job, f"rejected by {_operator()}" + (f": {because}" if because else ""))
        typer.echo(f"job {job} is {JobState.REJECTED}")


def _operator() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()
