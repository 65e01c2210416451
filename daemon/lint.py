"""A structure set of any vendor held against the standard, IHE-RO, its images and a receiver's profile."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from pydicom import Dataset
from pydicom.errors import InvalidDicomError

from daemon import (
    lint_ct,
    lint_modules,
    lint_names,
    lint_places,
    lint_profile,
    lint_references,
    lint_rois,
    lint_shapes,
    lint_sides,
    lint_values,
)
from daemon.destination_profile import Profile
from daemon.lint_finding import Finding, Rule, Severity, error
from daemon.lint_images import CTImages
from daemon.lint_view import UNREADABLE, StructureSetView, items, text, view
from model.dicom_file import read_file

NOT_CHECKED = error(
    "not-checked",
    "a group of rules could not be applied, as the file is damaged in a way they do not expect",
    "Correct the other findings and check again.",
    "a check that cannot run has not passed",
)

GROUPS: dict[str, tuple[Rule, ...]] = {
    "Modules and file": (*lint_modules.RULES, NOT_CHECKED),
    "Values": lint_values.RULES,
    "References": lint_references.RULES,
    "ROIs": lint_rois.RULES,
    "Names": lint_names.RULES,
    "Contours": lint_shapes.RULES,
    "Extent": lint_places.RULES,
    "Orientation": lint_sides.RULES,
    "Against the images (`--ct`)": lint_ct.RULES,
    "Against a profile (`--profile`)": lint_profile.RULES,
}
"""Every rule there is, by purpose."""

RULES: dict[str, Rule] = {rule.code: rule for group in GROUPS.values() for rule in group}

_ALONE: tuple[Callable[[StructureSetView], Iterator[Finding]], ...] = (
    *lint_modules.CHECKS,
    *lint_values.CHECKS,
    *lint_references.CHECKS,
    *lint_rois.CHECKS,
    *lint_names.CHECKS,
    *lint_shapes.CHECKS,
    *lint_sides.CHECKS,
)
SEVERITIES = list(Severity)
_Argument = TypeVar("_Argument")


class NotReadable(Exception):  # noqa: N818 -- said as a sentence where it is raised
    """The file cannot be read as a structure set; says why."""


def lint(dataset: Dataset, ct: CTImages | None = None, profile: Profile | None = None) -> list[Finding]:
    """Apply every rule to a structure set.

    Nothing is written to the data set; values that are asked for are decoded in place, as pydicom does.

    Parameters
    ----------
    ct
        The images it belongs to; without them, the rules that need them are not applied.
    profile
        What the receiver takes; without it, only what all receivers share is asked for.

    Returns
    -------
    list of Finding
        Worst first, otherwise in the order of the rules and of the file; empty if nothing is to be said.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values are findings here
        undecoded = list(_applied(lint_values.check_undecoded, dataset))
        structures = view(dataset)
        checks: list[Callable[[StructureSetView], Iterator[Finding]]] = list(_ALONE)
        checks += [_given(check, ct) for check in lint_places.CHECKS]
        if ct is not None:
            checks += [_given(check, ct) for check in lint_ct.CHECKS]
        if profile is not None:
            checks += [_given(check, profile) for check in lint_profile.CHECKS]
        found = [finding for check in checks for finding in _applied(check, structures)]
    return _worst_first([*undecoded, *found])


def lint_file(path: Path, ct: CTImages | None = None, profile: Profile | None = None) -> list[Finding]:
    """Read a structure set and apply every rule, those about the file itself included.

    Raises
    ------
    NotReadable
        No DICOM file, or not one of a structure set at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = read_file(path, force=True)
        layout = list(lint_modules.check_layout(dataset, path.stat().st_size))
    except (InvalidDicomError, *UNREADABLE) as failure:
        raise NotReadable(f"{path} cannot be read as DICOM: {failure}") from failure
    found = lint(dataset, ct, profile)
    modality = text(dataset, "Modality")
    if modality != "RTSTRUCT" and not items(dataset, "StructureSetROISequence"):
        raise NotReadable(f"{path} is no RT Structure Set but {modality or 'no DICOM object'}")
    return _worst_first([*layout, *found])


def _given(
    check: Callable[[StructureSetView, _Argument], Iterator[Finding]], argument: _Argument
) -> Callable[[StructureSetView], Iterator[Finding]]:
    def bound(structures: StructureSetView) -> Iterator[Finding]:
        return check(structures, argument)

    bound.__name__ = check.__name__
    return bound


def _applied(check: Callable[[_Argument], Iterator[Finding]], argument: _Argument) -> Iterator[Finding]:
    try:
        yield from check(argument)
    except UNREADABLE as failure:
        words = check.__name__.removeprefix("check_").replace("_", " ")
        yield NOT_CHECKED.at("", f"the rules about {words} could not be applied: {failure}")


def _worst_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
