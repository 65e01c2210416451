"""What the network is told of an image: its grid and resolution, and where the middle of the body is.

Training and use share it; it needs numpy alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BODY_HU = -400
"""Denser than this is patient, couch or clothing: no air, no lung."""
FWHM_IN_SIGMAS = 2.355
"""Full width at half maximum of a Gaussian, in standard deviations."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image is brought to the network.

    Parameters
    ----------
    spacing_mm
        (slices, rows, columns) of the network's grid.
    resolution_mm
        Images sharper than this within the slices are smoothed to it, because the network learned from images
        no sharper; across the slices the grid's own spacing is the limit.
    """

    spacing_mm: tuple[float, float, float]
    resolution_mm: float


def smoothing_sigma_mm(spacing_mm: float, resolution_mm: float) -> float:
    """Standard deviation of the Gaussian that makes pixels of `spacing_mm` as coarse as `resolution_mm`."""
    return math.sqrt(max(0.0, resolution_mm**2 - spacing_mm**2)) / FWHM_IN_SIGMAS


def smoothing_variance(
    spacing_mm: Sequence[float], preprocessing: Preprocessing, smoothed_to_mm: float = 0.0
) -> list[float]:
    """How much to blur an image so that it is no sharper than the network knows: (x, y, z) in squared voxels.

    Parameters
    ----------
    spacing_mm
        (x, y, z) of the image.
    smoothed_to_mm
        Resolution within the slices to which it was smoothed already; 0: it was not.
    """
    x, y, z = spacing_mm
    widths = max(x, smoothed_to_mm), max(y, smoothed_to_mm), z
    resolutions = preprocessing.resolution_mm, preprocessing.resolution_mm, preprocessing.spacing_mm[0]
    return [
        (smoothing_sigma_mm(width, resolution) / spacing) ** 2
        for width, resolution, spacing in zip(widths, resolutions, spacing_mm, strict=True)
    ]


def lateral_mm(hu: NDArray[np.integer] | NDArray[np.floating], spacing_mm: float) -> NDArray[np.float32]:
    """How far each column lies to the left of the middle of what is dense in an image.

    Parameters
    ----------
    hu
        (D, H, W), columns running from right to left of the patient.
    spacing_mm
        Between columns.

    Returns
    -------
    (W,) mm; of an image without a body, from the middle of the image.
    """
    columns = np.arange(hu.shape[2])
    dense = np.count_nonzero(hu > BODY_HU, axis=(0, 1))
    middle = columns @ dense / dense.sum() if dense.any() else columns.mean()
    return np.asarray((columns - middle) * spacing_mm, dtype=np.float32)
