"""One NRRD for each organ, beside the CT: SCAN/CT_IMAGE.nrrd and SCAN/segmentations/ORGAN.nrrd.

The TCIA planning CT set (deepmind/tcia-ct-scan-dataset) is laid out so; most of its scans write `Cochlea-Lt`,
some `Cochlea_Lt`, which are one name. What it calls Orbit is the globe of the eye.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.dataset import patient_mark
from training.folders import files_under
from training.packing import CONTRADICTION, EMPTY, Choices, PreparedCase
from training.packing_report import Report
from training.roi_names import Mapped, RoiNames
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

GROUP = "nrrd"
CT_FILE = "CT_IMAGE.nrrd"

_GLOBES = {"orbit lt": "Eye_L", "orbit rt": "Eye_R"}


def nrrd_cases(root: Path, choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """One case for each CT, however nested; the folder it lies in is the patient.

    Contours of several observers lie in folders of their own: name one of them, or the cases come twice.

    Raises
    ------
    PackingError
        A table names patients who are not there.
    """
    files = [file for file in files_under(root) if file.name == CT_FILE]
    choices.require_known({file.parent.name for file in files}, report)
    for file in files:
        patient = file.parent.name
        name = str(file.parent.relative_to(root)) if file.parent != root else patient
        try:
            image, frame = read_image(file)
        except ImageUnreadableError as error:
            report.left_out(name, str(error))
            continue
        declared = choices.absent.get(patient, frozenset())
        masks, doubtful = _masks(name, file.parent, Grid(image.shape, frame), choices.names, report)
        for organ in sorted(declared & (set(masks) | doubtful)):
            report.left_out(name, CONTRADICTION, organ)
        upright = Upright(hounsfield(image), frame, labelled(masks, image.shape), frame)
        contoured = on_their_side(name, upright, masks.keys() - declared, report)
        known = known_ranges(upright, contoured, declared - set(masks) - doubtful)
        if not known:
            report.left_out(name, "no organ could be used")
            continue
        case = replace(upright.case(name, GROUP, known), patient=patient_mark(f"NRRD/{patient}"))
        yield choices.split(patient), case


def organ_of_file(stem: str, names: RoiNames) -> Mapped:
    """The organ of a file's name without its ending."""
    globe = _GLOBES.get(stem.replace("-", " ").replace("_", " ").lower())
    return Mapped(globe) if globe and stem not in names.own else names.map(stem)


def _masks(
    name: str, folder: Path, grid: Grid, names: RoiNames, report: Report
) -> tuple[dict[str, NDArray[np.bool_]], set[str]]:
    """The organs of a scan, and those of which a file cannot be used, or more than one draws them."""
    masks: dict[str, NDArray[np.bool_]] = {}
    doubtful: set[str] = set()
    for file in sorted((folder / "segmentations").glob("*.nrrd")):
        mapped = organ_of_file(file.stem, names)
        if mapped.organ is None:
            report.left_out(name, mapped.reason, file.name)
            continue
        try:
            values, frame = read_image(file)
        except ImageUnreadableError as error:
            reason = str(error)
        else:
            reason = "" if grid.holds(values, frame) else "it does not lie on the grid of the CT"
        if not reason and not (values > 0).any():
            report.left_out(name, EMPTY, f"{mapped.organ} ({file.name})")
            continue
        if not reason and mapped.organ in masks.keys() | doubtful:
            reason = "another file draws this organ too"
        if reason:
            report.left_out(name, reason, f"{mapped.organ} ({file.name})")
            doubtful.add(mapped.organ)
            masks.pop(mapped.organ, None)
        else:
            masks[mapped.organ] = values > 0
    return masks, doubtful
