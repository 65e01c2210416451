"""Clinical archives: every contour on its own CT, every patient in one split, every loss with its reason."""

import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from rich.console import Console

from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from model.slice_header import slice_header
from model.suitability import stack_slices
from tests.paths import shared_data
from tests.phantom import make_grid, phantom_hu, write_series
from tests.structure_set_files import Points, outlines, write_structure_set
from tests.structure_set_samples import ORGANS, ct_volume, organ_masks
from training.archive_index import index_archive
from training.dataset import Case, described, patient_mark, read_packs
from training.organ_contours import organ_mask
from training.packing import Choices, PackingError, read_absent, read_validation
from training.packing_report import Outcome, Report
from training.prepare import pack
from training.roi_names import load_names
from training.source_archive import archive_cases
from training.structure_set_match import match
from training.structure_sets import StructureSetUnreadableError, read_structure_set
from training.volumes import upright

NAMES = load_names()
GRID = make_grid()
STRAY = (2, 3, 4)
"""The samples' brain has a voxel of its own in another slice, which here would be a gap."""


def anatomy(grid: SliceGrid) -> dict[str, Mask]:
    """The samples' organs, each in slices that follow each other."""
    masks = organ_masks(grid)
    brain = masks["Brain"].full()
    brain[STRAY] = False
    return masks | {"Brain": Mask.from_full(brain)}


MASKS = anatomy(GRID)
CLINICAL = {"Brain": "Gehirn", "Parotid_L": "Parotis li.", "Parotid_R": "R Parotid", "SpinalCord": "Moelle"}
WHOLE = (-np.inf, np.inf)


@cache
def written() -> list[Path]:
    """The phantom's CT, written once."""
    return write_series(Path(tempfile.mkdtemp()))


def linked(folder: Path) -> list[Path]:
    """The phantom's CT in a folder of its own."""
    folder.mkdir(parents=True)
    for file in written():
        (folder / file.name).hardlink_to(file)
    return sorted(folder.iterdir())


def contours(grid: SliceGrid = GRID) -> dict[str, list[Points]]:
    """The organs of the phantom under the names of a clinic."""
    masks = anatomy(grid)
    return {name: outlines(masks[organ], grid) for organ, name in CLINICAL.items()}


def packed(root: Path, choices: Choices | None = None) -> tuple[list[tuple[str, Case]], Report]:
    report = Report()
    return list(archive_cases(root, choices or Choices(NAMES), report)), report


def reasons(report: Report, outcome: Outcome = Outcome.LEFT_OUT) -> str:
    return "\n".join(
        f"{line.subject} | {line.part} | {line.reason}" for line in report.lines if line.outcome is outcome
    )


def full(case: Case, organ: str, grid: SliceGrid = GRID) -> np.ndarray:
    """An organ of a case on the whole of a straight grid."""
    whole = np.zeros(grid.shape, bool)
    first = grid.positions_mm[0][::-1]
    steps = np.array([grid.spacing_mm[0], *grid.pixel_spacing_mm])
    at = np.rint((np.array(case.label_frame.origin_mm) - first) / steps).astype(int)
    mask = case.organ(organ)
    whole[tuple(slice(a, a + n) for a, n in zip(at, mask.shape, strict=True))] = mask
    return whole


def test_organs_of_a_clinic_come_out_as_they_were_drawn(tmp_path: Path) -> None:
    """Voxel for voxel, nested hole included, the image in its place, and names in three languages mapped."""
    files = linked(tmp_path / "a" / "CT")
    write_structure_set(tmp_path / "elsewhere" / "RS.dcm", files, contours())

    [(split, case)], report = packed(tmp_path)

    assert split == "train"
    assert set(case.known) == set(CLINICAL)
    for organ in CLINICAL:
        assert np.array_equal(full(case, organ), MASKS[organ].full()), organ
    z, y, x = case.image_frame.origin_mm
    index = np.rint((np.array([z, y, x]) - GRID.positions_mm[0][::-1]) / [5, 2, 1.5]).astype(int)
    box = tuple(slice(a, a + n) for a, n in zip(index, case.image.shape, strict=True))
    assert np.array_equal(case.image, phantom_hu(GRID)[box])
    assert reasons(report) == ""


def test_a_cord_counts_only_over_the_slices_on_which_it_was_drawn(tmp_path: Path) -> None:
    """Organs of length carry the range from the lowest slice's lower edge to the highest one's upper edge."""
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), contours())

    [(_, case)], _ = packed(tmp_path)

    slices = np.flatnonzero(MASKS["SpinalCord"].full().any(axis=(1, 2)))
    heights = GRID.positions_mm[slices, 2]
    assert case.known["SpinalCord"] == pytest.approx((heights[0] - 2.5, heights[-1] + 2.5))
    assert case.known["Brain"] == WHOLE


def keyhole(outer: Points, hole: Points) -> Points:
    """One contour around a hole, joined to it by a cut that is gone to and fro, as MIM and Plastimatch write."""
    return np.concatenate([outer, outer[:1], hole, hole[:1]])


def test_a_keyhole_is_the_same_hole_as_a_nested_contour(tmp_path: Path) -> None:
    """Both ways in which vendors write holes give the same voxels."""
    files = linked(tmp_path / "CT")
    z = GRID.positions_mm[20, 2]
    square = np.array([[-40, -40], [40, -40], [40, 40], [-40, 40]]) + 0.13
    outer, hole = (np.column_stack([side * square, np.full(4, z)]) for side in (1.0, 0.5))
    write_structure_set(
        tmp_path / "1.dcm", files, {"Brain": [outer, hole], "Brainstem": [keyhole(outer, hole)]}
    )

    [(_, case)], _ = packed(tmp_path)

    brain = case.organ("Brain")
    assert np.array_equal(brain, case.organ("Brainstem"))
    assert not brain[tuple(n // 2 for n in brain.shape)]
    assert brain.sum() == pytest.approx((80**2 - 40**2) / 3, rel=0.05)


@pytest.mark.parametrize("orientation", ["HFS", "HFP", "FFS", "FFDL", "HFDR", "FFP-unflipped"])
def test_every_way_of_lying_gives_the_same_case(tmp_path: Path, orientation: str) -> None:
    """Head, back and left are where they are in the patient, whatever way rows, columns and slices run."""
    grid = make_grid(orientation, pixel_spacing_mm=(2.0, 2.0), size=(120, 120))
    files = write_series(tmp_path / "CT", phantom_hu(grid), grid, orientation=orientation)
    write_structure_set(tmp_path / "RS.dcm", files, contours(grid))

    [(_, case)], report = packed(tmp_path)

    assert reasons(report) == ""
    upright_grid = make_grid("HFS", pixel_spacing_mm=(2.0, 2.0), size=(120, 120))
    expected = organ_masks(upright_grid)
    for organ in ("Parotid_L", "Parotid_R", "SpinalCord"):
        assert np.array_equal(full(case, organ, upright_grid), expected[organ].full()), organ


@pytest.mark.parametrize("uneven", [False, True])
def test_tilted_and_uneven_slices_are_laid_straight(uneven: bool) -> None:  # noqa: FBT001
    """An organ keeps its middle and its volume."""
    offsets = (
        np.concatenate([np.arange(-100, 0, 2.5), np.arange(0, 101, 5)])
        if uneven
        else np.arange(-100, 101, 2.5)
    )
    grid = make_grid(offsets_mm=offsets, tilt_degrees=0 if uneven else 12)
    masks = organ_masks(grid)
    straight = upright(ct_volume(grid), {"Parotid_L": masks["Parotid_L"], "Parotid_R": masks["Parotid_R"]})

    for organ in ("Parotid_L", "Parotid_R"):
        case = straight.case("case", "test", {organ: WHOLE})
        mask = case.organ(organ)
        x, y, z = ORGANS[organ][0]
        middle = np.argwhere(mask).mean(0) * case.label_frame.spacing_mm + case.label_frame.origin_mm
        assert middle == pytest.approx([z, y, x], abs=1.0)
        volume = mask.sum() * np.prod(case.label_frame.spacing_mm)
        assert volume == pytest.approx(4 / 3 * np.pi * np.prod(ORGANS[organ][1]), rel=0.06)


def test_absent_is_taught_and_not_contoured_is_not(tmp_path: Path) -> None:
    """A declared resected gland is known to be nowhere; an organ nobody drew says nothing."""
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), contours())
    table = tmp_path / "absent.csv"
    table.write_text("patient,organ\nPHANTOM0,Glnd_Submand_L\nPHANTOM0,Parotid_L\n")

    [(_, case)], report = packed(tmp_path, Choices(NAMES, read_absent(table)))

    assert case.known["Glnd_Submand_L"] == WHOLE
    assert not case.organ("Glnd_Submand_L").any()
    assert "Glnd_Submand_R" not in case.known
    assert "Parotid_L" not in case.known
    assert "declared absent: one of both is wrong" in reasons(report)


def test_an_organ_that_another_ct_of_the_patient_has_is_not_taught_as_absent(tmp_path: Path) -> None:
    """Of an operated patient's two CTs, one may be of before."""
    for seed, left_out_there in ((1, ""), (2, "Parotis li.")):
        files = write_series(tmp_path / str(seed) / "CT", seed=seed, PatientID="P1")
        rois = {name: points for name, points in contours().items() if name != left_out_there}
        write_structure_set(tmp_path / str(seed) / "RS.dcm", files, rois)

    cases, report = packed(tmp_path, Choices(NAMES, {"P1": frozenset({"Parotid_L", "Glnd_Submand_L"})}))

    assert len(cases) == 2
    assert all("Parotid_L" not in case.known and case.known["Glnd_Submand_L"] == WHOLE for _, case in cases)
    assert "| Parotid_L | declared absent, but contoured on another CT of the patient" in reasons(report)


def without_references(dataset: Dataset) -> None:
    del dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence


def to_other_images(dataset: Dataset) -> None:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    for image in study.RTReferencedSeriesSequence[0].ContourImageSequence:
        image.ReferencedSOPInstanceUID = generate_uid()


def to_another_frame(dataset: Dataset) -> None:
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"
    for roi in dataset.StructureSetROISequence:
        roi.ReferencedFrameOfReferenceUID = "1.2.3"


def of_another_patient(dataset: Dataset) -> None:
    dataset.PatientID = "SOMEBODY"


def born_on_another_day(dataset: Dataset) -> None:
    dataset.PatientBirthDate = "19991231"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (to_other_images, "none of the 41 images it refers to is here, though the series it names is"),
        (to_another_frame, "Frame of Reference is not that of the CT"),
        (of_another_patient, "the CT of another patient"),
        (born_on_another_day, "the CT of another patient"),
    ],
)
def test_wrong_references_are_refused(tmp_path: Path, change: Callable[[Dataset], None], why: str) -> None:
    """A structure set that is not certainly of this CT and this patient teaches nothing."""
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), contours(), change=change)

    cases, report = packed(tmp_path)

    assert not cases
    assert why in reasons(report)


def test_missing_references_are_made_up_for_by_the_frame_of_reference_if_it_is_unique(tmp_path: Path) -> None:
    """One CT in that frame is the CT, and is said to be; of two, neither is."""
    files = linked(tmp_path / "CT")
    write_structure_set(tmp_path / "RS.dcm", files, contours(), change=without_references)

    cases, report = packed(tmp_path)

    assert len(cases) == 1
    assert "found by its Frame of Reference" in reasons(report, Outcome.REMARK)

    write_series(tmp_path / "CT2", SeriesInstanceUID="1.2.3.4")
    cases, report = packed(tmp_path)

    assert not cases
    assert "2 CT series of the patient have its Frame of Reference" in reasons(report)


def opened(dataset: Dataset) -> None:
    dataset.ROIContourSequence[0].ContourSequence[3].ContourGeometricType = "OPEN_PLANAR"


def between_slices(dataset: Dataset) -> None:
    contour = dataset.ROIContourSequence[0].ContourSequence[2]
    contour.ContourData = [
        float(value) + (1.5 if index % 3 == 2 else 0) for index, value in enumerate(contour.ContourData)
    ]


def on_another_image(dataset: Dataset) -> None:
    series = (
        dataset.ReferencedFrameOfReferenceSequence[0]
        .RTReferencedStudySequence[0]
        .RTReferencedSeriesSequence[0]
    )
    dataset.ROIContourSequence[0].ContourSequence[2].ContourImageSequence = [series.ContourImageSequence[0]]


def with_a_gap(dataset: Dataset) -> None:
    kept = dataset.ROIContourSequence[0].ContourSequence
    heights = sorted({float(contour.ContourData[2]) for contour in kept})
    dataset.ROIContourSequence[0].ContourSequence = [c for c in kept if float(c.ContourData[2]) != heights[3]]


def with_a_line(dataset: Dataset) -> None:
    drawn = dataset.ROIContourSequence[0].ContourSequence
    z = sorted({float(contour.ContourData[2]) for contour in drawn})[3]
    with_a_gap(dataset)
    line = Dataset()
    line.ContourGeometricType, line.NumberOfContourPoints = "CLOSED_PLANAR", 3
    line.ContourData = [0.1, 0.1, z, 20.1, 0.1, z, 10.1, 0.1, z]
    dataset.ROIContourSequence[0].ContourSequence.append(line)


def all_elsewhere(dataset: Dataset) -> None:
    for contour in dataset.ROIContourSequence[0].ContourSequence:
        contour.ContourData = [
            float(value) + (1000 if index % 3 == 2 else 0) for index, value in enumerate(contour.ContourData)
        ]


def emptied(dataset: Dataset) -> None:
    dataset.ROIContourSequence[0].ContourSequence = []


def twice(dataset: Dataset) -> None:
    dataset.StructureSetROISequence[1].ROIName = "whole brain"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (opened, "are not closed (OPEN_PLANAR)"),
        (between_slices, "contours lie on no slice, up to 1.50 mm off"),
        (on_another_image, "on another slice than the image they refer to"),
        (with_a_gap, "1 slices between the first and the last contour have none"),
        (with_a_line, "1 slices between the first and the last contour have none, or none that encloses"),
        (all_elsewhere, "beyond the first and last slice"),
        (emptied, "no contours"),
        (twice, "2 ROIs draw this organ"),
    ],
)
def test_an_organ_whose_contours_do_not_say_where_it_is_costs_only_itself(
    tmp_path: Path, change: Callable[[Dataset], None], why: str
) -> None:
    """The brain is left out with its reason; the cord beside it is not."""
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), contours(), change=change)

    [(_, case)], report = packed(tmp_path)

    assert "Brain" not in case.known
    assert "SpinalCord" in case.known
    assert why in reasons(report)
    assert "| Brain |" in reasons(report)


def test_points_among_contours_are_passed_over_and_said(tmp_path: Path) -> None:
    """A reference point in an organ's ROI does not change the organ."""
    rois = contours()
    middle = GRID.to_patient(0, [(10, 10)])

    def point(dataset: Dataset) -> None:
        item = dataset.ROIContourSequence[0].ContourSequence[-1]
        item.ContourGeometricType, item.NumberOfContourPoints = "POINT", 1

    rois["Gehirn"] = [*rois["Gehirn"], middle]
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), rois, change=point)

    [(_, case)], report = packed(tmp_path)

    assert np.array_equal(full(case, "Brain"), MASKS["Brain"].full())
    assert "1 × POINT passed over" in reasons(report, Outcome.REMARK)


def test_a_contour_that_is_there_twice_counts_once_and_is_said(tmp_path: Path) -> None:
    """Copies would cancel each other, and the slice would teach that the organ is not there."""
    rois = contours()
    rois["Gehirn"] = [*rois["Gehirn"], rois["Gehirn"][3], np.roll(rois["Gehirn"][5], 4, axis=0)[::-1]]
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), rois)

    [(_, case)], report = packed(tmp_path)

    assert np.array_equal(full(case, "Brain"), MASKS["Brain"].full())
    assert "2 × contour that is there twice passed over" in reasons(report, Outcome.REMARK)


def test_an_organ_on_the_wrong_side_is_left_out(tmp_path: Path) -> None:
    """Parotids whose names were exchanged do not teach that left is right."""
    rois = contours()
    rois["Parotis li."], rois["R Parotid"] = rois["R Parotid"], rois["Parotis li."]
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), rois)

    [(_, case)], report = packed(tmp_path)

    assert set(case.known) == {"Brain", "SpinalCord"}
    assert reasons(report).count("the wrong side") == 2


def moved(points: list[Points], left_mm: float) -> list[Points]:
    return [contour + np.array([left_mm, 0, 0]) for contour in points]


@pytest.mark.parametrize(("left", "right"), [(-8, 8), (-20, -60), (60, 20)])
def test_of_a_pair_that_may_be_exchanged_neither_is_taught(tmp_path: Path, left: float, right: float) -> None:
    """Near the middle, or in a picture whose middle is another's, each alone would pass for its name."""
    middle = {name: np.concatenate(contours()[name])[:, 0].mean() for name in ("Parotis li.", "R Parotid")}
    rois = contours()
    for name, x in (("Parotis li.", left), ("R Parotid", right)):
        rois[name] = moved(rois[name], x - middle[name])
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), rois)

    [(_, case)], report = packed(tmp_path)

    assert set(case.known) == {"Brain", "SpinalCord"}
    assert all(f"| Parotid_{side} |" in reasons(report) for side in "LR")


def test_names_that_are_not_mapped_are_listed(tmp_path: Path) -> None:
    """Margins and unknown names are said, not guessed."""
    rois = contours() | {"SpinalCord_PRV": contours()["Moelle"], "Thing": contours()["Gehirn"]}
    write_structure_set(tmp_path / "RS.dcm", linked(tmp_path / "CT"), rois)

    [(_, case)], report = packed(tmp_path)

    assert set(case.known) == set(CLINICAL)
    assert "ROI 'SpinalCord_PRV' | made from an organ (prv), not the organ" in reasons(report)
    assert "ROI 'Thing' | not in the table of names" in reasons(report)


def dated(written: str, approval: str = "") -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset.StructureSetDate = written
        if approval:
            dataset.ApprovalStatus = approval

    return change


@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        (dated("20250101"), dated("20250201"), "Brain"),
        (dated("20250101", "APPROVED"), dated("20250201"), "SpinalCord"),
        (dated("20250101"), dated("20250201", "REJECTED"), "SpinalCord"),
        (dated("20250101"), dated("20250101"), None),
    ],
)
def test_of_several_structure_sets_the_approved_or_else_the_latest_is_taken(
    tmp_path: Path, first: Callable[[Dataset], None], second: Callable[[Dataset], None], taken: str | None
) -> None:
    """And where neither decides, none is."""
    files = linked(tmp_path / "CT")
    write_structure_set(tmp_path / "1.dcm", files, {"Cord": contours()["Moelle"]}, change=first)
    write_structure_set(tmp_path / "2.dcm", files, {"Brain": contours()["Gehirn"]}, change=second)

    cases, report = packed(tmp_path)

    assert [set(case.known) for _, case in cases] == ([{taken}] if taken else [])
    assert reasons(report)


def drawn_by(
    algorithm: str, written: str, approval: str = "", manufacturer: str = ""
) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dated(written, approval)(dataset)
        dataset.Manufacturer = manufacturer
        for roi in dataset.StructureSetROISequence:
            roi.ROIGenerationAlgorithm = algorithm

    return change


@pytest.mark.parametrize(
    ("change", "taken", "said"),
    [
        (drawn_by("AUTOMATIC", "20250201"), "Brain", "a hand-drawn structure set of the same CT was taken"),
        (drawn_by("AUTOMATIC", "20250201", "APPROVED"), "SpinalCord", "an approved structure set"),
        (drawn_by("AUTOMATIC", "20250201", "", "oarlock"), "Brain", "oarlock wrote it itself"),
        (drawn_by("AUTOMATIC", "20250201", "APPROVED", "oarlock"), "SpinalCord", "an approved structure set"),
        (drawn_by("MANUAL", "20250201", "", "Varian"), "SpinalCord", "a later structure set"),
    ],
)
def test_what_a_program_drew_is_not_learned_before_what_people_drew(
    tmp_path: Path, change: Callable[[Dataset], None], taken: str, said: str
) -> None:
    """It may be the network's own mistakes; an approval is a person's word for it."""
    files = linked(tmp_path / "CT")
    write_structure_set(
        tmp_path / "1.dcm", files, {"Brain": contours()["Gehirn"]}, change=drawn_by("MANUAL", "20250101")
    )
    write_structure_set(tmp_path / "2.dcm", files, {"Cord": contours()["Moelle"]}, change=change)

    [(_, case)], report = packed(tmp_path)

    assert set(case.known) == {taken}
    assert said in reasons(report)


def test_contours_of_a_program_alone_are_learned_and_pointed_out(tmp_path: Path) -> None:
    """Unless it was oarlock: from itself it learns nothing."""
    files = linked(tmp_path / "CT")
    write_structure_set(tmp_path / "RS.dcm", files, contours(), change=drawn_by("AUTOMATIC", "20250101"))

    cases, report = packed(tmp_path)

    assert len(cases) == 1
    assert "RS.dcm |  | a program drew all of it" in reasons(report, Outcome.REMARK)

    write_structure_set(
        tmp_path / "RS.dcm", files, contours(), change=drawn_by("AUTOMATIC", "20250101", "", "oarlock")
    )
    cases, report = packed(tmp_path)

    assert not cases
    assert "no structure set to learn from was drawn on it" in reasons(report)


def test_a_patient_whose_folder_is_a_link_is_found(tmp_path: Path) -> None:
    """And a link to where it came from is not followed for ever."""
    write_structure_set(tmp_path / "far" / "RS.dcm", linked(tmp_path / "far" / "CT"), contours())
    (tmp_path / "far" / "back").symlink_to(tmp_path / "archive")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "patient").symlink_to(tmp_path / "far")

    [(_, case)], report = packed(tmp_path / "archive")

    assert set(case.known) == set(CLINICAL)
    assert reasons(report) == ""


def patients(root: Path, seeds: Sequence[int]) -> None:
    """Several patients with two CTs each, every file in one folder."""
    for seed in seeds:
        for study in ("a", "b"):
            files = write_series(root / f"{seed}{study}", seed=seed * 10 + ord(study), PatientID=f"P{seed}")
            write_structure_set(root / f"RS{seed}{study}.dcm", files, {"Cord": contours()["Moelle"]})
    flat = root / "all"
    flat.mkdir()
    for index, path in enumerate(sorted(p for p in root.rglob("*.dcm"))):
        path.rename(flat / f"{index:05d}")


def test_patients_in_one_folder_are_told_apart_and_each_is_in_one_split(tmp_path: Path) -> None:
    """Four CTs of two patients; the listed patient's two are for validation, and the packs say so."""
    patients(tmp_path / "archive", [1, 2])
    listed = tmp_path / "validation.txt"
    listed.write_text("P2  # the second\n")

    report = pack(
        "archive",
        tmp_path / "archive",
        Choices(NAMES, validation=read_validation(str(listed))),
        tmp_path / "packs",
        Console(quiet=True),
    )

    train, held = (
        {case.name for case in read_packs([tmp_path / f"packs/archive-{split}-00.npz"])}
        for split in ("train", "validation")
    )
    assert (len(train), len(held)) == (2, 2)
    assert not train & held
    assert reasons(report) == ""
    assert (tmp_path / "packs/archive-report.csv").read_text().count('packed,"contoured: SpinalCord;') == 4


def test_a_patient_is_known_again_in_another_preparation_by_a_mark(tmp_path: Path) -> None:
    """Another CT, years later: it is not measured what another of hers taught. The pack does not say her ID."""
    marks, console = [], Console(quiet=True)
    for seed, validation in ((1, frozenset()), (2, frozenset({"P4711"}))):
        folder, out = tmp_path / str(seed), tmp_path / f"packs{seed}"
        files = write_series(folder / "CT", seed=seed, PatientID="P4711")
        write_structure_set(folder / "RS.dcm", files, {"Cord": contours()["Moelle"]})
        pack("archive", folder, Choices(NAMES, validation=validation), out, console)
        [path] = out.glob("*.npz")
        marks += [case.marks for case in described([path])]
        with np.load(path) as arrays:
            assert b"P4711" not in arrays["about"].tobytes()

    assert marks[0] != marks[1]
    assert marks[0] & marks[1] == {patient_mark("P4711")}


@pytest.mark.parametrize(
    ("other", "shared"),
    [("StudyInstanceUID", "Frame of Reference"), ("FrameOfReferenceUID", "Study")],
)
def test_one_patient_under_two_ids_is_pointed_out(tmp_path: Path, other: str, shared: str) -> None:
    """Two ids in one study or frame of reference may be one patient in both splits."""
    linked(tmp_path / "CT")
    uids = {"SeriesInstanceUID": "1.2.3.4", other: "1.2.3.5"}
    write_series(tmp_path / "again", PatientID="PSEUDONYM", **uids)

    _, report = packed(tmp_path)

    [line] = [line for line in report.lines if "2 Patient IDs share it" in line.reason]
    assert line.subject.startswith(shared)


def test_the_terminal_says_once_what_happened_to_many() -> None:
    """A name that no table holds is one row, with the number of cases that have it."""
    report = Report()
    for number in range(300):
        report.left_out(f"CT-{number}", "not in the table of names", "ROI 'Boost'")
    console = Console(record=True, width=120, file=io.StringIO())

    report.show(console)

    text = console.export_text()
    assert text.count("Boost") == 1
    assert "300 ×" in text


def test_a_share_keeps_each_patient_where_he_is() -> None:
    """About the share is held out, and more patients do not move the others."""
    choices = Choices(NAMES, validation=0.2)
    splits = [choices.split(f"patient {number}") for number in range(1000)]
    assert 150 < splits.count("validation") < 250
    assert [choices.split(f"patient {number}") for number in range(1000)] == splits
    assert read_validation("20 %") == read_validation("0.2") == 0.2
    with pytest.raises(PackingError, match="neither a share"):
        read_validation("some")


def test_tables_that_name_unknown_patients_or_organs_are_refused(tmp_path: Path) -> None:
    """A misspelt line would silently put a patient into training, or lose a resected gland."""
    write_structure_set(tmp_path / "a/RS.dcm", linked(tmp_path / "a/CT"), contours())
    with pytest.raises(PackingError, match="PHANTOM9"):
        packed(tmp_path / "a", Choices(NAMES, validation=frozenset({"PHANTOM9"})))
    with pytest.raises(PackingError, match="PHANTOM9"):
        packed(tmp_path / "a", Choices(NAMES, absent={"PHANTOM9": frozenset({"Lens_L"})}))
    table = tmp_path / "absent.csv"
    table.write_text("patient,organ\nP1,Parotis\n")
    with pytest.raises(PackingError, match="line 2"):
        read_absent(table)


def test_a_corrupt_file_is_named_and_costs_only_its_own_series(tmp_path: Path) -> None:
    """A broken structure set, a truncated slice and a stray file leave the other patient whole."""
    good = write_series(tmp_path / "good", seed=1)
    write_structure_set(tmp_path / "good.dcm", good, contours())
    bad = write_series(tmp_path / "bad", seed=2)
    write_structure_set(tmp_path / "bad.dcm", bad, contours())
    bad[5].write_bytes(bad[5].read_bytes()[:-2000])
    broken = write_structure_set(tmp_path / "broken.dcm", good, contours())
    broken.write_bytes(broken.read_bytes()[:3000])
    (tmp_path / "notes.txt").write_text("no DICOM")

    cases, report = packed(tmp_path)

    assert [set(case.known) for _, case in cases] == [set(CLINICAL)]
    for name in (bad[5].name, "broken.dcm", "notes.txt"):
        assert name in reasons(report)


def test_a_raystation_structure_set_is_read_on_the_few_slices_that_are_here() -> None:
    """The ROI of one contour a slice is filled to the area within its contours, and the cut is said."""
    folder = shared_data() / "dicom" / "segmentation_RT-cheese"
    index = index_archive(folder, Report(), Console(quiet=True))
    [header] = index.structure_sets
    structure_set = read_structure_set(header.path)
    found = match(structure_set, header, index)
    stack = stack_slices([slice_header(each.path) for each in index.series[found.series_instance_uid]], 6)
    uids = tuple(each.sop_instance_uid for each in stack.headers)
    volume = CTVolume(np.zeros(stack.grid.shape, np.int16), stack.grid, uids, Dataset())
    roi = next(roi for roi in structure_set.rois if roi.name == "max")

    filled = organ_mask(roi, volume)

    assert "138 of the 144 images it refers to are not here" in found.remarks
    assert any("lie beyond the CT" in remark for remark in filled.remarks)
    here = [c.points_mm for c in roi.contours if c.points_mm[0, 2] <= stack.grid.offsets_mm[-1] + 0.1]
    expected = sum(abs(area_mm2(points)) for points in here)
    assert len(here) == len(filled.mask.voxels) == 6
    assert filled.mask.count * 0.9765625**2 == pytest.approx(expected, rel=0.05)


def area_mm2(points: Points) -> float:
    x, y = points[:, 0], points[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rt.dcm", "Frame of Reference is not that of the CT"),
        ("invalid_reference_rt.dcm", "images it refers to"),
        ("non_existent_reference_rt.dcm", "images it refers to"),
    ],
)
def test_structure_sets_of_mim_and_rt_utils_with_wrong_references_are_refused(
    tmp_path: Path, name: str, why: str
) -> None:
    """Another frame of reference, images that are not there, no study at all: each says so."""
    for file in ("ct_1.dcm", "ct_2.dcm", name):
        shutil.copyfile(shared_data() / "dicom" / "rt-utils-phantom" / file, tmp_path / file)

    cases, report = packed(tmp_path)

    assert not cases
    assert why in "".join(line.reason for line in report.lines if line.subject == name)


@pytest.mark.parametrize("undefined_length", [False, True])
def test_a_structure_set_that_was_cut_off_is_refused_wherever_it_was_cut(
    tmp_path: Path,
    undefined_length: bool,  # noqa: FBT001
) -> None:
    """Half of the contours must never pass for all of them."""

    def change(dataset: Dataset) -> None:
        if undefined_length:
            for sequence in (dataset["ROIContourSequence"], dataset["StructureSetROISequence"]):
                sequence.is_undefined_length = True

    files = linked(tmp_path / "CT")
    whole = write_structure_set(tmp_path / "RS.dcm", files, {"Gehirn": contours()["Gehirn"]}, change=change)
    data = whole.read_bytes()
    start = data.index(b"\x06\x30\x39\x00")
    for cut in np.linspace(start + 12, len(data) - 1, 12).astype(int):
        path = tmp_path / "cut.dcm"
        path.write_bytes(data[:cut])
        with pytest.raises(StructureSetUnreadableError):
            read_structure_set(path)
