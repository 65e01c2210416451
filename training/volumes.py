"""Volumes and masks of any orientation as a case: upright, cut to the body, no finer than training needs."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from model.network_input import Preprocessing
from model.preprocess import body_box, to_network_grid
from training.config import ORGANS
from training.dataset import PACK_LIMIT_BYTES, Case, Frame, bits, packed_bytes

WHOLE = (-np.inf, np.inf)

LENGTH_ORGANS = ("SpinalCord", "SpinalCord^Clin", "SpinalCanal", "Esophagus")
"""Organs that are contoured over a part of their length as a rule: beyond it they are not known."""

STRAIGHT = math.cos(math.radians(0.05))
"""Axes this close to the patient's are taken as his; over 250 mm they are a fifth of a millimetre off."""

FINEST_PIXEL_MM = 1.2
"""Images with smaller pixels are binned: the network's own grid is coarser."""


SAME_PLACE_MM, SAME_SPACING_MM = 0.1, 1e-3
"""By how much the corners and the voxels of two arrays may differ that lie on one grid."""


class ImageUnreadableError(Exception):
    """An image file cannot be used; the message says which and why."""


class Grid(NamedTuple):
    """Where the voxels of the CT lie."""

    shape: tuple[int, ...]
    frame: Frame

    def holds(self, values: NDArray[Any], frame: Frame) -> bool:
        """Whether another array lies on the same voxels."""
        near = np.allclose(frame.origin_mm, self.frame.origin_mm, atol=SAME_PLACE_MM)
        return (
            values.shape == self.shape
            and near
            and np.allclose(frame.spacing_mm, self.frame.spacing_mm, atol=SAME_SPACING_MM)
        )


def read_image(path: Path) -> tuple[NDArray[Any], Frame]:
    """A NIfTI or NRRD file as (slices, rows, columns) ascending to head, back and left, and its frame.

    Raises
    ------
    ImageUnreadableError
        No such file, a broken one, one that is no volume, stands askew to the patient, or has no number somewhere.
    """
    try:
        image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    except RuntimeError as error:
        raise ImageUnreadableError(
            f"{path.name} cannot be read: {str(error).split(':')[-1].strip()}"
        ) from error
    if image.GetDimension() != 3 or (np.diag(np.reshape(image.GetDirection(), (3, 3))) < STRAIGHT).any():
        raise ImageUnreadableError(f"{path.name} is no volume along the patient's axes")
    values = sitk.GetArrayFromImage(image)
    if not np.isfinite(values).all():
        raise ImageUnreadableError(f"{path.name} holds values that are not finite")
    x, y, z = image.GetOrigin()
    dx, dy, dz = image.GetSpacing()
    return values, Frame((z, y, x), (dz, dy, dx))


def crop(labels: NDArray[np.uint32], frame: Frame) -> tuple[NDArray[np.uint32], Frame]:
    """Cut labels down to the box around all organs, with one voxel to spare; without organs, to one voxel."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(labels.any(axis=others))
        box.append(slice(max(0, filled[0] - 1), filled[-1] + 2) if len(filled) else slice(0, 1))
    z, y, x = (o + side.start * s for o, side, s in zip(frame.origin_mm, box, frame.spacing_mm, strict=True))
    return labels[tuple(box)].copy(), Frame((z, y, x), frame.spacing_mm)


def reordered(labels: NDArray[np.uint32], bit_of: Mapping[str, int]) -> NDArray[np.uint32]:
    """Bits as the data set numbers them to bits as `ORGANS` does."""
    ordered = np.zeros_like(labels)
    for name, bit in bit_of.items():
        ordered |= ((labels >> np.uint32(bit)) & np.uint32(1)) << np.uint32(ORGANS.index(name))
    return ordered


def hounsfield(values: NDArray[Any]) -> NDArray[np.int16]:
    """HU as the reader of CT series gives them: whole numbers, none below air."""
    clipped: NDArray[np.int16] = np.rint(values).clip(-1024, np.iinfo(np.int16).max).astype(np.int16)
    return clipped


@dataclass(frozen=True, eq=False)
class Upright:
    """Image (slices, rows, columns) in HU and organ bits, both along the patient's axes."""

    image: NDArray[np.int16]
    image_frame: Frame
    labels: NDArray[np.uint32]
    label_frame: Frame

    def case(self, name: str, group: str, known: Mapping[str, tuple[float, float]]) -> Case:
        """A case, its image binned until it fits into a pack."""
        labels, label_frame = crop(self.labels, self.label_frame)
        rows, columns = (
            max(1, math.ceil(FINEST_PIXEL_MM / mm - 1e-6)) for mm in self.image_frame.spacing_mm[1:]
        )
        while True:
            image, frame = binned(self.image, self.image_frame, (rows, columns))
            case = Case(name, group, image, frame, labels, label_frame, known)
            if packed_bytes(case) <= PACK_LIMIT_BYTES or max(rows, columns) > 8:
                return case
            _, row_mm, column_mm = frame.spacing_mm
            rows, columns = rows + (row_mm <= column_mm + 1e-6), columns + (column_mm <= row_mm + 1e-6)

    @property
    def organs(self) -> frozenset[str]:
        """Organs of which there is a voxel."""
        found = int(np.bitwise_or.reduce(self.labels, axis=None))
        return frozenset(organ for index, organ in enumerate(ORGANS) if found >> index & 1)

    def height_range(self, organ: str) -> tuple[float, float]:
        """Lower edge of the lowest and upper edge of the highest slice with the organ, in mm."""
        filled = np.flatnonzero(self._voxels(organ).any(axis=(1, 2)))
        start, step = self.label_frame.origin_mm[0], self.label_frame.spacing_mm[0]
        return start + (filled[0] - 0.5) * step, start + (filled[-1] + 0.5) * step

    def middle_left_mm(self, organ: str) -> float:
        """How far to the patient's left the middle of an organ lies, in mm of his coordinates."""
        columns = self._voxels(organ).sum(axis=(0, 1))
        index = float(columns @ np.arange(len(columns)) / columns.sum())
        return self.label_frame.origin_mm[2] + index * self.label_frame.spacing_mm[2]

    def _voxels(self, organ: str) -> NDArray[np.bool_]:
        return self.labels & np.uint32(1 << ORGANS.index(organ)) > 0


def known_ranges(
    upright: Upright, contoured: Iterable[str], absent: Iterable[str] = ()
) -> dict[str, tuple[float, float]]:
    """Of each contoured or absent organ, the heights between which its truth is known."""
    ranges = {organ: upright.height_range(organ) if organ in LENGTH_ORGANS else WHOLE for organ in contoured}
    return ranges | dict.fromkeys(absent, WHOLE)


def labelled(masks: Mapping[str, NDArray[np.bool_]], shape: tuple[int, ...]) -> NDArray[np.uint32]:
    """Organ bits of masks on one grid, which may be none."""
    return bits(masks) if masks else np.zeros(shape, np.uint32)


def binned(
    image: NDArray[np.int16], frame: Frame, factors: tuple[int, int]
) -> tuple[NDArray[np.int16], Frame]:
    """Means of so many rows × columns of pixels; rows and columns that are left over are cut off."""
    if factors == (1, 1):
        return image, frame
    down, across = factors
    rows, columns = image.shape[1] // down, image.shape[2] // across
    blocks = image[:, : rows * down, : columns * across].reshape(-1, rows, down, columns, across)
    means = np.stack([np.rint(plane.mean(axis=(1, 3))) for plane in blocks]).astype(np.int16)
    dz, dy, dx = frame.spacing_mm
    z, y, x = frame.origin_mm
    origin = (z, y + (down - 1) / 2 * dy, x + (across - 1) / 2 * dx)
    return means, Frame(origin, (dz, dy * down, dx * across))


def upright(volume: CTVolume, masks: Mapping[str, Mask]) -> Upright:
    """Turn a volume and its masks to head, back and left; whatever stands askew is interpolated.

    Image and labels of a straight series are only turned round. Where the gantry was tilted, slices are
    unevenly spaced, or the patient lay askew to the slices, the image is brought onto a straight grid by the
    code that does so before the network, and each label voxel there takes the nearest voxel's labels.
    """
    labels = np.zeros(volume.grid.shape, np.uint32)
    for name, mask in masks.items():
        box = tuple(slice(c, c + n) for c, n in zip(mask.corner, mask.voxels.shape, strict=True))
        labels[box] |= mask.voxels.astype(np.uint32) << np.uint32(ORGANS.index(name))
    axes = straight_axes(volume.grid)
    return _turned(volume, labels, axes) if axes is not None else _interpolated(volume, labels)


def straight_axes(grid: SliceGrid) -> NDArray[np.float64] | None:
    """(3, 3) direction (x, y, z) of slice, row and column index, zeros and ±1; None if askew or uneven."""
    if not grid.is_uniform or len(grid.positions_mm) < 2:
        return None
    way = grid.positions_mm[-1] - grid.positions_mm[0]
    axes = np.stack([way / np.linalg.norm(way), grid.column_direction, grid.row_direction])
    whole = np.rint(axes)
    return whole if bool(((axes * whole).sum(axis=1) > STRAIGHT).all()) else None


def _turned(volume: CTVolume, labels: NDArray[np.uint32], axes: NDArray[np.float64]) -> Upright:
    whole = tuple(slice(0, n) for n in labels.shape)
    image, image_frame = _turned_box(volume.hu, body_box(volume.hu, volume.grid), volume.grid, axes)
    turned, label_frame = _turned_box(labels, whole, volume.grid, axes)
    return Upright(image, image_frame, turned, label_frame)


def _turned_box(
    array: NDArray[Any], box: tuple[slice, ...], grid: SliceGrid, axes: NDArray[np.float64]
) -> tuple[NDArray[Any], Frame]:
    """One box of an array on a straight grid, with its axes in the order and direction z, y, x of the patient."""
    slices, rows, columns = ((side.start, side.stop - 1) for side in box)
    corners = np.concatenate([grid.to_patient(index, list(product(rows, columns))) for index in slices])
    x, y, z = (float(least) for least in corners.min(axis=0))
    order = [int(np.abs(axes[:, along]).argmax()) for along in (2, 1, 0)]
    backwards = [axis for axis, along in enumerate((2, 1, 0)) if axes[order[axis], along] < 0]
    steps = (_mean_step(grid), *grid.pixel_spacing_mm)
    dz, dy, dx = (steps[index] for index in order)
    turned = np.flip(array[box].transpose(order), tuple(backwards))
    return np.ascontiguousarray(turned), Frame((z, y, x), (dz, dy, dx))


def _mean_step(grid: SliceGrid) -> float:
    return float((grid.offsets_mm[-1] - grid.offsets_mm[0]) / (len(grid.offsets_mm) - 1))


def _interpolated(volume: CTVolume, labels: NDArray[np.uint32]) -> Upright:
    grid = volume.grid
    gap = float(np.diff(grid.offsets_mm).min())
    pixel = min(grid.pixel_spacing_mm)
    image = to_network_grid(volume, Preprocessing((gap, pixel, pixel), resolution_mm=0.0))
    x, y, z = image.origin_mm
    frame = Frame((z, y, x), image.spacing_mm)
    return Upright(hounsfield(image.hu), frame, _nearest(labels, grid, frame, image.hu.shape), frame)


def _nearest(
    labels: NDArray[np.uint32], grid: SliceGrid, frame: Frame, shape: tuple[int, ...]
) -> NDArray[np.uint32]:
    """Labels of the voxel nearest to each voxel of a frame, nothing where that lies beyond the grid."""
    found = np.zeros(shape, np.uint32)
    middles = (grid.offsets_mm[1:] + grid.offsets_mm[:-1]) / 2
    ends = 2 * grid.offsets_mm[0] - middles[0], 2 * grid.offsets_mm[-1] - middles[-1]
    (z0, y0, x0), (dz, dy, dx) = frame.origin_mm, frame.spacing_mm
    y, x = np.meshgrid(y0 + dy * np.arange(shape[1]), x0 + dx * np.arange(shape[2]), indexing="ij")
    for index in range(shape[0]):
        points = np.stack([x, y, np.full_like(x, z0 + dz * index)], axis=-1).reshape(-1, 3)
        offsets = points @ grid.normal
        slices = np.searchsorted(middles, offsets)
        along = points - grid.positions_mm[slices]
        rows = np.rint(along @ grid.column_direction / grid.pixel_spacing_mm[0]).astype(int)
        columns = np.rint(along @ grid.row_direction / grid.pixel_spacing_mm[1]).astype(int)
        inside = (offsets >= ends[0]) & (offsets <= ends[1])
        inside &= (rows >= 0) & (rows < grid.rows) & (columns >= 0) & (columns < grid.columns)
        plane = found[index].reshape(-1)
        plane[inside] = labels[slices[inside], rows[inside], columns[inside]]
    return found
