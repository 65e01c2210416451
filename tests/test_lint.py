"""`oarlock lint`: every rule has a file that breaks it, ours break none, and real files are seen as they are."""

import json
from collections import Counter
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from daemon import lint_modules
from daemon.destination_profile import PROFILES
from daemon.lint import GROUPS, RULES, NotReadable, lint, lint_file
from daemon.lint_crossings import crossings
from daemon.lint_finding import Severity
from daemon.lint_images import CTImages, images_of, read_images
from daemon.lint_report import rules_markdown
from daemon.lint_sides import side, stem
from daemon.lint_stack import Stack
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from model.ct import read_series
from model.geometry import Mask
from model.structures import LEFT, RIGHT
from tests.command import Oarlock
from tests.lint_examples import (
    ALONE,
    WITH_IMAGES,
    WITH_PROFILE,
    change_points,
    contour,
    copy_of,
    draw,
    drawn,
    named,
    raw,
)
from tests.paths import REPOSITORY, shared_data
from tests.phantom import ORIENTATIONS, make_grid, write_series
from tests.structure_set_samples import IDENTITY, MODEL, ct_header, ct_volume, organ_masks, rois_of

GRID = make_grid(pixel_spacing_mm=(1.5, 1.5), size=(150, 130))
VOLUME = ct_volume(GRID, ct_header(PatientID="P1", PatientName="Doe^Jane", StudyID="4"))


def masks_without_specks(grid):
    """The organs, without the voxel that the brain has elsewhere: nothing is to be said of them."""
    masks = organ_masks(grid)
    brain = masks["Brain"].full()
    brain[2, 3, 4] = False
    return masks | {"Brain": Mask.from_full(brain)}


CONTENT = encode(build_structure_set(VOLUME, rois_of(masks_without_specks(GRID), GRID), IDENTITY, MODEL))


def good() -> Dataset:
    return dcmread(BytesIO(CONTENT))


def codes(findings) -> set[str]:
    return {finding.code for finding in findings}


def serious(findings) -> list:
    return [finding for finding in findings if finding.severity is not Severity.NOTE]


# Every rule


def test_nothing_is_said_of_a_good_file(tmp_path):
    path = tmp_path / "good.dcm"
    path.write_bytes(CONTENT)
    assert lint_file(path, images_of(VOLUME), PROFILES["generic"]) == []


OUTSIDE_THE_TABLES = {"attributes-out-of-order", "bytes-behind-data-set", "not-checked"}
"""Rules with tests of their own below: they need a file's bytes, or a check that fails."""


def test_every_rule_has_an_example():
    assert set(ALONE) | set(WITH_IMAGES) | set(WITH_PROFILE) | OUTSIDE_THE_TABLES == set(RULES)
    assert len(RULES) == sum(map(len, GROUPS.values()))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("code", ALONE)
def test_every_rule_finds_the_file_that_breaks_it(code):
    dataset = good()
    ALONE[code](dataset)
    found = [finding for finding in lint(dataset) if finding.code == code]
    assert found
    assert {finding.severity for finding in found} == {RULES[code].severity}
    assert all(finding.text and finding.advice and finding.path for finding in found)
    assert "not-checked" not in codes(lint(dataset))


@pytest.mark.parametrize("code", WITH_IMAGES)
def test_every_rule_about_images_finds_the_file_that_breaks_it(code):
    dataset, images = good(), images_of(VOLUME)
    WITH_IMAGES[code](dataset, images)
    found = codes(lint(dataset, CTImages(images.headers)))
    assert code in found
    assert "not-checked" not in found


@pytest.mark.parametrize("code", WITH_PROFILE)
def test_every_limit_of_a_profile_finds_the_file_that_breaks_it(code):
    profile, break_it = WITH_PROFILE[code]
    dataset = good()
    break_it(dataset)
    assert code in codes(lint(dataset, profile=profile))


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (b"\0", "bytes-behind-data-set"),
        (b"\0" * 8, "attributes-out-of-order"),
        (b"\0" * 4096, "attributes-out-of-order"),
        (CONTENT[-500:], "attributes-out-of-order"),
        (b"\xe0\x7f\x10\x00", "bytes-behind-data-set"),
    ],
)
def test_bytes_behind_the_data_set_are_found(tmp_path, rest, code):
    """Whether they look like elements or not."""
    path = tmp_path / "long.dcm"
    path.write_bytes(CONTENT + rest)
    assert code in codes(lint_file(path))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_a_file_cut_short_is_found(tmp_path, share):
    path = tmp_path / "short.dcm"
    path.write_bytes(CONTENT[: int(share * len(CONTENT))])
    assert "value-cut-short" in codes(lint_file(path))


def test_a_check_that_fails_has_not_passed(monkeypatch):
    """What no rule expected is told as an error, and all other rules still speak."""

    def check_broken(_structures):
        raise ValueError("unexpected")
        yield

    monkeypatch.setattr("daemon.lint._ALONE", (check_broken, *lint_modules.CHECKS))
    dataset = good()
    del dataset.OperatorsName
    assert {"not-checked", "attribute-missing"} <= codes(lint(dataset))


# What is right and must not be complained of


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("tilt_degrees", [0, 14])
def test_our_own_structure_sets_are_clean(orientation, tilt_degrees):
    """Whichever way round the patient lies: sides are judged by patient coordinates."""
    grid = make_grid(orientation, tilt_degrees=tilt_degrees)
    volume = ct_volume(grid)
    content = encode(build_structure_set(volume, rois_of(organ_masks(grid), grid), IDENTITY, MODEL))
    assert serious(lint(dcmread(BytesIO(content)), images_of(volume))) == []


def test_our_own_structure_set_of_a_series_on_disk_is_clean(tmp_path):
    """Held against the files' own headers, patient and study included."""
    volume = read_series(write_series(tmp_path, pixel_spacing_mm=(1.5, 1.5), PatientName="Doe^Jane^^"))
    rois = rois_of(organ_masks(volume.grid), volume.grid)
    content = encode(build_structure_set(volume, rois, IDENTITY, MODEL))
    assert serious(lint(dcmread(BytesIO(content)), read_images(tmp_path))) == []


def test_a_file_in_explicit_vr_is_as_good_as_in_implicit():
    dataset = good()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    again = BytesIO()
    dcmwrite(again, dataset, implicit_vr=False, little_endian=True)
    assert lint(dcmread(BytesIO(again.getvalue())), images_of(VOLUME)) == []


def test_an_applicator_between_slices_is_no_contour_on_a_slice():
    dataset = good()
    item = contour(dataset)
    item.ContourGeometricType = "OPEN_NONPLANAR"
    draw(item, np.array([[0, 0, -30], [0, 0, -12], [1, 2, 7.3]]))
    assert not {code for code in codes(lint(dataset, images_of(VOLUME))) if code.startswith("ct-")}


@pytest.mark.parametrize(("code", "error"), [
    ("ct-point-between-slices", "ct-contour-between-slices"),
    ("ct-support-outside-image", "ct-contour-outside-image"),
])  # fmt: skip
def test_points_and_couches_are_not_judged_as_contours_of_organs(code, error):
    dataset, images = good(), images_of(VOLUME)
    WITH_IMAGES[code](dataset, images)
    assert error not in codes(lint(dataset, images))


def test_of_two_rois_named_left_each_is_held_against_the_right_one():
    dataset = good()
    left, right = (named(dataset, f"Parotid_{side}") for side in "LR")
    dataset.StructureSetROISequence[left].ROIName = "L_Parotid"
    dataset.StructureSetROISequence[named(dataset, "SpinalCord")].ROIName = "Parotid_L"
    cord = drawn(dataset, named(dataset, "Parotid_L"))
    cord.ContourSequence = drawn(dataset, right).ContourSequence
    for order in (1, -1):
        dataset.StructureSetROISequence = list(dataset.StructureSetROISequence)[::order]
        swapped = [each.roi for each in lint(dataset) if each.code == "sides-swapped"]
        assert swapped == ["Parotid_L"]


@pytest.mark.parametrize("tilt_degrees", [0, 10, 20])
def test_a_hole_is_found_however_slices_are_tilted(tilt_degrees):
    grid = make_grid(tilt_degrees=tilt_degrees, pixel_spacing_mm=(1.5, 1.5), size=(150, 130))
    made = build_structure_set(ct_volume(grid), rois_of(masks_without_specks(grid), grid), IDENTITY, MODEL)
    found = lint(dcmread(BytesIO(encode(made))), profile=PROFILES["monaco"])
    assert {each.roi for each in found if each.code == "profile-holes"} == {"Brain"}


@pytest.mark.parametrize("tilt_degrees", [10, 20])
def test_no_slice_is_missed_however_slices_are_tilted(tilt_degrees):
    """Without images, the distance of contours is that across their own planes."""
    grid = make_grid(tilt_degrees=tilt_degrees, offsets_mm=np.arange(-100, 100, 2.5))
    made = build_structure_set(ct_volume(grid), rois_of(masks_without_specks(grid), grid), IDENTITY, MODEL)
    dataset = dcmread(BytesIO(encode(made)))
    assert "slices-skipped" not in codes(lint(dataset))
    cord = drawn(dataset, named(dataset, "SpinalCord"))
    del cord.ContourSequence[10:12]
    assert "slices-skipped" in codes(lint(dataset))


@pytest.mark.parametrize("declared", ["", "ISO_IR 6", ["", "ISO 2022 IR 87"]])
def test_text_beyond_ascii_is_found_where_nothing_more_is_declared(declared):
    dataset = good()
    dataset.SpecificCharacterSet = declared
    raw(dataset, "StructureSetName", b"M\xfcller")
    assert "text-beyond-character-set" in codes(lint(dataset))


def test_a_second_frame_of_reference_in_which_nothing_is_drawn_is_no_error():
    """Some programs name that of another image too."""
    dataset = good()
    other = Dataset()
    other.FrameOfReferenceUID = "1.2.3.4.5"
    dataset.ReferencedFrameOfReferenceSequence.append(other)
    assert "ct-frame-of-reference-differs" not in codes(lint(dataset, images_of(VOLUME)))


def test_another_patients_series_in_the_folder_of_images_is_no_contradiction():
    images = images_of(VOLUME)
    other = copy_of(images.headers[0])
    other.PatientID, other.PatientName, other.SeriesInstanceUID = "P2", "Roe^Ann", "1.2.9"
    other.SOPInstanceUID, other.FrameOfReferenceUID = "1.2.9.1", "1.2.9.2"
    both = CTImages((*images.headers, other))
    assert "ct-patient-differs" not in codes(lint(good(), both))
    moved = good()
    moved.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.9.2"
    assert "ct-frame-of-reference-differs" in codes(lint(moved, both))


def test_a_keyhole_does_not_cross_itself():
    """The two sides of its channel lie on each other (PS3.3 C.8.8.6.3)."""
    dataset = good()
    z = contour(dataset).ContourData[2]
    outer = [(40, 0), (60, 0), (60, 20), (50, 20), (50, 15), (55, 15), (55, 5), (45, 5), (45, 15), (50, 15)]
    draw(contour(dataset), [(x, y, z) for x, y in [*outer, (50, 20), (40, 20)]])
    assert "contour-crosses-itself" not in codes(lint(dataset))


def test_every_second_slice_is_no_gap():
    """Who contours every second slice has no slice forgotten."""
    dataset = good()
    item = drawn(dataset, named(dataset, "SpinalCord"))
    item.ContourSequence = list(item.ContourSequence)[::2]
    assert lint(dataset, images_of(VOLUME)) == []


def test_a_contour_that_begins_elsewhere_is_the_same_contour():
    dataset = good()
    item = drawn(dataset, named(dataset, "Parotid_L"))
    item.ContourSequence.append(copy_of(contour(dataset)))
    change_points(item.ContourSequence[-1], lambda points: np.roll(points[::-1], 4, axis=0))
    assert "contour-twice" in codes(lint(dataset))


@pytest.mark.parametrize(
    ("name", "expected", "rest"),
    [
        ("Parotid_L", LEFT, "parotid"),
        ("RT_PAROTID", RIGHT, "parotid"),
        ("ParotidL", LEFT, "parotid"),
        ("left optic nerve", LEFT, "opticnerve"),
        ("LN_Neck_II_R", RIGHT, "lnneckii"),
        ("VB_L5", None, "vbl5"),
        ("Larynx", None, "larynx"),
        ("Auge_li", LEFT, "auge"),
        ("Parotide_droite", RIGHT, "parotide"),
        ("Parotide dx", RIGHT, "parotide"),
        ("Lens_L+R", None, "lens"),
    ],
)
def test_sides_are_read_from_words_and_not_from_letters(name, expected, rest):
    assert (side(name), stem(name)) == (expected, rest)


def test_crossings_are_those_of_a_slow_and_simple_search():
    """Random polygons, side by side, against every pair of edges tested one by one."""
    rng = np.random.default_rng(7)
    polygons = [rng.uniform(0, 100, (rng.integers(3, 14), 2)) for _ in range(60)]
    stack = Stack.of([np.column_stack([polygon, np.full(len(polygon), 3.0)]) for polygon in polygons])
    expected = {index: count for index, polygon in enumerate(polygons) if (count := _slow_crossings(polygon))}
    assert {index: count for index, (count, _) in crossings(stack).items()} == expected
    assert expected


def _slow_crossings(polygon) -> int:
    edges = list(zip(polygon, np.roll(polygon, -1, axis=0), strict=True))
    return sum(_do_cross(*one, *other) for n, one in enumerate(edges) for other in edges[:n])


def _do_cross(a, b, c, d) -> bool:
    def off(p, q, r):
        along = q - p
        return (along[0] * (r - p)[1] - along[1] * (r - p)[0]) / np.hypot(*along)

    pairs = ((off(a, b, c), off(a, b, d)), (off(c, d, a), off(c, d, b)))
    return all(one * other < 0 and min(abs(one), abs(other)) > 0.02 for one, other in pairs)


def test_areas_and_centres_are_those_of_the_polygons():
    """A square and a triangle, in a tilted plane."""
    square = np.array([(0, 0, 0), (4, 0, 0), (4, 4, 4), (0, 4, 4)], dtype=float)
    triangle = np.array([(0, 0, 9), (6, 0, 9), (0, 3, 9)], dtype=float)
    stack = Stack.of([square, triangle])
    assert stack.areas_mm2 == pytest.approx([16 * np.sqrt(2), 9])
    assert stack.centres_mm == pytest.approx(np.array([(2, 2, 2), (2, 1, 9)]))


def test_a_patient_is_not_named():
    """Findings are logged: what identifies a patient is left out of them."""
    dataset = good()
    dataset.PatientName, dataset.PatientID = "Secret^Sam", "S3CR3T"
    raw(dataset, "PatientBirthDate", b"19991399")
    found = lint(dataset, images_of(VOLUME))
    assert {"ct-patient-differs", "value-malformed"} <= codes(found)
    assert not any(secret in str(found) for secret in ("Secret", "S3CR3T", "1999"))


# Damage of any kind


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", range(40))
def test_no_damage_ends_the_check(tmp_path, seed):
    """A file with bytes changed at random gets its findings, or is told to be unreadable."""
    rng = np.random.default_rng(seed)
    content = bytearray(CONTENT)
    for place in rng.integers(400, len(content), 30):
        content[place] = rng.integers(256)
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content)
    with suppress(NotReadable):
        assert lint_file(path, images_of(VOLUME))


NESTED = (b"\x06\x30\x10\x00" + b"\xff" * 4 + b"\xfe\xff\x00\xe0" + b"\xff" * 4) * 3000


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("place", ["3006,0020", "3006,0039"])
def test_sequences_without_an_end_are_unreadable(tmp_path, place):
    """Whether three thousand stand in one another, or the last one lacks its end."""
    group, element = (int(part, 16).to_bytes(2, "little") for part in place.split(","))
    path = tmp_path / "nested.dcm"
    start = CONTENT.index(group + element)
    for content in (CONTENT[:start] + NESTED, CONTENT[:start] + NESTED[:16] + CONTENT[start:]):
        path.write_bytes(content)
        with pytest.raises(NotReadable, match="cannot be read as DICOM"):
            lint_file(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_sequence_that_cannot_be_decoded_is_a_finding():
    """Of its length and of its items; what else there is, is checked all the same."""
    for value in (
        b"\xfe\xff\x00\xe0\x08\0\0\0\x06\x30\x10\0SQ",
        b"\xfe\xff\x00\xe0\x06\0\0\0\x06\x30\x22\0IS",
    ):
        dataset = good()
        raw(dataset, "RTROIObservationsSequence", value, "SQ")
        assert codes(lint(dataset)) & {"sequence-undecodable", "not-checked", "attribute-missing"}


def test_a_deflated_file_that_ends_early_is_unreadable(tmp_path):
    dataset = good()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = tmp_path / "deflated.dcm"
    dataset.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes()[:-500])

    with pytest.raises(NotReadable, match="incomplete"):
        lint_file(path)


# Real files


@pytest.fixture(scope="module")
def rt_utils():
    return shared_data() / "dicom" / "rt-utils-phantom"


def test_the_file_of_rt_utils_is_seen_as_it_is(rt_utils):
    """Three attributes of type 2 missing, a UID that ends in a dot, and a frame of reference of its own."""
    found = lint_file(rt_utils / "rt.dcm", read_images(rt_utils))
    errors = Counter(finding.code for finding in serious(found))
    missing = {finding.path for finding in found if finding.code == "attribute-missing"}
    assert missing == {"AccessionNumber", "ReferringPhysicianName", "OperatorsName"}
    assert errors == {"attribute-missing": 3, "value-malformed": 1, "ct-frame-of-reference-differs": 1}


def test_the_files_of_mim_are_seen_as_they_are(rt_utils):
    """One UID for series and instance; three of five images absent; in the other no study is listed."""
    images = read_images(rt_utils)
    invalid = Counter(each.code for each in serious(lint_file(rt_utils / "invalid_reference_rt.dcm", images)))
    absent = Counter(
        each.code for each in serious(lint_file(rt_utils / "non_existent_reference_rt.dcm", images))
    )
    assert invalid == {"uid-used-twice": 1, "ct-listed-image-absent": 1, "ct-contour-image-absent": 4}
    assert absent == {"uid-used-twice": 1, "frames-of-reference": 1, "ct-contour-image-absent": 4}


def test_the_file_of_raystation_is_seen_as_it_is():
    """It lacks Operators' Name; 138 of its 144 images are not in the folder; its six slices fit to 0.01 mm."""
    folder = shared_data() / "dicom" / "segmentation_RT-cheese"
    (path,) = folder.glob("RS*")
    assert [each.path for each in serious(lint_file(path))] == ["OperatorsName"]
    found = lint_file(path, read_images(folder))
    listed = next(finding for finding in found if finding.code == "ct-listed-image-absent")
    assert "138 of 144" in listed.text
    assert codes(serious(found)) == {"attribute-missing", "ct-listed-image-absent", "ct-contour-image-absent"}
    assert "profile-decimals" in codes(lint_file(path, profile=PROFILES["eclipse"]))


# The command


@pytest.fixture
def oarlock(tmp_path, capsys, monkeypatch):
    return Oarlock(tmp_path / "no-configuration-is-needed.toml", capsys, monkeypatch)


def written(tmp_path, change=lambda _: None):
    dataset = good()
    change(dataset)
    path = tmp_path / "rtstruct.dcm"
    dataset.save_as(path)
    return path


def test_exit_codes_tell_errors_warnings_and_unreadable_files(oarlock, tmp_path):
    clean = written(tmp_path)
    assert oarlock("lint", clean).code == 0
    warned = written(tmp_path, lambda d: setattr(d, "StructureSetDate", ""))
    assert oarlock("lint", warned).code == 0
    assert oarlock("lint", warned, "--strict").code == 1
    wrong = written(tmp_path, lambda d: d.pop("OperatorsName"))
    answer = oarlock("lint", wrong)
    assert answer.code == 1
    assert "OperatorsName is missing" in answer.out
    assert f"{wrong}: 1 error, 0 warnings, 0 notes" in answer.out
    no_dicom = tmp_path / "letter.txt"
    no_dicom.write_text("Dear Sir or Madam")
    unreadable = oarlock("lint", no_dicom, wrong)
    assert unreadable.code == 2
    assert "letter.txt" in unreadable.err
    assert "OperatorsName is missing" in unreadable.out
    assert oarlock("lint", tmp_path / "none.dcm").code == 2


def test_json_has_every_finding(oarlock, tmp_path):
    path = written(tmp_path, lambda d: [contour(d, index=n).pop("ContourImageSequence") for n in range(3)])
    answer = oarlock("lint", path, "--json")
    (file,) = json.loads(answer.out)["files"]
    assert answer.code == 0
    assert file["counts"] == {"error": 0, "warning": 3, "note": 0}
    assert {finding["code"] for finding in file["findings"]} == {"contour-image-missing"}
    assert set(file["findings"][0]) == {"code", "severity", "path", "text", "advice", "roi", "z_mm"}
    assert len({finding["z_mm"] for finding in file["findings"]}) == 3


def test_profile_and_images_are_named_by_options(oarlock, tmp_path):
    path = written(tmp_path)
    ct = tmp_path / "ct"
    write_series(ct)
    assert "ct-listed-image-absent" in oarlock("lint", path, "--ct", ct, "--profile", "eclipse").out
    unknown = oarlock("lint", path, "--profile", "abacus")
    assert (unknown.code, "eclipse" in unknown.err) == (2, True)
    no_ct = tmp_path / "no-ct"
    no_ct.mkdir()
    assert oarlock("lint", path, "--ct", no_ct).code == 2


def test_the_guide_lists_every_rule():
    """`docs/lint.md` ends with the table that the code makes."""
    assert (REPOSITORY / "docs" / "lint.md").read_text().endswith(rules_markdown())
