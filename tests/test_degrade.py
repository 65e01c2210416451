"""The image as another scanner might have made it: random by the generator alone, air stays air, organs stay."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training_cases import STILL, a_case
from training.augment import DeviceCase, random_sample
from training.degrade import (
    AIR_HU,
    METAL_HU,
    coarsened,
    degrade,
    field_of_view,
    with_couch,
    with_gamma,
    with_metal,
)

SPACING = (2.5, 2.0, 2.0)
SEEDS = range(8)
METAL_WITHIN = ((2, 9), (9, 17), (21, 42))  # the teeth of `a_head` and the largest radius of a filling

Change = Callable[[Tensor, np.random.Generator], Tensor]
CHANGES: dict[str, Change] = {
    "metal": lambda image, rng: with_metal(image, SPACING, rng),
    "couch": lambda image, rng: with_couch(image, SPACING, rng),
    "gamma": lambda image, rng: with_gamma(image, 0.2, rng),
    "low_resolution": coarsened,
    "field_of_view": lambda image, rng: torch.where(field_of_view(image, rng), image, AIR_HU),
}


def a_head() -> Tensor:
    """Tissue with two rows of teeth in front, air all round and 40 rows of it behind."""
    image = torch.full((1, 1, 12, 96, 64), AIR_HU)
    image[..., 8:50, 12:52] = 40.0
    image[:, :, 4:8, 12:15, 24:40] = 1200.0
    return image


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_comes_from_the_generator_alone(name: str) -> None:
    """One seed gives one image, the image that came in is left as it was, and seeds differ."""
    head = a_head()
    images = [CHANGES[name](head, np.random.default_rng(seed)) for seed in (*SEEDS, 0)]

    assert torch.equal(images[0], images[-1])
    assert torch.equal(head, a_head())
    assert not all(torch.equal(images[0], image) for image in images[1:])
    assert all(image.shape == head.shape and image.dtype == head.dtype for image in images)


@pytest.mark.parametrize("name", ["metal", "gamma", "field_of_view"])
def test_air_stays_air(name: str) -> None:
    head = a_head()
    for seed in SEEDS:
        image = CHANGES[name](head, np.random.default_rng(seed))
        assert (image[head == AIR_HU] == AIR_HU).all()


def test_nothing_is_thinner_than_air_whatever_is_switched_on() -> None:
    config = replace(
        STILL, metal=1.0, couch=1.0, low_resolution=1.0, gamma=0.2, contrast=0.2, shift_hu=50, noise_hu=50,
        blur_mm=2, thick_slices=1.0,
    )  # fmt: skip
    for seed in SEEDS:
        image = degrade(a_head(), SPACING, config, np.random.default_rng(seed))
        assert image.min() >= AIR_HU
        assert torch.isfinite(image).all()


def test_metal_lies_in_the_teeth_and_streaks_bright_and_dark_about_it() -> None:
    head = a_head()
    for seed in SEEDS:
        image = with_metal(head, SPACING, np.random.default_rng(seed))
        d, h, w = (image[0, 0] == METAL_HU).nonzero().T
        assert len(d) > 0
        places = [(int(axis.min()), int(axis.max())) for axis in (d, h, w)]
        assert all(low >= a and high <= b for (low, high), (a, b) in zip(places, METAL_WITHIN, strict=True))
        tissue = head == 40.0
        change = (image - head)[tissue]
        assert change.max() > 30
        assert change.min() < -30
        levels = (image - head).abs().amax((0, 1, 3, 4))
        assert levels[3:9].max() > 3 * levels[0]


def test_a_couch_lies_behind_the_patient_and_replaces_air_alone() -> None:
    head = a_head()
    for seed in SEEDS:
        image = with_couch(head, SPACING, np.random.default_rng(seed))
        changed = image != head
        rows = changed[0, 0].any(2).any(0).nonzero().flatten()
        assert rows.min() >= 50
        assert (head[changed] == AIR_HU).all()
        assert image[changed].max() > -450


def test_there_is_no_couch_where_the_patient_fills_the_patch() -> None:
    inside = torch.full((1, 1, 4, 16, 16), 40.0)
    for image in (inside, torch.full_like(inside, AIR_HU)):
        assert torch.equal(with_couch(image, SPACING, np.random.default_rng(0)), image)


def test_a_coarser_image_keeps_its_level_and_loses_its_detail() -> None:
    checks = torch.arange(32.0).fmod(2).mul(200).expand(1, 1, 4, 32, 32)
    image = coarsened(checks, np.random.default_rng(3))

    assert float(image.mean()) == pytest.approx(100, abs=10)
    assert image.std() < 0.8 * checks.std()


def test_gamma_leaves_air_and_dense_bone_and_moves_tissue() -> None:
    image = torch.tensor([AIR_HU, 40.0, 1500.0, METAL_HU]).view(1, 1, 1, 1, 4)
    for seed in SEEDS:
        air, tissue, bone, metal = with_gamma(image, 0.2, np.random.default_rng(seed)).flatten().tolist()
        assert (air, bone, metal) == (AIR_HU, 1500.0, METAL_HU)
        assert 0 < abs(tissue - 40) < 200


def test_organs_and_weights_are_untouched() -> None:
    """Whatever happens to the image, the labels are those of the same patch without it."""
    case = DeviceCase(a_case(), torch.device("cpu"))
    hard = replace(STILL, metal=1.0, couch=1.0, low_resolution=1.0, gamma=0.2, noise_hu=50)
    samples = [
        random_sample(case, (16, 16, 16), SPACING, config, np.random.default_rng(4))
        for config in (STILL, hard)
    ]
    assert torch.equal(samples[0].organs, samples[1].organs)
    assert torch.equal(samples[0].weights, samples[1].weights)
    assert not torch.equal(samples[0].image[:, 0], samples[1].image[:, 0])


def test_beyond_a_cut_field_of_view_there_is_air_and_no_organ() -> None:
    """An organ is taught only as far as the image shows it."""
    case = DeviceCase(a_case(), torch.device("cpu"))
    cut = 0
    for seed in SEEDS:
        whole, seen = (
            random_sample(case, (16, 16, 16), SPACING, config, np.random.default_rng(seed))
            for config in (STILL, replace(STILL, field_of_view=1.0))
        )
        away = (seen.organs != whole.organs).any(1)
        cut += int(away.sum())
        assert (seen.image[:, 0][away] == AIR_HU).all()
        assert (seen.organs[:, :, away[0]] == 0).all()
        assert torch.equal(seen.weights, whole.weights)
    assert cut > 0


def test_what_is_switched_off_draws_nothing() -> None:
    """A configuration that does not name the newer changes draws what it drew before there were any."""
    drawn, expected = np.random.default_rng(7), np.random.default_rng(7)

    degrade(a_head(), SPACING, STILL, drawn)

    expected.random(3)  # contrast, shift, thick slices
    if expected.random() < 0.3:
        expected.random()  # blur
    if expected.random() < 0.5:
        expected.random()
        expected.integers(2**62)  # noise
    assert drawn.bit_generator.state == expected.bit_generator.state
