"""Types 1 and 2 of the standard: which attributes an RT Structure Set must have (PS3.3 A.19)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map
from pydicom import Dataset

WRITTEN_MODULES = frozenset({"frame-of-reference", "approval"})
"""Modules that the IOD leaves to the user and that ours always has."""


@dataclass
class _Rule:
    """An attribute's type ("1", "2", "1C", …) and the rules for the items of its sequence, by keyword."""

    type: str = "3"
    items: dict[str, "_Rule"] = field(default_factory=dict)


@cache
def _rules() -> dict[str, _Rule]:
    """The standard's module tables, as highdicom ships them, as one tree."""
    root = _Rule()
    for module in get_iod_module_map()["rt-structure-set"]:
        if module["usage"] != "M" and module["key"] not in WRITTEN_MODULES:
            continue
        for attribute in get_module_attribute_map()[module["key"]]:
            rule = root
            for keyword in (*attribute["path"], attribute["keyword"]):
                rule = rule.items.setdefault(keyword, _Rule())
            rule.type = min(rule.type, attribute["type"])
    return root.items


def missing_attributes(dataset: Dataset) -> Iterator[str]:
    """Every mandatory attribute that is absent, and every one of type 1 without a value, nested items too.

    Conditions (types 1C and 2C) are prose in the standard and are not judged here.
    """
    return _missing(dataset, _rules(), "")


def _missing(dataset: Dataset, rules: dict[str, _Rule], where: str) -> Iterator[str]:
    for keyword, rule in rules.items():
        if keyword not in dataset:
            if rule.type in {"1", "2"}:
                yield f"{where}{keyword} is missing (type {rule.type})"
        elif rule.type == "1" and not dataset.get_item(keyword).value:
            yield f"{where}{keyword} has no value (type 1)"
        elif rule.items:
            for number, item in enumerate(dataset[keyword].value, start=1):
                yield from _missing(item, rule.items, f"{where}{keyword}[{number}].")
