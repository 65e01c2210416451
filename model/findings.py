"""What was noticed about an image or a result, how grave it is, and the words for it."""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import StrEnum

_CODE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Severity(StrEnum):
    """What a finding asks of people; members compare as text, so use `gravest` and not `max`."""

    NOTE = "note"
    """Worth knowing; nothing needs doing."""
    WARNING = "warning"
    """Look at this structure or this image before use."""
    HOLD = "hold"
    """Must not leave before a person has looked."""


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Parameters
    ----------
    code
        Lower-case words joined by hyphens; what administrators query for.
    structure
        Name of the organ concerned, None where it is the whole image.
    text
        What was found, with its numbers, and what was expected. Never anything that identifies a patient.
    others
        Organs with which it was compared; any of them may be the one that is wrong.
    """

    code: str
    severity: Severity
    structure: str | None
    text: str
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _CODE.fullmatch(self.code):
            raise ValueError(f"{self.code!r} is no finding's code; needed are lower-case words with hyphens")

    def concerns(self, organs: Container[str]) -> bool:
        """Whether it is about any of these organs; what is about the whole image is not."""
        return any(name in organs for name in (self.structure, *self.others) if name)


def gravest(findings: Iterable[Finding]) -> Severity | None:
    """The gravest severity among findings, None where there are none."""
    ranks = list(Severity)
    return max((finding.severity for finding in findings), key=ranks.index, default=None)
