"""The pinned libraries against the database of known vulnerabilities, by pip-audit, which says nothing falsely.

    python -m tests.audit

pip-audit ends with success where it found no database entry for a package, as behind an incomplete mirror.
Here that is a failure: what was not audited is named, with its licence, for somebody to look up by hand.
Exit codes: 0 all audited and nothing known; 1 vulnerabilities; 2 not, or not all, audited.
"""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.paths import REPOSITORY

PINNED = REPOSITORY / "constraints.txt"
AUDITORS = REPOSITORY / "build/auditors/bin/python"
"""Interpreter of the environment that `make audit` and `make test` install, with pip-audit and cyclonedx-bom."""


@dataclass(frozen=True)
class Audit:
    """What pip-audit found: identifiers of vulnerabilities by package, and which packages it looked up at all."""

    vulnerable: dict[str, list[str]]
    audited: frozenset[str]

    @classmethod
    def of(cls, report: dict) -> "Audit":
        """Read its JSON; a package with a skip reason was not looked up."""
        looked_up = [each for each in report["dependencies"] if "skip_reason" not in each]
        known = {plain(each["name"]): [vuln["id"] for vuln in each["vulns"]] for each in looked_up}
        return cls({name: found for name, found in known.items() if found}, frozenset(known))


def plain(name: str) -> str:
    """Spell a package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(path: Path = PINNED) -> dict[str, str]:
    """Version by package name."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return {plain(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def licence(name: str) -> str:
    """What a package declares."""
    try:
        told = metadata(name)
    except PackageNotFoundError:
        return "not installed here"
    classified = [text.rpartition(" :: ")[2] for text in told.get_all("Classifier", []) if "License" in text]
    free_text = (told.get("License") or "").strip().partition("\n")[0]
    return told.get("License-Expression") or ", ".join(classified) or free_text or "none declared"


def ask(path: Path = PINNED) -> Audit | str:
    """Run pip-audit; the last words of it where it came to no report."""
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        answer = subprocess.run(
            [AUDITORS, "-m", "pip_audit", "--requirement", path, "--no-deps", "--disable-pip",
             "--progress-spinner=off", "--timeout=15", "--format=json", "--output", report],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if report.exists():
            return Audit.of(json.loads(report.read_text()))
    return (answer.stderr.strip().splitlines() or ["no words"])[-1]


def tell(console: Console, versions: dict[str, str], found: Audit | str) -> int:
    """Say what was found and what was not looked up; returns the exit code."""
    if isinstance(found, str):
        console.print(
            f"NOT AUDITED: the database of vulnerabilities cannot be reached ({found})", markup=False
        )
        found = Audit({}, frozenset())
    for name, identifiers in found.vulnerable.items():
        console.print(f"VULNERABLE: {name} {versions.get(name)}: {', '.join(identifiers)}", markup=False)
    left = [name for name in versions if name not in found.audited]
    if left:
        console.print(f"NOT AUDITED: {len(left)} of {len(versions)} packages; look these up by hand:")
        table = Table("Package", "Version", "Licence", box=None, pad_edge=False)
        for name in left:
            table.add_row(name, versions[name], licence(name))
        console.print(table)
    else:
        console.print(f"{len(versions)} packages audited, {len(found.vulnerable)} of them vulnerable")
    return 1 if found.vulnerable else 2 if left else 0


if __name__ == "__main__":
    sys.exit(tell(Console(width=None if sys.stdout.isatty() else 120), pinned(), ask()))
