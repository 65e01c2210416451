"""The discrete Gaussian beside ITK's."""

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from model.blur import blurred, kernel


def noise(shape: tuple[int, int, int] = (9, 23, 30)) -> NDArray[np.int16]:
    """(D, H, W) HU that differ from voxel to voxel, at the edges too."""
    return np.random.default_rng(4).normal(0, 500, shape).astype(np.int16)


@pytest.mark.parametrize(
    "variance", [(2.8, 2.8, 0.1), (0.0, 0.5, 9.0), (9.0, 0.0, 0.0), (0.0001, 0.01, 2.0)], ids=str
)
def test_it_is_itks_discrete_gaussian(variance: tuple[float, float, float]) -> None:
    """Axis by axis in ITK's order (x, y, z), to a ten-thousandth of the noise, up to every edge."""
    image = sitk.Cast(sitk.GetImageFromArray(noise()), sitk.sitkFloat32)
    expected = sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, variance, useImageSpacing=False))

    found = blurred(noise(), variance)

    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 0.05


def test_without_variance_nothing_changes_and_what_was_given_never_does() -> None:
    """It is a new array either way."""
    image = noise().astype(np.float32)

    unchanged, changed = blurred(image, (0.0, 0.0, 0.0)), blurred(image, (1.0, 1.0, 1.0))

    assert np.array_equal(unchanged, noise())
    assert not np.shares_memory(unchanged, image)
    assert not np.array_equal(changed, noise())
    assert np.array_equal(image, noise())


@pytest.mark.parametrize("shape", [(1, 23, 30), (9, 1, 30), (2, 1, 1)], ids=str)
def test_thinner_images_than_there_are_cores(shape: tuple[int, int, int]) -> None:
    """An even image stays as it is, whatever its shape."""
    assert np.allclose(blurred(np.full(shape, 40, np.int16), (3.0, 3.0, 3.0)), 40)


def test_a_kernel_is_symmetric_and_sums_to_one() -> None:
    """However narrow or wide it is."""
    for variance in (1e-6, 0.1, 3.0, 400.0, 1e9):
        weights = kernel(variance)
        assert len(weights) >= 3
        assert np.array_equal(weights, weights[::-1])
        assert abs(weights.sum() - 1) < 1e-12
