"""The audit trail as a file: CSV for spreadsheets, JSON for programs."""

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import Any, TextIO

from daemon.job_queue import AuditRow

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so would be computed by a spreadsheet; patients' data come over the network."""


def write_csv(rows: Iterable[AuditRow], file: TextIO) -> None:
    """One line per event under a line of column names; times in ISO 8601, UTC."""
    writer = csv.writer(file)
    writer.writerow(field.name for field in fields(AuditRow))
    for row in rows:
        writer.writerow(_cell(value) for value in _values(row).values())


def write_json(rows: Iterable[AuditRow], file: TextIO) -> None:
    """A list of objects, one line each; times in ISO 8601, UTC."""
    separator = "[\n"
    for row in rows:
        file.write(separator + json.dumps(_values(row), ensure_ascii=False))
        separator = ",\n"
    file.write("\n]\n" if separator != "[\n" else "[]\n")


def _values(row: AuditRow) -> dict[str, Any]:
    return asdict(row) | {"at": row.at.isoformat()}


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
