"""The configuration of a training run: every key is known, every shipped file is one that can be trained."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from model.unet import UNet3D
from tests.paths import REPOSITORY
from tests.training_cases import a_case, a_clinical_case, a_config
from training.config import CardConfig, ConfigurationError, load_config
from training.dataset import OPENKBP, Case, write_packs
from training.stop import Stop
from training.train import run

CONFIGS = sorted((REPOSITORY / "training/configs").glob("*.toml"))
RUNS = [path for path in CONFIGS if not path.name.startswith("ablation")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("optimiser.stepps = 3", r"\[optimiser\] has unknown keys: stepps"),
        ("validation.often = 3", r"\[validation\] has unknown keys: often"),
        ("size = 3", r"has unknown keys: size"),
        ("patch = [7, 16, 16]", r"multiples of \(2, 4, 4\)"),
        ('optimiser.schedule = "step"', r"schedule: 'step' is neither cosine nor poly"),
        ('optimiser.precision = "float16"', r"precision: 'float16' is neither bfloat16 nor float32"),
        ("network.blocks = [1]", r"\[network\] channels, blocks and planar need one entry per level"),
        ("patch = [8", r"is not KEY=VALUE in TOML"),
        ("patch = [8, 16]", r"patch: \(8, 16\) is no tuple\[int, int, int\]"),
        ("patch = 8", r"patch: 8 is no tuple"),
        ("patch = [0, 16, 16]", r"patch: out of range"),
        ("network = 5", r"network is a section"),
        ("network.outputs = 21", r"network\.outputs: leave it out"),
        ('optimiser.steps = "many"', r"\[optimiser\] steps: 'many' is no int"),
        ("optimiser.steps = true", r"\[optimiser\] steps: True is no int"),
        ("optimiser.steps = 0", r"\[optimiser\] steps: out of range"),
        ("optimiser.ema = 2.0", r"\[optimiser\] ema: out of range"),
        ("optimiser.hardest = 2.0", r"\[optimiser\] hardest: out of range"),
        ("spacing_mm = [0, 4, 4]", r"spacing_mm: out of range"),
        ("data.packs = []", r"data\.packs: none is named"),
        ("data.group_weights = {test = 0.0}", r"\[data\] group_weights: out of range"),
        ("data.group_weights = {test = -1.0, other = 2.0}", r"\[data\] group_weights: out of range"),
        ("seed = -1", r"seed: out of range"),
        ("augment.mirror = 50", r"\[augment\] mirror: out of range"),
        ("augment.scale = [0.0, 0.0]", r"\[augment\] scale: out of range"),
        ("augment.scale = [1.2, 0.8]", r"\[augment\] scale: out of range"),
        ("augment.elastic_grid_mm = 0", r"\[augment\] elastic_grid_mm: out of range"),
        ("augment.shift_hu = -5", r"\[augment\] shift_hu: out of range"),
        ("augment.contrast = 1", r"\[augment\] contrast: out of range"),
        ("validation.every = -1", r"\[validation\] every: out of range"),
        ("validation.cases = 0", r"\[validation\] cases: out of range"),
        ("data.untaught = {test = 3}", r"\[data\] untaught: .* is no dict"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_which_key(tmp_path: Path, line: str, said: str) -> None:
    """Unknown keys, words and sizes that nothing stands for are refused before anything runs."""
    with pytest.raises(ConfigurationError, match=said):
        load_config(a_config(tmp_path, steps=2), [line])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing\.toml"):
        load_config(tmp_path / "nothing.toml")


def test_a_change_reaches_one_key_and_no_other(tmp_path: Path) -> None:
    path = a_config(tmp_path, steps=2)
    before, after = load_config(path), load_config(path, ["optimiser.batch=3", "data.group_weights.new=0.5"])

    assert (before.optimiser.batch, after.optimiser.batch) == (1, 3)
    assert after.optimiser.steps == before.optimiser.steps == 2
    assert after.data.group_weights == {"test": 1.0, "new": 0.5}
    assert after.network == before.network


def a_case_of(group: str) -> Case:
    """A made case, named as its group names organs."""
    return a_clinical_case(group, group) if group in OPENKBP else replace(a_case(group), group=group)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_shipped_configuration_builds_and_takes_a_step(tmp_path: Path, path: Path) -> None:
    """On one made case of each group and the smallest patch; every other key is as in the file.

    In float32: a processor that lacks bfloat16 takes minutes to imitate it.
    """
    shipped = load_config(path)
    [pack] = write_packs(map(a_case_of, shipped.data.group_weights), tmp_path / "pack")
    depth, height, width = shipped.network.multiple
    changes = [
        f'data.packs=["{pack}"]', "data.validation_packs=[]", 'begin_with=""', "optimiser.steps=1",
        f"patch=[{2 * depth}, {2 * height}, {2 * width}]", "validation.every=0", "threads=1",
        'optimiser.precision="float32"',
    ]  # fmt: skip
    config = load_config(path, changes)
    quiet = Console(quiet=True)

    assert run(config, tmp_path / "out", torch.device("cpu"), Stop(), quiet)


def test_the_configuration_for_ones_own_data_claims_nothing_of_others() -> None:
    """Its bundle has a name of its own and no card of another's data."""
    own, first = (load_config(REPOSITORY / f"training/configs/{name}.toml") for name in ("own", "first"))

    assert own.name != first.name
    assert own.card == CardConfig()


def test_weights_of_the_large_network_fit_into_the_repository() -> None:
    """In half precision, as a bundle holds them: under 16 MiB."""
    network = UNet3D(load_config(REPOSITORY / "training/configs/paper.toml").network)

    assert sum(2 * value.numel() for value in network.state_dict().values()) < 16 * 2**20
