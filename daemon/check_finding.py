"""What `oarlock check` says of one thing that it tried."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What a finding means for the node."""

    GOOD = "good"
    NOTE = "note"
    """Worth knowing, and nothing wrong."""
    WRONG = "wrong"
    """Must be put right before patients' images arrive."""


@dataclass(frozen=True)
class Finding:
    """One thing that was tried, and what came of it."""

    subject: str
    verdict: Verdict
    detail: str


def good(subject: str, detail: str) -> Finding:
    """It works."""
    return Finding(subject, Verdict.GOOD, detail)


def note(subject: str, detail: str) -> Finding:
    """Worth knowing."""
    return Finding(subject, Verdict.NOTE, detail)


def wrong(subject: str, detail: str) -> Finding:
    """It does not work."""
    return Finding(subject, Verdict.WRONG, detail)
