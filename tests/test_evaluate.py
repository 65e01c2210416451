"""Evaluation: what is counted, what it comes to, and what is written where."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from model.bundle import Bundle, write_bundle
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from model.network_input import Preprocessing
from model.segmenter import Segmentation
from model.structures import STRUCTURES
from model.unet import UNet3D, UNetConfig
from tests.band_bundle import write_band_bundle
from tests.paths import REPOSITORY
from training import evaluate
from training.config import ORGANS
from training.dataset import Case, Frame, bits, described, write_packs
from training.evaluate import judge_case, over_the_image, score_case, with_every_output
from training.evaluation_report import Judged, worst_and_median, write_card, write_report
from training.figures import snapshot
from training.goals import DICE_GOALS
from training.model_card import COMPARISONS, accuracy, clinical_table, model_card
from training.scores import (
    Score,
    Statistic,
    Summary,
    as_table,
    from_table,
    mean_over_organs,
    read_baseline,
    score_organ,
    statistic,
    summarise,
)

WHOLE = (-np.inf, np.inf)
SPACING_MM = (2.0, 2.0, 2.0)
AT_THE_PAROTID, AT_THE_BRAIN = np.s_[4:10, 10:20, 30:40], np.s_[14:24, 10:24, 10:40]


def block(where: object, shape: tuple[int, ...] = (28, 32, 48)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=bool)
    mask[where] = True
    return mask


def a_case(name: str = "case", group: str = "tcia21") -> Case:
    """A parotid and a brain in tissue, as bright as the band network takes them for; one grid."""
    parotid, brain = block(AT_THE_PAROTID), block(AT_THE_BRAIN)
    image = np.full(parotid.shape, -1000, np.int16)
    image[:, 4:28, 4:44] = 0
    image[parotid], image[brain] = 325, 1400
    frame = Frame((0.0, 0.0, 0.0), SPACING_MM)
    labels = bits({"Parotid_L": parotid, "Brain": brain})
    return Case(name, group, image, frame, labels, frame, {"Parotid_L": WHOLE, "Brain": WHOLE})


class Draws:
    """A segmenter that draws given masks, (slices, rows, columns) on the grid that is asked for."""

    def __init__(self, **masks: NDArray[np.bool_]) -> None:
        self.masks = masks
        self.bundle = SimpleNamespace(structure_names=("Parotid_L", "Brain", "Parotid_L^Clin"))

    def segment(self, volume: CTVolume, grid: SliceGrid) -> Segmentation:
        """Masks must be asked for on the grid of the reference."""
        assert volume.grid.shape == volume.hu.shape
        assert all(mask.shape == grid.shape for mask in self.masks.values())
        return Segmentation({name: Mask.from_full(mask) for name, mask in self.masks.items()}, (), {})


def one(organ: str = "Brain", value: float = 0.5, group: str = "tcia21", case: str = "a") -> Score:
    return Score(
        case, group, organ, is_there=True, is_drawn=True,
        dice=value, surface_dice=value, hd95_mm=1.0, added_path_mm=10.0,
    )  # fmt: skip


def test_an_organ_of_which_one_mask_is_empty_counts_as_nought_and_of_which_both_are_does_not_count() -> None:
    there, empty = block(AT_THE_BRAIN), block(np.s_[:0])
    missed = score_organ("a", "g", "Brain", (there, empty), SPACING_MM)
    invented = score_organ("b", "g", "Brain", (empty, there), SPACING_MM)
    neither = score_organ("c", "g", "Brain", (empty, empty), SPACING_MM)
    assert (missed.dice, missed.surface_dice, invented.dice, invented.surface_dice) == (0, 0, 0, 0)
    assert np.isnan([missed.hd95_mm, invented.hd95_mm, invented.added_path_mm, neither.dice]).all()
    assert missed.added_path_mm > 0
    (row,) = summarise([missed, invented, neither])
    assert (row.there, row.missed, row.invented, row.dice.cases, row.hd95_mm.cases) == (1, 1, 1, 2, 0)
    assert row.dice.mean == row.surface_dice.mean == 0


def test_a_tolerance_of_one_voxel_reaches_the_next_voxel() -> None:
    """The spacing of a NIfTI file has 32 bits: 0.98 mm is a little more than a lens's tolerance of 0.98 mm."""
    lens = block(np.s_[10:14, 10:16, 20:26])
    spacing_mm = (2.5, *(float(np.float32(0.98)),) * 2)
    assert score_organ("a", "g", "Lens_L", (lens, np.roll(lens, 1, axis=2)), spacing_mm).surface_dice == 1


def test_every_organ_is_held_to_its_own_tolerance() -> None:
    """2 mm beside is within a parotid's tolerance and beyond a brain's."""
    gt = block(AT_THE_PAROTID)
    masks = gt, np.roll(gt, 1, axis=0)
    assert score_organ("a", "g", "Parotid_L", masks, SPACING_MM).surface_dice == 1
    assert score_organ("a", "g", "Brain", masks, SPACING_MM).surface_dice < 1


def test_statistics_over_cases() -> None:
    """Mean, sample deviation, median; an interval about the mean that is the same every time."""
    values = [0.1, 0.4, 0.7, float("nan")]
    found = statistic(values)
    assert (found.cases, found.mean, found.deviation, found.median) == pytest.approx((3, 0.4, 0.3, 0.4))
    assert found.low is not None
    assert found.high is not None
    assert 0.1 <= found.low < 0.4 < found.high <= 0.7
    assert found == statistic(values)


def test_statistics_of_few_cases_say_no_more_than_these_allow() -> None:
    assert statistic([float("nan")]) == Statistic(0, None, None, None, None, None)
    assert statistic([0.5]) == Statistic(1, 0.5, None, 0.5, None, None)


def test_interval_grows_narrower_with_the_cases() -> None:
    few, many = statistic([0.2, 0.8] * 3), statistic([0.2, 0.8] * 50)
    assert many.high is not None
    assert few.high is not None
    assert 0 < many.high - 0.5 < (few.high - 0.5) / 2


def test_summaries_come_in_the_usual_order_and_survive_json() -> None:
    scores = [one("Parotid_L"), one("Brain"), one("Brain", 0.7, case="b"), one("Brain", group="openkbp")]
    rows = summarise(scores)
    assert [(row.group, row.organ) for row in rows] == [
        ("openkbp", "Brain"), ("tcia21", "Brain"), ("tcia21", "Parotid_L"),
    ]  # fmt: skip
    again = from_table(json.loads(json.dumps(as_table(rows, 9), allow_nan=False)))
    assert [row.organ for row in again] == [row.organ for row in rows]
    assert again[1].dice.mean == pytest.approx(0.6)
    assert mean_over_organs(rows[1:], lambda row: row.dice) == pytest.approx(0.55)


def test_only_what_is_known_is_counted() -> None:
    """Neither an organ that nobody contoured, nor slices in which an organ's truth is not known."""
    case = a_case()
    brain = case.organ("Brain")
    half = replace(case, known={"Brain": (0.0, 17 * 2.0)})
    lower = brain.copy()
    lower[18:] = False
    (score,) = score_case(Draws(Brain=lower, Parotid_L=~brain), half)
    assert (score.organ, score.dice, score.surface_dice) == ("Brain", 1, 1)
    assert {each.organ: each.dice for each in score_case(Draws(Brain=lower), case)}["Brain"] < 0.8


def test_slices_without_an_image_are_not_counted() -> None:
    case = a_case()
    cut = replace(case, image=case.image[:18])
    drawn = case.organ("Brain")
    drawn[18:] = False
    assert {each.organ: each.dice for each in score_case(Draws(Brain=drawn), cut)}["Brain"] == 1


def test_what_is_drawn_beyond_the_box_around_all_organs_counts() -> None:
    """Packs hold labels cut to the organs; a contour beside them is an error all the same."""
    case = a_case()
    inner = np.s_[4:24, 10:24, 10:40]
    cropped = replace(
        case, labels=case.labels[inner].copy(), label_frame=Frame((8.0, 20.0, 20.0), SPACING_MM)
    )
    grown = over_the_image(cropped)
    assert (grown.labels == case.labels).all()
    assert grown.label_frame == case.label_frame
    beyond = case.organ("Brain") | block(np.s_[14:24, 26:31, 2:46])
    scores = {each.organ: each for each in score_case(Draws(Brain=beyond), cropped)}
    assert scores["Brain"].dice < 0.8


def test_labels_finer_than_the_image_grow_by_whole_voxels() -> None:
    """The origin moves by as many voxels as are added, and none lies outside of the image."""
    case = a_case()
    fine = replace(
        case, labels=np.ones((4, 6, 6), np.uint32), label_frame=Frame((9.0, 20.5, 20.5), (2.0, 0.5, 0.5))
    )
    grown = over_the_image(fine)
    first, last = grown.label_frame.extent(grown.labels.shape)
    assert grown.label_frame.origin_mm == (1.0, 0.0, 0.0)
    assert (first >= 0).all()
    assert (last <= case.image_frame.extent(case.image.shape)[1]).all()
    assert np.argwhere(grown.labels)[0].tolist() == [4, 41, 41]


def test_picture_is_of_the_slice_with_the_largest_difference() -> None:
    case = a_case()
    gt = case.organ("Brain")
    pred = gt.copy()
    pred[20, 12:22, 10:30] = False
    shot = snapshot(case, gt, pred, case.label_frame)
    assert shot is not None
    assert shot.gt.sum() - shot.pred.sum() == 200
    assert (shot.hu[shot.gt] == 1400).all()
    assert (shot.hu == -1000).any()
    assert snapshot(case, gt & False, gt & False, case.label_frame) is None


def test_picture_on_a_finer_grid_shows_the_same_place() -> None:
    """Reference contours may have four times the image's resolution: the CT is looked up where they lie."""
    case = a_case()
    fine = Frame((28.0, 19.5, 19.5), (2.0, 1.0, 1.0))
    gt = np.zeros((10, 30, 62), dtype=bool)
    gt[:, 1:28, 1:60] = True
    shot = snapshot(case, gt, gt, fine)
    assert shot is not None
    assert (shot.hu[2:26, 2:58] == 1400).all()


def test_worst_and_median_case() -> None:
    values = {"a": 0.9, "b": 0.2, "c": 0.8, "d": 0.7, "e": 0.6}
    case = a_case()
    gt = case.organ("Brain")
    shot = snapshot(case, gt, gt, case.label_frame)
    judged = [Judged(one(value=value, case=name), shot) for name, value in values.items()]
    judged.append(Judged(replace(one(case="neither"), is_there=False, is_drawn=False), None))
    captions = [caption for caption, _ in worst_and_median(judged)]
    assert [caption.split()[0] for caption in captions] == ["worst", "median"]
    assert ": b\n" in captions[0]
    assert ": d\n" in captions[1]


def row_of(text: str, organ: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {organ} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def human(value: float) -> dict[str, Summary]:
    return {
        row.organ: row for row in summarise([one("Brain", value, "tcia"), one("Parotid_L", value, "tcia")])
    }


def test_human_stands_beside_the_model_where_the_contours_are_of_one_protocol() -> None:
    """Within 5 % they are alike; contours of other hands and coarser pixels are not compared at all."""
    rows = summarise([one("Brain", 0.91), one("Parotid_L", 0.80)])
    text = "\n".join(accuracy(rows, human(0.95), [], {}))
    assert row_of(text, "Brain")[7:9] == ["0.950", "-4.0 alike"]
    assert row_of(text, "Parotid_L")[7:9] == ["0.950", "-15.0 worse"]
    other = "\n".join(accuracy(summarise([one("Brain", 0.91, "openkbp")]), human(0.95), [], {}))
    assert "0.950" not in other
    assert row_of("\n".join(accuracy(summarise([one("Brain", 0.99)]), human(0.9), [], {})), "Brain")[
        8
    ].endswith("better")


def test_goals_stand_beside_the_figures_and_what_lacks_is_said() -> None:
    """By how much a goal is missed, in points; organs and data without a goal say nothing."""
    stem = "Brainstem^Clin"
    rows = summarise([one(stem, 0.73, "openkbp"), one("Larynx", 0.705, "openkbp"), one("Brain", 0.91)])
    text = "\n".join(accuracy(rows, human(0.95), [], {}))
    assert row_of(text, stem)[7] == "0.85 (-12.0)"
    assert row_of(text, "Larynx")[7] == "0.70 (+0.5)"
    cord = "\n".join(accuracy(summarise([one("SpinalCord^Clin", 0.799, "openkbp")]), {}, [], {}))
    assert row_of(cord, "SpinalCord^Clin")[7] == "0.80 (-0.1)"
    assert "- Dice on openkbp, as these clinics draw, reached: Larynx 0.705 of 0.70." in text
    missed = "Brainstem^Clin 0.730 of 0.85 (by 12.0 points)"
    assert f"- Dice on openkbp, as these clinics draw, not reached: {missed}." in text
    assert "of what is sent" not in text
    assert "second person's, reached: Brain." in text
    assert "second person's, not reached: none." in text
    assert "goal" not in "\n".join(accuracy(summarise([one("Brain", group="elsewhere")]), {}, [], {}))


def test_what_is_sent_is_asked_for_as_much_and_has_lines_of_its_own() -> None:
    """The sent organ misses what the output that is never sent reaches: a reader must see both."""
    rows = summarise(
        [
            one("Brainstem^Clin", 0.86, "openkbp"),
            one("Brainstem", 0.75, "openkbp-as-sent"),
            one("Parotid_L", 0.81, "openkbp-as-sent"),
        ]
    )
    text = "\n".join(accuracy(rows, {}, [], {}))
    assert row_of(text, "Brainstem^Clin")[7] == "0.85 (+1.0)"
    assert row_of(text, "Brainstem")[7] == "0.85 (-10.0)"
    assert "- Dice on openkbp, as these clinics draw, reached: Brainstem^Clin 0.860 of 0.85." in text
    assert "- Dice on openkbp, of what is sent, reached: Parotid_L 0.810 of 0.80." in text
    assert (
        "- Dice on openkbp, of what is sent, not reached: Brainstem 0.750 of 0.85 (by 10.0 points)." in text
    )
    of_clinics, of_sent = text.split("### ")[1:]
    assert ("^Clin` marks" in of_clinics, "^Clin` marks" in of_sent) == (True, False)
    assert ("The organs that are sent" in of_clinics, "The organs that are sent" in of_sent) == (False, True)
    assert all("*goal*" in each and "*people*" in each for each in (of_clinics, of_sent))


def test_no_goal_of_what_is_sent_for_organs_that_are_not() -> None:
    """Larynx and oesophagus are outputs that no reference by another protocol measures."""
    assert DICE_GOALS["openkbp-as-sent"].keys() == {
        "Brainstem", "SpinalCord", "Parotid_L", "Parotid_R", "Bone_Mandible",
    }  # fmt: skip


def test_people_stand_beside_the_model_where_the_contours_are_the_clinics() -> None:
    """Both observers in the row of the organ and in a table of their own."""
    clinical = summarise(
        [
            one("Brainstem^Clin", 0.83, "oncologist"),
            one("Brainstem^Clin", 0.84, "radiographer"),
            one("Larynx", 0.6, "oncologist"),
        ]
    )
    rows = summarise(
        [
            one("Brainstem^Clin", 0.82, "openkbp"),
            one("Larynx", 0.7, "openkbp"),
            one("Brainstem", 0.8, "openkbp-as-sent"),
        ]
    )
    text = "\n".join(accuracy(rows, human(0.95), clinical, {}))
    assert row_of(text, "Brainstem^Clin")[8] == "0.830, 0.840"
    assert row_of(text, "Brainstem")[8] == "0.830, 0.840"
    assert row_of(text, "Larynx")[8] == "0.600"
    table = clinical_table(clinical)
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| Larynx", "oncologist"], ["| Brainstem^Clin", "oncologist"], ["| Brainstem^Clin", "radiographer"],
    ]  # fmt: skip


def test_organs_that_the_images_end_cuts_are_counted_and_told_apart() -> None:
    """The mean is over all cases; beside it stands that of the whole ones."""
    case = a_case("whole", "openkbp")
    brain = case.organ("Brain")
    cut = replace(case, name="cut", image=case.image[:18])
    half = brain.copy()
    half[:16] = False
    scores = [
        judged.score
        for each, drawn in ((case, brain), (cut, half))
        for judged in judge_case(Draws(Brain=drawn), each)
        if judged.score.organ == "Brain"
    ]
    assert [score.is_cut for score in scores] == [False, True]
    (row,) = summarise(scores)
    assert (row.dice.cases, row.whole_dice.cases) == (2, 1)
    assert row.whole_dice.mean == 1
    assert row.dice.mean == pytest.approx((1 + 2 / 3) / 2, abs=0.01)


def test_what_is_sent_is_measured_against_clinics_in_a_group_of_its_own() -> None:
    """The clinics' reference judges the output that was taught it, and apart from that the organ that is sent."""
    case = a_case("clinical", "openkbp")
    labels = bits({"Parotid_L^Clin": case.organ("Brain")})
    case = replace(case, labels=labels, known={"Parotid_L^Clin": WHOLE})
    brain = case.organ("Parotid_L^Clin")
    scores = {
        (score.group, score.organ): score.dice
        for score in score_case(Draws(**{"Parotid_L^Clin": brain, "Parotid_L": ~brain}), case)
    }
    assert scores == {("openkbp", "Parotid_L^Clin"): 1, ("openkbp-as-sent", "Parotid_L"): 0}
    card = "\n".join(accuracy(summarise([one("Parotid_L", 0.7, "clinic-as-sent")]), {}, [], {}))
    assert "The organs that are sent" in card
    assert "*people*" in card
    assert "goal" not in card


def test_organs_that_are_taught_but_not_offered_are_measured_too(tmp_path: Path) -> None:
    """Larynx and oesophagus; the bundle itself offers no more than before, and its card says so."""
    network = UNet3D(UNetConfig(outputs=len(ORGANS), channels=(4,), blocks=(0,), planar=(True,), strides=()))
    offered = tuple(organ.name for organ in STRUCTURES)
    write_bundle(
        tmp_path, network, name="n", version="1", structure_names=offered, output_names=ORGANS,
        preprocessing=Preprocessing(SPACING_MM, 4.0), tile=(8, 8, 8), card={},
    )  # fmt: skip
    bundle = Bundle.load(tmp_path)
    assert with_every_output(bundle).structure_names == ORGANS
    silent = replace(bundle, output_names=offered)
    assert with_every_output(silent).structure_names == ORGANS
    others = replace(bundle, structure_names=("Brain", "Larynx"), output_names=("Brain", "Larynx"))
    assert with_every_output(others).structure_names == ("Brain", "Larynx")
    assert bundle.structure_names == offered
    about = json.loads((tmp_path / "model.json").read_text())
    text = model_card(about, summarise([one("Larynx", group="openkbp")]), human(0.9), [], {})
    assert "Measured, but not offered and never sent: Larynx." in text


def test_card_names_the_weights_and_what_was_never_measured() -> None:
    about = {
        "name": "n", "version": "1", "weights_sha256": "ab" * 32, "structures": ["Brain", "Lens_L"],
        "card": {"limits": ["small"]},
    }  # fmt: skip
    text = model_card(about, summarise([one("Brain")]), human(0.9), [], {"tcia21": "figures/x.png"})
    assert "ab" * 32 in text
    assert "Never measured on real CT: Lens_L." in text
    assert "- small" in text
    assert "(figures/x.png)" in text
    assert "training.prepare archive FOLDER --validation FILE" in text
    assert "not said" in text
    assert "Whether these cases were trained on is not known" in text
    about["card"]["trained_on"] = ["ab" * 8]
    text = model_card(about, summarise([one("Brain")]), human(0.9), [], {})
    assert "Cases whose patients were never trained on." in text
    assert "not known" not in text


def test_the_card_links_the_pages_that_lie_beside_it(run: Path, tmp_path: Path) -> None:
    """Those of oarlock's weights; beside a hospital's own card there are none, and none is promised."""
    about = json.loads((run / "bundle" / "model.json").read_text())
    summaries, boxes = from_table(about["card"]["accuracy"]), {}
    (tmp_path / "nnunet.md").touch()

    write_card(tmp_path / "card.md", about, summaries, run, boxes)

    section = "## How it compares, and what decided its design\n\n- [nnunet.md](nnunet.md): nnU-Net"
    assert section in (tmp_path / "card.md").read_text()
    assert "ablations.md" not in (tmp_path / "card.md").read_text()
    assert "How it compares" not in (run / "docs" / "card.md").read_text()
    assert all((REPOSITORY / "docs" / page).exists() for page in COMPARISONS)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole evaluation of the band network on two cases, with its card."""
    folder = tmp_path_factory.mktemp("evaluation")
    bundle = write_band_bundle(folder / "bundle")
    cases = [a_case("first"), a_case("second", "clinic"), replace(a_case("third"), known={"Brain": WHOLE})]
    write_packs(cases, folder / "packs" / "made-validation")
    write_packs([a_case("trained on")], folder / "packs" / "made-train")
    about = json.loads((bundle / "model.json").read_text())
    about["card"] = {"validation_dice": [], "training": "none at all"}
    (bundle / "model.json").write_text(json.dumps(about))
    invoke(folder, "--card", str(folder / "docs" / "card.md"))
    return folder


def invoke(folder: Path, *more: str, out: str = "out") -> str:
    app = evaluate.typer.Typer()
    app.command()(evaluate.main)
    result = CliRunner().invoke(
        app,
        [
            str(folder / "bundle"), "--packs", str(folder / "packs"), "--out", str(folder / out),
            "--device", "cpu", *more,
        ],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return result.output


def test_a_bundle_without_a_card_is_measured_and_gets_one(tmp_path: Path) -> None:
    about = write_band_bundle(tmp_path / "bundle") / "model.json"
    said = json.loads(about.read_text())
    said.pop("card", None)
    about.write_text(json.dumps(said))
    write_packs([a_case("first")], tmp_path / "packs" / "made-validation")

    words = " ".join(invoke(tmp_path).split())

    assert "does not say on whom it was trained" in words
    assert json.loads(about.read_text())["card"]["accuracy"]


def test_where_the_report_cannot_be_written_nothing_is_measured_first(tmp_path: Path) -> None:
    write_band_bundle(tmp_path / "bundle")
    write_packs([a_case("first")], tmp_path / "packs" / "made-validation")
    (tmp_path / "file").touch()
    app = evaluate.typer.Typer()
    app.command()(evaluate.main)

    result = CliRunner().invoke(
        app,
        [
            str(tmp_path / "bundle"),
            "--packs",
            str(tmp_path / "packs"),
            "--out",
            str(tmp_path / "file" / "out"),
        ],
    )

    assert result.exit_code == 1
    assert "Not a directory; the bundle's accuracy and the card are as they were" in " ".join(
        result.output.split()
    )
    assert "measuring" not in result.output


def test_what_a_bundle_was_trained_on_is_not_measured_but_as_a_trial(tmp_path: Path) -> None:
    """Its own cases say nothing of a network's accuracy; the card says that no patient was trained on."""
    about = write_band_bundle(tmp_path / "bundle") / "model.json"
    again = replace(a_case("seen again"), patient="of a patient")
    write_packs([a_case("seen"), again, a_case("new")], tmp_path / "packs" / "a-validation")
    (seen, *_) = described((tmp_path / "packs").iterdir())
    said = json.loads(about.read_text())
    said["card"] = {"trained_on": [seen.mark, again.patient]}
    about.write_text(json.dumps(said))
    words = [str(tmp_path / "bundle"), "--packs", str(tmp_path / "packs"), "--out", str(tmp_path / "out")]
    app = evaluate.typer.Typer()
    app.command()(evaluate.main)

    result = CliRunner().invoke(app, words)

    assert result.exit_code == 2
    assert "2 of these cases, or their patients, were trained on, seen among them" in " ".join(
        result.output.replace("│", " ").split()
    )
    assert CliRunner().invoke(app, [*words, "--cases", "1"]).exit_code == 0
    assert json.loads(about.read_text()) == said


def test_a_run_measures_validation_cases_alone(run: Path) -> None:
    """Every known organ of every case of the folder's validation packs, found as it is."""
    with (run / "out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["case"], row["organ"]) for row in rows] == [
        ("first", "Parotid_L"), ("first", "Brain"),
        ("second", "Parotid_L"), ("second", "Brain"), ("third", "Brain"),
    ]  # fmt: skip
    assert all(float(row["dice"]) > 0.8 for row in rows)
    with (run / "out" / "summary.csv").open() as file:
        brain = next(
            row for row in csv.DictReader(file) if row["group"] == "tcia21" and row["organ"] == "Brain"
        )
    assert (brain["there"], brain["dice_cases"]) == ("2", "2")


def test_a_run_pictures_every_organ_and_reports_it(run: Path) -> None:
    pictures = {path.name for path in (run / "out" / "pictures").iterdir()}
    assert pictures == {
        "tcia21-Brain.png", "tcia21-Parotid_L.png", "clinic-Brain.png", "clinic-Parotid_L.png",
    }  # fmt: skip
    report = (run / "out" / "report.md").read_text()
    assert all(f"pictures/{name}" in report for name in pictures)
    of_clinic, of_tcia21 = report.split("### ")[1:]
    assert (row_of(of_clinic, "Brain")[2], row_of(of_tcia21, "Brain")[2]) == ("1", "2")


def test_a_run_writes_the_accuracy_into_the_bundle(run: Path) -> None:
    about = json.loads((run / "bundle" / "model.json").read_text())
    assert {(row["group"], row["organ"]) for row in about["card"]["accuracy"]} == {
        ("tcia21", "Brain"), ("tcia21", "Parotid_L"), ("clinic", "Brain"), ("clinic", "Parotid_L"),
    }  # fmt: skip
    assert "validation_dice" not in about["card"]
    assert about["card"]["training"] == "none at all"
    assert not (run / "bundle" / "model.json.part").exists()


def test_no_picture_of_a_patient_lies_beside_the_card(run: Path) -> None:
    """Box plots alone, and every one is shown."""
    docs = run / "docs"
    images = {str(path.relative_to(docs)) for path in docs.rglob("*.png")}
    assert images == {"figures/accuracy-clinic.png", "figures/accuracy-tcia21.png"}
    card = (docs / "card.md").read_text()
    assert all(f"({image})" in card for image in images)
    assert "pictures/" not in card


def test_a_trial_changes_neither_bundle_nor_card(run: Path) -> None:
    files = [run / "bundle" / "model.json", run / "docs" / "card.md"]
    before = [path.read_bytes() for path in files]
    output = invoke(run, "--cases", "1", "--card", str(files[1]), out="trial")
    assert "a trial" in output
    assert [path.read_bytes() for path in files] == before


def test_a_folder_without_validation_packs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(evaluate.typer.BadParameter, match="validation"):
        evaluate.pack_files([tmp_path])
    assert evaluate.pack_files([tmp_path / "a.npz"]) == [tmp_path / "a.npz"]


def test_an_organ_that_neither_is_nor_was_drawn_leaves_no_trace(tmp_path: Path) -> None:
    """A case without a parotid, of which none was drawn: no row, no picture."""
    case = a_case()
    case = replace(case, labels=bits({"Brain": case.organ("Brain")}))
    judged = list(judge_case(Draws(Brain=case.organ("Brain")), case))
    assert [(each.score.organ, each.picture is None) for each in judged] == [
        ("Parotid_L", True),
        ("Brain", False),
    ]
    write_report(judged, {"name": "n", "version": "1", "weights_sha256": "0" * 64}, tmp_path)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["tcia21-Brain.png"]
    assert "Parotid" not in (tmp_path / "report.md").read_text()


def test_baseline_holds_every_organ() -> None:
    """The human baseline that comes with the project is of all 21 organs and their surfaces."""
    baseline = read_baseline()
    assert len(baseline) == 21
    assert all(row.surface_dice.mean is not None and row.surface_dice.cases > 20 for row in baseline.values())
