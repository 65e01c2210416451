"""Convolutions as they are computed for prediction, beside PyTorch's own in double precision."""

import pytest
import torch
from torch import nn

from model.convolution import ChannelByChannel, for_prediction

CHANNELS, KEPT = 6, 4
PLACES_OF_ONE = ((0, 0, 0), (5, 2, 3), (6, 6, 0), (12, 0, 4))


def slices(depth: int) -> torch.Tensor:
    """(1, C, D, H, W), channels of a voxel beside each other, as layers of an arranged network give them."""
    torch.manual_seed(depth)
    return torch.randn(1, CHANNELS, depth, 7, 5).contiguous(memory_format=torch.channels_last_3d)


def exact(conv: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """As PyTorch computes it in double precision."""
    return conv.double()(x.double()).float()


@pytest.mark.parametrize("depth", [1, 2, 5, 6, 7, 12, 13])
def test_three_slices_are_convolved_as_by_definition(depth: int) -> None:
    """However many slices are left over after groups of six; to a few roundings of float32."""
    conv = nn.Conv3d(CHANNELS, KEPT, 3, padding=1, bias=False)

    with torch.inference_mode():
        found = for_prediction(conv, torch.float32)(slices(depth))
        difference = found - exact(conv, slices(depth))

    assert found.shape == (1, KEPT, depth, 7, 5)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    assert float(difference.abs().max()) < 5e-6


@pytest.mark.parametrize("place", PLACES_OF_ONE)
def test_a_single_voxel_reaches_its_neighbours_and_no_others(place: tuple[int, int, int]) -> None:
    """Also across the border between two groups of slices, and nothing wraps around."""
    conv = nn.Conv3d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(1, 1, 13, 7, 5)
    x[(0, 0, *place)] = 1

    with torch.inference_mode():
        found = for_prediction(conv, torch.float32)(x)[0, 0]

    neighbours = torch.zeros(13, 7, 5)
    neighbours[tuple(slice(max(0, at - 1), at + 2) for at in place)] = 1
    assert torch.allclose(found, neighbours, atol=1e-5)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv3d(CHANNELS, KEPT, (1, 3, 3), padding=(0, 1, 1)),
        nn.Conv3d(CHANNELS, KEPT, 3, padding=1, bias=True),
        nn.Conv3d(CHANNELS, KEPT, 3, padding=0, bias=False),
        nn.Conv3d(CHANNELS, KEPT, 3, padding=1, stride=2, bias=False),
        nn.Conv3d(CHANNELS, KEPT, 2, stride=2, bias=False),
        nn.ConvTranspose3d(CHANNELS, KEPT, 2, stride=2, bias=False),
    ],
    ids=lambda conv: str(conv.kernel_size),
)
def test_every_other_convolution_too(conv: nn.Conv3d | nn.ConvTranspose3d) -> None:
    """Planar ones, those with a bias, with steps, without a border, and those that go up a level."""
    with torch.inference_mode():
        found = for_prediction(conv, torch.float32)(slices(7))
        assert float((found - exact(conv, slices(7))).abs().max()) < 5e-6


def test_precision_is_the_one_asked_for() -> None:
    """In bfloat16 no sums of slices are formed, which would round too much."""
    conv = nn.Conv3d(CHANNELS, KEPT, 3, padding=1, bias=False)

    with torch.inference_mode():
        found = for_prediction(conv, torch.bfloat16)(slices(7))
        expected = conv.bfloat16()(slices(7).bfloat16())

    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


@pytest.mark.parametrize("has_bias", [True, False])
def test_channels_come_out_one_after_the_other(*, has_bias: bool) -> None:
    """And only those that are wanted."""
    conv = nn.Conv3d(CHANNELS, 2 * KEPT, 1, bias=has_bias)

    with torch.inference_mode():
        found = ChannelByChannel(conv, KEPT, torch.float32)(slices(7))
        assert float((found - exact(conv, slices(7))[:, :KEPT]).abs().max()) < 5e-6

    assert found.is_contiguous()
