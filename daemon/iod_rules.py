"""Types 1 and 2 of the standard: which attributes an RT Structure Set must have (PS3.3 A.19)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from pydicom import DataElement, Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag, Tag

WRITTEN_MODULES = frozenset({"frame-of-reference", "approval"})
"""Modules that the IOD leaves to the user and that ours always has."""


@dataclass(frozen=True)
class Absence:
    """A mandatory attribute that is not as its type wants it.

    Parameters
    ----------
    where
        Path of the item it belongs to, with a dot at its end; empty for the data set itself.
    type
        "1" or "2" (PS3.5 7.4).
    is_empty
        Whether the attribute is there, without a value.
    """

    where: str
    keyword: str
    type: str
    is_empty: bool

    def __str__(self) -> str:
        what = "has no value" if self.is_empty else "is missing"
        return f"{self.where}{self.keyword} {what} (type {self.type})"


@dataclass
class _Rule:
    """An attribute's type ("1", "2", "1C", …) and the rules for the items of its sequence, by keyword."""

    type: str = "3"
    items: dict[str, "_Rule"] = field(default_factory=dict)


@dataclass(frozen=True)
class _Demand:
    """A rule that can be broken: itself of type 1 or 2, or a sequence with such attributes in its items."""

    keyword: str
    tag: BaseTag
    type: str
    items: tuple["_Demand", ...]


@cache
def _demands(optional_modules: frozenset[str]) -> tuple[_Demand, ...]:
    """The standard's module tables, as highdicom ships them, as one tree."""
    root = _Rule()
    for module in get_iod_module_map()["rt-structure-set"]:
        if module["usage"] != "M" and module["key"] not in optional_modules:
            continue
        for attribute in get_module_attribute_map()[module["key"]]:
            rule = root
            for keyword in (*attribute["path"], attribute["keyword"]):
                rule = rule.items.setdefault(keyword, _Rule())
            rule.type = min(rule.type, attribute["type"])
    return _compiled(root)


def _compiled(rule: _Rule) -> tuple[_Demand, ...]:
    demands = (
        _Demand(keyword, Tag(keyword), each.type, _compiled(each)) for keyword, each in rule.items.items()
    )
    return tuple(each for each in demands if each.type in {"1", "2"} or each.items)


@cache
def module_keywords(module: str) -> frozenset[str]:
    """Keywords of a module's attributes outside sequences; the module's name is as in `WRITTEN_MODULES`."""
    return frozenset(each["keyword"] for each in get_module_attribute_map()[module] if not each["path"])


def absences(dataset: Dataset, optional_modules: frozenset[str] = WRITTEN_MODULES) -> Iterator[Absence]:
    """Every mandatory attribute that is absent, and every one of type 1 without a value, nested items too.

    Conditions (types 1C and 2C) are prose in the standard and are not judged here.

    Parameters
    ----------
    optional_modules
        Modules of usage U that the data set has, as keys of the standard's tables.
    """
    return _absences(dataset, _demands(optional_modules), "")


def missing_attributes(dataset: Dataset) -> Iterator[str]:
    """As `absences`, a sentence for each, for a data set with `WRITTEN_MODULES`."""
    return map(str, absences(dataset))


def _absences(dataset: Dataset, demands: tuple[_Demand, ...], where: str) -> Iterator[Absence]:
    for demand in demands:
        if demand.tag not in dataset:
            if demand.type in {"1", "2"}:
                yield Absence(where, demand.keyword, demand.type, is_empty=False)
        elif demand.type == "1" and is_empty(dataset.get_item(demand.tag)):
            yield Absence(where, demand.keyword, demand.type, is_empty=True)
        elif demand.items:
            for number, item in enumerate(_items(dataset, demand.tag), start=1):
                yield from _absences(item, demand.items, f"{where}{demand.keyword}[{number}].")


def is_empty(element: DataElement | RawDataElement) -> bool:
    """Whether an element has no value, or nothing but padding; a number 0 is a value."""
    value = element.value
    if isinstance(value, bytes):
        return not value.strip(b" \0")
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _items(dataset: Dataset, tag: BaseTag) -> list[Dataset]:
    element = dataset[tag]
    return list(element.value or ()) if element.VR == "SQ" else []
