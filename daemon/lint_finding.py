"""What a rule about structure sets is, and what it says of a file that breaks it."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How much a finding matters, worst first."""

    ERROR = "error"
    """Against the standard or against the images: receivers refuse the file, or show something else."""
    WARNING = "warning"
    """Against the profile of IHE-RO, or legal and yet known to go wrong; a person should look."""
    NOTE = "note"
    """Worth knowing, and nothing wrong."""


@dataclass(frozen=True)
class Finding:
    """One place where a structure set breaks a rule.

    Parameters
    ----------
    code
        The rule's, stable between versions.
    path
        Attribute or item, such as ``ROIContourSequence[3].ContourSequence[12]``; items count from 1.
    text
        What was found, with its value; never a patient's name, identifier or birth date.
    advice
        What to do about it.
    roi
        Name of the ROI it concerns.
    z_mm
        Mean patient z of the contour it concerns, in mm.
    """

    code: str
    severity: Severity
    path: str
    text: str
    advice: str
    roi: str | None = None
    z_mm: float | None = None


@dataclass(frozen=True)
class Rule:
    """Something that must hold in a structure set.

    Parameters
    ----------
    code
        Stable, in kebab case.
    severity
        Of every finding of the rule.
    meaning
        What its findings say, for the table of rules.
    advice
        What to do about it.
    source
        Where the rule comes from.
    """

    code: str
    severity: Severity
    meaning: str
    advice: str
    source: str

    def at(self, path: str, text: str, roi: str | None = None, z_mm: float | None = None) -> Finding:
        """Say that the rule is broken here."""
        return Finding(self.code, self.severity, path, text, self.advice, roi, z_mm)


def error(code: str, meaning: str, advice: str, source: str) -> Rule:
    """Return a rule whose findings are errors."""
    return Rule(code, Severity.ERROR, meaning, advice, source)


def warning(code: str, meaning: str, advice: str, source: str) -> Rule:
    """Return a rule whose findings are warnings."""
    return Rule(code, Severity.WARNING, meaning, advice, source)


def note(code: str, meaning: str, advice: str, source: str) -> Rule:
    """Return a rule whose findings are notes."""
    return Rule(code, Severity.NOTE, meaning, advice, source)
