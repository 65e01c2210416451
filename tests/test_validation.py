"""Validation on the way: the truth scores one, its absence nothing, and what is not known does not count."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training_cases import a_case, a_config
from training.config import ORGANS, load_config
from training.dataset import write_packs
from training.validation import Agreement, case_agreement, mean_agreement, mean_of, validation_cases

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

    scores = case_agreement(Threshold(), case, TILE, torch.float32)
    assert scores.keys() == {"Parotid_L", "Brain"}
    assert min(each.dice for each in scores.values()) > 0.8

    class Nothing(Threshold):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) - 1e4

    assert set(case_agreement(Nothing(), case, TILE, torch.float32).values()) == {(0.0, 0.0)}


def test_surfaces_are_compared_in_mm_at_the_organs_tolerance(tmp_path: Path) -> None:
    """A slice of 2.5 mm too low: within a parotid's 2.85 mm, beyond a brain's 1.01 mm."""
    (case,) = held(tmp_path, a_case())
    truths = {organ: torch.from_numpy(truth) for organ, (truth, _) in case.organs.items()}

    class Shifted(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            logits = torch.full((1, len(ORGANS), *image.shape[2:]), -9.0)
            for organ, truth in truths.items():
                logits[0, ORGANS.index(organ)] = torch.where(truth.roll(-1, 0), 9.0, -9.0)
            return logits

    whole = truths["Brain"].shape
    found = case_agreement(Shifted(), case, whole, torch.float32)

    assert found["Parotid_L"].surface_dice == 1
    assert 0.3 < found["Brain"].surface_dice < 0.9
    assert found["Parotid_L"].dice < 1


def test_the_mean_is_of_each_measure() -> None:
    assert mean_of([Agreement(0.2, 0.4), Agreement(0.4, 0.8)]) == pytest.approx((0.3, 0.6))
    assert mean_of([]) == (0, 0)


def test_beyond_the_known_part_nothing_counts(tmp_path: Path) -> None:
    """A parotid known up to its middle scores as high, though the rest of it is drawn too."""
    whole, half = held(
        tmp_path,
        a_case("whole", {"Parotid_L": (-np.inf, np.inf)}),
        a_case("half", {"Parotid_L": (-np.inf, 18.0)}),
    )
    truth, counted = half.organs["Parotid_L"]
    assert 0 < (truth & counted).sum() < truth.sum()
    scores = [case_agreement(Threshold(), case, TILE, torch.float32)["Parotid_L"] for case in (whole, half)]
    assert scores[1] == pytest.approx(scores[0], abs=0.1)


def test_the_mean_is_over_the_cases_that_know_an_organ(tmp_path: Path) -> None:
    cases = held(tmp_path, a_case("both"), a_case("parotid", {"Parotid_L": (-np.inf, np.inf)}))

    means = mean_agreement(Threshold(), cases, TILE, torch.float32)

    singles = [case_agreement(Threshold(), case, TILE, torch.float32) for case in cases]
    assert list(means) == ["Brain", "Parotid_L"]
    assert means["Parotid_L"] == pytest.approx(mean_of(each["Parotid_L"] for each in singles))
    assert means["Brain"] == singles[0]["Brain"]


def test_as_many_cases_as_asked_are_spread_over_all(tmp_path: Path) -> None:
    cases = held(tmp_path, *(a_case(str(index)) for index in range(7)), wanted=3)

    assert [case.name for case in cases] == ["0", "3", "6"]
