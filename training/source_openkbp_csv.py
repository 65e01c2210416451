"""OpenKBP as its authors publish it: a folder of sparse CSV files for each patient.

Indices run over 128 × 128 × 128 voxels in C order: rows front to back, columns right to left, slices head to
feet (seen by comparing patients with their contours in known orientation). CT values are HU + 1000 where the
dose can be, and nothing elsewhere.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from training.dataset import CLINICAL_NAMES, Frame, openkbp_mark
from training.folders import files_under
from training.packing import CONTRADICTION, Choices, PreparedCase
from training.packing_report import Report
from training.volumes import Upright, known_ranges, labelled

Scalar = TypeVar("Scalar", bound=np.generic)

GROUP = "openkbp-csv"
SHAPE = (128, 128, 128)
AIR_HU = -1000

ORGAN_OF_FILE = {
    file: CLINICAL_NAMES.get(organ, organ)
    for file, organ in {
        "Brainstem": "Brainstem",
        "SpinalCord": "SpinalCord",
        "RightParotid": "Parotid_R",
        "LeftParotid": "Parotid_L",
        "Esophagus": "Esophagus",
        "Larynx": "Larynx",
        "Mandible": "Bone_Mandible",
    }.items()
}


def openkbp_csv_cases(root: Path, choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """One case for each folder with a ct.csv; the folder's name is the patient's.

    Contours where there is no image teach nothing, and are cut off with the slices that have none.

    Raises
    ------
    PackingError
        A table names patients who are not there.
    """
    folders = [file.parent for file in files_under(root) if file.name == "ct.csv"]
    count = Counter(folder.name for folder in folders)
    choices.require_known(count, report)
    for folder in folders:
        name = folder.name
        if count[name] > 1:
            report.left_out(str(folder), f"{count[name]} folders have this name: they are not told apart")
            continue
        try:
            upright, drawn = _read(folder)
        except (OSError, ValueError) as error:
            report.left_out(name, f"cannot be read: {error}")
            continue
        declared = choices.absent.get(name, frozenset())
        for organ in sorted(declared & drawn):
            report.left_out(name, CONTRADICTION, organ)
        known = known_ranges(upright, upright.organs - declared, declared - drawn)
        if not known:
            report.left_out(name, "no organ was contoured where there is an image")
            continue
        case = replace(upright.case(name, GROUP, known), patient=openkbp_mark(name))
        yield choices.split(name), case


def _read(folder: Path) -> tuple[Upright, frozenset[str]]:
    """A patient cut to the slices, rows and columns with an image, and every organ that was drawn anywhere."""
    spacing = np.loadtxt(folder / "voxel_dimensions.csv")
    if spacing.shape != (3,) or not (spacing > 0).all():
        raise ValueError(f"voxel_dimensions.csv holds {spacing}; needed are three lengths in mm")
    indices, values = _sparse(folder / "ct.csv")
    hu = np.full(SHAPE, AIR_HU, np.int16)
    hu.reshape(-1)[indices] = np.rint(values - 1000)
    box = _box(folder, indices)
    masks, drawn = {}, set()
    for file, organ in ORGAN_OF_FILE.items():
        path = folder / f"{file}.csv"
        if path.exists():
            mask = np.zeros(SHAPE, bool)
            mask.reshape(-1)[_sparse(path)[0]] = True
            masks[organ] = _turned(mask[box])
            drawn |= {organ} if mask.any() else set()
    image = _turned(hu[box])
    rows, columns, slices = box
    row_mm, column_mm, slice_mm = (float(length) for length in spacing)
    middle = [(n - 1) / 2 for n in SHAPE]
    frame = Frame(
        (
            (middle[2] - (slices.stop - 1)) * slice_mm,
            (rows.start - middle[0]) * row_mm,
            (columns.start - middle[1]) * column_mm,
        ),
        (slice_mm, row_mm, column_mm),
    )
    return Upright(image, frame, labelled(masks, image.shape), frame), frozenset(drawn)


def _box(folder: Path, ct_indices: NDArray[np.int64]) -> tuple[slice, slice, slice]:
    """The part of the grid with an image: where the dose can be, if that is said, and the CT has values."""
    imaged = np.zeros(SHAPE, bool)
    imaged.reshape(-1)[ct_indices] = True
    possible = folder / "possible_dose_mask.csv"
    if possible.exists():
        allowed = np.zeros(SHAPE, bool)
        allowed.reshape(-1)[_sparse(possible)[0]] = True
        imaged &= allowed
    places = np.argwhere(imaged)
    if not len(places):
        raise ValueError("ct.csv has no value where the dose can be")
    low, high = places.min(axis=0), places.max(axis=0) + 1
    rows, columns, slices = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return rows, columns, slices


def _turned(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """(rows, columns, slices from head to feet) to (slices from feet to head, rows, columns)."""
    return np.ascontiguousarray(array[:, :, ::-1].transpose(2, 0, 1))


def _sparse(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices and values of a file; masks have no values, and NaN is given for them."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    cells = [line.split(",") for line in lines if line.strip()]
    if any(len(row) != 2 for row in cells):
        raise ValueError(f"{path.name} is no table of index and value")
    indices = np.array([int(row[0]) for row in cells], np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < np.prod(SHAPE):
        raise ValueError(f"{path.name} has indices beyond {' × '.join(map(str, SHAPE))} voxels")
    return indices, np.array([float(row[1] or "nan") for row in cells])
