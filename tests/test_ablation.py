"""Ablations: equal runs that differ in one thing, measured in pairs, and taken up where they were interrupted."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner

from tests.paths import REPOSITORY
from tests.training_cases import CONFIG, packs
from training.ablation import (
    Place,
    Scores,
    ablate,
    as_markdown,
    difference,
    main,
    organ_means,
    read_scores,
    read_variants,
)
from training.config import ConfigurationError
from training.stop import Stop

CPU = torch.device("cpu")
QUIET = Console(quiet=True)
VARIANTS = """
[[variant]]
name = "other"
about = "another seed"
change.seed = 9
[[variant]]
name = "no-dice"
about = "cross-entropy alone"
change.optimiser.dice = 0.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "ablation.toml"
    path.write_text('about = "as designed"\n' + CONFIG.format(steps=2, **packs(tmp_path)) + VARIANTS)
    return path


def test_each_variant_differs_from_the_reference_in_what_it_names(file: Path) -> None:
    reference, other, no_dice = read_variants(file)

    assert (reference.name, reference.about) == ("reference", "as designed")
    assert (other.config.seed, no_dice.config.seed) == (9, 3)
    assert (other.config.optimiser.dice, no_dice.config.optimiser.dice) == (1.0, 0.0)
    assert other.config.optimiser == reference.config.optimiser
    assert other.config.network == no_dice.config.network == reference.config.network


@pytest.mark.parametrize("file", ["ablation.toml", "ablation-size.toml"])
def test_the_shipped_ablations_change_nothing_but_what_they_are_about(file: str) -> None:
    """All of one length, measured on the same cases; only the one with another seed has another seed."""
    reference, *variants = read_variants(REPOSITORY / "training/configs" / file)

    for variant in variants:
        assert variant.config != reference.config
        assert variant.config.optimiser.steps == reference.config.optimiser.steps
        assert variant.config.data.validation_packs == reference.config.data.validation_packs
        assert variant.config.patch == reference.config.patch
        assert (variant.config.seed != reference.config.seed) == (variant.name == "other-seed")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('[[variant]]\nname = "x"\n', "needs name, about and change alone"),
        (VARIANTS, "two .* have one name"),
        ('[[variant]]\nname = "x"\nabout = "y"\nchange.optimiser.stepps = 1\n', "unknown keys: stepps"),
    ],
)
def test_a_variant_that_cannot_be_run_is_refused_before_any_is(file: Path, more: str, said: str) -> None:
    file.write_text(file.read_text() + more)

    with pytest.raises(ConfigurationError, match=said):
        read_variants(file)


def test_packs_that_are_not_there_end_with_one_sentence(file: Path, tmp_path: Path) -> None:
    (pack,) = tmp_path.glob("pack-*.npz")
    pack.unlink()
    app = typer.Typer()
    app.command()(main)

    result = CliRunner().invoke(app, [str(file), "--out", str(tmp_path / "out")])

    assert result.exit_code == 2, result.output
    assert "cannot be read as a pack" in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_every_variant_is_trained_measured_and_in_the_table(file: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "out", tmp_path / "table.md"

    variants = read_variants(file)
    assert ablate(variants, out, CPU, Stop(), QUIET, table)

    text = table.read_text()
    assert text == (out / "ablations.md").read_text()
    assert "not yet measured" not in text
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")] == [
        "| run", "| reference", "| other", "| no-dice",
    ]  # fmt: skip
    with (out / "scores.csv").open(newline="") as file_of_all:
        rows = [*csv.DictReader(file_of_all)]
    assert {row["run"] for row in rows} == {"reference", "other", "no-dice"}
    assert {row["group"] for row in rows} == {"test"}
    assert read_scores(out / "other" / "scores.csv", replace(variants[1].config.data, validation_packs=()))


class BetweenRuns(Stop):
    """Wants to stop after the three questions that one run of two steps asks."""

    asked = 0

    def wanted(self) -> bool:
        """Count."""
        self.asked += 1
        return self.asked > 3


def test_it_goes_on_where_it_was_interrupted(file: Path, tmp_path: Path) -> None:
    """What was measured is not trained again, and what was not is marked as such in the table."""
    out, variants = tmp_path / "out", read_variants(file)
    assert not ablate(variants, out, CPU, BetweenRuns(), QUIET)
    assert "| other | another seed | not yet measured" in (out / "ablations.md").read_text()
    measured = (out / "reference/scores.csv").stat().st_mtime_ns

    assert ablate(variants, out, CPU, Stop(), QUIET)

    assert (out / "reference/scores.csv").stat().st_mtime_ns == measured
    assert "not yet measured" not in (out / "ablations.md").read_text()


def test_results_of_another_configuration_are_never_mixed_in(file: Path, tmp_path: Path) -> None:
    ablate(read_variants(file), tmp_path / "out", CPU, Stop(), QUIET)
    file.write_text(file.read_text().replace("steps = 2", "steps = 3"))

    with pytest.raises(ConfigurationError, match="another configuration; delete it"):
        ablate(read_variants(file), tmp_path / "out", CPU, Stop(), QUIET)


def of(group: str, dice: dict[tuple[str, str], float]) -> Scores:
    """Scores of one group from those by case and organ."""
    return {Place(group, case, organ): value for (case, organ), value in dice.items()}


def test_a_difference_is_paired_by_case_and_organ() -> None:
    """Two organs of one case count as one; what only one of the two measured does not count."""
    reference = of("g", {("a", "Brain"): 0.5, ("a", "Lens_L"): 0.1, ("b", "Brain"): 0.6, ("c", "Eye_L"): 0.9})
    scores = of("g", {("a", "Brain"): 0.7, ("a", "Lens_L"): 0.1, ("b", "Brain"): 0.9, ("d", "Eye_L"): 0.0})

    found = difference(scores, reference, "g")

    assert found.mean == pytest.approx((0.1 + 0.3) / 2)
    assert found.deviation == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert found.low == pytest.approx(0.1)
    assert found.high == pytest.approx(0.3)


def test_an_invented_organ_counts_against_who_invented_it() -> None:
    nothing = float("nan")
    reference = of("g", {("a", "Brain"): 0.5, ("a", "Eye_L"): nothing, ("a", "Eye_R"): nothing})
    scores = of("g", {("a", "Brain"): 0.5, ("a", "Eye_L"): 0.0, ("a", "Eye_R"): nothing})

    assert difference(scores, reference, "g").mean == pytest.approx(-0.5)
    assert difference(reference, scores, "g").mean == pytest.approx(0.5)


def test_what_helps_one_group_of_data_and_harms_another_is_seen(file: Path) -> None:
    """A difference for each, in the order of their names, and how many cases it is taken over."""
    many = {(str(index), "Brain"): 0.5 for index in range(9)}
    reference = of("clinics", many) | of("people", {("x", "Eye_L"): 0.6})
    other = of("clinics", dict.fromkeys(many, 0.51)) | of("people", {("x", "Eye_L"): 0.2})

    text = as_markdown(read_variants(file), {"reference": reference, "other": other})

    assert "validation cases: 9 of clinics, 1 of people." in text
    (head,) = (line for line in text.splitlines() if line.startswith("| run |"))
    (row,) = (line for line in text.splitlines() if line.startswith("| other |"))
    assert head.split(" | ")[-2:] == ["difference on clinics", "difference on people |"]
    assert row.split(" | ")[-2:] == [
        "+0.010 ± 0.000 [+0.010, +0.010]", "-0.400 in one case |",
    ]  # fmt: skip


def test_groups_that_a_run_did_not_measure_have_no_difference(file: Path) -> None:
    reference = of("clinics", {("a", "Brain"): 0.5}) | of("people", {("x", "Eye_L"): 0.6})
    other = of("clinics", {("a", "Brain"): 0.4})

    text = as_markdown(read_variants(file), {"reference": reference, "other": other})

    assert "| -0.100 in one case | no case in both |" in text


@pytest.mark.parametrize(("found", "is_said"), [(0.0, True), (0.2, False)])
def test_organs_that_no_run_found_are_named(file: Path, found: float, is_said: bool) -> None:  # noqa: FBT001
    """Runs in which no lens was found say nothing of what helps lenses."""
    reference = of("g", {("a", "Brain"): 0.5, ("a", "Lens_L"): 0.0})
    other = of("g", {("a", "Brain"): 0.5, ("a", "Lens_L"): found})

    text = as_markdown(read_variants(file), {"reference": reference, "other": other})

    assert ("No run found anything of a lens" in text) == is_said


def test_scores_without_a_group_are_looked_up_in_the_packs(file: Path, tmp_path: Path) -> None:
    """As earlier runs left them; of a case that is in no pack nobody knows what it was."""
    config = read_variants(file)[0].config
    kept = tmp_path / "scores.csv"
    kept.write_text("measured a,Brain,0.5\nmeasured a,Parotid_L,nan\n")

    scores = read_scores(kept, config.data)

    assert scores[Place("test", "measured a", "Brain")] == 0.5
    assert len(scores) == 2
    kept.write_text("gone,Brain,0.5\n")
    with pytest.raises(ConfigurationError, match="no validation pack holds, such as gone"):
        read_scores(kept, config.data)


def test_the_mean_of_an_organ_is_over_its_cases() -> None:
    lens = {("a", "Lens_L"): 0.1, ("b", "Lens_L"): float("nan")}
    scores = of("g", {("a", "Brain"): 0.5, ("b", "Brain"): 0.7, **lens})

    assert organ_means(scores) == pytest.approx({"Brain": 0.6, "Lens_L": 0.1})
