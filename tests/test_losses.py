"""The loss: what is not known teaches nothing, and a lens is worth as much as a brain."""

import numpy as np
import pytest
import torch

from tests.training_cases import a_case
from training.augment import DeviceCase, patch_points
from training.config import ORGANS
from training.losses import (
    HARDEST_AT_LEAST,
    HARDEST_PER_ORGAN_VOXEL,
    hardest_counts,
    segmentation_loss,
    segmentation_terms,
)

CPU = torch.device("cpu")
BRAIN, LENS = ORGANS.index("Brain"), ORGANS.index("Lens_L")


def test_an_organ_that_is_not_known_and_voxels_beyond_the_image_have_no_gradient() -> None:
    """What nobody contoured is not taught as background, nor is what was not imaged."""
    torch.manual_seed(0)
    case = DeviceCase(a_case(known={"Brain": (20.0, 40.0)}), CPU)
    points, _ = patch_points(
        np.array([25.0, 28.0, 46.0]), (24, 16, 24), (2.5, 4, 4), None, np.random.default_rng(0), CPU
    )
    sample = case.sample(points)
    logits = torch.randn(1, len(ORGANS), 24, 16, 24, requires_grad=True)

    entropy, overlap = segmentation_loss(logits, sample.organs, sample.weights, hardest=1.0, dice=1.0)
    (entropy + overlap).backward()

    gradient = logits.grad[0]
    assert gradient[[i for i in range(len(ORGANS)) if i != BRAIN]].abs().max() == 0
    heights, inside = points[..., 0], (sample.weights[0, BRAIN] > 0)
    assert gradient[BRAIN][~inside].abs().max() == 0
    assert not inside[(heights < 20) | (heights > 40)].any()
    assert gradient[BRAIN][inside].abs().max() > 0


def test_a_patch_in_which_nothing_is_known_teaches_nothing() -> None:
    """Neither a division by zero nor a gradient."""
    logits = torch.randn(2, 3, 4, 4, 4, requires_grad=True)
    organs = torch.ones(2, 3, 4, 4, 4)

    entropy, overlap = segmentation_loss(logits, organs, torch.zeros_like(organs), hardest=0.1, dice=1.0)
    (entropy + overlap).backward()

    assert entropy.detach() == overlap.detach() == 0
    assert logits.grad.abs().max() == 0


def test_an_unknown_organ_does_not_thin_what_the_known_ones_teach() -> None:
    """The mean is over the organs that are known: one that nobody contoured changes no gradient of another."""
    torch.manual_seed(1)
    organs = (torch.rand(1, 3, 6, 6, 6) > 0.7).float()
    weights = torch.ones_like(organs)
    weights[:, 2] = 0
    gradients = []
    for channels in (3, 2):
        logits = torch.linspace(-2, 2, 216).repeat(1, 3, 1).view(1, 3, 6, 6, 6)[:, :channels].clone()
        logits.requires_grad_()
        loss = sum(segmentation_loss(logits, organs[:, :channels], weights[:, :channels], 0.5, 1.0))
        loss.backward()
        gradients.append(logits.grad[:, :2])
    torch.testing.assert_close(gradients[0], gradients[1])


def small_and_large() -> tuple[torch.Tensor, torch.Tensor]:
    """A lens of 20 voxels and a brain of 20,000 in a patch of 48 x 80 x 80, all known."""
    organs = torch.zeros(1, len(ORGANS), 48, 80, 80)
    organs[0, LENS, 20:22, 10:12, 30:35] = 1
    organs[0, BRAIN, 20:40, 20:60, 30:55] = 1
    weights = torch.zeros_like(organs)
    weights[0, [LENS, BRAIN]] = 1
    return organs, weights


def on_the_organs(by: str) -> tuple[float, float]:
    """How strongly the cross-entropy pulls at the voxels of lens and brain, summed over each organ."""
    organs, weights = small_and_large()
    logits = torch.full_like(organs, -4.6, requires_grad=True)  # as the network begins
    entropy, _ = segmentation_loss(logits, organs, weights, 0.1, 0.0, by)
    entropy.backward()
    pull = (logits.grad * organs).abs()
    return float(pull[0, LENS].sum()), float(pull[0, BRAIN].sum())


def test_a_small_organ_is_taught_as_strongly_as_a_large_one() -> None:
    """With voxels counted by the organ's size the lens has a comparable pull; by a share it has next to none."""
    lens, brain = on_the_organs("size")
    assert lens > brain / 30

    lens_by_share, brain_by_share = on_the_organs("share")
    assert lens_by_share < brain_by_share / 300
    assert lens > 10 * lens_by_share


def test_hardest_voxels_are_counted_against_the_organ() -> None:
    """A share of what is known, where the organ is at most so many for each of its voxels, and one at least."""
    truth = torch.zeros(4, 100_000)
    truth[0, :20], truth[1, :50_000] = 1, 1
    weights = torch.ones_like(truth)
    weights[3, 5:] = 0

    counts = hardest_counts(truth, weights, 0.1)

    assert counts.tolist() == [
        HARDEST_AT_LEAST + 20 * HARDEST_PER_ORGAN_VOXEL, 10_000, 10_000, 1,
    ]  # fmt: skip
    by_presence = hardest_counts(truth, weights, 0.1, "presence")
    assert by_presence.tolist() == [counts[0], 10_000, HARDEST_AT_LEAST, 1]
    assert hardest_counts(truth, weights, 0.1, "share").tolist() == [10_000, 10_000, 10_000, 1]


def test_only_the_hardest_voxels_count() -> None:
    """A tenth of 1000 voxels: the hundred worst have a gradient, no other."""
    logits = torch.linspace(-5, 5, 1000).view(1, 1, 10, 10, 10).clone().requires_grad_()
    nowhere = torch.zeros(1, 1, 10, 10, 10)

    entropy, overlap = segmentation_loss(logits, nowhere, torch.ones_like(nowhere), hardest=0.1, dice=1.0)
    entropy.backward()

    assert (logits.grad.flatten() > 0).nonzero().flatten().tolist() == list(range(900, 1000))
    expected = torch.nn.functional.softplus(logits.detach().flatten()[900:]).mean()
    assert float(entropy.detach()) == pytest.approx(float(expected))
    assert overlap.detach() == 0


def test_terms_of_the_parts_of_a_batch_add_up_to_the_whole() -> None:
    """Processes that share a batch get what one process has: sums and counts add."""
    torch.manual_seed(2)
    logits, organs = torch.randn(4, 3, 6, 6, 6), (torch.rand(4, 3, 6, 6, 6) > 0.8).float()
    weights = torch.ones_like(organs)
    weights[1] = 0
    weights[2, 1:] = 0

    whole = segmentation_terms(logits, organs, weights, 0.2)
    parts = [segmentation_terms(logits[i::2], organs[i::2], weights[i::2], 0.2) for i in (0, 1)]

    for total, first, second in zip(whole, *parts, strict=True):
        assert float(total) == pytest.approx(float(first + second), rel=1e-5)
    assert [float(part.known) for part in parts] == [4.0, 3.0]
