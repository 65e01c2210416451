"""What `oarlock structures` prints and writes: templates, profiles, and imports from Eclipse."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from daemon import tables
from daemon.cli_options import FAILED, complain, wrong_use
from daemon.destination_profile import PROFILES, standing
from daemon.eclipse_template import as_toml, read_eclipse_template
from daemon.errors import ConfigError
from daemon.structure_template import Template, TemplateStructure
from daemon.template_checks import notes
from daemon.template_file import load_template


def show(template: Template, profile: str, *, check: bool, as_json: bool) -> None:
    """Print a template's structures, and what may surprise about them; ends with an exit code for `--check`."""
    remarks = notes(template, PROFILES[profile])
    if as_json:
        listed = [_plain(line) for line in template.structures]
        typer.echo(json.dumps({"name": template.name, "structures": listed, "notes": remarks}, indent=1))
    elif not check:
        tables.console().print(_table(template))
    if not as_json:
        for remark in remarks:
            typer.echo(f"note: {remark}")
    if check and remarks:
        raise typer.Exit(FAILED)
    if check and not as_json:
        typer.echo(f"{template.name}: {len(template.structures)} structures, nothing to remark for {profile}")


def _table(template: Template) -> Table:
    table = Table(
        "No.", "", "Name", "Organ or derived from", "Type", "SNOMED CT", "FMA", "Also called", box=None
    )
    for line in template.structures:
        red, green, blue = line.colour_rgb
        codes = line.codes
        table.add_row(
            str(line.number),
            Text("██", style=f"rgb({red},{green},{blue})"),
            tables.safe(line.name),
            tables.safe(line.organ.name if line.organ else line.derivation),
            line.interpreted_type.value,
            codes.snomed.value if codes.snomed else "",
            codes.fma.value if codes.fma else "",
            tables.safe(", ".join(line.synonyms)),
        )
    return table


def _plain(line: TemplateStructure) -> dict[str, Any]:
    return {
        "number": line.number,
        "name": line.name,
        "organ": line.organ.name if line.organ else None,
        "derived": str(line.derivation) if line.derivation else None,
        "colour": list(line.colour_rgb),
        "type": line.interpreted_type.value,
        "codes": {scheme: code for scheme, code in asdict(line.codes).items() if code},
        "synonyms": list(line.synonyms),
    }


def show_profiles(*, as_json: bool) -> None:
    """Print what differs between destinations."""
    if as_json:
        typer.echo(json.dumps({name: list(_profile_rows(name)) for name in PROFILES}, indent=1))
        return
    for name, profile in PROFILES.items():
        table = Table(
            "", "", "Evidence", "", box=None, title=f"{name}: {profile.system}", title_justify="left"
        )
        for row in _profile_rows(name):
            table.add_row(row["what"], row["value"], row["evidence"], row["standing"])
        tables.console().print(table)


def _profile_rows(name: str) -> Iterator[dict[str, str]]:
    for what, value, evidence in PROFILES[name].rows():
        yield {"what": what, "value": value, "evidence": evidence.source, "standing": standing(evidence)}


def import_eclipse(path: Path, output: Path) -> None:
    """Write a template of Eclipse as one of ours; what is not taken over is said."""
    if output.exists():
        wrong_use(f"{output} exists")
    found = read_eclipse_template(path)
    known = [each for each in found if each.organ]
    if not known:
        complain(
            *(f"{each.name}: {each.reason}" for each in found), f"{path}: none of its structures is known"
        )
        raise typer.Exit(FAILED)
    output.write_text(as_toml(found, path.stem), encoding="utf-8")
    try:
        load_template(output)
    except ConfigError:
        output.unlink()
        raise
    for each in found:
        if not each.organ:
            complain(f"{each.name}: {each.reason}; it is not taken over")
    typer.echo(f"{len(known)} of {len(found)} structures: {output}")
