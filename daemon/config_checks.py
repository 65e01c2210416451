"""What no single value of the configuration shows: clashing names, dead references, unwritable folders."""

import errno
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from daemon.config_source import Location
from daemon.database_url import sqlite_file

Problem = tuple[Location, str]

# All else, such as a disk that is full, has a fault or was made read-only after one, is no mistake in the
# configuration: it must not keep an administrator from `oarlock jobs`, nor a service from trying again.
_MISTAKES = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}

_ONE_IS_ENOUGH = {"peers": "; put the hosts of both into one"}


def contradictions(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Return what contradicts itself in raw values; what has the wrong type is left to validation."""
    yield from _twice(values, "destinations", "name")
    yield from _twice(values, "peers", "ae_title")
    named = (table.get("name") for _, table in _tables(values, "destinations"))
    names = {name for name in named if isinstance(name, str)}
    for index, route in _tables(values, "routes"):
        for key in ("destinations", "structures"):
            entries = _entries(route, key)
            for entry in sorted({entry for entry in entries if entries.count(entry) > 1}):
                yield ("routes", index, key), f'"{entry}" stands here twice'
        for name in _entries(route, "destinations"):
            if name not in names:
                known = ", ".join(sorted(filter(None, names))) or "there is none"
                yield ("routes", index, "destinations"), f'no destination is called "{name}" (known: {known})'


def unwritable_folders(values: Mapping[str, Any], folder: Path) -> Iterator[Problem]:
    """Write into every folder the configuration names and return those that refuse."""
    root = _table(values, "storage").get("root")
    with suppress(RuntimeError):  # nobody's home, which validation reports
        if isinstance(root, str) and (refusal := _refusal(folder / Path(root).expanduser())):
            yield ("storage", "root"), refusal
    file = _sqlite_file(_table(values, "database").get("url"))
    if file and (refusal := _refusal(file.parent)):
        yield ("database", "url"), refusal


def _twice(values: Mapping[str, Any], section: str, key: str) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, table in _tables(values, section):
        if not isinstance(name := table.get(key), str):
            continue
        name = name.strip(" ")
        if name in seen:
            first = f'"{name}" is also number {seen[name]} of the [[{section}]]'
            yield (section, index, key), first + _ONE_IS_ENOUGH.get(section, "")
        seen.setdefault(name, index + 1)


def _table(values: Mapping[str, Any], section: str) -> Mapping[str, Any]:
    table = values.get(section)
    return table if isinstance(table, dict) else {}


def _tables(values: Mapping[str, Any], section: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    tables = values.get(section)
    if isinstance(tables, list):
        yield from ((index, table) for index, table in enumerate(tables) if isinstance(table, dict))


def _entries(table: Mapping[str, Any], key: str) -> list[str]:
    entries = table.get(key)
    return [entry for entry in entries if isinstance(entry, str)] if isinstance(entries, list) else []


def _sqlite_file(url: object) -> Path | None:
    try:
        return sqlite_file(url) if isinstance(url, str) else None
    except ValueError:
        return None


def _refusal(folder: Path) -> str | None:
    """Really write into the folder, or into what is above while it does not exist; say why that fails."""
    present = folder
    try:
        while not present.exists() and present != present.parent:
            present = present.parent
        with tempfile.TemporaryFile(dir=present) as probe:
            probe.write(b"oarlock")
    except OSError as error:
        if error.errno in _MISTAKES:
            return f"cannot write in {present}: {error.strerror}"
    return None
