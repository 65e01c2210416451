"""Training: what is not known teaches nothing, left and right change sides with the image, runs resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from training.augment import MIRRORED, DeviceCase, elastic, patch_points, random_affine, random_sample
from training.config import ORGANS, AugmentConfig, ConfigurationError, load_config
from training.dataset import Case, Frame, bits, read_packs, write_packs
from training.losses import segmentation_loss
from training.metrics import dice
from training.stop import Stop
from training.train import export, run

CPU = torch.device("cpu")
STILL = AugmentConfig(
    rotation_degrees=0, scale=(1, 1), shear=0, mirror=0, elastic_sigma_mm=0, shift_hu=0, contrast=0,
    noise_hu=0, blur_mm=0, thick_slices=0, field_of_view=0, middle_sigma_mm=0,
)  # fmt: skip


def a_case(name: str = "case", known: dict[str, tuple[float, float]] | None = None) -> Case:
    """A block of tissue with a bright left parotid and a brain above it; labels finer than the image."""
    image = np.full((20, 16, 24), -1000, np.int16)
    image[:, 4:12, 4:20] = 40
    labels = {organ: np.zeros((20, 32, 48), bool) for organ in ("Parotid_L", "Brain")}
    labels["Parotid_L"][4:10, 12:20, 28:36] = True
    labels["Brain"][14:19, 10:22, 12:36] = True
    image[4:10, 6:10, 14:18] = 200
    image[14:19, 5:11, 6:18] = 100
    if known is None:
        known = {"Parotid_L": (-np.inf, np.inf), "Brain": (-np.inf, np.inf)}
    return Case(
        name, "test", image, Frame((0, -0.5, -0.5), (2.5, 4, 4)),
        bits(labels), Frame((0, -1.5, -1.5), (2.5, 2, 2)), known,
    )  # fmt: skip


def test_packs_give_back_what_was_packed(tmp_path: Path) -> None:
    """Arrays, frames and what is known survive the file."""
    case = a_case(known={"Parotid_L": (-np.inf, 20.0)})

    paths = write_packs([case, a_case("other")], tmp_path / "pack")
    first, second = read_packs(paths)

    assert (first.name, second.name) == ("case", "other")
    assert {"Parotid_L": (-np.inf, 20.0)} == first.known
    assert case.image_frame == first.image_frame
    assert np.array_equal(case.labels, first.labels)
    assert np.array_equal(case.image, first.image)


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
    brain = ORGANS.index("Brain")
    assert gradient[[i for i in range(len(ORGANS)) if i != brain]].abs().max() == 0
    heights, inside = points[..., 0], (sample.weights[0, brain] > 0)
    assert gradient[brain][~inside].abs().max() == 0
    assert not inside[(heights < 20) | (heights > 40)].any()
    assert gradient[brain][inside].abs().max() > 0


def test_organs_follow_the_image_through_every_transform() -> None:
    """After rotation, scale, shear, elastic field and mirror the bright parotid still lies under its label."""
    case = DeviceCase(a_case(), CPU)
    strong = AugmentConfig(
        mirror=0.5, shift_hu=0, contrast=0, noise_hu=0, blur_mm=0, thick_slices=0, field_of_view=0
    )
    sides = set()
    for seed in range(12):
        sample = random_sample(
            case, (16, 16, 16), (2.5, 2, 2), strong, np.random.default_rng(seed), foreground=1.0
        )
        left = sample.organs[0, ORGANS.index("Parotid_L")] > 0.95
        right = sample.organs[0, ORGANS.index("Parotid_R")] > 0.95
        chosen = left | right
        if chosen.sum() > 20:
            assert 150 < float(sample.image[0, 0][chosen].median()) < 210
            sides |= {"left"} if left.any() else {"right"}
    assert {"left", "right"} == sides


def test_left_and_right_change_places_under_a_mirror() -> None:
    """Each organ is exchanged with its partner, midline organs with themselves, and twice is nothing."""
    assert ORGANS.index("Parotid_R") == MIRRORED[ORGANS.index("Parotid_L")]
    assert ORGANS.index("Brain") == MIRRORED[ORGANS.index("Brain")]
    assert list(range(len(ORGANS))) == [MIRRORED[index] for index in MIRRORED]


def test_the_lateral_channel_grows_to_the_left_also_in_a_mirrored_patch() -> None:
    """What tells one lung from the other points the same way whether or not the image was mirrored."""
    case = DeviceCase(a_case(), CPU)
    upright = AugmentConfig(rotation_degrees=0, shear=0, elastic_sigma_mm=0, middle_sigma_mm=0)
    for seed in range(6):
        sample = random_sample(case, (16, 16, 16), (2.5, 2, 2), upright, np.random.default_rng(seed))
        lateral = sample.image[0, 1]
        assert (lateral[..., 1:] > lateral[..., :-1]).all()
        left = sample.organs[0, ORGANS.index("Parotid_L")] > 0.5
        right = sample.organs[0, ORGANS.index("Parotid_R")] > 0.5
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


def test_elastic_displacements_are_smooth_and_as_strong_as_asked() -> None:
    """Between neighbouring voxels the field changes by a fraction of its spread."""
    field = elastic((16, 40, 40), (2.5, 2, 2), AugmentConfig(), np.random.default_rng(0), CPU)

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


def test_dice_of_masks() -> None:
    """Hand-counted overlaps, and the stated answer where masks are empty."""
    a, b = np.zeros((3, 4), bool), np.zeros((3, 4), bool)
    assert np.isnan(dice(a, b))
    a[0, :3] = True
    assert dice(a, b) == 0.0
    b[0, 1:] = True
    assert pytest.approx(2 * 2 / 6) == dice(a, b)
    with pytest.raises(ValueError, match="one shape"):
        dice(a, b[:2])


CONFIG = """
name = "tiny"
version = "0"
patch = [8, 16, 16]
spacing_mm = [2.5, 4.0, 4.0]
threads = 1
seed = 3
[data]
packs = ["{pack}"]
group_weights = {{ test = 1.0 }}
[network]
channels = [4, 8]
blocks = [1, 1]
planar = [true, false]
strides = [[2, 2, 2]]
[optimiser]
steps = {steps}
warmup = 2
"""


def a_config(tmp_path: Path, steps: int, name: str = "run.toml") -> Path:
    pack = write_packs([a_case()], tmp_path / "pack")[0]
    path = tmp_path / name
    path.write_text(CONFIG.format(pack=pack, steps=steps))
    return path


def test_a_resumed_run_follows_the_curve_of_an_uninterrupted_one(tmp_path: Path) -> None:
    """Stopping and resuming changes nothing: same losses, same weights."""
    config = load_config(a_config(tmp_path, steps=6))
    quiet = Console(quiet=True)

    assert run(config, tmp_path / "whole", CPU, Stop(), quiet)
    assert not run(config, tmp_path / "parts", CPU, Stop(1e-9), quiet)
    while not run(config, tmp_path / "parts", CPU, Stop(0.05), quiet):
        pass

    whole, parts = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")
    )
    for key, value in whole["average"].items():
        assert torch.equal(value, parts["average"][key]), key
    assert (tmp_path / "whole/curve.csv").read_text() == (tmp_path / "parts/curve.csv").read_text()


def test_a_finished_run_becomes_a_bundle_that_loads(tmp_path: Path) -> None:
    """The end of training is what the daemon reads."""
    from model.bundle import Bundle

    config = load_config(a_config(tmp_path, steps=2))
    run(config, tmp_path / "out", CPU, Stop(), Console(quiet=True))

    bundle = Bundle.load(export(config, tmp_path / "out"))

    assert bundle.name == "tiny"
    assert bundle.tile == (8, 16, 16)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("stepps = 3", r"unknown keys: stepps"),
        ("patch = [7, 16, 16]", r"multiples of \(2, 4, 4\)"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_which_key(tmp_path: Path, line: str, said: str) -> None:
    """Unknown keys and sizes that the network cannot take are refused before anything runs."""
    path = a_config(tmp_path, steps=2)
    text = path.read_text()
    if line.startswith("patch"):
        text = text.replace("patch = [8, 16, 16]", line)
    else:
        text += line + "\n"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match=said):
        load_config(path)


def test_a_group_without_a_weight_is_refused(tmp_path: Path) -> None:
    """Data that would silently never be drawn is an error."""
    path = a_config(tmp_path, steps=2)
    path.write_text(path.read_text().replace("test = 1.0", "other = 1.0"))

    with pytest.raises(ConfigurationError, match="no weight for test"):
        run(load_config(path), tmp_path / "out", CPU, Stop(), Console(quiet=True))
