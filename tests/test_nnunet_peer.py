"""What nnU-Net is given and how it is measured: no organ it cannot know about, counted as our own is."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.nnunet_peer import CLINICAL, IGNORE, ORGANS, chosen_cases, measured, relabel
from tests.paths import shared_data
from tests.training_cases import a_case
from training.dataset import bits


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
    truth = a_case().organ("Parotid_L")
    case = replace(a_case(), labels=bits({organ: truth}), known={organ: (-np.inf, top)})
    drawn = {organ: np.zeros(truth.shape, bool) for organ in CLINICAL}
    drawn[organ][:7] = truth[:7]

    assert measured(case, drawn) == pytest.approx({organ: expected}, abs=1e-6)
