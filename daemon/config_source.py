"""The configuration as it was written: a TOML file and environment variables, and where each key stands."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.errors import ConfigError

Location = tuple[str | int, ...]

_HEADER = re.compile(r"\s*(\[\[?)([^\]]+)\]")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_QUOTED = re.compile(r"""\"[^"]*\"|'[^']*'""")
_MOST_DOTS = 1000
_OVERRIDE = re.compile(r"OARLOCK_(.+?)__(.+)")


@dataclass(frozen=True)
class Source:
    """The raw values, the line of each key in the file, and the environment variable of each override."""

    values: Mapping[str, Any]
    lines: Mapping[Location, int]
    variables: Mapping[Location, str]
    misplaced: tuple[Location, ...]  # overrides of what is no section in the file

    def place(self, location: Location) -> str:
        """Return a location in words: the variable or the line it stands in, its table and its key."""
        if location in self.variables:
            return f"environment {self.variables[location]}"
        line = self.line(location)
        return f"line {line}, {_name(location)}" if line else _name(location)

    def line(self, location: Location) -> int:
        """Return the line of a key or, where it is not written, of what encloses it; 0 when nothing does."""
        known = location
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines[known] if known else 0


def read_source(path: Path, environ: Mapping[str, str]) -> Source:
    """Read the file and lay the environment's overrides over it, unknown ones included, to be refused later.

    Raises
    ------
    ConfigError
        The file cannot be read or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        _refuse_endless_keys(text)
        values = tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"cannot read the file: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"not UTF-8 text: {error.reason} at byte {error.start}"]) from error
    except ValueError as error:  # also for numbers of thousands of digits
        raise ConfigError([f"not TOML: {error}"]) from error
    except RecursionError as error:
        raise ConfigError(
            ["not a configuration: lists or tables stand in one another hundreds deep"]
        ) from error
    variables: dict[Location, str] = {}
    misplaced: list[Location] = []
    for variable, value in sorted(environ.items()):
        if match := _OVERRIDE.fullmatch(variable):
            if not _is_text(variable + value):
                raise ConfigError([f"environment {variable}: not UTF-8 text"])
            section, key = (part.lower() for part in match.groups())
            variables[section, key] = variable
            if section not in values:
                variables[section,] = variable
            table = values.setdefault(section, {})
            if isinstance(table, dict):
                table[key] = value
            else:
                misplaced.append((section, key))
    return Source(values, _lines(text), variables, tuple(misplaced))


def _refuse_endless_keys(text: str) -> None:
    """Refuse dotted keys over which the parser would sit for minutes: it takes the square of the dots."""
    for number, line in enumerate(text.splitlines(), start=1):
        if any(part.count(".") > _MOST_DOTS for part in _QUOTED.sub("", line).split("=")):
            raise ConfigError([f"line {number}: a key of more than {_MOST_DOTS} parts"])


def _is_text(value: str) -> bool:
    """Whether it can be written as UTF-8; an environment may hold any bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _lines(text: str) -> dict[Location, int]:
    """Return the line of every table and key, numbered from 1, the last table of a name last.

    A scan and no parser, for a text that is known to be TOML: inside a multi-line string it may see a key
    where there is none, and inside an inline table it sees none; a message then names the enclosing key.
    """
    lines: dict[Location, int] = {}
    table: Location = ()
    count: dict[Location, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if match := _HEADER.match(line):
            table = _split(match[2])
            if match[1] == "[[":
                count[table] = count.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, count[table])
            lines.setdefault(table, number)
        elif match := _KEY.match(line):
            location = (*table, *_split(match[1]))
            for end in range(len(table) + 1, len(location) + 1):
                lines.setdefault(location[:end], number)
    return lines


def _split(dotted: str) -> Location:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _name(location: Location) -> str:
    """Return ("node", "port") as `[node] port` and ("peers", 1, "hosts", 0) as `[[peers]] hosts`."""
    if not location:
        return "the file"
    section, *rest = location
    keys = ".".join(str(part) for part in rest if isinstance(part, str))
    table = f"[[{section}]]" if rest and isinstance(rest[0], int) else f"[{section}]"
    return f"{table} {keys}".strip()
