"""A structure template of Varian Eclipse (XML) becomes a site's; what is not certain is listed, never guessed."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from daemon.errors import ConfigError
from daemon.side_words import sides, words
from daemon.structure_template import InterpretedType, is_plain
from model.structures import EXTRA_STRUCTURES, STRUCTURES, Code, Structure

_ORGANS = STRUCTURES + EXTRA_STRUCTURES
_BY_NAME = {organ.name.casefold(): organ for organ in _ORGANS}
_BY_FMA = {str(organ.fma): organ for organ in _ORGANS}
_NOT_THE_ORGAN = frozenset({
    "prv", "ptv", "ctv", "gtv", "itv", "margin", "expansion", "exp", "expanded", "plus", "minus", "mm", "cm",
    "ring", "shell", "wall", "sub", "subtracted", "crop", "cropped", "cut", "without", "excl", "overlap", "union",
    "total", "both", "part", "partial", "spared", "opt", "plan", "help", "dummy", "old", "new", "copy",
    "rand", "saum", "hilf", "ohne", "alt", "neu", "kopie", "marge", "anneau", "sans", "copie",
    "zonder", "margen", "anillo", "margine", "anello", "senza",
})  # fmt: skip
"""Words of names that mean another volume, which Eclipse codes as the organ that it is made from."""

_SIGNS = re.compile(r"[-+~&/<>^!0-9]")
"""Of margins, of what is cut away, and of auxiliary structures."""

_TYPES = {kind.value.casefold(): kind for kind in InterpretedType}

_PADDED = r"( {2}[0-9]| [0-9]{2}|[0-9]{3})"


@dataclass(frozen=True)
class EclipseStructure:
    """One structure of the file, with the organ that it certainly is, or why that is not certain.

    Parameters
    ----------
    colour_rgb
        None where the file names a colour of Eclipse's own; the organ's usual one is then used.
    code
        The structure code; None where the file has none.
    """

    name: str
    colour_rgb: tuple[int, int, int] | None
    interpreted_type: InterpretedType
    code: Code | None
    organ: Structure | None
    reason: str = ""


def read_eclipse_template(path: Path) -> list[EclipseStructure]:
    """Read the structures of a structure template or clinical protocol that Eclipse has exported as XML.

    A structure is an organ when its ID is the organ's TG-263 name, whatever its case, or its code is the organ's
    in the FMA and nothing in its ID speaks of another side or of a margin; and when the two do not disagree. No
    organ is there twice.

    Raises
    ------
    ConfigError
        The file cannot be read, or holds no structure.
    """
    try:
        text = path.read_bytes()
        if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
            raise ConfigError([f"{path}: declares entities, which Eclipse's files never do"])
        root = ET.fromstring(text)  # noqa: S314 -- without a DTD there are no entities to expand
    except OSError as error:
        raise ConfigError([f"{path}: cannot read the file: {error.strerror}"]) from error
    except (ET.ParseError, LookupError, ValueError) as error:  # also an encoding that nobody knows
        raise ConfigError([f"{path}: not XML: {error}"]) from error
    found = [_structure(element) for element in root.iterfind(".//Structures/Structure")]
    if not found:
        raise ConfigError(
            [f"{path}: no Structures/Structure in it; export a structure template from Eclipse"]
        )
    return _each_organ_once(found)


def _each_organ_once(found: Sequence[EclipseStructure]) -> list[EclipseStructure]:
    """Of several structures for one organ, the one with its TG-263 name stays, or the first."""
    chosen: dict[Structure, EclipseStructure] = {}
    for each in sorted(found, key=lambda each: each.name.casefold() not in _BY_NAME):
        if each.organ:
            chosen.setdefault(each.organ, each)
    return [
        each
        if each.organ is None or chosen[each.organ] is each
        else replace(each, organ=None, reason=f"is {each.organ.name}, as {chosen[each.organ].name} is too")
        for each in found
    ]


def _structure(element: ET.Element) -> EclipseStructure:
    name = (element.get("ID") or "").strip()
    kind = (element.findtext("Identification/VolumeType") or "").strip()
    coded = element.find("Identification/StructureCode")
    code = None
    if coded is not None and coded.get("Code"):
        code = Code(coded.get("Code", ""), coded.get("CodeScheme") or "99VMS_STRUCTCODE", name)
    interpreted = _TYPES.get(kind.casefold())
    organ, reason = _organ(name, code)
    if interpreted is None:
        organ, reason = None, f"is of type {kind or 'unknown'}, which is not contoured automatically"
    return EclipseStructure(
        name,
        _colour(element.findtext("ColorAndStyle") or ""),
        interpreted or InterpretedType.ORGAN,
        code,
        organ,
        reason,
    )


def _organ(name: str, code: Code | None) -> tuple[Structure | None, str]:
    by_name = _BY_NAME.get(name.casefold())
    by_code = _BY_FMA.get(code.value) if code and code.scheme_designator == "FMA" else None
    if by_name and by_code and by_name != by_code:
        return None, f"is {by_name.name} by name and {by_code.name} by its FMA code"
    if by_name and code and code.scheme_designator == "FMA" and not by_code:
        return None, f"is {by_name.name} by name, but its FMA code {code.value} is another one's"
    if by_name:
        return by_name, ""
    if by_code:
        doubt = _doubt(name, by_code)
        return (None, f"is {by_code.name} by its FMA code, but {doubt}") if doubt else (by_code, "")
    said = f"nor its code {code.scheme_designator} {code.value}" if code else "and it has no code"
    return None, f"its name is no organ's in TG-263, {said}"


def _doubt(name: str, organ: Structure) -> str:
    """Why a structure that is coded as an organ may not be it; empty where its name says nothing against it."""
    if not is_plain(name):
        return "its name is not of printable ASCII without backslash"
    if sides(name) - {organ.laterality}:
        return "its name says another side"
    if told := [*_SIGNS.findall(name), *(word for word in words(name) if word in _NOT_THE_ORGAN)]:
        return f"its name has {told[0]}, as of a margin or a part"
    return ""


def _colour(text: str) -> tuple[int, int, int] | None:
    """`RGB255228181` or `RGB 255  0  0`; three characters a number, padded with blanks."""
    fixed = re.fullmatch(rf"RGB ?{_PADDED * 3}", text.strip())
    spaced = re.fullmatch(r"RGB\s+([0-9]{1,3})\s+([0-9]{1,3})\s+([0-9]{1,3})", text.strip())
    match = fixed or spaced
    red, green, blue = (int(part) for part in match.groups()) if match else (-1, -1, -1)
    return (red, green, blue) if all(0 <= each <= 255 for each in (red, green, blue)) else None


def as_toml(structures: Sequence[EclipseStructure], name: str) -> str:
    """The template as TOML; structures that are not certain stand as comments at its end."""
    lines = [f"name = {_quoted(name)}", ""]
    for each in structures:
        if each.organ:
            lines += [*_table(each, each.organ), ""]
    if uncertain := [each for each in structures if not each.organ]:
        lines.append("# Not taken over:")
        lines += [f"# {_quoted(each.name)}: {_on_one_line(each.reason)}" for each in uncertain]
        lines.append("")
    return "\n".join(lines)


def _table(each: EclipseStructure, organ: Structure) -> Iterator[str]:
    yield "[[structures]]"
    yield f"organ = {_quoted(organ.name)}"
    if each.name != organ.name:
        yield f"name = {_quoted(each.name)}"
    if each.colour_rgb:
        yield 'colour = "#{:02x}{:02x}{:02x}"'.format(*each.colour_rgb)
    if each.interpreted_type is not InterpretedType.ORGAN:
        yield f"type = {_quoted(each.interpreted_type)}"
    if each.code and each.code != organ.fma_code and each.code.scheme_designator != "FMA":
        code = each.code
        yield (
            f"code = {{ value = {_quoted(code.value)}, scheme = {_quoted(code.scheme_designator)}, "
            f"meaning = {_quoted(code.meaning)} }}"
        )


def _quoted(text: str) -> str:
    """A basic string of TOML; JSON's escapes are a part of TOML's, which wants one more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _on_one_line(text: str) -> str:
    """For a comment: what stands in Eclipse's file must not begin a line, and so a structure, of ours."""
    return "".join(character if character.isprintable() else " " for character in text)
