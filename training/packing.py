"""How every source of training data is asked for its cases: what the operator chooses, who is in which split."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from training.config import ORGANS
from training.dataset import Case
from training.packing_report import Report
from training.roi_names import RoiNames

TRAIN, VALIDATION = "train", "validation"
SPLITS = (TRAIN, VALIDATION)

CONTRADICTION = "it is contoured, but was declared absent: one of both is wrong"
EMPTY = "empty, and not declared absent: taken as not contoured"


class PackingError(Exception):
    """The data cannot be packed as asked; the message says what to change."""


@dataclass(frozen=True)
class Choices:
    """What the operator decides for data sets that do not say it themselves.

    Parameters
    ----------
    names
        ROI names to organs.
    absent
        Patient to the organs which that patient truly lacks, such as a resected gland.
    validation
        Share of the patients that are kept for measuring, 0 to 1, or the patients themselves.
    """

    names: RoiNames
    absent: Mapping[str, frozenset[str]] = field(default_factory=dict)
    validation: float | frozenset[str] = 0.0

    def split(self, patient: str) -> str:
        """In which split a patient is; by a share, it stays there when others join or leave."""
        if isinstance(self.validation, frozenset):
            return VALIDATION if patient in self.validation else TRAIN
        place = int(hashlib.sha256(patient.encode()).hexdigest()[:8], 16) / 16**8
        return VALIDATION if place < self.validation else TRAIN

    def require_known(self, patients: Iterable[str], report: Report) -> None:
        """Refuse tables that name patients who are not there: most likely they are misspelt."""
        there = set(patients)
        listed = self.validation if isinstance(self.validation, frozenset) else frozenset()
        for table, named in (("--validation", listed), ("--absent", frozenset(self.absent))):
            if missing := sorted(named - there):
                raise PackingError(
                    f"{table} names patients that are not there: {', '.join(missing)}; there are {len(there)}, "
                    "correct the table or take the lines out"
                )
        if listed and not there - listed:
            report.remark("--validation", "names every patient: nothing is left to train on")


PreparedCase = tuple[str, Case]
"""Split and case."""

Source = Callable[[Path, Choices, Report], Iterator[PreparedCase]]
"""Reads a folder; what cannot be used goes into the report."""


def read_validation(text: str) -> float | frozenset[str]:
    """A share such as 0.2 or 20 %, or a file with one patient per line (lines with # are comments).

    Raises
    ------
    PackingError
        Neither.
    """
    path = Path(text)
    if path.is_file():
        lines = [line.partition("#")[0].strip() for line in _text(path).splitlines()]
        return frozenset(line for line in lines if line)
    try:
        number = text.replace(" ", "")
        share = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise PackingError(f"--validation {text!r} is neither a share such as 0.2 nor a file of patients")
    return share


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PackingError(f"{path} cannot be read: {error}; needed is a text file in UTF-8") from error


def read_absent(path: Path) -> dict[str, frozenset[str]]:
    """A CSV table with the columns `patient` and `organ` (TG-263), one line for each organ that is not there.

    Raises
    ------
    PackingError
        Other columns, or an organ that is not known.
    """
    rows = list(csv.DictReader(StringIO(_text(path))))
    absent: dict[str, set[str]] = {}
    for number, row in enumerate(rows, start=2):
        patient, organ = ((row.get(key) or "").strip() for key in ("patient", "organ"))
        if not patient or organ not in ORGANS:
            raise PackingError(
                f"{path}, line {number}: needed are the columns patient,organ with one of {', '.join(ORGANS)}; "
                f"found {organ!r}"
            )
        absent.setdefault(patient, set()).add(organ)
    return {patient: frozenset(organs) for patient, organs in absent.items()}
