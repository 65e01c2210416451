"""The body in a CT as a stack of coarse axial sections along the patient's axes, as the header gives them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.geometry import SliceGrid

LEVEL_MM = 8.0
"""Edge of a section's pixels, and the distance between sections."""

HALF_WIDTH = 18
"""A section is 2 x 18 + 1 pixels wide: 29 cm about the middle of the body."""

SECTION_HU = (-400.0, 600.0)
"""Values are kept within these: enough to tell air, soft tissue and bone."""

SAMPLING_MM = 4.0
BODY_HU = -400
LEAST_BODY_MM2 = 3000.0
FWHM_IN_SIGMAS = 2.355

Volume = NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class CoarseVolume:
    """A CT subsampled to about 4 mm along the patient's axes.

    Parameters
    ----------
    hu
        (slices, rows, columns) feet to head, front to back, right to left, if the header tells the truth.
    body
        Likewise, bool: the largest dense thing, with whatever it encloses within a slice.
    spacing_mm
        (slices, rows, columns).
    heights_mm
        (slices,) LPS z of each slice's middle; ascending.
    """

    hu: Volume
    body: NDArray[np.bool_]
    spacing_mm: tuple[float, float, float]
    heights_mm: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sections:
    """Sections of a body, each centred on its own middle.

    Parameters
    ----------
    hu
        (levels, 37, 37) float32 feet to head, front to back, right to left; what is no body is -400.
    heights_mm
        (levels,) LPS z, 8 mm apart.
    """

    hu: NDArray[np.float32]
    heights_mm: NDArray[np.float64]


def coarse_volume(hu: Volume, grid: SliceGrid) -> CoarseVolume | None:
    """Subsample a CT and find the body in it; None where nothing is dense.

    Slices may be unevenly spaced or sheared; the nearest slice stands for each height.
    """
    hu, heights, (row_mm, column_mm) = _along_patient_axes(hu, grid)
    count = max(2, round((heights[-1] - heights[0]) / SAMPLING_MM) + 1)
    wanted = np.linspace(heights[0], heights[-1], count)
    nearest = np.abs(heights[:, None] - wanted).argmin(axis=0)
    row_step, column_step = (max(1, round(SAMPLING_MM / mm)) for mm in (row_mm, column_mm))
    sampled = hu[:, ::row_step, ::column_step][nearest]
    body = _body(sampled)
    if body is None:
        return None
    spacing = (float(wanted[1] - wanted[0]), row_mm * row_step, column_mm * column_step)
    return CoarseVolume(sampled, body, spacing, wanted)


def body_sections(coarse: CoarseVolume) -> Sections | None:
    """Sections 8 mm apart over the length of the body; None where it is shorter than two of them."""
    spacing = coarse.spacing_mm
    low, high = SECTION_HU
    values = np.where(coarse.body, coarse.hu.clip(low, high), low).astype(np.float32)
    values = ndimage.gaussian_filter(
        values, [LEVEL_MM / FWHM_IN_SIGMAS / mm for mm in spacing], mode="nearest", truncate=2
    )
    area = coarse.body.sum(axis=(1, 2)) * spacing[1] * spacing[2]
    filled = np.flatnonzero(area >= LEAST_BODY_MM2)
    if not len(filled):
        return None
    bottom, top = coarse.heights_mm[filled[[0, -1]]]
    count = int((top - bottom) // LEVEL_MM) + 1
    if count < 2:
        return None
    heights = (bottom + top) / 2 + (np.arange(count) - (count - 1) / 2) * LEVEL_MM
    indices = np.abs(coarse.heights_mm[:, None] - heights).argmin(axis=0)
    return Sections(np.stack([_section(values[i], coarse.body[i], spacing[1:]) for i in indices]), heights)


def _section(
    values: NDArray[np.float32], body: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> NDArray[np.float32]:
    """(37, 37) about the middle of the body in one slice."""
    outside = np.float32(SECTION_HU[0])
    if not body.any():
        return np.full((2 * HALF_WIDTH + 1,) * 2, outside)
    places = []
    for indices, mm, size in zip(np.nonzero(body), spacing_mm, body.shape, strict=True):
        at = np.rint(indices.mean() + np.arange(-HALF_WIDTH, HALF_WIDTH + 1) * LEVEL_MM / mm).astype(int)
        places.append((at.clip(0, size - 1), (at >= 0) & (at < size)))
    (rows, row_exists), (columns, column_exists) = places
    return np.where(row_exists[:, None] & column_exists, values[rows][:, columns], outside)


def _along_patient_axes(
    hu: Volume, grid: SliceGrid
) -> tuple[Volume, NDArray[np.float64], tuple[float, float]]:
    """A view whose axes run to head, back and left as nearly as the grid's do; heights; (row, column) mm."""
    row_mm, column_mm = grid.pixel_spacing_mm
    across, down = grid.row_direction, grid.column_direction
    if abs(across[0]) < abs(across[1]):
        hu, across, down, row_mm, column_mm = hu.transpose(0, 2, 1), down, across, column_mm, row_mm
    if down[1] < 0:
        hu = hu[:, ::-1]
    if across[0] < 0:
        hu = hu[:, :, ::-1]
    middle = grid.to_patient(0, [((grid.rows - 1) / 2, (grid.columns - 1) / 2)])[0]
    heights = middle[2] + grid.positions_mm[:, 2] - grid.positions_mm[0, 2]
    if grid.normal[2] < 0:
        hu, heights = hu[::-1], heights[::-1]
    return hu, heights, (row_mm, column_mm)


def _body(hu: Volume) -> NDArray[np.bool_] | None:
    """The largest dense thing without thin parts such as a table top, its holes filled slice by slice."""
    dense = ndimage.binary_opening(hu > BODY_HU, np.ones((1, 3, 3), dtype=bool))
    labels, count = ndimage.label(dense)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    return np.stack([ndimage.binary_fill_holes(slice_) for slice_ in body])
