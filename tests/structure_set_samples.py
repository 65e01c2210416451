"""Organs that differ from left, front and top, on any grid, and what a structure set of them is made from."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
from pydicom import Dataset
from pydicom.uid import CTImageStorage

from daemon.result_header import ModelIdentity, ResultIdentity
from daemon.structure_template import ROI, apply_template, template_of
from model.contours import Contour, trace
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from tests.phantom import phantom_hu

ROOT = "1.2.826.0.1.3680043.10.1.2"
IDENTITY = ResultIdentity(
    f"{ROOT}.9", f"{ROOT}.8", datetime(2024, 2, 29, 23, 59, 7, tzinfo=timezone(timedelta(hours=2)))
)
MODEL = ModelIdentity("head-and-neck", "1.2.0", "0123456789abcdef" * 4)

# Ellipsoids in LPS mm: middle and half axes.
ORGANS = {
    "Brain": ((0, -4, 50), (52, 62, 36)),
    "Parotid_L": ((52, 8, -6), (12, 18, 22)),
    "Parotid_R": ((-52, 4, -10), (10, 20, 18)),
    "SpinalCord": ((4, 42, -40), (7, 7, 45)),
    "Lens_L": ((24, -74, 10), (3, 3, 6)),
}
HOLE = ((6, -10, 50), (18, 20, 16))
NOT_FOUND = "Glnd_Submand_R"


def organ_masks(grid: SliceGrid) -> dict[str, Mask]:
    """The organs; the brain has a hole and a voxel of its own elsewhere, and one organ was not found."""
    where = _points(grid)
    full = {name: _inside(where, *shape) for name, shape in ORGANS.items()}
    full["Brain"] &= ~_inside(where, *HOLE)
    full["Brain"][2, 3, 4] = True
    full[NOT_FOUND] = np.zeros(grid.shape, dtype=bool)
    return {name: Mask.from_full(each) for name, each in full.items()}


def traced(masks: dict[str, Mask]) -> dict[str, list[Contour]]:
    return {name: trace(mask) for name, mask in masks.items()}


def rois_of(masks: Mapping[str, Mask], grid: SliceGrid) -> list[ROI]:
    """Every organ as its ROI of the default template, with traced contours."""
    found = apply_template(template_of(list(masks)), masks, grid)
    return [replace(roi, contours=trace(roi.mask)) for roi in found]


def ct_header(**attributes: object) -> Dataset:
    """The least that a CT slice has: many real ones lack everything else."""
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = f"{ROOT}.4.0"
    header.StudyInstanceUID = f"{ROOT}.1"
    header.SeriesInstanceUID = f"{ROOT}.2"
    header.FrameOfReferenceUID = f"{ROOT}.3"
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


def ct_volume(grid: SliceGrid, header: Dataset | None = None) -> CTVolume:
    uids = tuple(f"{ROOT}.4.{index}" for index in range(grid.shape[0]))
    return CTVolume(phantom_hu(grid), grid, uids, ct_header(PatientID="P1") if header is None else header)


def _points(grid: SliceGrid) -> np.ndarray:
    """(slices, rows, columns, 3) LPS mm of every voxel."""
    rc = np.stack(np.mgrid[: grid.rows, : grid.columns], axis=-1).reshape(-1, 2)
    return np.stack([grid.to_patient(i, rc) for i in range(grid.shape[0])]).reshape(*grid.shape, 3)


def _inside(where: np.ndarray, middle: tuple, half_axes: tuple) -> np.ndarray:
    return (((where - middle) / half_axes) ** 2).sum(axis=-1) <= 1
