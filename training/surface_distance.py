"""How far two masks' surfaces lie apart, piece by piece, in mm.

Most pieces of two surfaces that agree lie a voxel or two apart: the neighbourhood of each is looked through from
near to far, and only what finds nothing there is looked up in a tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from training.surface import corner_codes, on_surface, surface_sizes

REACH = 6
"""Neighbourhoods are looked through as far as this many times the smallest spacing."""


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Each piece of two surfaces: how far the other surface is, and how large the piece is.

    Distances are in mm, infinite where there is no other surface or none within the limit that was asked for.
    Sizes are areas in mm², of outlines in an image lengths in mm. Arrays are (pieces,), empty for an empty mask.
    """

    gt_to_pred_mm: NDArray[np.float64]
    pred_to_gt_mm: NDArray[np.float64]
    gt_sizes: NDArray[np.float64]
    pred_sizes: NDArray[np.float64]


def surface_distances(
    mask_gt: NDArray[np.bool_],
    mask_pred: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    limit_mm: float = np.inf,
) -> SurfaceDistances:
    """Distances between the surfaces of two masks of one shape, in 2-D or 3-D.

    A mask that touches the end of its array has its surface there: outside of the image is outside of the organ.
    Defined as by S. Nikolov et al., arXiv 1809.04430, and google-deepmind/surface-distance.

    Parameters
    ----------
    spacing_mm
        Of the voxels, in the order of the masks' axes.
    limit_mm
        Larger distances are not looked for and given as infinite: all that a tolerance needs, and quicker.

    Raises
    ------
    ValueError
        The masks are not boolean, differ in shape, are neither 2-D nor 3-D, or have another number of spacings;
        a spacing is not positive, or the limit is negative.
    """
    check_masks(mask_gt, mask_pred, spacing_mm)
    if not limit_mm >= 0:
        raise ValueError(f"the limit must not be negative: {limit_mm} mm")
    box = joint_box(mask_gt, mask_pred)
    if box is None:
        nothing = np.zeros(0)
        return SurfaceDistances(nothing, nothing, nothing, nothing)
    steps, distances_mm = _neighbourhood(spacing_mm, limit_mm)
    room = tuple(np.abs(steps).max(axis=0) + 1)
    sizes = surface_sizes(spacing_mm)
    gt, pred = (_Surface.of(mask[box], room, sizes) for mask in (mask_gt, mask_pred))
    search = _Search(steps, distances_mm, np.array(spacing_mm, dtype=np.float64), limit_mm)
    return SurfaceDistances(search.distances(gt, pred), search.distances(pred, gt), gt.sizes, pred.sizes)


def check_masks(
    mask_gt: NDArray[np.bool_], mask_pred: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> None:
    """Raise `ValueError` unless both masks are boolean, of one shape, 2-D or 3-D, with a spacing for each axis."""
    if mask_gt.shape != mask_pred.shape or mask_gt.ndim != len(spacing_mm):
        raise ValueError(
            "masks of one shape and a spacing for each of its axes are needed, "
            f"not {mask_gt.shape}, {mask_pred.shape} and {len(spacing_mm)} spacings"
        )
    if mask_gt.ndim not in {2, 3}:
        raise ValueError(f"only masks in 2-D and 3-D have a surface here, not in {mask_gt.ndim}-D")
    if mask_gt.dtype != np.bool_ or mask_pred.dtype != np.bool_:
        raise ValueError(f"masks must be boolean, not {mask_gt.dtype} and {mask_pred.dtype}")
    if not all(step > 0 for step in spacing_mm):
        raise ValueError(f"spacings must be positive, not {tuple(spacing_mm)}")


@dataclass(frozen=True, eq=False)
class _Surface:
    """Pieces of one surface on a grid of corners with `room` to all sides, as indices into the flat grid."""

    is_there: NDArray[np.bool_]  # the whole grid
    places: NDArray[np.intp]  # (pieces,)
    sizes: NDArray[np.float64]  # (pieces,)

    @classmethod
    def of(
        cls, mask: NDArray[np.bool_], room: tuple[int, ...], sizes_by_code: NDArray[np.float64]
    ) -> "_Surface":
        roomy = np.zeros([side + 2 * more for side, more in zip(mask.shape, room, strict=True)], dtype=bool)
        roomy[tuple(slice(more, -more) for more in room)] = mask
        codes = corner_codes(roomy)
        is_there = np.ascontiguousarray(on_surface(codes, mask.ndim))
        places = np.flatnonzero(is_there)
        return cls(is_there, places, sizes_by_code[codes.ravel()[places]])


@dataclass(frozen=True, eq=False)
class _Search:
    """Looks from the pieces of one surface for the nearest of another."""

    steps: NDArray[np.intp]  # (n, dimensions) from a corner to its neighbours, the nearest first
    distances_mm: NDArray[np.float64]  # (n,)
    spacing_mm: NDArray[np.float64]
    limit_mm: float

    def distances(self, start: _Surface, goal: _Surface) -> NDArray[np.float64]:
        """(pieces of start,) mm, infinite beyond the limit."""
        found = np.full(len(start.places), np.inf)
        if not len(goal.places):
            return found
        shape = goal.is_there.shape
        flat_steps = self.steps @ (np.array(goal.is_there.strides) // goal.is_there.itemsize)
        there = goal.is_there.ravel()
        open_, places = np.arange(len(found)), start.places
        for step, distance_mm in zip(flat_steps, self.distances_mm, strict=True):
            hit = there[places + step]
            found[open_[hit]] = distance_mm
            open_, places = open_[~hit], places[~hit]
            if not len(open_):
                return found
        if self.limit_mm > REACH * self.spacing_mm.min():
            found[open_] = self._look_up(places, goal.places, shape)
        return found

    def _look_up(
        self, starts: NDArray[np.intp], goals: NDArray[np.intp], shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """Of few pieces far away, the distance by a tree; from index differences, as exact as the near ones."""
        goal_steps, start_steps = (
            np.stack(np.unravel_index(each, shape), axis=1) for each in (goals, starts)
        )
        tree = KDTree(goal_steps * self.spacing_mm, balanced_tree=False, compact_nodes=False)
        bound = self.limit_mm * 1.001
        nearest = np.asarray(tree.query(start_steps * self.spacing_mm, distance_upper_bound=bound)[1])
        within = nearest < len(goals)
        found = np.full(len(starts), np.inf)
        found[within] = lengths_mm(start_steps[within] - goal_steps[nearest[within]], self.spacing_mm)
        found[found > self.limit_mm] = np.inf
        return found


def lengths_mm(steps: NDArray[np.intp], spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, dimensions) steps between voxels to (n,) mm."""
    lengths: NDArray[np.float64] = np.sqrt(((steps * spacing_mm) ** 2).T.copy().sum(axis=0))
    return lengths


def _neighbourhood(
    spacing_mm: Sequence[float], limit_mm: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Every step up to `REACH` smallest spacings or the limit, the nearest first, and its length in mm."""
    far_mm = min(REACH * min(spacing_mm), limit_mm)
    sides = [int(far_mm / step) + 1 for step in spacing_mm]  # one to spare, against rounding
    steps = np.array(list(product(*(range(-side, side + 1) for side in sides))), dtype=np.intp)
    distances = lengths_mm(steps, np.array(spacing_mm, dtype=np.float64))
    order = np.argsort(distances, kind="stable")
    order = order[distances[order] <= far_mm]
    return steps[order], distances[order]


def joint_box(*masks: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds all masks, None if all are empty."""
    boxes = [box for box in map(bounding_box, masks) if box is not None]
    if not boxes:
        return None
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds a mask, None if it is empty."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        filled = np.flatnonzero(mask[tuple(box)].any(axis=others))
        if not len(filled):
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)
