"""Sections of training patients are placed by their brainstem, whoever drew it."""

from dataclasses import replace
from pathlib import Path

import pytest
import typer

from tests.training_cases import a_case
from training.dataset import bits, write_packs
from training.section_atlas import average, brainstem_end_mm, main

WHOLE = (-float("inf"), float("inf"))


@pytest.mark.parametrize("organ", ["Brainstem", "Brainstem^Clin"])
def test_a_patient_is_placed_by_the_lower_end_of_the_brainstem(organ: str) -> None:
    drawn = a_case().organ("Brain")
    case = replace(a_case(), labels=bits({organ: drawn}), known={"Larynx": WHOLE, organ: WHOLE})
    lowest = drawn.any(axis=(1, 2)).argmax()
    assert brainstem_end_mm(case) == case.label_frame.origin_mm[0] + lowest * case.label_frame.spacing_mm[0]


def test_a_patient_without_a_brainstem_has_no_place(tmp_path: Path) -> None:
    """Nor has an atlas without a patient: that is said, with nothing written."""
    assert brainstem_end_mm(a_case()) is None
    with pytest.raises(ValueError, match="no section can be placed"):
        average([])
    with pytest.raises(typer.BadParameter, match="no patient has"):
        main(write_packs([a_case()], tmp_path / "pack"), tmp_path / "atlas")
    assert not (tmp_path / "atlas").exists()
