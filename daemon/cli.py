"""The `oarlock` command: what an administrator can do, with an exit code that tells how it went.

0: done; 1: failed; 2: wrong use or wrong configuration.
"""

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

from daemon import cli_jobs, cli_lint, cli_structures
from daemon.cli_options import DEFAULT_CONFIG, FAILED, WRONG_USE, ConfigFile, complain, load, words, wrong_use
from daemon.errors import ConfigError

_SILENT = frozenset({"jobs", "show"})
"""Commands that load nothing which logs: the library for it would take longer than they do."""

app = typer.Typer(
    name="oarlock",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Contours organs at risk: CT comes in by DICOM, an RT Structure Set goes out.

**To run a node**: edit `/etc/oarlock/oarlock.toml`, try it with `oarlock check`, run it with `oarlock serve`
(or the systemd units).

**To see what it does**: `oarlock jobs`, then `oarlock show 7`.

**To contour a folder**, without network or database: `oarlock segment CT/ --output RTSTRUCT.dcm`.

Exit codes: 0 done, 1 failed, 2 wrong use or configuration.
""",
)


def main() -> int:
    """Run the command line and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a letter shows another one
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="oarlock")
    except ConfigError as error:
        complain(*error.problems)
        return WRONG_USE
    except Exception as error:
        if (sentence := words(error)) is None:
            raise
        complain(sentence)
        return FAILED
    return 0


def _show_version(wanted: bool) -> None:  # noqa: FBT001 -- typer's callbacks take the value alone
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        print(f"oarlock {installed_version('oarlock')}")  # noqa: T201 -- this is what was asked for
    except PackageNotFoundError:
        print("oarlock, not installed")  # noqa: T201 -- likewise
    raise typer.Exit


@app.callback()
def oarlock(
    context: typer.Context,
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Quieten the libraries; a role that runs on configures logging for itself."""
    if context.invoked_subcommand not in _SILENT:
        import logging

        from daemon import logs

        logs.configure(least=logging.CRITICAL)


# Running a node


@contextmanager
def _as_role(role: str) -> Iterator[None]:
    """Say in the log why a role ends: it has no reader at a terminal."""
    import structlog

    from daemon import logs

    logs.configure(role=role)
    log = structlog.get_logger()
    try:
        yield
    except ConfigError as error:
        for problem in error.problems:
            log.critical("configuration_refused", problem=problem)
        raise typer.Exit(WRONG_USE) from error
    except Exception as error:
        sentence = words(error)
        log.critical("role_failed", **({"exc_info": error} if sentence is None else {"reason": sentence}))
        raise typer.Exit(FAILED) from error


@app.command(rich_help_panel="Run a node")
def serve(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run listener and worker together in this terminal, for a trial or a small site; Ctrl-C stops both.

    One that crashes is started again. For a hospital, use the systemd units instead.
    """
    with _as_role("serve"):
        from daemon import roles

        load(config)
        roles.serve(config)


@app.command(rich_help_panel="Run a node")
def listen(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the listener: receive CT images and queue every series that is complete."""
    with _as_role("listen"):
        from daemon import roles

        roles.listen(load(config))


@app.command(rich_help_panel="Run a node")
def work(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Run the worker: contour what is queued and deliver the structure sets."""
    with _as_role("work"):
        from daemon import roles

        roles.work(load(config), config)


@app.command(rich_help_panel="Run a node")
def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Try everything a node needs and show what is wrong: one table, exit code 1 if anything is.

    Configuration, who may send, routes, folders (really written), free space, job table, ports, TLS, model,
    device, and a C-ECHO to every destination. For the service's own rights: `sudo -u oarlock oarlock check`.
    """
    from daemon.self_check import check_all
    from daemon.tables import console

    table, is_good = check_all(config, os.environ)
    console().print(table)
    if not is_good:
        raise typer.Exit(FAILED)


@app.command(rich_help_panel="Run a node")
def echo(
    destination: Annotated[str, typer.Argument(help="Its name in [[destinations]].")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Ask a destination by C-ECHO whether it is there and knows this node: `oarlock echo TPS`."""
    from daemon.delivery import echo as c_echo

    loaded = load(config)
    found = loaded.destination(destination)
    if found is None:
        known = ", ".join(each.name for each in loaded.destinations) or "there is none"
        wrong_use(f"no destination is called {destination} (known: {known})")
    outcome = c_echo(found, loaded.node.ae_title, tls=loaded.tls)
    where = f"{found.name}, {found.ae_title}@{found.host}:{found.port}"
    if not outcome.sent:
        complain(f"{where}: {outcome.kind}: {outcome.detail}")
        raise typer.Exit(FAILED)
    typer.echo(f"{where} answers")


# Without network or database


@app.command(rich_help_panel="Without network or database")
def segment(
    folder: Annotated[
        Path, typer.Argument(metavar="CT_DIR", exists=True, file_okay=False, help="Folder with a CT series.")
    ],
    *,
    output: Annotated[Path, typer.Option(metavar="RTSTRUCT.dcm", dir_okay=False, help="File to write.")],
    bundle: Annotated[
        Path | None, typer.Option(metavar="DIR", exists=True, file_okay=False, help="Another model.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")] = "auto",
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", dir_okay=False, help="Draw the contours as well.")
    ] = None,
    qa_sheet: Annotated[
        Path | None,
        typer.Option(metavar="FILE.pdf", dir_okay=False, help="Contours, volumes and findings, PNG or PDF."),
    ] = None,
    segmentation: Annotated[
        Path | None, typer.Option(metavar="SEG.dcm", dir_okay=False, help="A DICOM Segmentation as well.")
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(metavar="FILE.toml", exists=True, dir_okay=False, help="A site's structure template."),
    ] = None,
    profile: Annotated[str, typer.Option(metavar="NAME", help="The planning system it is for.")] = "generic",
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Which series, where the folder holds several.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the output.")] = False,
) -> None:
    """Contour the CT series in a folder, as the worker would.

    Example: `oarlock segment CT/ --output RTSTRUCT.dcm --picture contours.png`
    """
    files = {"picture": picture, "QA sheet": qa_sheet, "segmentation": segmentation, "structure set": output}
    wanted = {what: path for what, path in files.items() if path}
    _refuse_unwritable(wanted.values(), force=force)
    from daemon import offline, tables
    from daemon.destination_profile import PROFILES
    from daemon.result_objects import ResultKind, WantedObject
    from daemon.structure_template import DEFAULT_TEMPLATE
    from daemon.template_file import load_template

    if profile not in PROFILES:
        wrong_use(f"no profile is called {profile} (known: {', '.join(PROFILES)})")
    outputs = {WantedObject(ResultKind.STRUCTURE_SET, profile, ()): output}
    if segmentation:
        outputs[WantedObject(ResultKind.SEGMENTATION, "", ())] = segmentation
    chosen = load_template(template) if template else DEFAULT_TEMPLATE
    try:
        paths = offline.choose_series(folder, series)
        result = offline.segment(paths, bundle, device, outputs, chosen)
    except offline.WrongSeries as error:
        wrong_use(str(error))
    tables.console().print(tables.structures_table(result.summaries))
    if result.findings:
        tables.console().print(tables.findings_table(result.findings))
    for remark in (*result.remarks, *offline.passed_over(folder)):
        typer.echo(f"note: {remark}")
    if picture:
        offline.picture(result, picture)
    if qa_sheet:
        offline.qa_sheet(result, qa_sheet)
    not_made = set(outputs.values()) - {outputs[file.wanted] for file in result.files}
    for what, path in wanted.items():
        if path not in not_made:
            typer.echo(f"{what}: {path}")


def _refuse_unwritable(paths: Collection[Path], *, force: bool) -> None:
    if len({path.resolve() for path in paths}) < len(paths):
        wrong_use("two of the outputs have one name: " + ", ".join(map(str, paths)))
    for path in paths:
        if not os.access(path.absolute().parent, os.W_OK):
            wrong_use(f"{path.absolute().parent} is no folder that can be written")
        if path.exists() and not force:
            wrong_use(f"{path} exists; --force overwrites it")


app.add_typer(cli_jobs.app)
app.add_typer(cli_structures.app)
app.add_typer(cli_lint.app)
