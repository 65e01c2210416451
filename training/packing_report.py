"""What was packed, what was left out and why: a table on the terminal and a CSV file beside the packs."""

import csv
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.config import ORGANS
from training.dataset import Case


class Outcome(StrEnum):
    """What became of what a line is about."""

    PACKED = "packed"
    LEFT_OUT = "left out"
    REMARK = "remark"
    ORIGIN = "comes from"


class OrganState(StrEnum):
    """What is known of an organ in a case; only the first two teach anything.

    Absent is also what lies beyond the image.
    """

    CONTOURED = "contoured"
    ABSENT = "absent"
    NOT_CONTOURED = "not contoured"


@dataclass(frozen=True)
class Line:
    """One line: a case, file or folder, the part of it that is meant (an organ, a ROI), what became of it, why."""

    subject: str
    part: str
    outcome: Outcome
    reason: str
    split: str = ""


@dataclass
class Report:
    """Everything that happened while one source was packed."""

    lines: list[Line] = field(default_factory=list)
    states: dict[str, Counter[OrganState]] = field(default_factory=dict)

    def packed(self, case: Case, split: str) -> None:
        """A case went into a pack of a split."""
        states = organ_states(case)
        for organ, state in states.items():
            self.states.setdefault(organ, Counter())[state] += 1
        words = [
            f"{state}: {', '.join(organs)}"
            for state in OrganState
            if (organs := [organ for organ in ORGANS if states[organ] is state])
        ]
        self.lines.append(Line(case.name, "", Outcome.PACKED, "; ".join(words), split))

    def left_out(self, subject: str, reason: str, part: str = "") -> None:
        """A case, a file, or a part of it was not used."""
        self.lines.append(Line(subject, part, Outcome.LEFT_OUT, reason))

    def remark(self, subject: str, reason: str, part: str = "") -> None:
        """Something was used that a person may want to look at."""
        self.lines.append(Line(subject, part, Outcome.REMARK, reason))

    def origin(self, subject: str, place: str) -> None:
        """Where a case under a made-up name comes from; in the file only."""
        self.lines.append(Line(subject, "", Outcome.ORIGIN, place))

    def count(self, outcome: Outcome) -> int:
        """How many lines have this outcome."""
        return sum(line.outcome is outcome for line in self.lines)

    def show(self, console: Console) -> None:
        """Print what was left out or is remarkable, and how many cases say what of each organ."""
        table = Table("what", "part", "", "reason", title=f"{self.count(Outcome.PACKED)} cases packed")
        for (part, outcome, reason), subjects in self._alike().items():
            subject = subjects[0] if len(subjects) == 1 else f"{len(subjects)} ×"
            table.add_row(*(escape(word) for word in (subject, part, outcome, reason)))
        if table.row_count:
            console.print(table)
        if self.states:
            console.print(self._organ_table())

    def _alike(self) -> dict[tuple[str, Outcome, str], list[str]]:
        """What was left out or is remarkable: the same thing once, with all that it happened to."""
        alike: dict[tuple[str, Outcome, str], list[str]] = {}
        for line in self.lines:
            if line.outcome in {Outcome.LEFT_OUT, Outcome.REMARK}:
                alike.setdefault((line.part, line.outcome, line.reason), []).append(line.subject)
        return alike

    def _organ_table(self) -> Table:
        table = Table(
            "organ", *OrganState, title=f"what {self.count(Outcome.PACKED)} cases say of each organ"
        )
        for organ in ORGANS:
            counted = self.states.get(organ, Counter())
            table.add_row(organ, *(str(counted[state]) for state in OrganState))
        return table

    def write(self, path: Path) -> None:
        """Write every line as CSV: subject, part, outcome, reason, split."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [each.name for each in fields(Line)])
            writer.writeheader()
            writer.writerows(asdict(line) for line in self.lines)


def organ_states(case: Case) -> dict[str, OrganState]:
    """What a case says of each organ."""
    return {
        organ: OrganState.NOT_CONTOURED
        if organ not in case.known
        else OrganState.CONTOURED
        if case.organ(organ).any()
        else OrganState.ABSENT
        for organ in ORGANS
    }
