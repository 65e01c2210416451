"""The network as it predicts: the function that was trained, in another layout and precision."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from model.arranged import ABSENT_LOGIT, Arranged
from model.segmenter import largest_component
from model.sliding_window import predict
from model.unet import UNet3D, UNetConfig

CONFIG = UNetConfig(
    outputs=4, channels=(8, 16, 24), blocks=(1, 2, 1), planar=(True, False, False),
    strides=((2, 2, 2), (2, 2, 2)), fold=(1, 2, 2),
)  # fmt: skip
TILE = (8, 24, 16)
KEPT = 3


@pytest.fixture
def network() -> UNet3D:
    """Random weights that give logits of either sign."""
    torch.manual_seed(3)
    network = UNet3D(CONFIG).eval()
    torch.nn.init.constant_(network.head.bias, 0.0)
    return network


def tile() -> torch.Tensor:
    """(2, D, H, W): HU and millimetres."""
    rng = np.random.default_rng(1)
    return torch.from_numpy(np.stack([rng.normal(0, 300, TILE), rng.normal(0, 60, TILE)])).float()


def all_logits(arranged: Arranged, image: torch.Tensor) -> torch.Tensor:
    """(outputs, D, H, W); organs that were left out are far below zero."""
    found = torch.full((KEPT, *TILE), -100.0)
    for organs, logits in arranged.logits(arranged.prepare(image)):
        found[organs] = logits.float()
    return found


def test_the_arranged_network_is_the_same_function(network: UNet3D) -> None:
    """In float32, logits agree to rounding at every voxel; outputs that are not wanted are not computed."""
    with torch.inference_mode():
        expected = network(tile()[None])[0, :KEPT]
        found = all_logits(Arranged(network, KEPT, torch.float32), tile())

    assert float((found - expected).abs().max()) < 1e-4


def test_in_bfloat16_it_is_far_nearer_than_autocast_comes(network: UNet3D) -> None:
    """On a CPU the finest level stays in float32, where most of the rounding would come about."""
    with torch.inference_mode():
        exact = network(tile()[None])[0, :KEPT]
        with torch.autocast("cpu", torch.bfloat16):
            cast = network(tile()[None])[0, :KEPT]
        found = all_logits(Arranged(network, KEPT, torch.bfloat16), tile())

    assert not torch.equal(found, exact), "some of it is computed in bfloat16"
    assert float((found - exact).square().mean()) < 0.25 * float((cast - exact).square().mean())


def test_nobody_has_to_switch_gradients_off(network: UNet3D) -> None:
    """Three slices are convolved in place, which takes no gradients: nothing asks for any."""
    assert not all_logits(Arranged(network, KEPT, torch.float32), tile()).requires_grad


def test_the_network_itself_stays_as_it_was(network: UNet3D) -> None:
    """It may be in training: only a copy is arranged."""
    before = {name: value.clone() for name, value in network.state_dict().items()}

    Arranged(network, KEPT, torch.bfloat16)

    assert list(before) == list(network.state_dict())
    for name, value in network.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_organs_that_are_nowhere_in_a_tile_are_left_out(network: UNet3D) -> None:
    """What remains are those that may be there, each with all of its voxels."""
    with torch.no_grad():
        network.head.bias[4:8] = 10 * ABSENT_LOGIT  # the second organ's folded voxels
    with torch.inference_mode():
        arranged = Arranged(network, KEPT, torch.float32)
        found = {organs.start: logits.shape for organs, logits in arranged.logits(arranged.prepare(tile()))}

    assert found == {0: (1, *TILE), 2: (1, *TILE)}


def test_a_volume_in_tiles_agrees_with_the_network_called_tile_by_tile(network: UNet3D) -> None:
    """Where one tile covers the volume, blending changes nothing."""
    with torch.inference_mode():
        expected = network(tile()[None])[0, :KEPT].sigmoid()

    found = predict(network, tile(), TILE, KEPT)

    assert float((found.float() - expected).abs().max()) < 2e-3


def test_holes_are_filled_as_scipy_fills_them() -> None:
    """Also of organs that reach the border, and with hollows that reach it."""
    rng = np.random.default_rng(0)
    for seed in range(5):
        noise = ndimage.gaussian_filter(rng.normal(size=(14, 15, 16)), 1.2)
        probability = (0.5 + noise).clip(0, 1) if seed else np.ones((5, 5, 5))
        labels, _ = ndimage.label(probability > 0.5, np.ones((3, 3, 3)))
        largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1

        filled = largest_component(probability) > 0.5

        assert np.array_equal(filled, ndimage.binary_fill_holes(largest))
