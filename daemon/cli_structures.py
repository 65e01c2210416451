"""`oarlock structures`: what a template asks for, what a profile makes of it, and templates from Eclipse."""

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli_options import wrong_use

app = typer.Typer()


@app.command(rich_help_panel="Run a node")
def structures(
    template: Annotated[
        Path | None,
        typer.Argument(metavar="[TEMPLATE.toml]", dir_okay=False, help="Without it, the default."),
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Say only what is wrong or may surprise; exit code 1 if anything.")
    ] = False,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="For which destination; `--profiles` lists them.")
    ] = "generic",
    profiles: Annotated[
        bool, typer.Option("--profiles", help="What differs between destinations, and on whose word.")
    ] = False,
    import_eclipse: Annotated[
        Path | None, typer.Option(metavar="FILE.xml", dir_okay=False, help="A structure template of Eclipse.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="SITE.toml", dir_okay=False, help="Where the import is written.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List what structure sets hold: organs, names, colours, types, codes and derived structures.

    Examples: `oarlock structures site.toml --check --profile eclipse`;
    `oarlock structures --import-eclipse HN.xml --output site.toml`
    """
    from daemon import structures_listing as listing
    from daemon.destination_profile import PROFILES
    from daemon.structure_template import DEFAULT_TEMPLATE
    from daemon.template_file import load_template

    if profile not in PROFILES:
        wrong_use(f"no profile is called {profile} (known: {', '.join(PROFILES)})")
    if import_eclipse:
        if output is None:
            wrong_use("--import-eclipse needs --output SITE.toml")
        listing.import_eclipse(import_eclipse, output)
    elif profiles:
        listing.show_profiles(as_json=as_json)
    else:
        chosen = load_template(template) if template else DEFAULT_TEMPLATE
        listing.show(chosen, profile, check=check, as_json=as_json)
