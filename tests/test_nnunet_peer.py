"""What nnU-Net is given and how it is measured: no organ it cannot know about, counted as our own is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.nnunet_peer import (
    CLINICAL,
    CONFIGURATION,
    IGNORE,
    ORGANS,
    Peer,
    chosen_cases,
    main,
    measured,
    own_configuration,
    relabel,
)
from tests.paths import shared_data
from tests.training_cases import a_clinical_case
from training.ablation import read_variants
from training.config import ConfigurationError
from training.dataset import described, write_packs
from training.train import draw_chances


def test_only_complete_training_cases_are_chosen() -> None:
    """Every organ contoured, and no case of the validation split."""
    import json

    data = shared_data() / "openkbp"
    cases = json.loads((data / "cases.json").read_text())

    chosen = chosen_cases(data)

    assert chosen
    for name in chosen:
        assert cases[name]["source_split"] == "train"
        assert set(ORGANS) <= set(cases[name]["present_labels"])


def test_labels_are_numbered_anew_and_ignored_below_the_cord() -> None:
    """Other organs become background; where the cord has no contour yet, what is not an organ is ignored."""
    numbers = {
        "SpinalCord": 2,
        "Larynx": 6,
        "Brainstem": 1,
        "Parotid_L": 3,
        "Parotid_R": 4,
        "Bone_Mandible": 5,
    }
    labels = np.array([[[0, 3, 6]], [[2, 0, 6]], [[1, 5, 4]]], np.uint8)

    found = relabel(labels, numbers, lowest=1)

    number = {organ: index + 1 for index, organ in enumerate(ORGANS)}
    assert found[0, 0].tolist() == [IGNORE, number["Parotid_L"], IGNORE]
    assert found[1, 0].tolist() == [number["SpinalCord"], 0, 0]
    assert found[2, 0].tolist() == [number["Brainstem"], number["Bone_Mandible"], number["Parotid_R"]]


@pytest.mark.parametrize(("top", "expected"), [(np.inf, 2 * 3 / 9), (14.0, 1.0)])
def test_what_lies_beyond_the_known_heights_is_not_counted(top: float, expected: float) -> None:
    """The lower half drawn of a parotid: two thirds where all of it is known, right where only that half is."""
    organ = "Parotid_L^Clin"
    case = replace(a_clinical_case(), known={organ: (-np.inf, top)})
    truth = case.organ(organ)
    drawn = {organ: np.zeros(truth.shape, bool) for organ in CLINICAL}
    drawn[organ][:7] = truth[:7]

    assert measured(case, drawn) == pytest.approx({organ: expected}, abs=1e-6)


def own(tmp_path: Path, group: str):
    """Our configuration on two packed cases, for as many steps as an earlier run counted."""
    write_packs([a_clinical_case("a", group), a_clinical_case("b", group)], tmp_path / "cases")
    (tmp_path / "steps.txt").write_text("7")
    return own_configuration(tmp_path, {}, minutes=1)


def test_our_network_learns_from_openkbp_alone(tmp_path: Path) -> None:
    """The ablations' network; its groups of data are those of the packs, so that it can be trained."""
    config = own(tmp_path, "openkbp")

    known = [*described(map(Path, config.data.packs))]
    assert draw_chances(known, config.data).tolist() == [0.5, 0.5]
    assert config.optimiser.steps == 7
    (reference, *_) = read_variants(CONFIGURATION)
    assert config.network == reference.config.network
    assert replace(config.optimiser, steps=1600) == reference.config.optimiser


def test_cases_of_other_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no weight for tcia21"):
        own(tmp_path, "tcia21")


def test_what_we_cannot_train_on_is_said_before_nnunet_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here no packs were prepared."""
    data = shared_data() / "openkbp"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Peer, "install", lambda *_: pytest.fail("nnU-Net came first"))

    with pytest.raises(SystemExit) as end:
        main(data.resolve(), tmp_path / "out", None, 1, 1)

    assert end.value.code == 2
    assert "training.prepare writes them" in capsys.readouterr().err.replace("\n", " ")
