"""Pseudo-labels: what a bundle contours where people drew nothing becomes cases of their own."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from model.findings import Finding, Severity
from tests.band_bundle import write_band_bundle
from tests.test_evaluate import WHOLE, a_case
from tests.training_cases import a_config
from training import pseudo_labels
from training.config import ConfigurationError, load_config
from training.dataset import Case, described, read_packs, write_packs
from training.train import load_data


def contoured(folder: Path, *words: str, pack: str = "train") -> Result:
    """Of two cases people drew both organs on one, and the parotid alone on the other."""
    cases = [a_case("both"), replace(a_case("parotid alone"), known={"Parotid_L": WHOLE})]
    (path,) = write_packs(cases, folder / pack)
    app = typer.Typer()
    app.command()(pseudo_labels.main)
    bundle = write_band_bundle(folder / "bundle")
    named = [str(path), "--bundle", str(bundle), "--out", str(folder / "pseudo"), "--device", "cpu"]
    return CliRunner().invoke(app, [*named, *words])


def made(folder: Path) -> list[Case]:
    return list(read_packs(sorted(folder.glob("pseudo-*.npz"))))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    folder = tmp_path_factory.mktemp("pseudo")
    return folder, contoured(folder)


def test_only_organs_that_nobody_drew_are_taught(run: tuple[Path, Result]) -> None:
    """The brain of the case without one, where it is; of the case with both nothing is left."""
    folder, result = run
    assert result.exit_code == 0, result.output
    (case,) = made(folder)
    assert (case.name, case.group, dict(case.known)) == ("parotid alone", "tcia21-pseudo", {"Brain": WHOLE})
    truth = a_case().organ("Brain")
    both = (case.organ("Brain") & truth).sum()
    assert 2 * both / (case.organ("Brain").sum() + truth.sum()) > 0.9


def test_the_report_tells_what_became_of_each_organ(run: tuple[Path, Result]) -> None:
    rows = {words[1]: words[3::2] for line in run[1].output.splitlines() if len(words := line.split()) > 9}
    assert rows["Brain"] == ["1", "1", "0", "0"]
    assert rows["Parotid_L"] == ["0", "2", "0", "0"]
    assert rows["Parotid_R"] == ["0", "0", "2", "0"]


def test_an_implausible_contour_is_not_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A brain of which more than a note is to be said stays unknown."""
    said = Severity.WARNING

    def finding(*_: object) -> tuple[Finding, ...]:
        return (Finding("wrong-order-head-feet", said, "Parotid_L", "lies above the brain", ("Brain",)),)

    monkeypatch.setattr(pseudo_labels, "check_plausibility", finding)
    result = contoured(tmp_path)
    assert result.exit_code == 0, result.output
    assert made(tmp_path) == []
    said = Severity.NOTE
    contoured(tmp_path)
    assert len(made(tmp_path)) == 1


def test_only_the_organs_asked_for_are_contoured(tmp_path: Path) -> None:
    assert contoured(tmp_path, "--organ", "Parotid_R").exit_code == 0
    assert made(tmp_path) == []


def test_where_nothing_could_be_labelled_the_packs_of_before_stay(tmp_path: Path) -> None:
    contoured(tmp_path)
    before = made(tmp_path)
    result = contoured(tmp_path, "--organ", "Parotid_R")
    assert result.exit_code == 0
    assert "nothing could be labelled" in result.output
    assert [case.name for case in made(tmp_path)] == [case.name for case in before] == ["parotid alone"]


def test_packs_that_are_read_are_never_replaced(tmp_path: Path) -> None:
    """What people drew would be gone, whether or not anything could be labelled."""
    result = contoured(tmp_path, "--out", str(tmp_path / "train"))
    assert result.exit_code == 2
    assert "would replace" in " ".join(result.output.replace("│", " ").split())
    assert [case.name for case in read_packs([tmp_path / "train-00.npz"])] == ["both", "parotid alone"]


@pytest.mark.parametrize(
    ("words", "pack", "why"),
    [
        (("--organ", "Lens_L"), "train", "does not offer Lens_L"),
        ((), "made-validation", "never trained on"),
        (("--bundle", "nothing"), "train", "nothing"),
        (("--device", "gpu"), "train", "device gpu is not known; it is auto, cpu or cuda"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, words: tuple[str, ...], pack: str, why: str) -> None:
    result = contoured(tmp_path, *words, pack=pack)
    assert result.exit_code == 2
    assert why in " ".join(result.output.replace("│", " ").split())
    assert made(tmp_path) == []


def test_an_image_is_measured_or_taught_whoever_drew_on_it(run: tuple[Path, Result], tmp_path: Path) -> None:
    """Pseudo-labels on a validation case's image would teach that image."""
    (pseudo,) = sorted(run[0].glob("pseudo-*.npz"))
    (measured,) = write_packs([a_case("parotid alone")], tmp_path / "measured")
    assert [case.mark for case in described([pseudo])] == [case.mark for case in described([measured])]
    change = [f'data.packs=["{pseudo}"]', f'data.validation_packs=["{measured}"]']
    config = load_config(a_config(tmp_path / "run", 1), [*change, "data.group_weights={tcia21-pseudo=1.0}"])
    with pytest.raises(ConfigurationError, match="parotid alone"):
        load_data(config, torch.device("cpu"))
