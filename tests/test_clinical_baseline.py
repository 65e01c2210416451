"""Two observers of a CT against its clinical contours."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from typer.testing import CliRunner

from training import clinical_baseline
from training.clinical_baseline import score_scan
from training.config import ORGANS
from training.dataset import Case, Frame, bits, write_packs
from training.scores import read_clinical_baseline

BIT_OF = {"Brainstem": 5, "Parotid_L": 2}
SPACING_MM = (2.5, 4.0, 4.0)
SHAPE = (12, 20, 24)
FRAME = Frame((-10.0, -40.0, -48.0), SPACING_MM)


def mask(where: object) -> NDArray[np.bool_]:
    found = np.zeros(SHAPE, bool)
    found[where] = True
    return found


BRAINSTEM, PAROTID = mask(np.s_[6:12, 8:12, 8:14]), mask(np.s_[2:6, 6:10, 18:22])


def a_case() -> Case:
    """Brainstem up to the last slice; the parotid is known in its lower half alone."""
    known = {"Brainstem^Clin": (-np.inf, np.inf), "Parotid_L^Clin": (-np.inf, -10.0 + 3.5 * 2.5)}
    labels = bits({"Brainstem^Clin": BRAINSTEM, "Parotid_L^Clin": PAROTID})
    return Case("OKBP_1", "openkbp", np.zeros(SHAPE, np.int16), FRAME, labels, FRAME, known)


def write(
    folder: Path, origin_mm: tuple[float, float, float] = FRAME.origin_mm, **drawn: NDArray[np.bool_]
) -> None:
    """Both observers' masks of scan A; the radiographer's brainstem is the oncologist's."""
    folder.mkdir(exist_ok=True)
    for observer in clinical_baseline.OBSERVERS:
        labels = np.zeros(SHAPE, np.int32)
        for organ, voxels in drawn.items():
            labels[voxels] |= 1 << BIT_OF[organ]
        image = sitk.GetImageFromArray(labels)
        image.SetSpacing(SPACING_MM[::-1])
        image.SetOrigin(origin_mm[::-1])
        sitk.WriteImage(image, str(folder / f"A_{observer}.nii.gz"))


def test_observers_are_judged_where_the_clinic_contoured(tmp_path: Path) -> None:
    """What they drew beyond the heights that the clinic contoured is no fault; a cut organ is told apart."""
    write(tmp_path, Brainstem=BRAINSTEM, Parotid_L=PAROTID | mask(np.s_[5:9, 6:10, 18:22]))
    scores = list(score_scan(a_case(), tmp_path, "A", BIT_OF))
    assert {(score.group, score.organ): score.dice for score in scores} == {
        (observer, f"{organ}^Clin"): 1 for observer in clinical_baseline.OBSERVERS for organ in BIT_OF
    }
    assert {score.organ: score.is_cut for score in scores} == {
        "Brainstem^Clin": True,
        "Parotid_L^Clin": False,
    }


def test_masks_of_another_grid_are_refused(tmp_path: Path) -> None:
    write(tmp_path, (-10.0, -36.0, -48.0), Brainstem=BRAINSTEM)
    with pytest.raises(ValueError, match="not on the grid of OKBP_1"):
        list(score_scan(a_case(), tmp_path, "A", BIT_OF))


def invoke(*arguments: object) -> tuple[int, str]:
    app = clinical_baseline.typer.Typer()
    app.command()(clinical_baseline.main)
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.output


def test_baseline_is_written_for_the_evaluation(tmp_path: Path) -> None:
    write(tmp_path / "bitmask", Brainstem=np.roll(BRAINSTEM, 1, axis=2), Parotid_L=PAROTID)
    (tmp_path / "cases.json").write_text(json.dumps({"A": {"openkbp_case": "OKBP_1"}}))
    (tmp_path / "dataset.json").write_text(json.dumps({"bit_of_label": BIT_OF}))
    code, output = invoke(tmp_path, "--packs", tmp_path, "--out", tmp_path / "clinical.json")
    assert code == 2
    assert "holds no CT" in output
    write_packs([a_case(), replace(a_case(), name="of nobody")], tmp_path / "openkbp-train")
    write_packs([replace(a_case(), group="openkbp-pseudo")], tmp_path / "openkbp-pseudo")
    code, output = invoke(tmp_path, "--packs", tmp_path, "--out", tmp_path / "clinical.json")
    assert code == 0, output
    found = {(row.group, row.organ): row.dice for row in read_clinical_baseline(tmp_path / "clinical.json")}
    assert set(found) == {
        (observer, f"{organ}^Clin") for observer in clinical_baseline.OBSERVERS for organ in BIT_OF
    }
    assert found["oncologist", "Brainstem^Clin"].mean == pytest.approx(5 / 6, abs=1e-4)
    assert found["radiographer", "Parotid_L^Clin"].cases == 1


def test_what_ships_names_observers_and_organs() -> None:
    rows = read_clinical_baseline()
    assert {row.group for row in rows} == set(clinical_baseline.OBSERVERS)
    assert {row.organ for row in rows} <= set(ORGANS)
    assert all(row.dice.mean and 0.5 < row.dice.mean < 1 for row in rows)
