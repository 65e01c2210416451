"""Rules about single values: what their VR allows, in every element of the file (PS3.5 6)."""

import re
import warnings
from collections.abc import Iterator, Sequence
from datetime import date
from functools import lru_cache

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_is_retired, dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

from daemon.lint_finding import Finding, error, note, warning
from daemon.lint_view import UNREADABLE, StructureSetView

TOO_LONG = error(
    "value-too-long",
    "a value has more characters than its VR allows",
    "Shorten it: SH 16, LO 64, DS 16, IS 12, CS 16, UI 64, ST 1024 characters.",
    "PS3.5 6.2; pytrip #285",
)
MALFORMED = error(
    "value-malformed",
    "a value is not what its VR says: no date, no number, characters that CS or UI does not have",
    "Write it as PS3.5 table 6.2-1 defines its VR.",
    "PS3.5 6.2",
)
ODD = error("value-odd-length", "a value has an odd number of bytes", "Pad it to even length.", "PS3.5 7.1.1")
OTHER_VR = error(
    "vr-differs",
    "an element has another VR than the standard gives it",
    "Write the VR of PS3.6.",
    "PS3.6 6",
)
CHARACTERS = error(
    "text-beyond-character-set",
    "a text has bytes that Specific Character Set does not cover",
    "Declare the character set that the text is written in, such as ISO_IR 192.",
    "PS3.3 C.12.1.1.2",
)
UNKNOWN_SET = error(
    "character-set-unknown",
    "Specific Character Set is not a defined term",
    "Use a term of PS3.3 C.12.1.1.2, such as ISO_IR 100 or ISO_IR 192.",
    "PS3.3 C.12.1.1.2",
)
CONTROL = warning(
    "control-character",
    "a text of one line has control characters",
    "Remove them: line breaks and tabs in names end lines in logs and lists.",
    "PS3.5 6.1.3",
)
CUT = error(
    "value-cut-short",
    "the file ends inside a value",
    "Send or copy the file again.",
    "PS3.5 7.1.1",
)
NOT_ITEMS = error(
    "sequence-undecodable",
    "a sequence cannot be read as items",
    "Write the file again from its source.",
    "PS3.5 7.5",
)
PRIVATE = note(
    "private-attributes",
    "there are private attributes",
    "Nothing, unless the file is to be anonymised.",
    "PS3.5 7.8",
)
NO_CREATOR = warning(
    "private-without-creator",
    "private elements have no private creator",
    "Write the private creator of their block, or leave them out.",
    "PS3.5 7.8.1",
)
RETIRED = note(
    "attribute-retired",
    "an attribute is retired",
    "Write its successor; readers may ignore it.",
    "PS3.6 6",
)

RULES = (
    TOO_LONG,
    MALFORMED,
    ODD,
    OTHER_VR,
    CHARACTERS,
    UNKNOWN_SET,
    CONTROL,
    CUT,
    NOT_ITEMS,
    PRIVATE,
    NO_CREATOR,
    RETIRED,
)

_LONGEST = {"AE": 16, "CS": 16, "DS": 16, "IS": 12, "LO": 64, "SH": 16, "UI": 64, "LT": 10240, "ST": 1024}
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ONE_VALUE = frozenset({"LT", "ST", "UT", "UR"})
_PATTERNS = {
    "AE": re.compile(r"[ -\[\]-~]*"),
    "AS": re.compile(r"[0-9]{3}[DWMY]"),
    "CS": re.compile(r"[A-Z0-9 _]*"),
    "DS": re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"),
    "DT": re.compile(r"[0-9]{4}([0-9]{2}){0,5}(\.[0-9]{1,6})?([+-][0-9]{4})?"),
    "IS": re.compile(r"[+-]?[0-9]+"),
    "TM": re.compile(r"([01][0-9]|2[0-3])([0-5][0-9](([0-5][0-9]|60)(\.[0-9]{1,6})?)?)?"),
    "UI": re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*"),
}
_CHECKED = frozenset({*_LONGEST, *_TEXT, *_PATTERNS, "DA"})
_CONTROLS = re.compile(r"[\x00-\x1a\x1c-\x1f\x7f-\x9f]")
_DEFAULT_REPERTOIRE = frozenset({"", "ISO_IR 6", "ISO 2022 IR 6"})
"""Terms of a character set that is ASCII alone (PS3.3 C.12.1.1.2); pydicom reads Latin-1 instead."""
_ITEM_TAGS = frozenset({b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"})
_UNDEFINED_LENGTH = 0xFFFFFFFF
_CONTOUR_DATA = Tag("ContourData")


def check_values(view: StructureSetView) -> Iterator[Finding]:
    """Every value of every item; Contour Data has rules of its own."""
    yield from _private(view.dataset)
    yield from _values(view.dataset, "", _character_sets(view.dataset, ()))
    meta: Dataset | None = getattr(view.dataset, "file_meta", None)
    if meta is not None:
        yield from _values(meta, "", ())
    terms = _strings(view.dataset.get_item("SpecificCharacterSet"), ()) if _has_set(view.dataset) else []
    unknown = [term for term in terms if term and term not in python_encoding]
    if unknown:
        yield UNKNOWN_SET.at("SpecificCharacterSet", f"the character set {unknown[0]!r} is not defined")


def check_undecoded(dataset: Dataset) -> Iterator[Finding]:
    """Top-level values are whole, and sequences begin with an item; call it before anything is decoded."""
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if not isinstance(element, RawDataElement) or not isinstance(element.value, bytes):
            continue
        keyword, vr = _definition(tag)
        missing = element.length - len(element.value)
        if 0 < missing < _UNDEFINED_LENGTH:
            yield CUT.at(keyword or str(tag), f"{missing} of {element.length} bytes are missing")
        if "SQ" in {vr, element.VR} and element.value and element.value[:4] not in _ITEM_TAGS:
            yield NOT_ITEMS.at(keyword or str(tag), "it does not begin with an item")


def _has_set(dataset: Dataset) -> bool:
    return "SpecificCharacterSet" in dataset


def _character_sets(dataset: Dataset, inherited: tuple[str, ...]) -> tuple[str, ...]:
    """Python's names of the declared character sets, of the item or of what holds it."""
    if not _has_set(dataset):
        return inherited
    terms = _strings(dataset.get_item("SpecificCharacterSet"), ())
    known = [term for term in terms if term in python_encoding]
    if not known:
        return ()
    first, *others = convert_encodings(known)
    return ("ascii" if known[0] in _DEFAULT_REPERTOIRE else first, *others)


def _values(dataset: Dataset, where: str, sets: tuple[str, ...]) -> Iterator[Finding]:
    for tag in list(dataset.keys()):
        if tag == _CONTOUR_DATA or tag.is_private:
            continue
        element = dataset.get_item(tag)
        keyword, vr = _definition(tag)
        path = where + (keyword or str(tag))
        if _vr_differs(element, vr):
            yield OTHER_VR.at(path, f"the VR is {element.VR}, the standard's is {vr}")
        elif vr == "SQ":
            yield from _items(dataset, tag, path, sets)
        elif vr in _CHECKED:
            yield from _element(element, vr, path, sets)
        if _is_retired(tag):
            yield RETIRED.at(path, f"{keyword} is retired")


def _items(dataset: Dataset, tag: BaseTag, path: str, sets: tuple[str, ...]) -> Iterator[Finding]:
    try:
        found = list(dataset[tag].value or ())
    except UNREADABLE as failure:
        yield NOT_ITEMS.at(path, f"it cannot be read as items: {failure}")
        return
    for number, item in enumerate(found, start=1):
        yield from _values(item, f"{path}[{number}].", _character_sets(item, sets))


def _vr_differs(element: DataElement | RawDataElement, vr: str) -> bool:
    """Whether an explicit VR is neither the standard's nor UN, by which readers look it up."""
    said = element.VR
    return bool(said) and bool(vr) and said != "UN" and said not in vr.split(" or ")


@lru_cache(maxsize=4096)
def _definition(tag: BaseTag) -> tuple[str, str]:
    """Keyword and VR; empty for a tag that the standard does not know."""
    try:
        return keyword_for_tag(tag), dictionary_VR(tag)
    except KeyError:
        return "", ""


@lru_cache(maxsize=4096)
def _is_retired(tag: BaseTag) -> bool:
    try:
        return dictionary_is_retired(tag)
    except KeyError:
        return False


def _element(
    element: DataElement | RawDataElement, vr: str, path: str, sets: tuple[str, ...]
) -> Iterator[Finding]:
    if isinstance(element, RawDataElement) and element.value:
        if len(element.value) % 2:
            yield ODD.at(path, f"the value has {len(element.value)} bytes")
        if vr in _TEXT and not element.value.isascii() and not _is_covered(element.value, sets):
            declared = ", ".join(sets) or "nothing but ASCII"
            yield CHARACTERS.at(path, f"the text has bytes that the declared set ({declared}) does not have")
            return
    for value in _strings(element, sets, vr):
        yield from _value(value, vr, path)


def _is_covered(value: bytes, sets: Sequence[str]) -> bool:
    if not sets:
        return False
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            decode_bytes(value, list(sets), set())
        except (LookupError, UnicodeError):
            return False
    return not complaints


def _strings(element: DataElement | RawDataElement, sets: Sequence[str], vr: str = "CS") -> list[str]:
    """The values of an element without padding, from its bytes where it still has them."""
    value = element.value
    if value is None:
        return []
    if isinstance(value, bytes):
        decoded = (
            decode_bytes(value, list(sets) or ["ascii"], set()) if vr in _TEXT else value.decode("latin-1")
        )
        parts = [decoded] if vr in _ONE_VALUE else decoded.split("\\")
        parts[-1] = parts[-1].removesuffix("\0") if vr == "UI" else parts[-1].rstrip(" ")
        return parts
    many = value if hasattr(value, "append") else [value]
    return [str(each) for each in many]


def _value(value: str, vr: str, path: str) -> Iterator[Finding]:
    shown = "the value" if vr == "PN" else _shown(value, path)
    limit = _LONGEST.get(vr, 0)
    length = max(map(len, value.split("="))) if vr == "PN" else len(value)
    if length > (limit or (64 if vr == "PN" else length)):
        yield TOO_LONG.at(path, f"{shown} has {length} characters, {vr} allows {limit or 64}")
    if not _is_well_formed(value.strip(" ") if vr != "UI" else value, vr):
        yield MALFORMED.at(path, f"{shown} is no {vr}")
    if vr in {"LO", "PN", "SH"} and _CONTROLS.search(value):
        yield CONTROL.at(path, f"{shown} has control characters")


_PERSONAL = ("Patient", "OtherPatient", "AccessionNumber", "MedicalRecordLocator", "AdmissionID")


def _shown(value: str, path: str) -> str:
    """The value, but for what identifies a patient or a person."""
    if path.rpartition(".")[2].startswith(_PERSONAL) or "Name" in path.removesuffix("ROIName"):
        return "the value"
    return repr(value if len(value) <= 40 else value[:40] + "…")


def _is_well_formed(value: str, vr: str) -> bool:
    if not value:
        return True
    if vr == "DA":
        return _is_date(value)
    pattern = _PATTERNS.get(vr)
    return pattern is None or pattern.fullmatch(value) is not None


def _is_date(value: str) -> bool:
    if re.fullmatch("[0-9]{8}", value) is None:
        return False
    try:
        date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True


def _private(dataset: Dataset) -> Iterator[Finding]:
    """What is private outside sequences."""
    tags = [tag for tag in dataset.keys() if tag.is_private]  # noqa: SIM118 -- iterating decodes every value
    creators = {(tag.group, tag.element) for tag in tags if tag.is_private_creator}
    orphans = [
        tag for tag in tags if not tag.is_private_creator and (tag.group, tag.element >> 8) not in creators
    ]
    if tags:
        groups = ", ".join(f"{group:04X}" for group in sorted({tag.group for tag in tags}))
        yield PRIVATE.at(str(tags[0]), f"{len(tags)} private elements in groups {groups}")
    if orphans:
        yield NO_CREATOR.at(str(orphans[0]), f"{len(orphans)} private elements have no creator")


CHECKS = (check_values,)
