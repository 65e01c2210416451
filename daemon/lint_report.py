"""What `oarlock lint` says: a table for people, JSON for programs, and the table of all rules."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.lint import GROUPS, RULES
from daemon.lint_finding import Finding, Severity
from daemon.printable import printable

SCHEMA = 1
"""Version of the JSON; raised when a key changes its meaning or goes."""

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "dim"}


@dataclass(frozen=True)
class FileReport:
    """What was found in one file; `unreadable` says why it could not be read at all."""

    path: Path
    findings: tuple[Finding, ...] = ()
    unreadable: str | None = None

    def count(self, severity: Severity) -> int:
        """Return how many findings have this severity."""
        return sum(finding.severity is severity for finding in self.findings)

    def fails(self, *, strict: bool) -> bool:
        """Whether there are errors, or warnings where these count too."""
        failing = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
        return any(finding.severity in failing for finding in self.findings)


def as_json(reports: Sequence[FileReport]) -> dict[str, object]:
    """Return every finding of every file; docs/lint.md describes the keys."""
    return {
        "schema": SCHEMA,
        "files": [
            {
                "file": str(report.path),
                "unreadable": report.unreadable,
                "counts": {str(severity): report.count(severity) for severity in Severity},
                "findings": [asdict(finding) for finding in report.findings],
            }
            for report in reports
        ],
    }


def summary(report: FileReport) -> str:
    """Return one line: the file and how many findings of each severity it has."""
    counts = [_counted(report.count(severity), severity) for severity in Severity]
    return f"{report.path}: {', '.join(counts)}"


def _counted(count: int, severity: Severity) -> str:
    return f"{count} {severity}" + ("" if count == 1 else "s")


def findings_table(report: FileReport) -> RenderableType:
    """Findings by severity; those of one rule about one ROI share a row, which shows the first."""
    return Group(*(part for severity in Severity for part in _section(report, severity)))


def _section(report: FileReport, severity: Severity) -> Iterable[RenderableType]:
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        if finding.severity is severity:
            groups.setdefault((finding.code, finding.roi or finding.text), []).append(finding)
    if not groups:
        return
    table = Table(
        "Rule", "ROI", "Where", "Found", "What to do", box=None, pad_edge=False, header_style="bold"
    )
    for (code, _), group in groups.items():
        table.add_row(
            Text(code, style=_COLOURS[severity]),
            _safe(group[0].roi or ""),
            _safe(_where(group)),
            _safe(group[0].text),
            _safe(group[0].advice),
        )
    yield Text(_counted(report.count(severity), severity), style=_COLOURS[severity])
    yield table
    yield ""


def _where(group: Sequence[Finding]) -> str:
    first = group[0]
    heights = [finding.z_mm for finding in group if finding.z_mm is not None]
    words = first.path
    if heights and min(heights) == max(heights):
        words += f", z {heights[0]:g} mm"
    elif heights:
        words += f", z {min(heights):g} to {max(heights):g} mm"
    return words + (f", and {len(group) - 1} more" if len(group) > 1 else "")


def _safe(value: str) -> Text:
    """Text of a file that came from anywhere, without what a terminal takes for commands."""
    return Text(printable(value), overflow="fold")


def rules_markdown() -> str:
    """Return the table of all rules, as docs/lint.md has it."""
    lines = [f"{len(RULES)} rules.", ""]
    for group, rules in GROUPS.items():
        lines += [
            f"### {group}",
            "",
            "| rule | severity | says that | what to do | source |",
            "|---|---|---|---|---|",
        ]
        for rule in rules:
            cells = (f"`{rule.code}`", str(rule.severity), rule.meaning, rule.advice, rule.source)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)
