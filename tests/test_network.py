"""The network, its tiles, and the bundle it comes in."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from model.bundle import DEFAULT_BUNDLE, Bundle, write_bundle
from model.errors import BundleError
from model.network_input import Preprocessing
from model.sliding_window import gaussian, predict
from model.structures import STRUCTURES
from model.unet import InstanceNorm, UNet3D, UNetConfig, fold, unfold

SMALL = UNetConfig(
    outputs=3, channels=(4, 8), blocks=(1, 1), planar=(True, False), strides=((2, 2, 2),), fold=(1, 2, 2)
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small bundle of random weights."""
    torch.manual_seed(0)
    write_bundle(
        tmp_path / "bundle",
        UNet3D(SMALL),
        name="small",
        version="0.0.1",
        structure_names=("Brain", "Parotid_L"),
        preprocessing=Preprocessing((2.5, 2.0, 2.0), 4.0),
        tile=(8, 16, 16),
        card={},
    )
    return tmp_path / "bundle"


def test_logits_lie_on_the_grid_of_the_input() -> None:
    """One logit per organ and voxel, for any size that is a multiple of what the levels need."""
    network = UNet3D(SMALL)

    assert SMALL.multiple == (2, 4, 4)
    assert network(torch.zeros(2, 2, 6, 8, 12)).shape == (2, 3, 6, 8, 12)


def test_folding_is_undone_exactly() -> None:
    """No voxel changes place on the way into channels and back, whatever the axes' lengths."""
    x = torch.arange(2 * 3 * 4 * 6 * 10.0).view(2, 3, 4, 6, 10)

    assert torch.equal(x, unfold(fold(x, (2, 3, 5)), (2, 3, 5)))


def test_folded_channels_are_neighbouring_voxels() -> None:
    """The channels of one folded voxel are the voxels of one block, not of a distant one."""
    x = torch.arange(16.0).view(1, 1, 1, 4, 4)

    assert fold(x, (1, 2, 2))[0, :, 0, 0, 0].tolist() == [0.0, 1.0, 4.0, 5.0]


def test_levels_that_do_not_agree_are_refused() -> None:
    """A configuration whose lists differ in length says which."""
    with pytest.raises(ValueError, match="one entry per level"):
        UNetConfig(outputs=1, channels=(4, 8, 16))


LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)


@pytest.mark.parametrize("instances", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_instances_are_normalised_each_by_itself(instances: int, layout: torch.memory_format) -> None:
    """As PyTorch does it, values and gradients, and in the layout that came."""
    rng = torch.Generator().manual_seed(0)
    x, back = (
        torch.randn(instances, 4, 3, 5, 6, generator=rng).to(memory_format=layout).requires_grad_(needed)
        for needed in (True, False)
    )
    norm, reference = InstanceNorm(4, affine=True), nn.InstanceNorm3d(4, affine=True)
    for each in (norm, reference):
        nn.init.uniform_(each.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
    plain = x.detach().contiguous().requires_grad_()

    found, expected = norm(x), reference(plain)
    found.backward(back)
    expected.backward(back.contiguous())  # PyTorch's is wrong for what is not

    assert found.is_contiguous(memory_format=layout)
    for own, its in ((found, expected), (x.grad, plain.grad), (norm.weight.grad, reference.weight.grad)):
        torch.testing.assert_close(own, its)


@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_are_right_in_every_layout(batch: int) -> None:
    """A processor trains with all channels of a voxel beside each other, a GPU with those of a channel."""
    image = torch.from_numpy(np.random.default_rng(0).normal(0, 300, (batch, 2, 8, 16, 16))).float()
    torch.manual_seed(0)
    network = UNet3D(SMALL)
    gradients = []
    for layout in LAYOUTS:
        network = network.to(memory_format=layout)
        network.zero_grad()
        network(image)[:, :, :4].square().sum().backward()
        gradients.append({name: value.grad.clone() for name, value in network.named_parameters()})

    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max())
        )


class Scaled(nn.Module):
    """Logits that are a plain function of the voxel, so that any misplaced tile shows."""

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """(B, 1, D, H, W) to (B, 2, D, H, W)."""
        return torch.cat([hu / 100, -hu / 100], dim=1)


@pytest.mark.parametrize("shape", [(5, 30, 21), (8, 16, 16), (3, 4, 5), (17, 40, 16)])
def test_tiles_join_without_seams(shape: tuple[int, int, int]) -> None:
    """Blended tiles give what one pass over the whole would, at every voxel, also where the volume is small."""
    hu = torch.from_numpy(np.random.default_rng(0).normal(0, 200, shape)).float()

    found = predict(Scaled(), hu[None], (8, 16, 16), outputs=2)

    expected = torch.stack([(hu / 100).sigmoid(), (-hu / 100).sigmoid()])
    assert found.shape == (2, *shape)
    assert float((found.float() - expected).abs().max()) < 2e-3


class TileMean(torch.nn.Module):
    """Logits of one organ that are the mean of its tile, everywhere in it."""

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """(1, 1, D, H, W) to the same."""
        return hu.mean().expand_as(hu)


def test_logits_are_blended_by_their_weights() -> None:
    """Two tiles that disagree give the mean of their logits, weighted; not of their probabilities."""
    hu = torch.zeros(1, 8, 16, 24)
    hu[..., 16:] = 8  # of the second tile, a half: its mean is 4, the first's 0

    found = predict(TileMean(), hu, (8, 16, 16), outputs=1, overlap=0.5)

    weights = gaussian((8, 16, 16))
    first, second = weights[..., 8:], weights[..., :8]
    logits = torch.cat(
        [torch.zeros(8, 16, 8), 4 * second / (first + second), torch.full((8, 16, 8), 4.0)], -1
    )
    assert float((found[0].float() - logits.sigmoid()).abs().max()) < 1e-3


@pytest.mark.parametrize(("threads", "rounding"), [(2, 0.0), (3, 0.0), (8, 2e-3)])
def test_however_many_threads_compute_the_result_is_the_same(threads: int, rounding: float) -> None:
    """Each takes tiles of its own, in any order; only threads that share a tile may round otherwise."""
    torch.manual_seed(0)
    network = UNet3D(SMALL).eval()
    torch.nn.init.normal_(network.head.bias, 0.0, 1.0)
    image = torch.from_numpy(np.random.default_rng(0).normal(0, 200, (2, 10, 40, 44))).float()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = predict(network, image, (8, 16, 16), outputs=2)
        torch.set_num_threads(threads)
        together = predict(network, image, (8, 16, 16), outputs=2)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)

    assert after == threads
    assert float((alone.float() - together.float()).abs().max()) <= rounding
    assert 0 < float(alone.float().mean()) < 1


def test_what_goes_wrong_in_one_tile_is_raised() -> None:
    """By whichever thread it is computed; torch's threads stay as they were."""

    class Failing(torch.nn.Module):
        def forward(self, hu: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError(f"of a device, for {hu.shape}")

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(torch.OutOfMemoryError, match="of a device"):
            predict(Failing(), torch.zeros(1, 8, 16, 64), (8, 16, 16), outputs=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_tiles_of_air_are_not_computed() -> None:
    """Air costs nothing and holds no organ."""
    calls = []

    class Counting(Scaled):
        def forward(self, hu: torch.Tensor) -> torch.Tensor:
            calls.append(hu.shape)
            return super().forward(hu)

    hu = torch.full((8, 16, 64), -1000.0)
    hu[:, :, :10] = 0

    found = predict(Counting(), hu[None], (8, 16, 16), outputs=1, overlap=0)

    assert len(calls) == 1
    assert found[..., 20:].max() == 0


def test_tiles_follow_the_body_from_level_to_level() -> None:
    """A head between wide shoulders and air takes few tiles, and every voxel of it is seen."""
    corners: list[torch.Tensor] = []

    class Noting(Scaled):
        def forward(self, places: torch.Tensor) -> torch.Tensor:
            corners.append(places[0, 1:, 0, 0, 0])
            return super().forward(places[:, :1])

    shape = (24, 40, 64)
    hu = torch.full(shape, -1000.0)
    hu[:12, 8:32] = torch.from_numpy(np.random.default_rng(0).uniform(-99, 99, (12, 24, 64))).float()
    hu[12:, 12:28, 25:41] = torch.from_numpy(np.random.default_rng(1).uniform(-99, 99, (12, 16, 16))).float()
    axes = torch.meshgrid(*(torch.arange(float(length)) for length in shape), indexing="ij")

    found = predict(Noting(), torch.stack([hu, *axes]), (8, 16, 16), outputs=1)
    fitted = {tuple(corner.tolist()) for corner in corners}
    corners.clear()
    predict(Noting(), torch.stack([hu, *axes]), (8, 16, 16), outputs=1, everywhere=True)

    body = hu > -1000
    assert float((found[0].float() - (hu / 100).sigmoid())[body].abs().max()) < 2e-3
    assert {corner[1:] for corner in fitted if corner[0] == 16} == {
        (row, column) for row in (10, 14) for column in (24, 28)
    }
    assert len(fitted) < len(corners) * 0.7


def test_tiles_of_nothing_but_couch_are_not_computed() -> None:
    """What is solid but thin is no patient; what is as thick as a finger is looked at."""
    calls = []

    class Counting(Scaled):
        def forward(self, hu: torch.Tensor) -> torch.Tensor:
            calls.append(hu.shape)
            return super().forward(hu)

    hu = torch.full((8, 16, 48), -1000.0)
    hu[:, 3:5] = 200  # a sheet through all tiles
    hu[2, 8:16, 20:28] = 40

    predict(Counting(), hu[None], (8, 16, 16), outputs=1, overlap=0)

    assert len(calls) == 1


def test_the_middle_of_a_tile_counts_most_and_no_voxel_nothing() -> None:
    """Gaussian weights fall alike to all sides of the voxel in the middle, and are positive everywhere."""
    weights = gaussian((8, 16, 16))

    inner = weights[1:, 1:, 1:]
    assert torch.equal(inner, inner.flip(0, 1, 2))
    assert weights.max() == weights[4, 8, 8] == 1
    assert weights.min() > 0


def test_a_bundle_comes_back_as_it_was_written(folder: Path) -> None:
    """Name, digest, structures and preprocessing survive; the weights in half precision."""
    bundle = Bundle.load(folder)

    assert (bundle.name, bundle.version, bundle.structure_names) == ("small", "0.0.1", ("Brain", "Parotid_L"))
    assert Preprocessing((2.5, 2.0, 2.0), 4.0) == bundle.preprocessing
    assert bundle.tile == (8, 16, 16)
    assert len(bundle.digest) == 64
    assert not bundle.network.training


def test_a_changed_byte_is_refused(folder: Path) -> None:
    """Weights that are not those the bundle was made with never draw a contour."""
    weights = folder / "weights.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)

    with pytest.raises(BundleError, match=r"was changed: its SHA-256 is"):
        Bundle.load(folder)


def _rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Replace the weights and make the digest agree."""
    import hashlib

    save_file(tensors, folder / "weights.safetensors")
    about = json.loads((folder / "model.json").read_text())
    about["weights_sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(about))


@pytest.mark.parametrize("fault", ["missing", "extra", "shape", "nan"])
def test_weights_that_do_not_fit_are_refused(folder: Path, fault: str) -> None:
    """Missing, extra, misshapen and non-finite tensors are each named."""
    tensors = load_file(folder / "weights.safetensors")
    if fault == "missing":
        del tensors["head.bias"]
    elif fault == "extra":
        tensors["more"] = torch.zeros(1)
    elif fault == "shape":
        tensors["head.bias"] = torch.zeros(5)
    else:
        tensors["head.bias"] = torch.full_like(tensors["head.bias"], torch.nan)
    _rewrite(folder, tensors)

    with pytest.raises(BundleError, match=r"head\.bias|more|not finite"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 99}, "format"),
        ({"structures": ["Parotid_X"]}, "Parotid"),
        ({"structures": ["Brain", "Lens_L", "Lens_R", "Eye_L"]}, "3 outputs"),
        ({"network": {"width": 3}}, "does not describe"),
        ({"tile": None}, "does not describe"),
        ({"tile": [8, 15, 16]}, "no multiple"),
        ({"structures": [], "outputs": []}, "0 structures"),
        ({"structures": ["Brain", "Brain"]}, "stands twice"),
        ({"outputs": ["Brain", "Brain"]}, "stands twice"),
        ({"outputs": ["Eye_L", "Eye_R"]}, "not the first"),
        ({"network": []}, "does not describe"),
        ({"preprocessing": {"spacing_mm": [2.5, 0, 2.0], "resolution_mm": 4.0}}, "does not describe"),
        ({"preprocessing": {"spacing_mm": [2.5, 2.0], "resolution_mm": 4.0}}, "does not describe"),
        ({"preprocessing": {"spacing_mm": [2.5, 2.0, 2.0], "resolution_mm": math.nan}}, "does not describe"),
        ({"preprocessing": {"spacing_mm": ["a", "b", "c"], "resolution_mm": 4.0}}, "does not describe"),
        ({"tile": [2**70, 2**70, 2**70, 1]}, "does not describe"),
        ({"network": {**dataclasses.asdict(SMALL), "channels": [2**18, 2**18]}}, "do not fit"),
        ({"network": {**dataclasses.asdict(SMALL), "channels": [-1, 8]}}, "at least 1"),
        ({"network": {**dataclasses.asdict(SMALL), "blocks": [2**40, 1]}}, "tensors"),
        ({"network": {**dataclasses.asdict(SMALL), "fold": [0, 0, 0]}}, "at least 1"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(folder: Path, change: dict, said: str) -> None:
    """model.json is read as untrusted: whatever is wrong in it ends in one typed error."""
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, **change}))

    with pytest.raises(BundleError, match=said):
        Bundle.load(folder)


def test_a_description_nested_without_end_is_refused(folder: Path) -> None:
    """JSON's reader would stop at Python's own limit."""
    (folder / "model.json").write_text("[" * 100_000)

    with pytest.raises(BundleError, match="not JSON"):
        Bundle.load(folder)


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    """An incomplete bundle says which file cannot be read."""
    (folder / name).unlink()

    with pytest.raises(BundleError, match=name):
        Bundle.load(folder)


def test_a_pickle_is_not_read(folder: Path) -> None:
    """Only tensors are ever loaded; a PyTorch checkpoint renamed is refused."""
    import hashlib

    torch.save({"head.bias": torch.zeros(1)}, folder / "weights.safetensors")
    about = json.loads((folder / "model.json").read_text())
    about["weights_sha256"] = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(about))

    with pytest.raises(BundleError, match="not a safetensors file"):
        Bundle.load(folder)


def test_the_shipped_bundle_offers_the_21_organs() -> None:
    """What comes with the program loads, names every organ in order, and says what it was trained on."""
    bundle = Bundle.load(DEFAULT_BUNDLE)

    assert tuple(organ.name for organ in STRUCTURES) == bundle.structure_names
    assert {"training_data", "attribution", "limits", "accuracy"} <= set(bundle.card)
    assert (DEFAULT_BUNDLE / "weights.safetensors").stat().st_size < 30_000_000
