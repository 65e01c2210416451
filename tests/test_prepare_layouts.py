"""Public layouts of training data: nnU-Net, OpenKBP's CSV files, one NRRD for each organ; and the packs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import SimpleITK as sitk
from rich.console import Console
from typer.testing import CliRunner

from model.network_input import Preprocessing
from tests.paths import REPOSITORY, shared_data
from training import prepare
from training.dataset import Case, Frame, PackWriter, openkbp_mark, read_packs, smoothed
from training.packing import Choices, PackingError, read_absent, read_validation
from training.packing_report import Outcome, Report
from training.prepare import pack
from training.roi_names import load_names
from training.source_nnunet import nnunet_cases
from training.source_nrrd import nrrd_cases
from training.source_openkbp import openkbp_cases
from training.source_openkbp_csv import openkbp_csv_cases
from training.volumes import ImageUnreadableError, Upright, binned, read_image

NAMES = load_names()
WHOLE = (-np.inf, np.inf)
SPACING = (2.5, 2.0, 1.5)  # slices, rows, columns


def an_image() -> np.ndarray:
    """Air, a body that is brighter to the head, back and left."""
    z, y, x = np.mgrid[:24, :40, :48]
    return np.where((y > 5) & (y < 35) & (x > 4) & (x < 44), z + 2 * y + 3 * x - 100, -1000).astype(np.int16)


def an_organ(low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros((24, 40, 48), np.uint8)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = 1
    return mask


LEFT, RIGHT, CORD = (
    an_organ((8, 10, 30), (14, 18, 38)),
    an_organ((8, 10, 8), (14, 18, 16)),
    an_organ((3, 25, 22), (9, 29, 26)),
)


def write(path: Path, array: np.ndarray, origin: tuple[float, float, float] = (7, 8, 9)) -> None:
    """An image in LPS with its origin (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin(origin)
    sitk.WriteImage(image, str(path))


def full(case: Case, organ: str, start: tuple[float, float, float] = (9, 8, 7)) -> np.ndarray:
    at = np.rint((np.array(case.label_frame.origin_mm) - start) / case.label_frame.spacing_mm).astype(int)
    whole = np.zeros((24, 40, 48), np.uint8)
    mask = case.organ(organ)
    whole[tuple(slice(a, a + n) for a, n in zip(at, mask.shape, strict=True))] = mask
    return whole


def left_out(report: Report) -> str:
    return "\n".join(
        f"{line.subject} | {line.part} | {line.reason}"
        for line in report.lines
        if line.outcome is Outcome.LEFT_OUT
    )


def nnunet(root: Path) -> Path:
    """Two cases, of which the second has no right parotid contoured."""
    for name in ("A", "B"):
        write(root / "imagesTr" / f"{name}_0000.nii.gz", an_image())
        write(root / "labelsTr" / f"{name}.nii.gz", LEFT + 2 * RIGHT * (name == "A") + 3 * CORD)
    labels = {"background": 0, "left_parotid": 1, "right_parotid": 2, "SpinalCord": 3, "PTV": 4}
    about = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(about))
    (root / "present_labels.json").write_text(json.dumps({"B": ["left_parotid", "SpinalCord"]}))
    return root


def test_nnunet_cases_have_the_organs_that_their_table_says(tmp_path: Path) -> None:
    """Label names are mapped, an organ that the table does not name is not known, the cord has its range."""
    report = Report()
    cases = {case.name: case for _, case in nnunet_cases(nnunet(tmp_path), Choices(NAMES), report)}

    assert set(cases["A"].known) == {"Parotid_L", "Parotid_R", "SpinalCord"}
    assert set(cases["B"].known) == {"Parotid_L", "SpinalCord"}
    assert np.array_equal(full(cases["A"], "Parotid_R"), RIGHT)
    assert np.array_equal(full(cases["A"], "SpinalCord"), CORD)
    assert cases["A"].known["SpinalCord"] == pytest.approx((9 + 2.5 * 2.5, 9 + 8.5 * 2.5))
    assert np.array_equal(cases["A"].image, an_image())
    assert "label 'PTV'" in left_out(report)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"B": 3}, "B has 3; needed is a list of label names"),
        ({"B": "SpinalCord"}, "B has 'SpinalCord'; needed is a list of label names"),
        ({"b": ["SpinalCord"]}, "names cases that have no labels: b; correct or remove them"),
    ],
)
def test_a_table_of_organs_that_means_no_case_or_no_label_is_refused(
    tmp_path: Path, table: dict[str, object], why: str
) -> None:
    """A misspelt case would count as contoured completely."""
    (nnunet(tmp_path) / "present_labels.json").write_text(json.dumps(table))
    with pytest.raises(PackingError, match=why):
        list(nnunet_cases(tmp_path, Choices(NAMES), Report()))


def test_an_empty_label_is_absent_only_if_that_is_declared(tmp_path: Path) -> None:
    """Nobody knows whether an empty label was drawn: it teaches nothing, unless the operator says more."""
    (nnunet(tmp_path) / "present_labels.json").unlink()
    report = Report()
    silent = {c.name: c for _, c in nnunet_cases(tmp_path, Choices(NAMES), report)}
    absent = Choices(NAMES, absent={"B": frozenset({"Parotid_R", "Parotid_L"})})
    declared = {c.name: c for _, c in nnunet_cases(tmp_path, absent, report)}

    assert "Parotid_R" not in silent["B"].known
    assert declared["B"].known["Parotid_R"] == WHOLE
    assert not declared["B"].organ("Parotid_R").any()
    assert "Parotid_L" not in declared["B"].known
    assert "declared absent: one of both is wrong" in left_out(report)


def test_a_case_with_ignored_voxels_is_left_out(tmp_path: Path) -> None:
    """They would be taught as places without any organ."""
    file = nnunet(tmp_path) / "dataset.json"
    about = json.loads(file.read_text())
    about["labels"]["ignore"] = 5
    file.write_text(json.dumps(about))
    write(tmp_path / "labelsTr/A.nii.gz", LEFT + 5 * RIGHT)
    report = Report()

    cases = [case.name for _, case in nnunet_cases(tmp_path, Choices(NAMES), report)]

    assert cases == ["B"]
    assert "A |  | voxels are labelled ignore" in left_out(report)
    assert "'ignore'" not in left_out(report)


def test_a_broken_image_costs_its_own_case_only(tmp_path: Path) -> None:
    """The file is named, the other case is packed."""
    file = nnunet(tmp_path) / "imagesTr" / "A_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:100])
    report = Report()

    cases = [case.name for _, case in nnunet_cases(tmp_path, Choices(NAMES), report)]

    assert cases == ["B"]
    assert "A_0000.nii.gz cannot be read" in left_out(report)


@pytest.mark.parametrize(
    ("array", "origin"), [(LEFT, (507, 8, 9)), (LEFT[1:], (7, 8, 9)), (LEFT[:, :-1], (7, 8, 9))]
)
def test_labels_beside_the_image_cost_their_case(
    tmp_path: Path, array: np.ndarray, origin: tuple[float, float, float]
) -> None:
    """They would teach that the organs are nowhere."""
    write(nnunet(tmp_path) / "labelsTr/A.nii.gz", array, origin)
    report = Report()

    cases = [case.name for _, case in nnunet_cases(tmp_path, Choices(NAMES), report)]

    assert cases == ["B"]
    assert "A |  | its labels do not lie on the grid of the image" in left_out(report)


def test_an_image_without_a_number_somewhere_is_refused(tmp_path: Path) -> None:
    image = an_image().astype(np.float32)
    image[3, 4, 5] = np.nan
    write(tmp_path / "a.nrrd", image)

    with pytest.raises(ImageUnreadableError, match=r"a\.nrrd holds values that are not finite"):
        read_image(tmp_path / "a.nrrd")


@pytest.mark.parametrize("value", ["x", None, [1, "x"]])
def test_a_label_without_a_number_is_refused(tmp_path: Path, value: object) -> None:
    file = nnunet(tmp_path) / "dataset.json"
    about = json.loads(file.read_text())
    about["labels"]["SpinalCord"] = value
    file.write_text(json.dumps(about))

    with pytest.raises(PackingError, match=r"dataset\.json: a label's value is a whole number"):
        list(nnunet_cases(tmp_path, Choices(NAMES), Report()))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"channel_names": ["CT"], "labels": {"Brain": 1}}, "needed is one, CT, as {"),
        ({"channel_names": {"0": "CT"}}, 'no table "labels"'),
        ({"modality": {"0": "CT"}, "labels": {"0": "background", "1": "Brain"}}, "the other way round"),
        ({"channel_names": {"0": "CT"}, "labels": {"Brain": 1}}, "names SpinalCord, left_parotid, which"),
        ([], "is no table"),
    ],
)
def test_a_description_that_is_not_nnunets_is_refused_with_what_is_wrong(
    tmp_path: Path, about: object, said: str
) -> None:
    (nnunet(tmp_path) / "dataset.json").write_text(json.dumps(about))

    with pytest.raises(PackingError, match=said):
        list(nnunet_cases(tmp_path, Choices(NAMES), Report()))


@pytest.mark.parametrize("read", [read_absent, lambda path: read_validation(str(path))])
def test_a_table_that_is_no_text_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes("patient,organ\nMüller,Brain\n".encode("latin-1"))

    with pytest.raises(PackingError, match=r"table\.csv cannot be read: .* needed is a text file in UTF-8"):
        read(path)


def test_a_data_set_of_another_modality_is_refused(tmp_path: Path) -> None:
    """MR numbers are no Hounsfield units."""
    file = nnunet(tmp_path) / "dataset.json"
    file.write_text(file.read_text().replace('"CT"', '"T1"'))

    with pytest.raises(PackingError, match="needed is one, CT"):
        list(nnunet_cases(tmp_path, Choices(NAMES), Report()))


def sparse(path: Path, upright: np.ndarray, values: np.ndarray | None = None) -> None:
    """Write an upright array as OpenKBP does: rows, columns, slices from head to feet, in C order."""
    inside = upright.transpose(1, 2, 0)[:, :, ::-1].ravel()
    indices = np.flatnonzero(inside)
    data = "" if values is None else values.transpose(1, 2, 0)[:, :, ::-1].ravel()
    rows = (f"{i},{'' if values is None else float(data[i])}" for i in indices)
    path.write_text(",data\n" + "\n".join(rows) + "\n")


def test_what_the_clinics_of_openkbp_drew_are_organs_of_their_own(tmp_path: Path) -> None:
    """Not by the protocol of the 21: those of theirs are known, the cord over its slices, and the 21 are not."""
    write(tmp_path / "imagesTr/A_0000.nii.gz", an_image())
    write(tmp_path / "labelsTr/A.nii.gz", LEFT + 2 * CORD)
    labels = {"background": 0, "Parotid_L": 1, "SpinalCord": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    about = {
        "source_split": "train", "source_patient": "pt_1", "present_labels": ["Parotid_L", "SpinalCord"],
        "label_slices": {"SpinalCord": [3, 8]}, "dropped_labels": {"Larynx": "on another patient"},
    }  # fmt: skip
    (tmp_path / "cases.json").write_text(json.dumps({"A": about}))
    report = Report()

    [(split, case)] = openkbp_cases(tmp_path, Choices(NAMES), report)

    assert (split, case.group, case.patient) == ("train", "openkbp", openkbp_mark("pt_1"))
    assert case.known == {
        "Parotid_L^Clin": WHOLE,
        "SpinalCord^Clin": pytest.approx((9 + 2.5 * 2.5, 9 + 8.5 * 2.5)),
    }
    assert np.array_equal(full(case, "SpinalCord^Clin"), CORD)
    assert np.array_equal(full(case, "Parotid_L^Clin"), LEFT)
    assert "A | Larynx | on another patient" in left_out(report)


def test_an_image_of_the_bundles_data_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    (tmp_path / "cases.json").write_text('{"A": {"source_split": "train"}}')
    app = prepare.typer.Typer()
    app.command()(prepare.main)

    result = CliRunner().invoke(app, ["openkbp", str(tmp_path), "--out", str(tmp_path / "packs")])

    assert result.exit_code == 2
    assert "A_0000.nii.gz cannot be read" in " ".join(result.output.split())


def test_openkbp_csv_files_stand_upright(tmp_path: Path) -> None:
    """Image and organs come out where they are in the patient, cut to where there is an image."""
    folder = tmp_path / "train-pats" / "pt_1"
    folder.mkdir(parents=True)
    z, y, x = np.mgrid[:128, :128, :128]
    body = (z >= 70) & (z < 90) & (np.abs(y - 64) < 10) & (np.abs(x - 64) < 12)
    hu = np.where(body, (z - 80) * 3 + (y - 64) * 5 + (x - 64) * 7, -1000)
    parotid = (z >= 74) & (z < 80) & (y >= 60) & (y < 66) & (x >= 70) & (x < 74)
    cord = (z >= 60) & (z < 85) & (y >= 68) & (y < 71) & (x >= 63) & (x < 66)
    sparse(folder / "ct.csv", body, hu + 1000)
    sparse(folder / "possible_dose_mask.csv", body)
    sparse(folder / "LeftParotid.csv", parotid)
    sparse(folder / "SpinalCord.csv", cord)
    sparse(folder / "Larynx.csv", np.zeros_like(body))
    (folder / "voxel_dimensions.csv").write_text("3.9\n3.8\n2.5\n")
    report = Report()

    [(split, case)] = openkbp_csv_cases(tmp_path, Choices(NAMES), report)

    assert (split, case.name, set(case.known)) == ("train", "pt_1", {"Parotid_L^Clin", "SpinalCord^Clin"})
    assert case.patient == openkbp_mark("pt_1")  # whichever layout a patient of OpenKBP came in
    assert case.image_frame.spacing_mm == (2.5, 3.9, 3.8)
    assert case.image_frame.origin_mm == pytest.approx(
        ((70 - 63.5) * 2.5, (55 - 63.5) * 3.9, (53 - 63.5) * 3.8)
    )
    assert np.array_equal(case.image, hu[70:90, 55:74, 53:76])
    middle = np.argwhere(case.organ("Parotid_L^Clin")).mean(0) * case.label_frame.spacing_mm
    assert middle + case.label_frame.origin_mm == pytest.approx(
        ((76.5 - 63.5) * 2.5, (62.5 - 63.5) * 3.9, (71.5 - 63.5) * 3.8)
    )
    assert case.known["SpinalCord^Clin"] == pytest.approx(((69.5 - 63.5) * 2.5, (84.5 - 63.5) * 2.5))


def test_exchanged_sides_are_taught_from_no_layout(tmp_path: Path) -> None:
    """Whatever the labels or the files are called by, the left one is the one farther to the left."""
    file = nnunet(tmp_path / "nnunet") / "dataset.json"
    about = json.loads(file.read_text())
    about["labels"] |= {"left_parotid": 2, "right_parotid": 1}
    file.write_text(json.dumps(about))
    write(tmp_path / "S" / "CT_IMAGE.nrrd", an_image())
    for name, mask in (("Parotid_Lt", RIGHT), ("Parotid_Rt", LEFT), ("Spinal-Cord", CORD)):
        write(tmp_path / "S" / "segmentations" / f"{name}.nrrd", mask)
    report = Report()

    of_nnunet = {case.name: case for _, case in nnunet_cases(tmp_path / "nnunet", Choices(NAMES), report)}
    [(_, of_nrrd)] = nrrd_cases(tmp_path / "S", Choices(NAMES), report)

    for case in (of_nnunet["A"], of_nrrd):
        assert set(case.known) == {"SpinalCord"}
        assert all(f"{case.name} | Parotid_{side} | " in left_out(report) for side in "LR")


def test_a_broken_csv_file_costs_its_own_patient_only(tmp_path: Path) -> None:
    """It is named with its reason."""
    (tmp_path / "pt_2").mkdir()
    (tmp_path / "pt_2" / "ct.csv").write_text(",data\n99999999,3\n")
    (tmp_path / "pt_2" / "voxel_dimensions.csv").write_text("1\n1\n1\n")
    report = Report()

    assert not list(openkbp_csv_cases(tmp_path, Choices(NAMES), report))
    assert "pt_2 |  | cannot be read: ct.csv has indices beyond 128 × 128 × 128 voxels" in left_out(report)


def test_csv_patients_of_one_name_are_left_out_and_named(tmp_path: Path) -> None:
    for hospital in ("A", "B"):
        (tmp_path / hospital / "pt_1").mkdir(parents=True)
        (tmp_path / hospital / "pt_1" / "ct.csv").write_text("")
    report = Report()

    assert not list(openkbp_csv_cases(tmp_path, Choices(NAMES), report))
    assert left_out(report).count("2 folders have this name") == 2


def test_nrrd_files_with_hyphens_and_underscores_are_the_same_organs(tmp_path: Path) -> None:
    """Both spellings of the TCIA set, its Orbit as the eye; what contradicts itself is left out."""
    for scan, join in (("0522c0002", "-"), ("0522c0659", "_")):
        folder = tmp_path / "oncologist" / scan
        write(folder / "CT_IMAGE.nrrd", an_image())
        write(folder / "segmentations" / f"Parotid{join}Lt.nrrd", LEFT)
        write(folder / "segmentations" / f"Orbit{join}Rt.nrrd", RIGHT)
        write(folder / "segmentations" / f"Spinal{join}Cord.nrrd", CORD)
        write(folder / "segmentations" / f"Cochlea{join}Lt.nrrd", 0 * CORD)
        write(folder / "segmentations" / "Brain.nrrd", RIGHT, origin=(7, 8, 19))
    report = Report()
    absent = {"0522c0659": frozenset({"Cochlea_L", "Brain", "Parotid_L"})}

    cases = [case for _, case in nrrd_cases(tmp_path, Choices(NAMES, absent), report)]

    assert [case.name for case in cases] == ["oncologist/0522c0002", "oncologist/0522c0659"]
    assert set(cases[0].known) == {"Parotid_L", "Eye_R", "SpinalCord"}
    assert set(cases[1].known) == {"Cochlea_L", "Eye_R", "SpinalCord"}
    assert not cases[1].organ("Cochlea_L").any()
    for case in cases:
        assert np.array_equal(full(case, "Parotid_L"), LEFT)
        assert np.array_equal(full(case, "Eye_R"), RIGHT)
    assert left_out(report).count("it does not lie on the grid of the CT") == 2
    assert left_out(report).count("Cochlea_L (Cochlea") == 2


def test_a_patient_of_nrrd_files_is_known_again_from_another_folder(tmp_path: Path) -> None:
    """Else who was trained on from one folder is measured from another."""
    for scan in ("a", "b"):
        write(tmp_path / "site" / scan / "CT_IMAGE.nrrd", an_image())
        write(tmp_path / "site" / scan / "segmentations" / "Parotid_L.nrrd", LEFT)
    near, far = (
        {case.name: case for _, case in nrrd_cases(root, Choices(NAMES), Report())}
        for root in (tmp_path / "site", tmp_path)
    )

    assert near["a"].patient == far["site/a"].patient
    assert len({near["a"].patient, near["b"].patient, ""}) == 3


def test_a_mask_below_nought_is_empty_and_a_clinics_own_table_comes_first(tmp_path: Path) -> None:
    """An organ of no voxel would be taught as absent; who says that an orbit is not the eye knows it."""
    write(tmp_path / "S" / "CT_IMAGE.nrrd", an_image())
    for name, mask in (("Brainstem", -CORD.astype(np.int8)), ("Orbit_Lt", LEFT), ("Spinal-Cord", CORD)):
        write(tmp_path / "S" / "segmentations" / f"{name}.nrrd", mask)
    (tmp_path / "names.toml").write_text('[names]\n"Orbit_Lt" = ""\n')
    report = Report()

    [(_, case)] = nrrd_cases(tmp_path, Choices(load_names(tmp_path / "names.toml")), report)

    assert set(case.known) == {"SpinalCord"}
    assert "Brainstem (Brainstem.nrrd) | empty" in left_out(report)
    assert "Orbit_Lt.nrrd | left out by the clinic's table" in left_out(report)


def test_two_files_for_one_organ_cost_that_organ(tmp_path: Path) -> None:
    """Neither the first nor the second is guessed."""
    write(tmp_path / "S" / "CT_IMAGE.nrrd", an_image())
    for name, mask in (("Parotid-Lt", LEFT), ("Parotid_Lt", LEFT), ("Spinal-Cord", CORD)):
        write(tmp_path / "S" / "segmentations" / f"{name}.nrrd", mask)

    [(_, case)] = nrrd_cases(tmp_path, Choices(NAMES), Report())

    assert set(case.known) == {"SpinalCord"}


def test_binned_pixels_stay_where_they_are() -> None:
    """The mean position of what is bright does not move."""
    image = an_image()
    frame = Frame((9, 8, 7), SPACING)

    half, wide = binned(image, frame, (2, 2))

    assert half.shape == (24, 20, 24)
    assert half[5, 10, 12] == pytest.approx(image[5, 20:22, 24:26].mean(), abs=0.51)
    assert wide.origin_mm == (9, 9, 7.75)
    assert wide.spacing_mm == (2.5, 4, 3)


def test_thick_slices_of_a_sagittal_series_are_not_binned() -> None:
    """Only an axis of fine pixels is: along columns lie the slices here."""
    image, frame = np.zeros((30, 30, 8), np.int16), Frame((0, 0, 0), (0.5, 0.5, 2.5))
    labels = np.zeros(image.shape, np.uint32)

    case = Upright(image, frame, labels, frame).case("case", "test", {})

    assert case.image_frame.spacing_mm == (0.5, 1.5, 2.5)
    assert case.image.shape == (30, 10, 8)


def test_sharp_images_are_smoothed_on_reading_as_before_the_network(tmp_path: Path) -> None:
    """Once and no more: coarse images, and such as were smoothed before they were packed, stay as they are."""
    rng = np.random.default_rng(0)
    image = rng.normal(0, 100, (4, 40, 40)).astype(np.int16)

    def case(spacing: float, done: float = 0.0, slices: float = 2.5) -> Case:
        frame = Frame((0, 0, 0), (slices, spacing, spacing))
        return Case("case", "test", image, frame, np.zeros((1, 1, 1), np.uint32), frame, {}, done)

    network = Preprocessing((2.5, 2.0, 2.0), resolution_mm=4.0)
    fine = smoothed(case(1.0), network)
    assert 0 < fine.image.std() < 40
    assert fine.smoothed_to_mm == 4.0
    assert np.array_equal(smoothed(fine, network).image, fine.image)
    for as_it_is in (case(4.0), case(1.0, done=4.0)):
        assert np.array_equal(smoothed(as_it_is, network).image, image)
    thin = smoothed(case(4.0, slices=1.0), network).image
    assert 0 < thin.std() < 90
    writer = PackWriter(tmp_path / "pack")
    writer.add(case(1.0))
    [read] = read_packs(writer.close(), network)
    assert np.array_equal(read.image, fine.image)


def test_a_preparation_that_fails_leaves_the_packs_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new training split beside an old validation split would train on what is measured."""
    data, out = nnunet(tmp_path / "data"), tmp_path / "packs"
    console = Console(quiet=True)
    pack("nnunet", data, Choices(NAMES, validation=frozenset({"A"})), out, console)
    before = {path.name: path.read_bytes() for path in out.glob("*.npz")}
    assert len(before) == 2
    save = np.savez_compressed
    written = []

    def full_disk(file: IO[bytes], **arrays: np.ndarray) -> None:
        written.append(file.name)
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space left"):
        pack("nnunet", data, Choices(NAMES, validation=frozenset({"B"})), out, console)

    assert {path.name: path.read_bytes() for path in out.glob("*.npz")} == before


def test_a_folder_without_cases_leaves_the_packs_of_the_one_before(tmp_path: Path) -> None:
    """Most likely it is not mounted."""
    old = tmp_path / "packs" / "archive-train-00.npz"
    old.parent.mkdir()
    old.write_bytes(b"")
    (tmp_path / "mount").mkdir()

    with pytest.raises(PackingError, match="no case could be packed, and the packs of before stay"):
        pack("archive", tmp_path / "mount", Choices(NAMES), tmp_path / "packs", Console(quiet=True))

    assert old.exists()


def test_packs_of_an_earlier_run_do_not_stay_behind(tmp_path: Path) -> None:
    """A patient who has moved to validation must not be left in an old training pack."""
    old, oldest, other = (tmp_path / "packs" / f"nnunet-train-{end}.npz" for end in ("01", "100", "01-mine"))
    old.parent.mkdir()
    for path in (old, oldest, other):
        path.write_bytes(b"")

    pack("nnunet", nnunet(tmp_path / "data"), Choices(NAMES), tmp_path / "packs", Console(quiet=True))

    assert (old.exists(), oldest.exists(), other.exists()) == (False, False, True)
    assert {case.name for case in read_packs([tmp_path / "packs" / "nnunet-train-00.npz"])} == {"A", "B"}


@pytest.mark.parametrize("source", ["tcia21"])
def test_the_packs_of_the_bundle_come_out_as_they_were(tmp_path: Path, source: str) -> None:
    """Every array and everything known is that of the packs at hand."""
    packs = sorted((REPOSITORY / "runs" / "packs").glob(f"{source}-*.npz"))
    if not packs:
        pytest.skip(f"needs the packs of {source} in runs/packs")

    pack(source, shared_data() / source, Choices(NAMES), tmp_path, Console(quiet=True))

    made = list(read_packs(tmp_path / each.name for each in packs))
    at_hand = list(read_packs(packs))
    assert [case.name for case in made] == [case.name for case in at_hand]
    for new, old in zip(made, at_hand, strict=True):
        assert np.array_equal(new.image, old.image)
        assert np.array_equal(new.labels, old.labels)
        assert (new.image_frame, new.label_frame, new.known) == (old.image_frame, old.label_frame, old.known)
