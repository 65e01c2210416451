"""A training run: it resumes as if nothing had happened, keeps the best, and says clearly why it cannot go on."""

import csv
import json
import signal
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from model.bundle import Bundle, write_bundle
from model.errors import BundleError
from model.segmenter import Segmenter
from model.structures import OTHER_PROTOCOLS, unqualified
from model.unet import UNet3D
from tests.conditions import wait_until
from tests.paths import REPOSITORY
from tests.training_cases import a_case, a_clinical_case, a_config
from training import train
from training.checkpoint import BEFORE, BEST, LAST, TrainingStoppedError
from training.config import ORGANS, ConfigurationError, DataConfig, TrainConfig, load_config
from training.dataset import Known, described, patient_mark, write_packs
from training.evaluate import with_every_output
from training.export import export
from training.stop import Stop
from training.train import (
    draw_chances,
    draw_samples,
    learning_rate,
    load_data,
    network_and_optimiser,
    run,
)
from training.validation import Agreement

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


class AfterSteps(Stop):
    """Wants to stop after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def wanted(self) -> bool:
        """Count."""
        self.left -= 1
        return self.left < 0


def trained(config: TrainConfig, out: Path, stop: Stop | None = None) -> bool:
    return run(config, out, CPU, stop or Stop(), QUIET)


def state(out: Path, name: str = LAST) -> dict:
    return torch.load(out / name, weights_only=True)


def assert_equal(first: object, second: object) -> None:
    """The same to the last bit, however deep."""
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict | OrderedDict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for a, b in zip(first, second, strict=True):
            assert_equal(a, b)
    else:
        assert first == second


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return load_config(a_config(tmp_path, steps=6))


@pytest.mark.parametrize("pieces", [(1, 1, 1, 1, 1, 1), (4, 2), (0, 6)])
def test_a_run_in_pieces_ends_as_one_without(
    tmp_path: Path, config: TrainConfig, pieces: tuple[int, ...]
) -> None:
    """Weights, average, optimiser and curve are equal to the last bit, wherever it was interrupted."""
    assert trained(config, tmp_path / "whole")
    for steps in pieces:
        trained(config, tmp_path / "parts", AfterSteps(steps))

    assert_equal(state(tmp_path / "whole"), state(tmp_path / "parts"))
    assert (tmp_path / "whole/curve.csv").read_text() == (tmp_path / "parts/curve.csv").read_text()


def test_a_kill_after_the_checkpoint_leaves_no_step_twice(tmp_path: Path, config: TrainConfig) -> None:
    """What the curve holds beyond the checkpoint, and a line cut short, are drawn anew."""
    trained(config, tmp_path / "whole")
    trained(config, tmp_path / "out", AfterSteps(3))
    curve = tmp_path / "out/curve.csv"
    curve.write_text(curve.read_text() + "4,0.1,9.9,9.9\n5,0.0")

    trained(config, tmp_path / "out")

    assert curve.read_text() == (tmp_path / "whole/curve.csv").read_text()


@pytest.mark.parametrize("bytes_left", [0, 100, 5000])
def test_a_checkpoint_cut_short_is_not_the_end(tmp_path: Path, config: TrainConfig, bytes_left: int) -> None:
    """The one before it is continued, to the same weights."""
    trained(config, tmp_path / "whole")
    for steps in (2, 2):
        trained(config, tmp_path / "out", AfterSteps(steps))
    last = tmp_path / "out" / LAST
    last.write_bytes(last.read_bytes()[:bytes_left])
    (tmp_path / "out/checkpoint.part").write_bytes(b"never renamed")
    console = Console(record=True, quiet=False, width=200)

    assert run(config, tmp_path / "out", CPU, Stop(), console)

    assert "cannot be read" in console.export_text()
    assert_equal(state(tmp_path / "whole"), state(tmp_path / "out"))


def test_without_any_readable_checkpoint_nothing_is_begun_again_silently(
    tmp_path: Path, config: TrainConfig
) -> None:
    for steps in (2, 2):
        trained(config, tmp_path / "out", AfterSteps(steps))
    for name in (LAST, BEFORE):
        (tmp_path / "out" / name).write_bytes(b"dust")

    with pytest.raises(
        ConfigurationError, match=r"no checkpoint in .* can be read; delete them to begin again"
    ):
        trained(config, tmp_path / "out")


def test_a_folder_of_another_network_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    trained(config, tmp_path / "out", AfterSteps(1))
    other = load_config(tmp_path / "run.toml", ["network.channels=[4, 16]"])

    with pytest.raises(ConfigurationError, match=r"another \[network\]"):
        trained(other, tmp_path / "out")


def test_a_folder_of_another_grid_is_refused(tmp_path: Path, config: TrainConfig) -> None:
    """Its bundle would claim millimetres on which it was never trained."""
    trained(config, tmp_path / "out")
    other = load_config(tmp_path / "run.toml", ["spacing_mm=[1.0, 1.0, 1.0]"])

    with pytest.raises(ConfigurationError, match="another grid"):
        trained(other, tmp_path / "out")


def test_a_case_to_measure_is_not_trained_on(tmp_path: Path, config: TrainConfig) -> None:
    both = load_config(tmp_path / "run.toml", [f'data.validation_packs=["{config.data.packs[0]}"]'])

    with pytest.raises(
        ConfigurationError, match="2 cases, or their patients, are in packs and in validation_packs too"
    ):
        trained(both, tmp_path / "out")


def test_a_patient_to_measure_is_not_trained_on_by_another_scan(tmp_path: Path, config: TrainConfig) -> None:
    """Nor after the packs were prepared anew."""
    patient = patient_mark("P1")
    write_packs([replace(a_case("of 2024"), patient=patient)], tmp_path / "pack")
    trained(config, tmp_path / "out", AfterSteps(1))
    write_packs([replace(a_case("of 2026"), patient=patient)], tmp_path / "measured")

    with pytest.raises(ConfigurationError, match="in packs and in validation_packs too, such as of 2024"):
        trained(config, tmp_path / "out")

    write_packs([a_case("another")], tmp_path / "pack")
    with pytest.raises(ConfigurationError, match=r"were trained on in this folder .* such as of 2026"):
        trained(config, tmp_path / "out")


def marks(pack: str) -> set[str]:
    return {case.mark for case in described([Path(pack)])}


def test_a_bundle_names_what_it_was_trained_on_whatever_the_packs_hold_by_now(
    tmp_path: Path, config: TrainConfig
) -> None:
    """Prepared anew with another split, and the command repeated: before its last step, and after it."""
    trained(config, tmp_path / "out", AfterSteps(2))
    first = marks(config.data.packs[0])
    write_packs([a_case("second")], tmp_path / "pack")
    trained(config, tmp_path / "out")
    second = marks(config.data.packs[0])
    write_packs([a_case("third", {"Larynx": (-np.inf, np.inf)})], tmp_path / "pack")
    trained(config, tmp_path / "out")

    bundle = Bundle.load(export(config, tmp_path / "out"))

    assert set(bundle.card["trained_on"]) == first | second
    assert set(bundle.structure_names) == {"Parotid_L", "Brain"}


def test_a_case_that_was_trained_on_is_not_measured_after_a_resume(
    tmp_path: Path, config: TrainConfig
) -> None:
    trained(config, tmp_path / "out", AfterSteps(2))
    write_packs([a_case("pack a")], tmp_path / "measured")
    write_packs([a_case("another")], tmp_path / "pack")

    with pytest.raises(
        ConfigurationError, match=r"1 cases of validation_packs, .* were trained on .* such as pack a"
    ):
        trained(config, tmp_path / "out")


def test_a_case_that_the_weights_to_begin_with_were_trained_on_is_not_measured(
    tmp_path: Path, config: TrainConfig
) -> None:
    trained(config, tmp_path / "out")
    first = export(config, tmp_path / "out")
    changes = [f'begin_with="{first}"', f'data.packs=["{config.data.validation_packs[0]}"]']
    more = load_config(tmp_path / "run.toml", [*changes, f'data.validation_packs=["{config.data.packs[0]}"]'])

    with pytest.raises(
        ConfigurationError, match=r"2 cases of validation_packs, .* were trained on .* in begin_with"
    ):
        trained(more, tmp_path / "more")


def test_a_checkpoint_that_does_not_say_what_was_taught_is_continued_and_exported(
    tmp_path: Path, config: TrainConfig
) -> None:
    """As they were written before: the configuration tells."""
    trained(config, tmp_path / "out", AfterSteps(2))
    before = state(tmp_path / "out")
    del before["taught"]
    torch.save(before, tmp_path / "out" / LAST)

    silent = Bundle.load(export(config, tmp_path / "out"))
    trained(config, tmp_path / "out")

    assert set(silent.card["trained_on"]) == marks(config.data.packs[0])
    assert set(state(tmp_path / "out")["taught"]["marks"]) == marks(config.data.packs[0])


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, config: TrainConfig) -> None:
    """A last step of which the loss tells nothing; the checkpoint before it can be continued."""
    trained(config, tmp_path / "out", AfterSteps(2))
    before = state(tmp_path / "out")
    wild = load_config(tmp_path / "run.toml", ["optimiser.learning_rate=1e39", "optimiser.steps=3"])

    with pytest.raises(TrainingStoppedError, match=r"step 3: the weights are no numbers any more"):
        trained(wild, tmp_path / "out")

    assert_equal(before, state(tmp_path / "out"))
    assert trained(config, tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--best"], 2, "--best needs [validation] every"),
        (["--device", "tpu"], 2, "--device tpu: it is auto, cpu or cuda"),
        (["--set", 'data.packs=["none.npz"]'], 2, "none.npz cannot be read as a pack"),
        (["--set", 'begin_with="nowhere"'], 2, "nowhere/model.json cannot be read"),
        (["--set", "optimiser.ema=2.0"], 2, "ema: out of range"),
        (["--out", "/proc/none"], 1, "repeat the command to resume"),
    ],
)
def test_what_cannot_be_trained_ends_with_one_sentence(
    tmp_path: Path, config: TrainConfig, words: list[str], status: int, said: str
) -> None:
    assert config.optimiser.steps
    out = [] if "--out" in words else ["--out", str(tmp_path / "out")]
    app = train.typer.Typer()
    app.command()(train.main)

    result = CliRunner().invoke(app, [str(tmp_path / "run.toml"), *out, *words])

    assert result.exit_code == status, result.output
    assert said in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_finished_run_repeated_keeps_what_was_measured_of_its_weights(
    tmp_path: Path, config: TrainConfig
) -> None:
    out = tmp_path / "out"
    trained(config, out)
    about = export(config, out) / "model.json"
    measured = json.loads(about.read_text()) | {"reference_sha256": "of the ranges"}
    measured["card"]["accuracy"] = ["as measured"]
    about.write_text(json.dumps(measured))

    export(config, out)

    assert json.loads(about.read_text()) == measured
    longer = load_config(tmp_path / "run.toml", [f"optimiser.steps={config.optimiser.steps + 1}"])
    trained(longer, out)
    assert "accuracy" not in json.loads((export(longer, out) / "model.json").read_text())["card"]


def test_a_sample_depends_on_its_place_and_not_on_the_batch(config: TrainConfig, tmp_path: Path) -> None:
    """A larger batch begins with the samples of the smaller one; another step or seed has others."""
    data = load_data(config, CPU)
    large = load_config(tmp_path / "run.toml", ["optimiser.batch=3"])
    other = load_config(tmp_path / "run.toml", ["seed=4"])
    one, three = draw_samples(data, config, 5), draw_samples(data, large, 5)

    assert len(three) == 3
    assert torch.equal(one[0].image, three[0].image)
    assert not torch.equal(three[0].image, three[1].image)
    for changed in (draw_samples(data, config, 6), draw_samples(data, other, 5)):
        assert not torch.equal(one[0].image, changed[0].image)


def test_what_a_group_is_not_to_teach_counts_nowhere_in_its_samples(tmp_path: Path) -> None:
    config = load_config(a_config(tmp_path, 1), ['data.untaught={test=["Brain"]}'])
    brain, parotid = (ORGANS.index(organ) for organ in ("Brain", "Parotid_L"))

    weights = torch.cat(
        [each.weights for n in range(8) for each in draw_samples(load_data(config, CPU), config, n)]
    )

    assert weights[:, brain].max() == 0
    assert weights[:, parotid].max() == 1


def test_a_case_is_drawn_by_its_group_and_by_the_rarest_organ_that_it_knows() -> None:
    known = [
        Known("1", "a", frozenset({"Brain"})),
        Known("2", "a", frozenset({"Brain", "Larynx"})),
        Known("3", "b", frozenset()),
    ]
    data = DataConfig(
        packs=(), group_weights={"a": 3.0, "b": 1.0}, organ_weights={"Larynx": 2.0, "Esophagus": 9.0}
    )

    assert draw_chances(known, data).tolist() == pytest.approx([0.25, 0.5, 0.25])


@pytest.mark.parametrize("change", ['data.untaught={test=["Brian"]}', "data.organ_weights={Brian=2.0}"])
def test_an_organ_that_does_not_exist_is_refused(tmp_path: Path, change: str) -> None:
    with pytest.raises(ConfigurationError, match="no organ is named Brian"):
        load_data(load_config(a_config(tmp_path, 1), [change]), CPU)


def test_a_bundle_offers_what_its_cases_taught_and_nothing_else(tmp_path: Path, config: TrainConfig) -> None:
    """An output that no case taught would be drawn at random; the others draw what the network does."""
    trained(config, tmp_path / "out")
    whole = UNet3D(config.network)
    whole.load_state_dict(state(tmp_path / "out")["average"])

    bundle = Bundle.load(export(config, tmp_path / "out"))

    known = set().union(*(case.organs for case in described(map(Path, config.data.packs))))
    assert set(bundle.structure_names) == known < set(ORGANS)
    image = torch.randn(1, 2, *config.patch) * 300
    drawn = whole.eval()(image)[:, [ORGANS.index(organ) for organ in bundle.structure_names]]
    assert torch.allclose(bundle.network(image), drawn, atol=0.05)  # a bundle holds half precision


def test_a_bundle_whose_author_says_nothing_names_the_groups_that_it_was_trained_on(
    tmp_path: Path, config: TrainConfig
) -> None:
    trained(config, tmp_path / "out")
    first = export(config, tmp_path / "out")
    more = load_config(tmp_path / "run.toml", [f'begin_with="{first}"'])
    said = load_config(tmp_path / "run.toml", ['card.training_data=["20 CTs"]'])

    first_lines, more_lines, said_lines = (
        Bundle.load(export(each, tmp_path / "out")).card["training_data"] for each in (config, more, said)
    )

    assert first_lines == ["cases of test; the bundle's author says no more of them"]
    assert more_lines == [*first_lines, "before, what tiny 0 was trained on, with whose weights it began"]
    assert said_lines == ["20 CTs"]


def test_an_organ_that_no_case_has_is_not_offered(tmp_path: Path, config: TrainConfig) -> None:
    """Cases that only ever lack it teach to draw it never."""
    known = dict.fromkeys(("Brain", "Glnd_Submand_L"), (-np.inf, np.inf))
    write_packs([a_case("operated", known)], tmp_path / "pack")
    trained(config, tmp_path / "out")

    assert Bundle.load(export(config, tmp_path / "out")).structure_names == ("Brain",)


def test_a_run_that_teaches_nothing_that_may_be_sent_leaves_a_bundle_to_measure(tmp_path: Path) -> None:
    """As from OpenKBP alone, whose clinics' organs are outputs of their own."""
    write_packs([a_clinical_case(group="test")], tmp_path / "clinics")
    config = load_config(a_config(tmp_path, 1), [f'data.packs=["{tmp_path}/clinics-*.npz"]'])
    trained(config, tmp_path / "out")

    bundle = Bundle.load(export(config, tmp_path / "out"))

    assert (bundle.structure_names, bundle.output_names) == ((), ("Parotid_L^Clin",))
    with pytest.raises(BundleError, match="offers no structure"):
        Segmenter(bundle, "cpu")
    assert Segmenter(with_every_output(bundle), "cpu").bundle.structure_names == ("Parotid_L^Clin",)


def test_who_is_thanked_for_the_weights_to_begin_with_is_thanked_again(tmp_path: Path) -> None:
    """The licences of their training data want it."""
    config = load_config(a_config(tmp_path, 1, '[card]\nattribution = ["ours", "theirs"]\n'))
    write_bundle(
        tmp_path / "before", UNet3D(replace(config.network, outputs=1)), name="n", version="1",
        structure_names=("Eye_L",), preprocessing=config.preprocessing, tile=config.patch,
        card={"attribution": ["theirs", "and theirs"], "limits": ["small"]},
    )  # fmt: skip
    more = replace(config, begin_with=str(tmp_path / "before"))
    trained(more, tmp_path / "out")

    card = Bundle.load(export(more, tmp_path / "out")).card

    assert card["attribution"] == ["theirs", "and theirs", "ours"]
    assert card["limits"] == ["It began with the weights of n 1, whose limits may be its own."]


def test_images_that_the_device_cannot_hold_are_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.train.DeviceCase", Mock(side_effect=torch.OutOfMemoryError))
    with pytest.raises(TrainingStoppedError, match="memory does not hold the images of 2 cases"):
        load_data(load_config(a_config(tmp_path, 1)), CPU)


def test_what_the_weights_to_begin_with_knew_is_offered_too(tmp_path: Path) -> None:
    config = load_config(a_config(tmp_path, 1))
    write_bundle(
        tmp_path / "before", UNet3D(replace(config.network, outputs=2)), name="n", version="1",
        structure_names=("Eye_L",), output_names=("Eye_L", "Larynx"),
        preprocessing=config.preprocessing, tile=config.patch, card={},
    )  # fmt: skip
    more = replace(config, begin_with=str(tmp_path / "before"))
    grown, _ = network_and_optimiser(more, CPU)
    before = Bundle.load(tmp_path / "before").network
    trained(more, tmp_path / "out")

    bundle = Bundle.load(export(more, tmp_path / "out"))

    assert {"Eye_L", "Brain"} < set(bundle.structure_names)
    assert bundle.output_names[-1] == "Larynx"
    image = torch.randn(1, 2, *config.patch) * 300
    assert torch.allclose(
        grown.eval()(image)[:, [ORGANS.index("Eye_L"), ORGANS.index("Larynx")]], before(image), atol=1e-4
    )


@pytest.mark.parametrize(
    "change",
    ["hu_windows=[[-1000, 3000], [-100, 100]]", "fold=[2, 2, 1]", "strides=[[1, 2, 2]]", "channels=[4, 16]"],
)
def test_weights_of_another_network_are_not_begun_with(
    tmp_path: Path, config: TrainConfig, change: str
) -> None:
    """Though all of its tensors may have the right size."""
    trained(config, tmp_path / "out", AfterSteps(1))
    first = export(config, tmp_path / "out")
    other = load_config(tmp_path / "run.toml", [f'begin_with="{first}"', f"network.{change}"])
    key, _, _ = change.partition("=")

    with pytest.raises(ConfigurationError, match=rf"holds another \[network\]: its {key} differ"):
        network_and_optimiser(other, CPU)


@pytest.mark.parametrize("clinical", range(len(ORGANS) - len(OTHER_PROTOCOLS), len(ORGANS)))
def test_weights_without_the_clinics_organs_begin_them_as_the_organs(tmp_path: Path, clinical: int) -> None:
    """A bundle of before that output existed is trained on: all other outputs are as they were."""
    config = load_config(a_config(tmp_path, 1))
    organ = ORGANS.index(unqualified(ORGANS[clinical]))
    before = UNet3D(replace(config.network, outputs=clinical))
    nn.init.normal_(before.head.bias)
    write_bundle(
        tmp_path / "before", before, name="n", version="1", structure_names=ORGANS[:21],
        preprocessing=config.preprocessing, tile=config.patch, card={},
    )  # fmt: skip

    grown, _ = network_and_optimiser(replace(config, begin_with=str(tmp_path / "before")), CPU)

    image = torch.randn(1, 2, *config.patch) * 300
    new, old = grown.eval()(image), before.eval()(image)
    assert torch.allclose(new[:, :clinical], old, atol=0.02)  # a bundle holds half precision
    assert torch.equal(new[:, clinical], new[:, organ])


def test_validation_on_the_way_is_written_and_drawn(tmp_path: Path) -> None:
    """At every second step, also across a resume: the mean and each organ, and a picture."""
    more = "[validation]\nevery = 2\ncases = 1\n"
    config = load_config(a_config(tmp_path, steps=6, more=more))
    out = tmp_path / "out"
    trained(config, out, AfterSteps(3))
    trained(config, out)

    with (out / "validation.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["step"] for row in rows if row["organ"] == "mean"] == ["2", "4", "6"]
    assert {row["organ"] for row in rows} == {"mean", "Parotid_L", "Brain"}
    assert all(0 <= float(row[measure]) <= 1 for row in rows for measure in ("dice", "surface_dice"))
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_best_weights_can_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights of the step with the highest Dice, whatever its surface Dice, not those of the last."""
    more = "[validation]\nevery = 1\ncases = 1\n"
    config = load_config(a_config(tmp_path, steps=3, more=more))
    scores = iter([Agreement(0.2, 0.9), Agreement(0.7, 0.1), Agreement(0.4, 0.8)])
    monkeypatch.setattr(train, "mean_agreement", lambda *_: {"Brain": next(scores)})
    out = tmp_path / "out"
    trained(config, out)

    assert state(out, BEST)["step"] == 2
    bundle = Bundle.load(export(config, out, best=True))
    assert bundle.card["training"].startswith("2 steps")
    assert "best of every 1 by Dice on 1 validation cases" in bundle.card["training"]
    assert Bundle.load(export(config, out)).card["training"].startswith("3 steps")


def test_the_best_weights_can_be_exported_though_none_is_any_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(a_config(tmp_path, steps=2, more="[validation]\nevery = 1\ncases = 1\n"))
    monkeypatch.setattr(train, "mean_agreement", lambda *_: {"Brain": Agreement(0.0, 0.0)})
    trained(config, tmp_path / "out")

    assert Bundle.load(export(config, tmp_path / "out", best=True)).card["training"].startswith("1 steps")


def test_a_kill_during_validation_leaves_no_checkpoint_that_was_not_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(a_config(tmp_path, steps=3, more="[validation]\nevery = 2\ncases = 1\n"))
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "mean_agreement", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(config, tmp_path / "out")
    trained(config, tmp_path / "out")

    with (tmp_path / "out/validation.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file) if row["organ"] == "mean"] == ["2", "3"]


def test_validation_without_cases_is_refused(tmp_path: Path) -> None:
    config = load_config(a_config(tmp_path, steps=1), ["validation.every=1", "data.validation_packs=[]"])
    with pytest.raises(ConfigurationError, match="validation_packs has no case"):
        trained(config, tmp_path / "out")


def test_it_trains_without_tensorboard_and_without_matplotlib(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are a comfort: without them there is the CSV."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    assert trained(config, tmp_path / "out")

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [LAST, "curve.csv", "validation.csv"]


def test_scalars_reach_tensorboard(tmp_path: Path, config: TrainConfig) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard, which only the extra [training] installs")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trained(config, tmp_path / "out")

    events = EventAccumulator(str(tmp_path / "out/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("training/entropy")] == [1, 2, 3, 4, 5, 6]


def test_a_loss_that_is_no_number_ends_the_run_with_a_clear_word(tmp_path: Path, config: TrainConfig) -> None:
    """Which step, and what to change; the checkpoint before it stays."""
    trained(config, tmp_path / "out", AfterSteps(2))
    before = state(tmp_path / "out")
    data = load_data(config, CPU)
    for case in data.cases:
        case.image[:] = torch.nan

    with pytest.raises(TrainingStoppedError, match=r"step 2: the loss is nan; lower the learning rate"):
        run(config, tmp_path / "out", CPU, Stop(), QUIET, data=data)

    assert_equal(before, state(tmp_path / "out"))


def test_memory_that_does_not_suffice_is_said_with_the_way_out(
    tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UNet3D, "forward", exhausted)

    with pytest.raises(
        TrainingStoppedError, match=r"does not hold batch 1 of \(8, 16, 16\); make .* smaller"
    ):
        trained(config, tmp_path / "out")


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_the_learning_rate_warms_up_and_falls_to_nothing(tmp_path: Path, schedule: str) -> None:
    config = load_config(
        a_config(tmp_path, steps=100), [f'optimiser.schedule="{schedule}"', "optimiser.warmup=10"]
    )
    rates = np.array([learning_rate(config, step) for step in range(101)])

    assert np.all(np.diff(rates[:10]) > 0)
    assert rates.max() == rates[10] == config.optimiser.learning_rate
    assert np.all(np.diff(rates[10:]) < 0)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    middle = {"cosine": 0.5, "poly": 0.5**0.9}[schedule]
    assert rates[55] == pytest.approx(middle * rates[10])


def test_a_finished_run_becomes_a_bundle_that_loads(tmp_path: Path, config: TrainConfig) -> None:
    """The end of training is what the daemon reads."""
    trained(config, tmp_path / "out")

    bundle = Bundle.load(export(config, tmp_path / "out"))

    assert bundle.name == "tiny"
    assert bundle.tile == (8, 16, 16)


def test_a_group_without_a_weight_is_refused(tmp_path: Path) -> None:
    """Data that would silently never be drawn is an error."""
    path = a_config(tmp_path, steps=2)
    path.write_text(path.read_text().replace("test = 1.0", "other = 1.0"))

    with pytest.raises(ConfigurationError, match="no weight for test"):
        trained(load_config(path), tmp_path / "out")


@pytest.mark.parametrize(
    "change", ['data.untaught={tset=["Brain"]}', "data.group_weights={test=1.0, tset=1.0}"]
)
def test_a_group_that_no_pack_has_is_refused(tmp_path: Path, change: str) -> None:
    """A misspelt name would change nothing, and nobody would know."""
    with pytest.raises(ConfigurationError, match="no pack has a case of tset, only of test"):
        load_data(load_config(a_config(tmp_path, 1), [change]), CPU)


def command(config: Path, out: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "training.train",
        str(config),
        "--out",
        str(out),
        "--device",
        "cpu",
        *options,
    ]


def test_sigterm_leaves_a_checkpoint_from_which_it_goes_on(tmp_path: Path) -> None:
    """As a scheduler stops a job: exit 0 after the running step, nothing lost, and the next start goes on."""
    config, out = a_config(tmp_path, steps=100_000), tmp_path / "out"
    curve = out / "curve.csv"
    process = subprocess.Popen(command(config, out), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: curve.exists() and len(curve.read_text().split()) > 20, "twenty steps", 90)

    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "repeat the command to resume" in said
    step = state(out)["step"]
    assert len(curve.read_text().split()) == step + 1
    again = subprocess.run(
        command(config, out, "--set", f"optimiser.steps={step + 1}"),
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "bundle written" in again.stdout
    assert state(out)["step"] == step + 1


NOT_THERE = """
import sys
for name in ("SimpleITK", "pydicom", "highdicom", "skimage", "matplotlib", "tensorboard"):
    sys.modules[name] = None  # as if it were not installed
import typer
from training.train import main
typer.run(main)
"""


def test_a_run_needs_nothing_that_reads_images(tmp_path: Path) -> None:
    """Where nothing can be installed the packs are trained on all the same, validation and bundle included."""
    config = a_config(tmp_path, steps=2, more="[validation]\nevery = 2\ncases = 1\n")
    command_line = [sys.executable, "-c", NOT_THERE, *command(config, tmp_path / "out")[3:]]
    done = subprocess.run(command_line, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Bundle.load(tmp_path / "out" / "bundle").structure_names == ("Brain", "Parotid_L")
    assert (tmp_path / "out" / "validation.csv").exists()


def test_a_run_of_some_minutes_stops_with_a_checkpoint(tmp_path: Path) -> None:
    config, out = a_config(tmp_path, steps=100_000), tmp_path / "out"

    subprocess.run(command(config, out, "--minutes", "0.02"), cwd=REPOSITORY, check=True, capture_output=True)

    assert 0 <= state(out)["step"] < 100_000


def test_what_cannot_be_used_is_said_in_one_line_with_exit_code_2(tmp_path: Path) -> None:
    config = a_config(tmp_path, steps=2)
    done = subprocess.run(
        command(config, tmp_path / "out", "--set", "optimiser.stepps=3"),
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "[optimiser] has unknown keys: stepps" in done.stderr
    assert "Traceback" not in done.stderr
