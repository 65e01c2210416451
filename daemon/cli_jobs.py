"""The job table from a terminal: looking at jobs, deciding about them, recovering and exporting them."""

import getpass
import json
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from daemon.cli_options import DEFAULT_CONFIG, FAILED, ConfigFile, complain, load, wrong_use
from daemon.database_url import sqlite_file
from daemon.errors import CannotStart
from daemon.job_queue_looking import head_revision, look_into, of_job, schema_revision, what_to_do
from daemon.job_queue_looking import jobs as newest_jobs
from daemon.job_records import DeliveryRecord
from daemon.jobs import JobState

if TYPE_CHECKING:
    from daemon.job_queue import JobQueue
    from daemon.job_records import JobRecord

app = typer.Typer()

_LARGEST = 2**63 - 1
"""What SQLite holds."""

JobNumber = Annotated[
    int, typer.Argument(metavar="JOB", help="Its number, as in `oarlock jobs`.", min=1, max=_LARGEST)
]
_DAYS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
_LOGIN = Path("/proc/self/loginuid")
Because = Annotated[str, typer.Option(help="Why, for the history.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs; times are UTC.")]


def _table(path: Path) -> str:
    """URL of the job table as it is: a command must neither create nor migrate it under a running node."""
    config = load(path)
    url = config.database.url
    file = sqlite_file(url)
    if not file.exists():
        from daemon.roles import lost_table

        first = f"there is no job table {file} yet; the first start of `oarlock serve` creates it"
        raise CannotStart(lost_table(config) or first)
    if (revision := schema_revision(url)) != head_revision():
        raise CannotStart(
            f"{file} has schema {revision}, this version needs {head_revision()}; {what_to_do(revision)}"
        )
    return url


@contextmanager
def _queue(path: Path) -> Iterator["JobQueue"]:
    """The job table for a command that changes it."""
    from daemon.job_queue import JobQueue
    from daemon.job_queue_engine import sqlite_engine
    from daemon.roles import utc_now

    queue = JobQueue(sqlite_engine(_table(path)), utc_now)
    try:
        yield queue
    finally:
        queue.close()


@app.command(rich_help_panel="Look after jobs")
def jobs(
    *,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=_LARGEST, help="At most this many, newest first.")] = 100,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """List jobs, newest first.

    Examples: `oarlock jobs --state failed`; `oarlock jobs --json | jq '.[].series_instance_uid'`.
    """
    with look_into(_table(config)) as table:
        found = newest_jobs(table, state, limit)
        underway = [] if as_json else [job.id for job in found if job.state is JobState.SEGMENTED]
        deliveries = [each for job in underway for each in of_job(table, DeliveryRecord, job)]
    if as_json:
        from daemon.job_report import plain

        typer.echo(json.dumps([plain(job) for job in found], indent=1))
    elif found:
        from daemon import tables

        tables.console().print(tables.jobs_table(found, deliveries))
    else:
        typer.echo("no jobs")


@app.command(rich_help_panel="Look after jobs")
def show(job: JobNumber, *, as_json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Show one job: every state with time and reason, deliveries with their tries, structures, stage times."""
    from daemon.job_report import read_report

    with look_into(_table(config)) as table:
        report = read_report(table, job)
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=1))
    else:
        from daemon import tables

        tables.console().print(tables.job_page(report))


@app.command(rich_help_panel="Look after jobs")
def retry(job: JobNumber, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Start a failed, rejected or cancelled job again where its work stopped: segmentation or delivery."""
    with _queue(config) as queue:
        typer.echo(f"job {job} is {queue.retry(job, _operator())}")


@app.command(rich_help_panel="Look after jobs")
def resend(
    job: JobNumber,
    *,
    to: Annotated[str | None, typer.Option(metavar="NAME", help="This destination alone.")] = None,
    because: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Send the results of a delivered job once more, the same objects, as to a planner who has deleted them."""
    with _queue(config) as queue:
        queue.send_again(job, to, _by_operator("sent again", because, queue.job(job)))
        typer.echo(f"job {job} is {JobState.SEGMENTED}")


@app.command(rich_help_panel="Look after jobs")
def cancel(job: JobNumber, *, because: Because = "", config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Stop or discard a job that is not delivered, or a resend of one that is; nothing more of it is sent.

    While its images are arriving those that still come are discarded with it, until the sender pauses.
    A failed job counts as decided then, and is purged at its time.
    """
    with _queue(config) as queue:
        detail = _by_operator("cancelled", because, queue.job(job))
        typer.echo(f"job {job} is {queue.cancel(job, detail)}")


@app.command(rich_help_panel="Look after jobs")
def complete(job: JobNumber, *, because: Because = "", config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Queue a job that is still receiving, whatever may still come or be missing."""
    with _queue(config) as queue:
        detail = _by_operator("said to be complete", because, queue.job(job))
        typer.echo(f"job {job} is {queue.complete(job, detail)}")


@app.command(rich_help_panel="Look after jobs")
def release(job: JobNumber, *, because: Because = "", config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Send the results of a held job after all: somebody has looked at them and takes the word for it."""
    with _queue(config) as queue:
        queue.release(job, _by_operator("released", because, queue.job(job)))
        typer.echo(f"job {job} is {JobState.SEGMENTED}")


@app.command(rich_help_panel="Look after jobs")
def reject(
    job: JobNumber,
    *,
    because: Because = "",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Refuse the results of a held job: nothing of it is sent."""
    with _queue(config) as queue:
        queue.refuse(job, _by_operator("rejected", because, queue.job(job)))
        typer.echo(f"job {job} is {JobState.REJECTED}")


@app.command(rich_help_panel="Look after jobs")
def erase(
    jobs: Annotated[
        list[int] | None,
        typer.Argument(metavar="JOB…", help="Numbers, as in `oarlock jobs`.", min=1, max=_LARGEST),
    ] = None,
    *,
    patient: Annotated[str, typer.Option(metavar="ID", help="All jobs of this Patient ID.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Remove a patient for ever: files, name and numbers; the history stays without them.

    Only jobs that are finished; `oarlock cancel` finishes others.
    Copies elsewhere are not reached: back-ups, exports, archives, planning systems.
    """
    from daemon import tables
    from daemon.retention import erase as erase_job
    from daemon.retention import jobs_of_patient
    from daemon.spool import Spool

    loaded = load(config)
    spool = Spool(loaded.storage.root, loaded.storage.min_free_bytes)
    with _queue(config) as queue:
        chosen = [queue.job(job) for job in jobs or ()]
        if patient:
            with tables.console(errors=True).status(
                "looking at the images of series that were never contoured"
            ):
                chosen += jobs_of_patient(queue, spool, patient)
        if not chosen:
            wrong_use("nothing to erase: no job was named, or none has this Patient ID")
        tables.console().print(tables.jobs_table(chosen))
        if not yes:
            typer.confirm("Erase for ever?", abort=True)
        for job in sorted(chosen, key=lambda each: each.id, reverse=True):  # later revisions first
            erase_job(queue, spool, job.id, f"erased by {_operator()}: files and identifiers")
            typer.echo(f"job {job.id} is erased")
    if spool.has_unclaimed():
        complain(f"{loaded.storage.root / 'unclaimed'} was not searched: nobody knows whose images lie there")


@app.command(rich_help_panel="Look after jobs")
def recover(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Rebuild a lost job table from the images and results on disk.

    Stop the services and move what is left of the table aside first.
    Jobs without results are segmented; those with results are held, as nobody knows whether they were delivered.
    Where images or results are damaged, or results fit no destination of today, a job is rejected: `oarlock retry`
    contours it with what is there.
    """
    from rich.progress import Progress

    from daemon import roles, tables

    screen = tables.console(errors=True)
    with Progress(console=screen, disable=not screen.is_terminal) as bars:
        task = bars.add_task("jobs")
        found = roles.recover(
            load(config), lambda done, total: bars.update(task, completed=done, total=total)
        )
    for path, reason in found.left_out:
        complain(f"{path}: {reason}")
    held, rejected = (found.states[state] for state in (JobState.HELD, JobState.REJECTED))
    typer.echo(
        f"{len(found.jobs)} jobs recovered, {held} of them held and {rejected} rejected; see `oarlock jobs`"
    )
    if found.left_out:
        complain(
            "look at these files before the services start, which take images without a row to `unclaimed`"
        )
        raise typer.Exit(FAILED)


@app.command(rich_help_panel="Look after jobs")
def export(
    since: Annotated[datetime, typer.Option(help="From this day or time on, local.", formats=_DAYS)],
    *,
    until: Annotated[
        datetime | None, typer.Option(help="Before this day or time, local.", formats=_DAYS)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="A file; without it, the terminal.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Write the audit trail as CSV: every change of every job's state, and every remark, with time and reason.

    Example: `oarlock export --since 2026-01-01 --output 2026.csv`
    """
    from daemon.audit_trail import write_csv, write_json
    from daemon.roles import utc_now

    try:
        first, last = since.astimezone(), until.astimezone() if until else utc_now()
    except (OverflowError, ValueError):  # in another zone it lies before the year 1 or after 9999
        wrong_use("no calendar has the time of --since or --until")
    if first > last:
        wrong_use("--until is before --since")
    with _queue(config) as queue, nullcontext(sys.stdout) if output is None else _private(output) as file:
        rows = queue.audit_trail(first, last)
        (write_json if as_json else write_csv)(rows, file)


@contextmanager
def _private(path: Path) -> Iterator[TextIO]:
    """A new file for its owner alone: it names patients."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        wrong_use(f"{path} exists")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            yield file
    except BaseException:
        path.unlink()  # half a trail looks like a whole one
        raise


def _by_operator(what: str, because: str, job: "JobRecord") -> str:
    """Who decided what, and why, for a history that can forget the patient."""
    from daemon.failure_words import without_patient

    reason = f": {without_patient(because, job)}" if because else ""
    return f"{what} by {_operator()}{reason}"


def _operator() -> str:
    """Who decides: whoever logged in, also where sudo was called by root."""
    by_sudo = os.environ.get("SUDO_USER", "")
    return by_sudo if by_sudo not in {"", "root"} else _logged_in() or by_sudo or getpass.getuser()


def _logged_in() -> str:
    """The user of this login (pam_loginuid(8)); empty where nobody has logged in, as at boot or in a container."""
    try:
        return pwd.getpwuid(int(_LOGIN.read_text())).pw_name
    except (OSError, ValueError, KeyError, OverflowError):
        return ""
