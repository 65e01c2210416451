"""How well two masks agree. Empty masks are defined, not discovered."""

import numpy as np
from numpy.typing import NDArray


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
    return 2 * np.count_nonzero(mask_gt & mask_pred) / size if size else float("nan")
