"""Random patches: organs move with the image, and left and right change sides with it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.training_cases import STILL, a_case
from training.augment import MIRRORED, DeviceCase, elastic, patch_points, random_affine, random_sample
from training.config import ORGANS, AugmentConfig

CPU = torch.device("cpu")
LEFT, RIGHT = ORGANS.index("Parotid_L"), ORGANS.index("Parotid_R")
PATCH, SPACING = (16, 16, 16), (2.5, 2.0, 2.0)


def test_organs_follow_the_image_through_every_transform() -> None:
    """After rotation, scale, shear, elastic field and mirror the bright parotid still lies under its label."""
    case = DeviceCase(a_case(), CPU)
    strong = AugmentConfig(
        mirror=0.5, shift_hu=0, contrast=0, noise_hu=0, blur_mm=0, thick_slices=0, field_of_view=0
    )
    sides = set()
    for seed in range(12):
        sample = random_sample(case, PATCH, SPACING, strong, np.random.default_rng(seed), foreground=1.0)
        left, right = (sample.organs[0, side] > 0.95 for side in (LEFT, RIGHT))
        chosen = left | right
        if chosen.sum() > 20:
            assert 150 < float(sample.image[0, 0][chosen].median()) < 210
            sides |= {"left"} if left.any() else {"right"}
    assert {"left", "right"} == sides


def test_left_and_right_change_places_under_a_mirror() -> None:
    """Each organ is exchanged with its partner, midline organs with themselves, and twice is nothing."""
    assert MIRRORED[LEFT] == RIGHT
    assert ORGANS.index("Brain") == MIRRORED[ORGANS.index("Brain")]
    assert list(range(len(ORGANS))) == [MIRRORED[index] for index in MIRRORED]


def of_one_place(**changes: object) -> object:
    """A sample of the whole case whose centre and noise are those of one seed."""
    case = DeviceCase(a_case(), CPU)
    rng = np.random.default_rng(5)
    return random_sample(case, (20, 16, 24), (2.5, 4, 4), replace(STILL, **changes), rng, foreground=0.0)


def test_a_mirrored_sample_is_the_mirror_image_with_its_labels_exchanged() -> None:
    """Image, labels, weights and lateral channel: each is the other's reflection, sides exchanged."""
    straight, mirrored = of_one_place(), of_one_place(mirror=1.0)

    torch.testing.assert_close(mirrored.image[:, :1], straight.image[:, :1].flip(-1), atol=0.1, rtol=0)
    torch.testing.assert_close(mirrored.image[:, 1:], -straight.image[:, 1:].flip(-1), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        mirrored.organs[:, RIGHT], straight.organs[:, LEFT].flip(-1), atol=1e-3, rtol=0
    )
    assert straight.organs[:, LEFT].any()
    assert not mirrored.organs[:, LEFT].any()
    assert mirrored.weights[:, RIGHT].any()
    assert not mirrored.weights[:, LEFT].any()


def test_without_the_swap_a_mirrored_left_organ_is_called_left() -> None:
    """What the ablation compares with: the same image, labels not exchanged."""
    swapped, named = of_one_place(mirror=1.0), of_one_place(mirror=1.0, mirror_swap=False)

    assert torch.equal(swapped.image, named.image)
    assert torch.equal(swapped.organs[:, RIGHT], named.organs[:, LEFT])
    assert not named.organs[:, RIGHT].any()


def test_the_lateral_channel_grows_to_the_left_also_in_a_mirrored_patch() -> None:
    """What tells one lung from the other points the same way whether or not the image was mirrored."""
    case = DeviceCase(a_case(), CPU)
    upright = AugmentConfig(rotation_degrees=0, shear=0, elastic_sigma_mm=0, middle_sigma_mm=0)
    for seed in range(6):
        sample = random_sample(case, PATCH, SPACING, upright, np.random.default_rng(seed))
        lateral = sample.image[0, 1]
        assert (lateral[..., 1:] > lateral[..., :-1]).all()
        left, right = (sample.organs[0, side] > 0.5 for side in (LEFT, RIGHT))
        assert not left.any() or lateral[left].mean() > 0
        assert not right.any() or lateral[right].mean() < 0


def test_a_patch_without_augmentation_is_the_case_itself() -> None:
    """Sampling at the voxels' own centres gives back their values."""
    case = a_case()
    points, _ = patch_points(
        np.array([0 + 9.5 * 2.5, -0.5 + 7.5 * 4, -0.5 + 11.5 * 4]), (20, 16, 24), (2.5, 4, 4), STILL,
        np.random.default_rng(0), CPU,
    )  # fmt: skip

    sample = DeviceCase(case, CPU).sample(points)

    assert np.abs(sample.image[0, 0].numpy() - case.image).max() < 1e-2
    assert sample.weights[:, ORGANS.index("Brain")].min() == 1


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_foreground_patches_lie_about_an_organ(foreground: float) -> None:
    """All of them where all are asked for; without, some miss the organ."""
    case = DeviceCase(a_case(known={"Parotid_L": (-np.inf, np.inf)}), CPU)
    samples = [
        random_sample(case, (8, 8, 8), SPACING, STILL, np.random.default_rng(seed), foreground)
        for seed in range(20)
    ]
    assert all(bool(sample.organs[0, LEFT].any()) for sample in samples) == bool(foreground)


def test_elastic_displacements_are_smooth_and_as_strong_as_asked() -> None:
    """Between neighbouring voxels the field changes by a fraction of its spread."""
    field = elastic((16, 40, 40), SPACING, AugmentConfig(), np.random.default_rng(0), CPU)

    assert field.shape == (16, 40, 40, 3)
    assert float((field[:, 1:] - field[:, :-1]).abs().max()) < 1.0
    assert 0.5 < float(field.std()) < 6


def test_affine_transforms_keep_volume_within_their_ranges() -> None:
    """The determinant is the cube of the scale, negative only for a mirror."""
    for seed in range(20):
        config = AugmentConfig(shear=0.0)
        matrix = random_affine(config, np.random.default_rng(seed), mirrored=bool(seed % 2))
        determinant = float(np.linalg.det(matrix))
        assert 0.8**3 - 1e-3 <= abs(determinant) <= 1.2**3 + 1e-3
        assert (determinant < 0) == bool(seed % 2)
