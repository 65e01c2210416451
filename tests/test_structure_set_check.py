"""The check before sending: a sound file passes, and every rule has a file that breaks it."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from daemon.destination_profile import PROFILES, EmptyStructures, HoleStyle
from daemon.errors import OutputRejected
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from daemon.structure_set_check import check_structure_set
from model.contours import Contour, trace
from model.geometry import Mask
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, NOT_FOUND, ct_header, ct_volume, organ_masks, rois_of

GENERIC = PROFILES["generic"]
GRID = make_grid()
HEADER = ct_header(PatientID="P1", PatientName="Doe^Jane")
VOLUME = ct_volume(GRID, HEADER)
MASKS = organ_masks(GRID)
CONTENT = encode(build_structure_set(VOLUME, rois_of(MASKS, GRID), IDENTITY, MODEL))


@pytest.fixture
def path(tmp_path):
    """A sound structure set on disk."""
    written = tmp_path / "rtstruct.dcm"
    written.write_bytes(CONTENT)
    return written


def check(path, **changes):
    rois = rois_of(changes.get("masks", MASKS), GRID)
    return check_structure_set(path, VOLUME, rois, changes.get("identity", IDENTITY))


def written(path, rois, profile=GENERIC):
    """The file of these ROIs for a profile, in the same place."""
    path.write_bytes(encode(build_structure_set(VOLUME, rois, IDENTITY, MODEL, (), profile)))
    return path


def findings(path, **changes) -> str:
    with pytest.raises(OutputRejected) as refused:
        check(path, **changes)
    return "\n".join(refused.value.findings)


# What the breakages reach for


def roi(dataset: Dataset, index: int = 0) -> Dataset:
    return dataset.StructureSetROISequence[index]


def contour(dataset: Dataset) -> Dataset:
    """The first contour of the left parotid."""
    return dataset.ROIContourSequence[2].ContourSequence[0]


def series(dataset: Dataset) -> Dataset:
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    return study.RTReferencedSeriesSequence[0]


def set_contour_data(item: Dataset, text: str) -> None:
    """Any text, also such as pydicom would refuse to write."""
    element = item["ContourData"]
    del item["ContourData"]
    element._value = text
    item[Tag("ContourData")] = element


def move(item: Dataset, by_mm: tuple[float, float, float]) -> None:
    points = np.array(item.ContourData, dtype=float).reshape(-1, 3) + by_mm
    set_contour_data(item, "\\".join(f"{value:.2f}" for value in points.ravel()))


def move_all(items, by_mm: tuple[float, float, float]) -> None:
    for item in items:
        move(item, by_mm)


def swap_sides(dataset: Dataset) -> None:
    roi(dataset, 2).ROIName, roi(dataset, 3).ROIName = roi(dataset, 3).ROIName, roi(dataset, 2).ROIName


def lengthen(item: Dataset) -> None:
    """The same polygon with its last corner repeated 5,000 times: over 64 kB."""
    values = [str(value) for value in item.ContourData]
    set_contour_data(item, "\\".join(values + values[-3:] * 5000))
    item.NumberOfContourPoints += 5000


def keep_points(item: Dataset, count: int) -> None:
    set_contour_data(item, "\\".join(str(value) for value in item.ContourData[: 3 * count]))
    item.NumberOfContourPoints = count


def first_value(item: Dataset, text: str) -> None:
    set_contour_data(item, "\\".join([text, *(str(value) for value in item.ContourData[1:])]))


BREAKAGES: dict[str, tuple[Callable[[Dataset], object], str]] = {
    "type 2 attribute missing": (lambda d: d.pop("OperatorsName"), r"OperatorsName is missing \(type 2\)"),
    "type 1 attribute missing": (
        lambda d: d.pop("StructureSetLabel"),
        r"StructureSetLabel is missing \(type 1\)",
    ),
    "type 1 attribute empty": (
        lambda d: setattr(d, "StructureSetLabel", ""),
        r"StructureSetLabel has no value",
    ),
    "nested attribute missing": (
        lambda d: d.RTROIObservationsSequence[1].pop("ROIInterpreter"),
        r"RTROIObservationsSequence\[2\]\.ROIInterpreter is missing",
    ),
    "mandatory sequence missing": (
        lambda d: d.pop("StructureSetROISequence"),
        "cross references cannot be checked",
    ),
    "another SOP instance": (lambda d: setattr(d, "SOPInstanceUID", "1.2.3"), "SOPInstanceUID is 1.2.3"),
    "another series": (lambda d: setattr(d, "SeriesInstanceUID", "1.2.3"), "SeriesInstanceUID is 1.2.3"),
    "another study": (lambda d: setattr(d, "StudyInstanceUID", "1.2.3"), "StudyInstanceUID is 1.2.3"),
    "another frame of reference": (
        lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"),
        "FrameOfReferenceUID is 1.2.3",
    ),
    "another class": (
        lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.481.5"),
        r"SOPClassUID is 1\.2\.840\.10008\.5\.1\.4\.1\.1\.481\.5",
    ),
    "another modality": (lambda d: setattr(d, "Modality", "RTPLAN"), "Modality is RTPLAN"),
    "approved by nobody": (lambda d: setattr(d, "ApprovalStatus", "APPROVED"), "ApprovalStatus is APPROVED"),
    "file meta of another instance": (
        lambda d: setattr(d.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"),
        "file meta information names another",
    ),
    "another patient": (lambda d: setattr(d, "PatientID", "P2"), "PatientID is not the CT's"),
    "another patient's name": (
        lambda d: setattr(d, "PatientName", "Doe^John"),
        "PatientName is not the CT's",
    ),
    "reference to another frame of reference": (
        lambda d: setattr(d.ReferencedFrameOfReferenceSequence[0], "FrameOfReferenceUID", "1.2.3"),
        "the referenced frame of reference is 1.2.3",
    ),
    "reference to another study": (
        lambda d: setattr(
            d.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0],
            "ReferencedSOPInstanceUID",
            "1.2.3",
        ),
        "the referenced study is 1.2.3",
    ),
    "reference to another series": (
        lambda d: setattr(series(d), "SeriesInstanceUID", "1.2.3"),
        "the referenced series is 1.2.3",
    ),
    "a slice not listed": (
        lambda d: series(d).ContourImageSequence.pop(),
        "40 images are listed; 40 of the CT's 41 slices",
    ),
    "a foreign slice listed": (
        lambda d: setattr(series(d).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "41 images are listed; 40 of the CT's 41 slices",
    ),
    "a slice of another class": (
        lambda d: setattr(series(d).ContourImageSequence[0], "ReferencedSOPClassUID", "1.2.3"),
        "not of the class CT Image Storage",
    ),
    "label too long": (lambda d: setattr(d, "StructureSetLabel", "AUTO NOT REVIEWED"), "has 17 characters"),
    "ROI name too long": (lambda d: setattr(roi(d), "ROIName", "B" * 65), "has 65 characters"),
    "ROI name empty": (lambda d: setattr(roi(d), "ROIName", ""), "has 0 characters"),
    "ROI name twice but for case": (
        lambda d: setattr(roi(d, 1), "ROIName", "BRAIN"),
        "ROI name 'brain' occurs twice",
    ),
    "ROI nobody segmented": (lambda d: setattr(roi(d), "ROIName", "Larynx"), "ROI 'Larynx' is nothing"),
    "no ROI at all": (
        lambda d: [
            setattr(d, f"{kind}Sequence", [])
            for kind in ("StructureSetROI", "ROIContour", "RTROIObservations")
        ],
        "there is no ROI",
    ),
    "ROI Number twice": (lambda d: setattr(roi(d), "ROINumber", roi(d, 1).ROINumber), "not unique"),
    "contours of an ROI that is not there": (
        lambda d: setattr(d.ROIContourSequence[0], "ReferencedROINumber", 99),
        "ROIContourSequence refers to ROIs",
    ),
    "observation of an ROI that is not there": (
        lambda d: setattr(d.RTROIObservationsSequence[0], "ReferencedROINumber", 99),
        "RTROIObservationsSequence refers to ROIs",
    ),
    "ROI in another frame of reference": (
        lambda d: setattr(roi(d), "ReferencedFrameOfReferenceUID", "1.2.3"),
        "ROI 'Brain' lies in another frame of reference",
    ),
    "another ROI Number": (
        lambda d: [
            setattr(roi(d), "ROINumber", 77),
            setattr(d.ROIContourSequence[0], "ReferencedROINumber", 77),
            setattr(d.RTROIObservationsSequence[0], "ReferencedROINumber", 77),
        ],
        "Brain has ROI Number 77, needed is 1",
    ),
    "another type of the template's": (
        lambda d: setattr(d.RTROIObservationsSequence[0], "RTROIInterpretedType", "AVOIDANCE"),
        "Brain is of type 'AVOIDANCE', needed is ORGAN",
    ),
    "ROI said to be drawn by hand": (
        lambda d: setattr(roi(d), "ROIGenerationAlgorithm", "MANUAL"),
        "ROI 'Brain' was generated 'MANUAL'",
    ),
    "ROI of another type": (
        lambda d: setattr(d.RTROIObservationsSequence[0], "RTROIInterpretedType", "PTV"),
        "of type 'PTV', not ORGAN",
    ),
    "open contour": (
        lambda d: setattr(contour(d), "ContourGeometricType", "OPEN_PLANAR"),
        "Parotid_L contour 1: is OPEN_PLANAR",
    ),
    "contour of a foreign slice": (
        lambda d: setattr(contour(d).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"),
        "Parotid_L contour 1: refers to 1.2.3, which is no slice",
    ),
    "contour without a slice": (lambda d: contour(d).pop("ContourImageSequence"), "Parotid_L contour 1: "),
    "contour without data": (
        lambda d: contour(d).pop("ContourData"),
        "Parotid_L contour 1: has no Contour Data",
    ),
    "two points": (lambda d: keep_points(contour(d), 2), "has 2 points, needed are 3"),
    "wrong number of points": (
        lambda d: setattr(contour(d), "NumberOfContourPoints", 7),
        "says 7 points and has",
    ),
    "decimal string too long": (
        lambda d: first_value(contour(d), "51.12345678901234"),
        "at most 16 characters",
    ),
    "not a number": (lambda d: first_value(contour(d), "nan"), "'nan' is no decimal string"),
    "a coordinate too few": (
        lambda d: set_contour_data(contour(d), "\\".join(str(v) for v in contour(d).ContourData[:-1])),
        "are not three for each point",
    ),
    "over 64 kB": (lambda d: lengthen(contour(d)), "explicit VR allows 65534"),
    "off its slice": (lambda d: move(contour(d), (0, 0, 0.05)), "lies 0.05 mm off the plane"),
    "outside the image": (lambda d: move(contour(d), (500, 0, 0)), "Parotid_L contour 1: leaves the image"),
    "a voxel to the side": (
        lambda d: move_all(d.ROIContourSequence[1].ContourSequence, (1.5, 0, 0)),
        r"Lens_L: contours return the mask with Dice 0\.",
    ),
    "a contour missing": (
        lambda d: d.ROIContourSequence[1].ContourSequence.pop(),
        r"Lens_L: contours return the mask with Dice 0\.",
    ),
    "a slice without its contour": (
        lambda d: d.ROIContourSequence[4].ContourSequence.pop(5),
        r"SpinalCord: slices \d+ of the mask have no contour",
    ),
    "a contour on a slice without the organ": (
        lambda d: d.ROIContourSequence[1].ContourSequence.append(
            deepcopy(d.ROIContourSequence[2].ContourSequence[0])
        ),
        r"Lens_L: slices \d+ have a contour and no mask",
    ),
    "an organ without contours": (
        lambda d: d.ROIContourSequence[1].pop("ContourSequence"),
        r"Lens_L: contours return the mask with Dice 0\.0",
    ),
    "left and right exchanged": (swap_sides, "Parotid_L does not lie to the left of Parotid_R"),
}


@pytest.mark.filterwarnings("ignore:The value length")
@pytest.mark.parametrize("name", BREAKAGES)
def test_every_rule_refuses_the_file_that_breaks_it(path, name):
    break_it, expected = BREAKAGES[name]
    dataset = dcmread(path)
    break_it(dataset)
    dataset.save_as(path)
    with pytest.raises(OutputRejected, match=expected):
        check(path)


# Contours that need not be exact, and profiles


def cut_corners(points: np.ndarray) -> np.ndarray:
    """A polygon through the middles of its edges: smoother, and a little smaller."""
    return (points + np.roll(points, -1, axis=0)) / 2


def test_smooth_contours_pass(path):
    """Large organs and small ones, as the corners of voxels that they cut weigh differently."""
    rois = [
        replace(roi, contours=[replace(each, points=cut_corners(each.points)) for each in roi.contours])
        for roi in rois_of(MASKS, GRID)
    ]
    summaries = check_structure_set(written(path, rois), VOLUME, rois, IDENTITY)
    assert all(each.dice >= 0.95 for each in summaries if each.found)


def test_a_small_organ_may_lose_more_than_a_large_one(path):
    """A fiftieth of its voxels, on slices that keep the most of theirs."""

    def worn(roi):
        full = roi.mask.full()
        inside = np.argwhere(full)
        full[tuple(inside[:: max(len(inside) // max(len(inside) // 33, 1), 1)].T)] = False
        return replace(roi, contours=trace(Mask.from_full(full)))

    rois = rois_of(MASKS, GRID)
    small = [worn(roi) if roi.name == "Lens_L" else roi for roi in rois]
    large = [worn(roi) if roi.name == "Parotid_L" else roi for roi in rois]
    lens = next(
        s for s in check_structure_set(written(path, small), VOLUME, small, IDENTITY) if s.name == "Lens_L"
    )
    assert 0.95 <= lens.dice < 0.99
    with pytest.raises(OutputRejected, match=r"Parotid_L: contours return the mask with Dice 0\.9.* < 0\.99"):
        check_structure_set(written(path, large), VOLUME, large, IDENTITY)


def test_nested_holes_are_refused_where_they_are_read_otherwise(path):
    keyhole = replace(GENERIC, name="keyhole", holes=HoleStyle.KEYHOLE)
    rois = rois_of(MASKS, GRID)
    with pytest.raises(OutputRejected, match="Brain: a contour lies inside another, keyhole reads no hole"):
        check_structure_set(written(path, rois, keyhole), VOLUME, rois, IDENTITY, keyhole)


def test_a_keyhole_returns_the_mask_with_its_hole(path):
    """Two squares, one in the other, joined by a channel of no width."""
    outer = np.array([[20.5, 20.5], [20.5, 60.5], [60.5, 60.5], [60.5, 20.5]])
    inner = np.array([[30.5, 30.5], [50.5, 30.5], [50.5, 50.5], [30.5, 50.5]])
    points = np.concatenate([outer, outer[:1], inner, inner[:1]])
    keyhole = replace(GENERIC, name="keyhole", holes=HoleStyle.KEYHOLE)
    rois = [replace(rois_of(MASKS, GRID)[0], mask=square_with_hole(), contours=[Contour(10, points)])]
    (summary,) = check_structure_set(written(path, rois, keyhole), VOLUME, rois, IDENTITY, keyhole)
    assert summary.dice == 1


def test_a_profile_without_holes_is_compared_with_the_filled_mask(path):
    filled = replace(GENERIC, name="filled", holes=HoleStyle.FILLED)
    outer = Contour(10, np.array([[20.5, 20.5], [20.5, 60.5], [60.5, 60.5], [60.5, 20.5]]))
    rois = [replace(rois_of(MASKS, GRID)[0], mask=square_with_hole(), contours=[outer])]
    (summary,) = check_structure_set(written(path, rois, filled), VOLUME, rois, IDENTITY, filled)
    assert summary.dice == 1
    with pytest.raises(OutputRejected, match="Brain: contours return the mask"):
        check_structure_set(written(path, rois), VOLUME, rois, IDENTITY)


def square_with_hole() -> Mask:
    full = np.zeros(GRID.shape, dtype=bool)
    full[10, 21:61, 21:61] = True
    full[10, 31:51, 31:51] = False
    return Mask.from_full(full)


def test_more_points_than_the_destination_takes_are_refused(path):
    with pytest.raises(OutputRejected, match="points, few allows 10"):
        check_structure_set(
            path, VOLUME, rois_of(MASKS, GRID), IDENTITY, replace(GENERIC, name="few", max_points=10)
        )


def test_shortened_names_are_found_again_and_told_by_the_templates(path):
    rois = [replace(roi, name=f"{roi.name}_of_this_hospital") for roi in rois_of(MASKS, GRID)]
    summaries = check_structure_set(written(path, rois), VOLUME, rois, IDENTITY)
    assert [each.name for each in summaries] == [roi.name for roi in rois]
    assert max(len(each.ROIName) for each in dcmread(path).StructureSetROISequence) == 16


def test_sides_are_known_by_the_organ_and_not_by_the_sites_name(path):
    names = {"Parotid_L": "Ohr A", "Parotid_R": "Ohr B"}
    rois = [replace(roi, name=names.get(roi.name, roi.name)) for roi in rois_of(MASKS, GRID)]
    dataset = dcmread(written(path, rois))
    swap_sides(dataset)
    dataset.save_as(path)
    with pytest.raises(OutputRejected, match="Parotid_L does not lie to the left of Parotid_R"):
        check_structure_set(path, VOLUME, rois, IDENTITY)


def test_an_empty_structure_passes_only_where_the_profile_writes_it(path):
    wanting = replace(GENERIC, empty_structures=EmptyStructures.WRITE_EMPTY)
    rois = rois_of(MASKS, GRID)
    summaries = check_structure_set(written(path, rois, wanting), VOLUME, rois, IDENTITY, wanting)
    assert [each.name for each in summaries if not each.found] == [NOT_FOUND]
    with pytest.raises(OutputRejected, match=f"ROI '{NOT_FOUND}' is empty"):
        check_structure_set(path, VOLUME, rois, IDENTITY)
    with pytest.raises(OutputRejected, match=f"ROI '{NOT_FOUND}' is missing"):
        check_structure_set(written(path, rois), VOLUME, rois, IDENTITY, wanting)


# The file as a whole


def test_a_sound_file_passes_and_is_summarised_organ_by_organ(path):
    summaries = {each.name: each for each in check(path)}
    assert set(summaries) == set(MASKS)
    for name, mask in MASKS.items():
        summary = summaries[name]
        assert summary.volume_cm3 == pytest.approx(mask.volume_cm3(GRID))
        assert summary.found == (name != NOT_FOUND)
        assert summary.dice == (1.0 if summary.found else None)
        assert summary.slices == np.count_nonzero(mask.voxels.any(axis=(1, 2)))
    # The brain's voxel of its own and its hole are contours, not slices.
    assert summaries["Brain"].contours > summaries["Brain"].slices


@pytest.mark.filterwarnings("ignore:The value length")
def test_all_findings_are_reported_at_once(path):
    dataset = dcmread(path)
    dataset.SOPInstanceUID = "1.2.3"
    dataset.StructureSetLabel = "far longer than sixteen characters"
    move(contour(dataset), (0, 0, 1))
    swap_sides(dataset)
    dataset.save_as(path)
    found = findings(path)
    for part in ("SOPInstanceUID", "characters", "off the plane", "to the left"):
        assert part in found


@pytest.mark.parametrize("rest", [b"\0", b"\0" * 8, b"\0" * 4096, CONTENT[-500:], b"\xe0\x7f\x10\x00"])
def test_bytes_after_the_data_set_are_refused(path, rest):
    """A receiver would find an element that nobody wrote, or stop reading."""
    path.write_bytes(CONTENT + rest)
    assert "rtstruct.dcm" in findings(path)


@pytest.mark.parametrize("length", [0, 100, 400, len(CONTENT) // 2, len(CONTENT) - 1])
def test_a_file_cut_short_is_refused(path, length):
    path.write_bytes(CONTENT[:length])
    assert findings(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "cannot be read again" in findings(tmp_path / "none.dcm")


def test_explicit_vr_is_refused(path):
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=False)
    assert "needed is Implicit VR" in findings(path)


def test_a_file_of_another_job_is_refused(path):
    assert "SOPInstanceUID" in findings(path, identity=replace(IDENTITY, sop_instance_uid="1.2.3"))


def test_an_organ_that_was_found_must_be_in_the_file(path):
    masks = MASKS | {NOT_FOUND: MASKS["Parotid_R"]}
    assert f"{NOT_FOUND}: contours return the mask with Dice" in findings(path, masks=masks)


def test_an_organ_that_was_not_found_must_not_be_in_the_file(path):
    masks = MASKS | {"Lens_L": Mask.from_full(np.zeros(GRID.shape, dtype=bool))}
    assert "Lens_L: contours return the mask with Dice 0.0" in findings(path, masks=masks)


def test_findings_name_no_patient(path):
    """They are logged and shown to administrators."""
    dataset = dcmread(path)
    dataset.PatientID, dataset.PatientName = "SECRET", "Secret^Person"
    dataset.save_as(path)
    found = findings(path)
    assert "PatientID" in found
    assert not any(word in found.casefold() for word in ("secret", "doe", "p1"))


def test_below_its_slice_is_off_it_too(path):
    dataset = dcmread(path)
    move(contour(dataset), (0, 0, -0.05))
    dataset.save_as(path)
    with pytest.raises(OutputRejected, match=r"lies 0\.05 mm off the plane"):
        check(path)


def test_as_many_points_as_the_destination_takes_pass(path):
    few, rois = replace(GENERIC, name="few", max_points=40), rois_of(MASKS, GRID)
    assert check_structure_set(written(path, rois, few), VOLUME, rois, IDENTITY, few)
    dataset = dcmread(path)
    longest = max(
        each.NumberOfContourPoints
        for roi in dataset.ROIContourSequence
        for each in roi.get("ContourSequence", ())
    )
    assert longest == 40


def test_two_holes_that_are_nested_are_refused(path):
    keyhole = replace(GENERIC, name="keyhole", holes=HoleStyle.KEYHOLE)
    full = np.zeros(GRID.shape, dtype=bool)
    full[10, 21:81, 21:61] = True
    full[10, 25:45, 31:51] = full[10, 55:75, 31:51] = False
    mask = Mask.from_full(full)
    rois = [replace(rois_of(MASKS, GRID)[0], mask=mask, contours=trace(mask))]
    with pytest.raises(OutputRejected, match="Brain: a contour lies inside another"):
        check_structure_set(written(path, rois, keyhole), VOLUME, rois, IDENTITY, keyhole)


def test_an_organ_of_some_cm3_counts_as_large(path):
    full = np.zeros(GRID.shape, dtype=bool)
    full[10:15, 40:52, 40:47] = True
    mask, worn = Mask.from_full(full), full.copy()
    worn[tuple(np.argwhere(full)[::25].T)] = False
    roi = next(each for each in rois_of(MASKS, GRID) if each.name == "Parotid_L")
    rois = [replace(roi, mask=mask, contours=trace(Mask.from_full(worn)))]
    assert 1 < mask.volume_cm3(GRID) < 10
    with pytest.raises(OutputRejected, match=r"Dice 0\.9.* < 0\.99"):
        check_structure_set(written(path, rois), VOLUME, rois, IDENTITY)


def test_the_edge_of_the_image_is_by_rows_and_columns(path):
    full = np.zeros(GRID.shape, dtype=bool)
    full[10:12] = True
    mask = Mask.from_full(full)
    rois = [replace(rois_of(MASKS, GRID)[0], mask=mask, contours=trace(mask))]
    (summary,) = check_structure_set(written(path, rois), VOLUME, rois, IDENTITY)
    assert summary.dice == 1

    beyond = [
        Contour(each.slice_index, each.points + (each.points[:, :1] > 119) * (1.0, 0)) for each in trace(mask)
    ]
    rois = [replace(rois[0], contours=beyond)]
    with pytest.raises(OutputRejected, match="leaves the image"):
        check_structure_set(written(path, rois), VOLUME, rois, IDENTITY)
