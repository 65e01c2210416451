"""The second observer: two files of one scan, compared organ by organ."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from typer.testing import CliRunner

from model.structures import STRUCTURES
from tests.paths import shared_data
from training import human_baseline
from training.dataset import Frame
from training.human_baseline import on_one_grid, read_reference, score_scan, where_both_drew
from training.scores import Score, read_baseline

BIT_OF = {"Brain": 0, "Parotid_L": 3}
SPACING_MM = (2.5, 1.0, 1.0)


def labels_of(**where: object) -> NDArray[np.uint32]:
    """(slices, rows, columns) organ bits."""
    labels = np.zeros((12, 20, 24), np.uint32)
    for organ, place in where.items():
        labels[place] |= np.uint32(1 << BIT_OF[organ])
    return labels


def write(path: Path, labels: NDArray[np.uint32], start: tuple[int, int, int] = (0, 0, 0)) -> None:
    """A NIfTI file whose first voxel is voxel `start` of the scan."""
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing(SPACING_MM[::-1])
    image.SetOrigin([-100 + x * s for x, s in zip(start[::-1], SPACING_MM[::-1], strict=True)])
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One scan: the brains are alike, though the files are cropped differently; only one drew the parotid."""
    labels = labels_of(Brain=np.s_[4:10, 5:15, 6:20])
    write(tmp_path / "A_radiographer.nii.gz", labels[2:, 3:, 4:], (2, 3, 4))
    labels |= labels_of(Parotid_L=np.s_[1:4, 2:8, 2:8])
    write(tmp_path / "A_oncologist.nii.gz", labels)
    (tmp_path / "organs.json").write_text(json.dumps({"bits": BIT_OF}))
    return tmp_path


def test_observers_are_compared_voxel_by_voxel_of_the_scan(folder: Path) -> None:
    """Whatever box each one's file was cut to; what only the reference has was missed."""
    scores = {score.organ: score for score in score_scan(folder, "A", BIT_OF)}
    assert (scores["Brain"].dice, scores["Brain"].surface_dice) == (1, 1)
    parotid = scores["Parotid_L"]
    assert (parotid.is_there, parotid.is_drawn, parotid.dice) == (True, False, 0)


def test_crops_of_one_scan_come_onto_one_grid() -> None:
    """The grid holds both, and each voxel lies where its own frame says."""
    ones = np.ones((2, 3, 4), np.uint32)
    (a, b), frame = on_one_grid(
        [(ones, Frame((10.0, 0.0, 5.0), SPACING_MM)), (ones, Frame((5.0, 1.0, 7.0), SPACING_MM))]
    )
    assert frame == Frame((5.0, 0.0, 5.0), SPACING_MM)
    assert a.shape == b.shape == (4, 4, 6)
    assert (np.argwhere(a).min(axis=0).tolist(), np.argwhere(b).min(axis=0).tolist()) == (
        [2, 0, 0],
        [0, 1, 2],
    )
    assert a.sum() == b.sum() == ones.sum()


@pytest.mark.parametrize(
    "other", [Frame((0.0, 0.4, 0.0), SPACING_MM), Frame((0.0, 0.0, 0.0), (2.5, 1.0, 0.9))]
)
def test_masks_of_two_grids_are_refused(other: Frame) -> None:
    ones = np.ones((2, 3, 4), np.uint32)
    with pytest.raises(ValueError, match="one grid"):
        on_one_grid([(ones, Frame((0.0, 0.0, 0.0), SPACING_MM)), (ones, other)])


def invoke(*arguments: object) -> tuple[int, str]:
    app = human_baseline.typer.Typer()
    app.command()(human_baseline.main)
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.output


def test_baseline_is_written_for_the_evaluation(folder: Path, tmp_path: Path) -> None:
    """Statistics as the evaluation reads them, the disputed organ named; figures of each scan where asked."""
    code, output = invoke(folder, "--out", tmp_path / "human.json", "--tables", tmp_path / "tables")
    assert code == 0, output
    baseline = read_baseline(tmp_path / "human.json")
    assert {organ: row.surface_dice.mean for organ, row in baseline.items()} == {"Brain": 1}
    assert json.loads((tmp_path / "human.json").read_text())["scans"] == 1
    assert "A Parotid_L: drawn by the oncologist alone" in output
    assert len((tmp_path / "tables" / "human-scores.csv").read_text().splitlines()) == 3


def test_whether_a_gland_is_there_is_counted_apart_from_how_it_is_drawn() -> None:
    """A model that draws every gland is not set beside the zeros of people who disagreed about one."""
    drawn, alone = (
        Score(
            str(case),
            "tcia",
            "Parotid_L",
            is_there=True,
            is_drawn=is_drawn,
            dice=dice,
            surface_dice=dice,
            hd95_mm=1.0,
            added_path_mm=1.0,
        )
        for case, is_drawn, dice in ((1, True, 0.9), (2, False, 0.0))
    )

    (row,) = where_both_drew([drawn, alone])

    assert (row.dice.mean, row.dice.cases, row.missed, row.invented) == (0.9, 1, 1, 0)


def test_a_folder_without_scans_is_refused(tmp_path: Path) -> None:
    (tmp_path / "organs.json").write_text(json.dumps({"bits": BIT_OF}))
    code, output = invoke(tmp_path, "--out", tmp_path / "human.json")
    assert code == 2
    assert "oncologist" in output
    assert not (tmp_path / "human.json").exists()


def test_reference_names_every_organ() -> None:
    """What 28 scans gave is there for all 21 organs, as shares."""
    reference = read_reference()
    assert set(reference) == {organ.name for organ in STRUCTURES}
    assert all(0.6 < each.dice < 1 and 0.8 < each.surface_dice < 1 for each in reference.values())


def test_baseline_agrees_with_what_28_scans_gave() -> None:
    """Most of the scans are the same, so surfaces must agree."""
    reference = read_reference()
    baseline = read_baseline()
    assert set(baseline) == set(reference)
    for organ, row in baseline.items():
        assert row.surface_dice.mean == pytest.approx(reference[organ].surface_dice, abs=0.05), organ


def test_real_observers_of_one_scan() -> None:
    """Of a scan whose files are cropped differently, eye, gland and lung lie where the other observer saw them."""
    root = shared_data() / "tcia-shapes"
    bit_of = json.loads((root / "organs.json").read_text())["bits"]
    chosen = {organ: bit_of[organ] for organ in ("Eye_L", "Lung_L", "Parotid_R")}
    scores = {score.organ: score for score in score_scan(root, "0522c0669", chosen)}
    assert scores["Lung_L"].surface_dice > 0.95
    assert min(score.surface_dice for score in scores.values()) > 0.7
