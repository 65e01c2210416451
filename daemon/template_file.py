"""A structure template's TOML file: read, or every problem in it with its line."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from daemon.config import Route
from daemon.config_source import Location, read_source
from daemon.derivation import Derivation, Margin, Operation
from daemon.errors import ConfigError
from daemon.structure_template import (
    DEFAULT_TEMPLATE,
    Codes,
    InterpretedType,
    Template,
    TemplateStructure,
    is_plain,
    organ_line,
    template_of,
)
from daemon.template_checks import contradictions
from model.structures import EXTRA_STRUCTURES, STRUCTURES, Code, offered_structure

_LONGEST_MARGIN_MM = 100.0
_DARKER = 0.6
_GREY = (160, 160, 160)


def _plain(name: str) -> str:
    if not is_plain(name):
        raise ValueError("must be printable ASCII without backslash and without spaces at its ends")
    return name


def _colour(value: object) -> object:
    """`#ffec00` as [255, 236, 0]."""
    digits = value.removeprefix("#") if isinstance(value, str) else ""
    if isinstance(value, str):
        if not value.startswith("#") or not re.fullmatch("[0-9A-Fa-f]{6}", digits):
            raise ValueError(f'must be like "#ffec00" or [255, 236, 0], found {value!r}')
        return tuple(bytes.fromhex(digits))
    return value


def _organ(name: str) -> str:
    return offered_structure(name).name


_Name = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_plain)]
_Byte = Annotated[int, Field(ge=0, le=255)]
_Millimetres = Annotated[float, Field(ge=0, le=_LONGEST_MARGIN_MM)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class _Code(_Table):
    value: Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_plain)]
    scheme: Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_plain)]
    meaning: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_plain)]


class _Directions(_Table):
    """How far to each side of the patient."""

    left: _Millimetres = 0.0
    right: _Millimetres = 0.0
    anterior: _Millimetres = 0.0
    posterior: _Millimetres = 0.0
    superior: _Millimetres = 0.0
    inferior: _Millimetres = 0.0


def _all_directions(value: object) -> object:
    """One number as the same in all directions."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not 0 <= value <= _LONGEST_MARGIN_MM:
        raise ValueError(f"must be 0 to {_LONGEST_MARGIN_MM:g} mm, found {value:g}")
    return dict.fromkeys(_Directions.model_fields, value)


class _MarginOf(_Table):
    of: str
    mm: Annotated[_Directions, BeforeValidator(_all_directions)]


class _Subtraction(_Table):
    from_: str = Field(alias="from")
    what: Annotated[tuple[str, ...], Field(min_length=1)]


class _Cropping(_Table):
    of: str
    away_from: Annotated[tuple[str, ...], Field(min_length=1)]
    mm: _Millimetres = 0.0


class _Line(_Table):
    """One `[[structures]]` table."""

    name: _Name | None = None
    organ: Annotated[str, AfterValidator(_organ)] | None = None
    synonyms: tuple[str, ...] = ()
    colour: Annotated[tuple[_Byte, _Byte, _Byte], BeforeValidator(_colour)] | None = None
    type: InterpretedType | None = None
    code: _Code | None = None
    margin: _MarginOf | None = None
    union: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    intersection: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    subtract: _Subtraction | None = None
    crop: _Cropping | None = None


class _File(_Table):
    name: _Name
    structures: Annotated[tuple[_Line, ...], Field(min_length=1)]


def template_for(route: Route) -> Template:
    """What a route sends: its template's structures, those it lists, or all 21 organs; raises ConfigError."""
    if route.template:
        return load_template(route.template)
    return template_of(route.structures) if route.structures else DEFAULT_TEMPLATE


def load_template(path: Path) -> Template:
    """Read a site's template.

    Raises
    ------
    ConfigError
        With every problem found: the file, the line and the key it stands in, and what was needed.
    """
    try:
        source = read_source(path, {})
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error
    problems: list[tuple[Location, str]] = []
    template = None
    try:
        template = _template(_File.model_validate(source.values), problems)
    except ValidationError as error:
        problems += _problems(error.errors())
    if template is not None and not problems:
        problems += contradictions(template)
    if template is None or problems:
        problems.sort(key=lambda problem: source.line(problem[0]))
        raise ConfigError([f"{path}: {source.place(location)}: {text}" for location, text in problems])
    return template


def _template(file: _File, problems: list[tuple[Location, str]]) -> Template:
    lines = []
    for index, line in enumerate(file.structures):
        try:
            lines.append(_structure(line, index + 1))
        except ValueError as error:
            problems.append((("structures", index), str(error)))
    coloured = {line.name for line in file.structures if line.name and line.colour}
    shades = _Shades(lines, coloured)
    return Template(file.name, tuple(replace(line, colour_rgb=shades.of(line.name)) for line in lines))


def _structure(line: _Line, number: int) -> TemplateStructure:
    derivations = list(_derivations(line))
    if (line.organ is not None) + len(derivations) != 1:
        kinds = ", ".join(operation.value for operation in Operation)
        raise ValueError(f"needs an organ, or exactly one of {kinds}")
    site = Code(line.code.value, line.code.scheme, line.code.meaning) if line.code else None
    if line.organ is not None:
        usual = organ_line(offered_structure(line.organ), number)
        return TemplateStructure(
            number,
            line.name or usual.name,
            line.colour or usual.colour_rgb,
            line.type or usual.interpreted_type,
            usual.organ,
            codes=Codes(usual.codes.snomed, usual.codes.laterality, usual.codes.fma, site),
            synonyms=line.synonyms,
        )
    if line.name is None:
        raise ValueError("name is missing, which a derived structure needs")
    return TemplateStructure(
        number,
        line.name,
        line.colour or _GREY,
        line.type or InterpretedType.AVOIDANCE,
        derivation=derivations[0],
        codes=Codes(site=site),
        synonyms=line.synonyms,
    )


def _derivations(line: _Line) -> Iterator[Derivation]:
    if line.margin:
        yield Derivation(Operation.MARGIN, (line.margin.of,), Margin(**line.margin.mm.model_dump()))
    if line.union:
        yield Derivation(Operation.UNION, line.union)
    if line.intersection:
        yield Derivation(Operation.INTERSECTION, line.intersection)
    if line.subtract:
        yield Derivation(Operation.SUBTRACT, (line.subtract.from_, *line.subtract.what))
    if line.crop:
        yield Derivation(Operation.CROP, (line.crop.of, *line.crop.away_from), Margin.uniform(line.crop.mm))


class _Shades:
    """Colours of derived structures that have none of their own: darker than what they are derived from, and new.

    Parameters
    ----------
    lines
        All of a template.
    coloured
        Names of those to which a colour is given; an organ has its own without.
    """

    def __init__(self, lines: Sequence[TemplateStructure], coloured: Collection[str]) -> None:
        self._lines = {line.name: line for line in lines}
        self._colours = {line.name: line.colour_rgb for line in lines if line.organ or line.name in coloured}
        self._organs = {organ.name: organ.colour_rgb for organ in STRUCTURES + EXTRA_STRUCTURES}

    def of(self, name: str) -> tuple[int, int, int]:
        """Colour of one of the lines, and with it of those that it is derived from; or of an organ."""
        if name in self._colours:
            return self._colours[name]
        if name not in self._lines:
            return self._organs.get(name, _GREY)
        self._colours[name] = _GREY  # until it is known; for good where it is derived from itself
        shade = _darker(self.of(self._lines[name].sources[0]))
        while shade in self._colours.values() and shade != _darker(shade):
            shade = _darker(shade)
        self._colours[name] = shade
        return shade


def _darker(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    red, green, blue = (round(_DARKER * value) for value in colour)
    return red, green, blue


def _problems(errors: Sequence[ErrorDetails]) -> Iterator[tuple[Location, str]]:
    """Without lists that are too short only because what stands in them was refused."""
    for details in errors:
        inner = (each["loc"][: len(details["loc"])] for each in errors if each is not details)
        if details["type"] != "too_short" or details["loc"] not in inner:
            yield _problem(details)


def _problem(details: ErrorDetails) -> tuple[Location, str]:
    """One of pydantic's errors in our words."""
    location, text, found = details["loc"], details["msg"], details["input"]
    match details["type"]:
        case "extra_forbidden":
            known = [field.alias or name for name, field in _table_of(location).model_fields.items()]
            near = get_close_matches(str(location[-1]), known, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
            return location, f"unknown key; {hint}"
        case "missing":
            return location, "is missing"
        case "too_short":
            return location, f"needs {details['ctx']['min_length']} or more entries"
        case "value_error":
            return location, text.removeprefix("Value error, ")
    text = text.replace("Input should be", "must be").replace("String should", "must")
    return location, f"{text}, found {found!r}" if isinstance(found, str | int | float) else text


def _table_of(location: Location) -> type[_Table]:
    """Which table a key stands in."""
    tables: dict[str, type[_Table]] = {
        "margin": _MarginOf,
        "subtract": _Subtraction,
        "crop": _Cropping,
        "code": _Code,
        "mm": _Directions,
    }
    inner = [tables[str(part)] for part in location[2:-1] if part in tables]
    return inner[-1] if inner else (_Line if len(location) > 1 else _File)
