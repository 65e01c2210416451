"""From a CT volume to the network's grid and back: orientation, spacing, resolution. SimpleITK resamples.

The network's grid is laid along the patient's axes (LPS), so the network always sees slices that run feet to
head, rows front to back and columns right to left, however the patient lay and whatever way the slices run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from model.blur import blurred
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid, bounding_box
from model.network_input import BODY_HU, Preprocessing, smoothing_variance

AIR_HU = -1024
HALF = 0.5
"""More likely than this is inside."""
BODY_MARGIN_MM = 10.0


@dataclass(frozen=True, eq=False)
class NetworkImage:
    """An image on the network's grid.

    Parameters
    ----------
    hu
        (D, H, W) float32: feet to head, front to back, right to left of the patient.
    origin_mm
        LPS of the centre of voxel (0, 0, 0), in the order (x, y, z).
    spacing_mm
        (D, H, W).
    """

    hu: NDArray[np.float32]
    origin_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]


def to_network_grid(volume: CTVolume, preprocessing: Preprocessing) -> NetworkImage:
    """Bring the body in a volume onto the network's grid."""
    box = body_box(volume.hu, volume.grid)
    hu, grid = _evenly_spaced(volume.hu[box], _cropped(volume.grid, box))
    image = _smooth_image(hu, grid, preprocessing)
    low, high = extent_mm(grid)
    dz, dy, dx = preprocessing.spacing_mm
    size = [math.ceil(length / step) + 1 for length, step in zip(high - low, (dx, dy, dz), strict=True)]
    resampled = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, low.tolist(), (dx, dy, dz), np.eye(3).ravel().tolist(),
        float(AIR_HU), sitk.sitkFloat32,
    )  # fmt: skip
    x, y, z = low.tolist()
    return NetworkImage(sitk.GetArrayFromImage(resampled), (x, y, z), preprocessing.spacing_mm)


def to_mask(
    probability: NDArray[np.floating],
    image: NetworkImage,
    grid: SliceGrid,
    corner: tuple[int, int, int] = (0, 0, 0),
) -> Mask:
    """Where one structure's probability, interpolated at a CT's own voxels, exceeds one half.

    Parameters
    ----------
    probability
        (D, H, W) on the grid of `image`, or the part of it that holds the structure and a voxel all round.
    grid
        The planes of the CT, evenly spaced or not, sheared or not.
    corner
        (d, h, w) of the part's first voxel.
    """
    box = box_of(probability)
    if box is None:
        return Mask.from_part(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0), grid.shape)
    first = [start + side.start for start, side in zip(corner, box, strict=True)]
    # SimpleITK counts axes the other way round.
    origin = [
        o + n * step for o, n, step in zip(image.origin_mm, first[::-1], image.spacing_mm[::-1], strict=True)
    ]
    field = sitk.GetImageFromArray(probability[box].astype(np.float32))
    field.SetSpacing(image.spacing_mm[::-1])
    field.SetOrigin(origin)
    return _joined([_sampled(field, grid, run) for run in grid.uniform_runs()], grid.shape)


def box_of(probability: NDArray[np.floating]) -> tuple[slice, slice, slice] | None:
    """The box around a structure and the voxels beside it, which decide where it ends; None without one."""
    box = bounding_box(probability > HALF)
    if box is None:
        return None
    slices, rows, columns = (
        slice(max(0, side.start - 1), min(n, side.stop + 1))
        for side, n in zip(box, probability.shape, strict=True)
    )
    return slices, rows, columns


def _sampled(field: sitk.Image, grid: SliceGrid, run: slice) -> Mask:
    """The voxels of one evenly spaced run of slices that lie within a field's upper half."""
    affine = grid.affine(run.start)
    size = np.array(field.GetSize())
    corners = [
        field.TransformContinuousIndexToPhysicalPoint([float(i) for i in index])
        for index in np.stack(np.meshgrid(*[(0.0, float(n - 1)) for n in size]), -1).reshape(-1, 3)
    ]
    indices = (np.array(corners) - affine[:3, 3]) @ np.linalg.inv(
        affine[:3, :3]
    ).T  # (8, 3): column, row, slice
    limits = np.array([grid.columns, grid.rows, run.stop - run.start])
    low = np.maximum(np.floor(indices.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(indices.max(0)).astype(int) + 1, limits)
    if (high <= low).any():
        return Mask.from_part(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0), grid.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    sampled = sitk.Resample(
        field,
        (high - low).tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        (affine[:3, :3] @ low + affine[:3, 3]).tolist(),
        spacing.tolist(),
        (affine[:3, :3] / spacing).ravel().tolist(),
        0.0,
        sitk.sitkFloat32,
    )
    column, row, first = low.tolist()
    inside = sitk.GetArrayViewFromImage(sampled) > HALF
    return Mask.from_part(inside, (run.start + first, row, column), grid.shape)


def _joined(parts: Sequence[Mask], shape: tuple[int, int, int]) -> Mask:
    """One mask of those of all runs, of which neighbours share a slice."""
    filled = [part for part in parts if part.count]
    if len(filled) <= 1:
        return filled[0] if filled else parts[0]
    full = np.zeros(shape, dtype=bool)
    for part in filled:
        full[part.box] |= part.voxels
    return Mask.from_full(full)


def body_box(hu: NDArray[np.int16], grid: SliceGrid) -> tuple[slice, slice, slice]:
    """The box around the largest dense thing in a volume, with a margin; the whole volume if there is none."""
    step = max(1, round(4.0 / grid.pixel_spacing_mm[1]))
    dense = ndimage.binary_opening(hu[:, ::step, ::step] > BODY_HU, np.ones((1, 3, 3), dtype=bool))
    labels, count = ndimage.label(dense)
    if not count:
        return (slice(0, hu.shape[0]), slice(0, hu.shape[1]), slice(0, hu.shape[2]))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    found = ndimage.find_objects((labels == sizes.argmax()).astype(np.int8))[0]
    margins = [math.ceil(BODY_MARGIN_MM / spacing) for spacing in grid.pixel_spacing_mm]
    rows, columns = (
        slice(max(0, side.start * step - margin), min(n, side.stop * step + margin))
        for side, margin, n in zip(found[1:], margins, hu.shape[1:], strict=True)
    )
    return found[0], rows, columns


def _cropped(grid: SliceGrid, box: tuple[slice, slice, slice]) -> SliceGrid:
    slices, rows, columns = box
    row_mm, column_mm = grid.pixel_spacing_mm
    shift = grid.column_direction * rows.start * row_mm + grid.row_direction * columns.start * column_mm
    return SliceGrid(
        grid.positions_mm[slices] + shift,
        grid.row_direction,
        grid.column_direction,
        grid.pixel_spacing_mm,
        rows.stop - rows.start,
        columns.stop - columns.start,
    )


def _evenly_spaced(hu: NDArray[np.int16], grid: SliceGrid) -> tuple[NDArray[np.int16], SliceGrid]:
    """Interpolate between unevenly spaced slices, at the finest gap there is; evenly spaced ones pass.

    What comes of them stands on the line from the first to the last, which accepted slices keep to
    (`slice_spacing.refuse_leaning_stack`): one step describes all of it.
    """
    if grid.is_uniform:
        return hu, grid
    offsets = grid.offsets_mm
    gap = float(np.diff(offsets).min())
    wanted = np.linspace(offsets[0], offsets[-1], round((offsets[-1] - offsets[0]) / gap) + 1)
    after = np.clip(np.searchsorted(offsets, wanted, side="right"), 1, len(offsets) - 1)
    share = (wanted - offsets[after - 1]) / (offsets[after] - offsets[after - 1])
    even = np.empty((len(wanted), *hu.shape[1:]), np.int16)
    for index, (above, weight) in enumerate(zip(after, share, strict=True)):
        even[index] = np.rint(hu[above - 1] * (1 - weight) + hu[above] * weight)
    positions = np.linspace(grid.positions_mm[0], grid.positions_mm[-1], len(wanted))
    return even, SliceGrid(
        positions, grid.row_direction, grid.column_direction, grid.pixel_spacing_mm, grid.rows, grid.columns
    )


def _smooth_image(hu: NDArray[np.int16], grid: SliceGrid, preprocessing: Preprocessing) -> sitk.Image:
    """A SimpleITK image of evenly spaced slices; its direction matrix is sheared where the gantry was tilted.

    What is sharper than the network knows is blurred, so that resampling does not turn it into noise.
    """
    affine = grid.affine()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(blurred(hu, smoothing_variance(spacing.tolist(), preprocessing)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image


def extent_mm(grid: SliceGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least and greatest LPS coordinates (3,) of any voxel centre."""
    edge = [(0, 0), (0, grid.columns - 1), (grid.rows - 1, 0), (grid.rows - 1, grid.columns - 1)]
    corners = np.concatenate([grid.to_patient(index, edge) for index in (0, len(grid.positions_mm) - 1)])
    return corners.min(axis=0), corners.max(axis=0)
