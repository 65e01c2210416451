"""Size, place and shape of one organ's mask, in patient coordinates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.geometry import Mask, SliceGrid, slice_thickness_mm

LATERAL_MM, BACKWARD_MM, HEADWARD_MM = range(3)
"""Axes of LPS: increasing to the patient's left, back and head."""


@dataclass(frozen=True, eq=False)
class OrganMeasure:
    """What one mask measures.

    Parameters
    ----------
    centroid_mm
        (3,) LPS.
    section_cm2
        Mean area of the slices that it fills.
    roughness
        Area of its voxels' outer faces over the surface of a ball of the same volume: 1.5 for a ball of many
        voxels, more for what is long, thin or ragged.
    ends
        Where it touches the end of the image: any of "first slice", "last slice", "edge".
    part_shares
        Share of the volume in each 26-connected part, the largest first.
    """

    volume_cm3: float
    centroid_mm: NDArray[np.float64]
    section_cm2: float
    roughness: float
    ends: tuple[str, ...]
    part_shares: tuple[float, ...]

    @property
    def is_cut(self) -> bool:
        """Whether the image ends within the organ."""
        return bool(self.ends)


def measure_organs(masks: Mapping[str, Mask], grid: SliceGrid) -> dict[str, OrganMeasure]:
    """Measure every mask that is not empty."""
    return {name: measure_organ(mask, grid) for name, mask in masks.items() if not mask.is_empty}


def measure_organ(mask: Mask, grid: SliceGrid) -> OrganMeasure:
    """Measure one mask, which must not be empty."""
    thickness = slice_thickness_mm(grid)[mask.corner[0] : mask.corner[0] + len(mask.voxels)]
    volume = mask.volume_cm3(grid)
    filled = mask.voxels.any(axis=(1, 2))
    return OrganMeasure(
        volume_cm3=volume,
        centroid_mm=_centroid(mask, grid, thickness),
        section_cm2=10 * volume / float(thickness[filled].sum()),
        roughness=_roughness(mask, grid, thickness),
        ends=_ends(mask),
        part_shares=_part_shares(mask),
    )


def _centroid(mask: Mask, grid: SliceGrid, thickness_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    total, weight = np.zeros(3), 0.0
    for index, (slice_, thickness) in enumerate(zip(mask.voxels, thickness_mm, strict=True)):
        inside = np.argwhere(slice_)
        if len(inside):
            middle = inside.mean(axis=0) + mask.corner[1:]
            share = len(inside) * float(thickness)
            total += share * grid.to_patient(mask.corner[0] + index, [middle])[0]
            weight += share
    return total / weight


def _roughness(mask: Mask, grid: SliceGrid, thickness_mm: NDArray[np.float64]) -> float:
    row_mm, column_mm = grid.pixel_spacing_mm
    padded = np.pad(mask.voxels, 1)
    flat = np.count_nonzero(padded[1:] != padded[:-1]) * row_mm * column_mm
    within = padded[1:-1]
    along_rows = np.count_nonzero(within[:, 1:] != within[:, :-1], axis=(1, 2)) @ thickness_mm * column_mm
    along_columns = (
        np.count_nonzero(within[:, :, 1:] != within[:, :, :-1], axis=(1, 2)) @ thickness_mm * row_mm
    )
    volume_mm3 = 1000 * mask.volume_cm3(grid)
    return float((flat + along_rows + along_columns) / (36 * math.pi * volume_mm3**2) ** (1 / 3))


def _ends(mask: Mask) -> tuple[str, ...]:
    """A mask is cropped to what it fills, so its box says where it touches."""
    (first, top, left), (slices, rows, columns) = mask.corner, mask.shape
    last, bottom, right = (c + n for c, n in zip(mask.corner, mask.voxels.shape, strict=True))
    touching = {
        "first slice": first == 0,
        "last slice": last == slices,
        "edge": top == 0 or left == 0 or bottom == rows or right == columns,
    }
    return tuple(name for name, touches in touching.items() if touches)


def _part_shares(mask: Mask) -> tuple[float, ...]:
    labels, _ = ndimage.label(mask.voxels, np.ones((3, 3, 3), dtype=bool))
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    return tuple((sizes / sizes.sum()).tolist())
