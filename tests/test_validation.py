"""Validation on the way: the truth scores one, its absence nothing, and what is not known does not count."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training_cases import a_case, a_config
from training.config import ORGANS, load_config
from training.dataset import write_packs
from training.validation import case_dice, mean_dice, validation_cases

CPU = torch.device("cpu")
TILE = (8, 16, 16)


class Threshold(nn.Module):
    """Calls bright voxels parotid and middling ones brain, as `a_case` is drawn."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, 2, D, H, W) HU and mm to logits."""
        hu = image[:, 0]
        logits = torch.full((len(hu), len(ORGANS), *hu.shape[1:]), -9.0)
        logits[:, ORGANS.index("Parotid_L")] = (hu - 150) / 5
        logits[:, ORGANS.index("Brain")] = torch.minimum((hu - 70) / 5, (130 - hu) / 5)
        return logits


def held(tmp_path: Path, *cases: object, wanted: int = 9) -> list:
    pack = write_packs(cases, tmp_path / "validation")[0]
    config = load_config(
        a_config(tmp_path, steps=1), [f'data.validation_packs=["{pack}"]', f"validation.cases={wanted}"]
    )
    return validation_cases(config, CPU)


def test_what_is_drawn_right_scores_high_and_what_is_missed_nothing(tmp_path: Path) -> None:
    (case,) = held(tmp_path, a_case())

    scores = case_dice(Threshold(), case, TILE, torch.float32)
    assert scores.keys() == {"Parotid_L", "Brain"}
    assert min(scores.values()) > 0.8

    class Nothing(Threshold):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) - 1e4

    assert set(case_dice(Nothing(), case, TILE, torch.float32).values()) == {0.0}


def test_beyond_the_known_part_nothing_counts(tmp_path: Path) -> None:
    """A parotid known up to its middle scores as high, though the rest of it is drawn too."""
    whole, half = held(
        tmp_path,
        a_case("whole", {"Parotid_L": (-np.inf, np.inf)}),
        a_case("half", {"Parotid_L": (-np.inf, 18.0)}),
    )
    truth, counted = half.organs["Parotid_L"]
    assert 0 < (truth & counted).sum() < truth.sum()
    scores = [case_dice(Threshold(), case, TILE, torch.float32)["Parotid_L"] for case in (whole, half)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)


def test_the_mean_is_over_the_cases_that_know_an_organ(tmp_path: Path) -> None:
    cases = held(tmp_path, a_case("both"), a_case("parotid", {"Parotid_L": (-np.inf, np.inf)}))

    means = mean_dice(Threshold(), cases, TILE, torch.float32)

    singles = [case_dice(Threshold(), case, TILE, torch.float32) for case in cases]
    assert list(means) == ["Brain", "Parotid_L"]
    assert means["Parotid_L"] == pytest.approx((singles[0]["Parotid_L"] + singles[1]["Parotid_L"]) / 2)
    assert means["Brain"] == singles[0]["Brain"]


def test_as_many_cases_as_asked_are_spread_over_all(tmp_path: Path) -> None:
    cases = held(tmp_path, *(a_case(str(index)) for index in range(7)), wanted=3)

    assert [case.name for case in cases] == ["0", "3", "6"]
