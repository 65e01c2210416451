"""`oarlock lint`: what is wrong with a structure set, whoever wrote it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli_options import FAILED, WRONG_USE, complain, wrong_use

if TYPE_CHECKING:
    from daemon.destination_profile import Profile
    from daemon.lint_report import FileReport

app = typer.Typer()


@app.command(rich_help_panel="Without network or database")
def lint(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", dir_okay=False, help="RT Structure Sets of any vendor.")
    ],
    *,
    ct: Annotated[
        Path | None,
        typer.Option(metavar="DIR", exists=True, file_okay=False, help="Folder with the CT they belong to."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="The receiver, such as eclipse.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Every finding, for programs.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
) -> None:
    """Check structure sets against the standard, IHE-RO, their CT and a receiver's limits.

    Exit codes: 0 no errors, 1 errors (with --strict, also warnings), 2 a file cannot be read.

    Example: `oarlock lint RTSTRUCT.dcm --ct CT/ --profile eclipse`
    """
    from daemon.destination_profile import PROFILES

    if profile is not None and profile not in PROFILES:
        wrong_use(f"no profile is called {profile} (known: {', '.join(PROFILES)})")
    reports = _checked(files, ct, PROFILES[profile] if profile else None)
    _say(reports, as_json=as_json)
    if any(report.unreadable for report in reports):
        raise typer.Exit(WRONG_USE)
    if any(report.fails(strict=strict) for report in reports):
        raise typer.Exit(FAILED)


def _checked(files: Sequence[Path], folder: Path | None, profile: "Profile | None") -> "list[FileReport]":
    """Check each file; what is going on is shown on a terminal, as a large file takes seconds."""
    from daemon.lint import NotReadable, lint_file
    from daemon.lint_images import read_images
    from daemon.lint_report import FileReport
    from daemon.tables import console

    reports = []
    with console(errors=True).status("reading the CT") as status:
        images = read_images(folder) if folder else None
        if images is not None and not images.headers:
            wrong_use(f"{folder} has no CT images")
        for path in files:
            status.update(f"checking {path.name}")
            try:
                reports.append(FileReport(path, tuple(lint_file(path, images, profile))))
            except NotReadable as failure:
                reports.append(FileReport(path, unreadable=str(failure)))
    return reports


def _say(reports: "Sequence[FileReport]", *, as_json: bool) -> None:
    from daemon import lint_report
    from daemon.tables import console

    if as_json:
        typer.echo(json.dumps(lint_report.as_json(reports), indent=2))
    for report in reports:
        if report.unreadable:
            complain(report.unreadable)
        elif not as_json:
            console().print(lint_report.findings_table(report))
            typer.echo(lint_report.summary(report))
