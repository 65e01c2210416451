"""Run every benchmark in a process of its own, and write docs/performance.md from what they kept.

python -m benchmarks                    all, about 20 minutes
python -m benchmarks contours metrics   only these; the page keeps the last figures of the others
python -m benchmarks --page             only write the page
python -m benchmarks --to docs/performance-old-server.md    a page of another machine, beside the first
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import MODULES, page, peers, record


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Modules; all where none is named.")] = None,
    *,
    only_page: Annotated[bool, typer.Option("--page", help="Measure nothing.")] = False,
    to: Annotated[Path, typer.Option(help="The page.")] = page.PAGE,
    quick: Annotated[bool, typer.Option(help="Little work, once: shows that all runs; no page.")] = False,
) -> None:
    """Measure, keep, and write the page."""
    console = Console(stderr=True)
    if unknown := set(names or ()) - set(MODULES):
        raise typer.BadParameter(
            f"no benchmark is called {', '.join(unknown)}; there are {', '.join(MODULES)}"
        )
    failed = []
    if not only_page:
        peers.install(console)
        for name in names or MODULES:
            if find_spec(f"benchmarks.{name}") is None:
                console.print(f"[red]there is no benchmarks/{name}.py yet")
                failed.append(name)
                continue
            console.rule(name)
            command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
    if not quick:
        page.write(record.kept(), to)
        console.print(f"written: {to}")
    if failed:
        console.print(f"[red]failed: {', '.join(failed)}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
