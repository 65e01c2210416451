"""How well two masks agree: volume, surface, and the path a person would have to draw again. Lengths in mm.

Empty masks are defined, not discovered.
`mask_gt` is the reference (ground truth), `mask_pred` what is judged by it.
Surface measures follow S. Nikolov et al., arXiv 1809.04430, as google-deepmind/surface-distance computes them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.surface_distance import SurfaceDistances, check_masks, joint_box, surface_distances

NAN = float("nan")


def dice(mask_gt: NDArray[np.bool_], mask_pred: NDArray[np.bool_]) -> float:
    """Volumetric Dice coefficient of two masks of one shape: 2·|A ∩ B| / (|A| + |B|).

    NaN where both are empty, 0 where one is.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    if mask_gt.shape != mask_pred.shape:
        raise ValueError(f"masks of one shape are needed, not {mask_gt.shape} and {mask_pred.shape}")
    size = np.count_nonzero(mask_gt) + np.count_nonzero(mask_pred)
    return 2 * np.count_nonzero(mask_gt & mask_pred) / size if size else NAN


def surface_dice(
    mask_gt: NDArray[np.bool_],
    mask_pred: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float,
) -> float:
    """Surface Dice coefficient of two masks: the quick way where no other surface measure is wanted.

    See `surface_dice_at` for what it is, and `surface_distances` for shapes, axes and errors.
    """
    return surface_dice_at(surface_distances(mask_gt, mask_pred, spacing_mm, tolerance_mm), tolerance_mm)


def surface_dice_at(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """The share of both surfaces together that lies no farther than the tolerance from the other one.

    NaN where both masks are empty, 0 where one is.
    """
    total = float(distances.gt_sizes.sum() + distances.pred_sizes.sum())
    near = sum(
        float(sizes[mm <= tolerance_mm].sum())
        for mm, sizes in (
            (distances.gt_to_pred_mm, distances.gt_sizes),
            (distances.pred_to_gt_mm, distances.pred_sizes),
        )
    )
    return near / total if total else NAN


def overlap_at(distances: SurfaceDistances, tolerance_mm: float) -> tuple[float, float]:
    """The share of the reference's surface within the tolerance of the other, and of the other's surface.

    NaN for the surface of an empty mask; 0 for the other one then.
    """
    return (
        _share(distances.gt_to_pred_mm, distances.gt_sizes, tolerance_mm),
        _share(distances.pred_to_gt_mm, distances.pred_sizes, tolerance_mm),
    )


def _share(mm: NDArray[np.float64], sizes: NDArray[np.float64], tolerance_mm: float) -> float:
    return float(sizes[mm <= tolerance_mm].sum() / sizes.sum()) if len(sizes) else NAN


def average_distances_mm(distances: SurfaceDistances) -> tuple[float, float]:
    """Mean distance by area from the reference's surface to the other, and back.

    NaN from the surface of an empty mask, infinite to it.
    """
    return (
        _average(distances.gt_to_pred_mm, distances.gt_sizes),
        _average(distances.pred_to_gt_mm, distances.pred_sizes),
    )


def _average(mm: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    return float((mm * sizes).sum() / sizes.sum()) if len(sizes) else NAN


def hausdorff_mm(distances: SurfaceDistances, percent: float = 100.0) -> float:
    """Robust Hausdorff distance: the larger of the two ways' percentiles by area, 95 for the usual HD95.

    A percentile is the smallest distance within which that share of the surface lies; there is no interpolation,
    and the ways are not pooled, so that other programs' HD95 may differ.
    Infinite where a mask is empty, also where both are.

    Raises
    ------
    ValueError
        `percent` is not from 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile from 0 to 100 is needed, not {percent}")
    return max(
        _percentile(distances.gt_to_pred_mm, distances.gt_sizes, percent),
        _percentile(distances.pred_to_gt_mm, distances.pred_sizes, percent),
    )


def _percentile(mm: NDArray[np.float64], sizes: NDArray[np.float64], percent: float) -> float:
    if not len(mm):
        return float("inf")
    order = np.lexsort((sizes, mm))
    shares = np.cumsum(sizes[order]) / sizes.sum()
    index = int(np.searchsorted(shares, percent / 100))
    return float(mm[order[min(index, len(mm) - 1)]])


def added_path_length_mm(
    mask_gt: NDArray[np.bool_],
    mask_pred: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    tolerance_mm: float = 0.0,
) -> float:
    """Length of the reference's contours that a person who corrects the other mask would have to draw.

    In each slice a piece of the reference's outline is added to the path unless the other mask's outline in the
    same slice passes no farther away than the tolerance.
    After F. Vaassen et al., Phys Imaging Radiat Oncol 13, 2020, who count pixels; here it is the length of the
    outline of marching squares.
    0 where the reference is empty: what was drawn too much is erased and not drawn.

    Parameters
    ----------
    mask_gt, mask_pred
        (slices, rows, columns) bool.
    spacing_mm
        In the same order; that of the slices has no influence.

    Raises
    ------
    ValueError
        As `surface_distances`; or the masks are not 3-D.
    """
    check_masks(mask_gt, mask_pred, spacing_mm)
    if mask_gt.ndim != 3:
        raise ValueError(f"slices of contours are needed, not masks in {mask_gt.ndim}-D")
    box = joint_box(mask_gt, mask_pred)
    if box is None:
        return 0.0
    path_mm = 0.0
    for gt, pred in zip(mask_gt[box], mask_pred[box], strict=True):
        if gt.any():
            distances = surface_distances(gt, pred, spacing_mm[1:], tolerance_mm)
            path_mm += float(distances.gt_sizes[distances.gt_to_pred_mm > tolerance_mm].sum())
    return path_mm
