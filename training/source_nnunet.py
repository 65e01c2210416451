"""nnU-Net raw data: imagesTr, labelsTr and dataset.json, with a table of which organs each case has."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.packing import CONTRADICTION, EMPTY, Choices, PackingError, PreparedCase
from training.packing_report import Report
from training.roi_names import RoiNames
from training.sides import on_their_side
from training.volumes import (
    Grid,
    ImageUnreadableError,
    Upright,
    hounsfield,
    known_ranges,
    labelled,
    read_image,
)

GROUP = "nnunet"
PRESENT = "present_labels.json"
IGNORE = "ignore"
"""nnU-Net's name of the label that leaves a voxel out of the loss."""


@dataclass(frozen=True)
class Dataset:
    """What dataset.json and present_labels.json say.

    Parameters
    ----------
    values
        Organ to the label values that make it up (a region in nnU-Net's words).
    ignored
        Values of the voxels of which nobody said what they are; none in most data sets.
    present
        Case to the label names that were contoured there; a case that is not listed has all of them.
    """

    ending: str
    values: Mapping[str, tuple[int, ...]]
    ignored: tuple[int, ...]
    organ_of_label: Mapping[str, str]
    present: Mapping[str, frozenset[str]]


def nnunet_cases(root: Path, choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """One case for each label file; each case counts as a patient of its own.

    Without present_labels.json every label is taken to have been contoured in every case: what is empty there
    would then be taught as absent, so an organ that a case does not have is left out of it instead.
    Cases with voxels of nnU-Net's label `ignore` are left out: what is there would be taught as no organ.

    Raises
    ------
    PackingError
        dataset.json is missing or not that of one CT channel; a table names cases that are not there.
    """
    dataset = _dataset(root, choices.names, report)
    files = sorted((root / "labelsTr").glob(f"*{dataset.ending}"))
    cases = {file.name.removesuffix(dataset.ending): file for file in files}
    choices.require_known(cases, report)
    if strangers := sorted(dataset.present.keys() - cases.keys()):
        raise PackingError(
            f"{root / PRESENT} names cases that have no labels: {', '.join(strangers)}; correct or remove "
            "them, as a case that it does not name counts as contoured completely"
        )
    for name, file in cases.items():
        try:
            image, frame = read_image(root / "imagesTr" / f"{name}_0000{dataset.ending}")
            labels, label_frame = read_image(file)
        except ImageUnreadableError as error:
            report.left_out(name, str(error))
            continue
        if not Grid(image.shape, frame).holds(labels, label_frame):
            report.left_out(name, "its labels do not lie on the grid of the image")
            continue
        if np.isin(labels, dataset.ignored).any():
            report.left_out(name, "voxels are labelled ignore: which organ is there is not known")
            continue
        declared = choices.absent.get(name, frozenset())
        drawn = _masks(name, labels, dataset, declared, report)
        masks = {organ: mask for organ, mask in drawn.items() if organ not in declared}
        absent = declared - set(drawn)
        upright = Upright(hounsfield(image), frame, labelled(masks, labels.shape), label_frame)
        known = known_ranges(upright, on_their_side(name, upright, masks, report), absent)
        if not known:
            report.left_out(name, "no organ could be used")
            continue
        yield choices.split(name), upright.case(name, GROUP, known)


def _masks(
    name: str, labels: NDArray[Any], dataset: Dataset, declared: frozenset[str], report: Report
) -> dict[str, NDArray[np.bool_]]:
    """The organs that were contoured in a case, those that were declared absent included."""
    masks = {}
    for label, organ in dataset.organ_of_label.items():
        if label not in dataset.present.get(name, frozenset(dataset.organ_of_label)):
            continue
        mask = np.isin(labels, dataset.values[label])
        if mask.any():
            masks[organ] = mask
            if organ in declared:
                report.left_out(name, CONTRADICTION, organ)
        elif organ not in declared:
            report.left_out(name, EMPTY, organ)
    return masks


def _dataset(root: Path, names: RoiNames, report: Report) -> Dataset:
    about = _json(root / "dataset.json")
    channels = about.get("channel_names", about.get("modality"))
    if not isinstance(channels, dict) or [str(each).upper() for each in channels.values()] != ["CT"]:
        raise PackingError(
            f'{root / "dataset.json"} has the channels {channels}; needed is one, CT, as {{"0": "CT"}}'
        )
    if not isinstance(about.get("labels"), dict):
        raise PackingError(f'{root / "dataset.json"} has no table "labels" of names and values')
    values: dict[str, tuple[int, ...]] = {}
    organs: dict[str, str] = {}
    for label, value in about["labels"].items():
        voxels = _values(value, root)
        if label in {"background", IGNORE}:
            continue
        mapped = names.map(label)
        if mapped.organ is None:
            report.left_out(str(root), mapped.reason, f"label {label!r}")
        elif mapped.organ in organs.values():
            raise PackingError(f"{root / 'dataset.json'}: two labels stand for {mapped.organ}")
        else:
            values[label] = voxels
            organs[label] = mapped.organ
    table = root / PRESENT
    present = _json(table) if table.exists() else {}
    if odd := [case for case, had in present.items() if not _are_names(had)]:
        raise PackingError(f"{table}: {odd[0]} has {present[odd[0]]!r}; needed is a list of label names")
    if unknown := sorted({name for had in present.values() for name in had} - about["labels"].keys()):
        raise PackingError(
            f"{table} names {', '.join(unknown)}, which dataset.json does not: correct one of both"
        )
    return Dataset(
        about.get("file_ending", ".nii.gz"),
        values,
        _values(about["labels"].get(IGNORE, ()), root),
        organs,
        {case: frozenset(had) for case, had in present.items()},
    )


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _values(value: object, root: Path) -> tuple[int, ...]:
    """The voxels' values of a label, or of several regions that make it."""
    several = value if isinstance(value, list | tuple) else [value]
    try:
        return tuple(map(int, several))
    except (TypeError, ValueError) as error:
        raise PackingError(
            f"{root / 'dataset.json'}: a label's value is a whole number, not {value!r}; nnU-Net of before "
            "version 2 wrote values and names the other way round"
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackingError(f"{path} cannot be read: {error}") from error
    if not isinstance(table, dict):
        raise PackingError(f"{path} is no table")
    return table
