"""Files become a checked structure set, or the true reason why not."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import EncapsulatedPDFStorage, SecondaryCaptureImageStorage, SegmentationStorage

from daemon.destination_profile import PROFILES
from daemon.errors import OutputRejected
from daemon.lint import lint_file
from daemon.lint_images import images_of
from daemon.result_header import ResultIdentity
from daemon.result_objects import STRUCTURE_SET, ResultKind, WantedObject
from daemon.segmentation import STAGES, contour_series
from daemon.structure_template import template_of
from daemon.template_file import load_template
from model.errors import ReasonCode, SeriesUnsuitable
from model.findings import Severity
from tests.phantom import make_grid, phantom_masks, write_series
from tests.stub_segmenter import StubSegmenter

IDENTITY = ResultIdentity("2.25.11", "2.25.12", datetime(2026, 3, 1, 9, tzinfo=timezone(timedelta(hours=1))))
WANTED = ("Brain", "Eye_L", "Eye_R", "Parotid_L")


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return write_series(tmp_path_factory.mktemp("ct"))


def stored_in(folder):
    def store(name, content):
        path = folder / name
        path.write_bytes(content)
        return path

    return store


def contour(paths, folder, segmenter=None, structures=WANTED, progress=None, store=None):
    return contour_series(
        paths,
        segmenter or StubSegmenter(),
        IDENTITY,
        template_of(structures),
        [STRUCTURE_SET],
        store or stored_in(folder),
        progress,
    )


def test_structure_set_on_disk_holds_what_was_asked_for_and_found(series, tmp_path):
    done = contour(series, tmp_path)

    dataset = dcmread(done.files[0].path)
    assert {"Brain", "Eye_L", "Eye_R"} == {roi.ROIName for roi in dataset.StructureSetROISequence}
    assert (IDENTITY.sop_instance_uid, IDENTITY.series_instance_uid) == (
        dataset.SOPInstanceUID,
        dataset.SeriesInstanceUID,
    )
    assert tuple(summary.name for summary in done.summaries) == WANTED
    assert [summary.found for summary in done.summaries] == [True, True, True, False]
    truth = phantom_masks(make_grid())["left_ball"]
    assert truth.volume_cm3(done.volume.grid) == pytest.approx(done.summaries[1].volume_cm3)
    assert {"Brain", "Eye_L", "Eye_R"} == set(done.masks)
    assert done.model.name == "threshold"


def test_remarks_tell_of_the_series_the_segmenter_and_what_the_bundle_does_not_know(series, tmp_path):
    done = contour(series, tmp_path)

    assert "segmented by threshold" in done.remarks
    assert "bundle threshold 1.0 does not know Parotid_L" in done.remarks


def test_repeat_gives_the_same_bytes_whatever_the_order_of_the_files(series, tmp_path):
    first = contour(series, tmp_path).files[0].path.read_bytes()
    again = contour(list(reversed(series)), tmp_path).files[0].path.read_bytes()

    assert first == again


def test_every_stage_is_reported_in_order_and_timed(series, tmp_path):
    heard = []

    done = contour(series, tmp_path, progress=lambda stage, share: heard.append((stage, share)))

    assert list(STAGES) == list(dict.fromkeys(stage for stage, _ in heard))
    assert all(0 <= share <= 1 for _, share in heard)
    assert heard[-1] == ("check", 1.0)
    assert list(STAGES) == list(done.stage_seconds)
    assert all(seconds >= 0 for seconds in done.stage_seconds.values())


@pytest.mark.parametrize("stage", STAGES)
def test_progress_may_break_the_work_off_in_every_stage(series, tmp_path, stage):
    def stop(entered, _share):
        if entered == stage:
            raise InterruptedError(entered)

    with pytest.raises(InterruptedError, match=stage):
        contour(series, tmp_path, progress=stop)


def test_series_without_any_organ_is_refused_with_its_numbers(tmp_path):
    grid = make_grid()
    hu = np.where(np.indices(grid.shape).sum(axis=0) % 2, -1000, 55).astype(np.int16)
    paths = write_series(tmp_path / "ct", hu, grid)

    with pytest.raises(SeriesUnsuitable, match="41 slices of 120 × 130 over 200 mm") as refusal:
        contour(paths, tmp_path)

    assert ReasonCode.NOT_HEAD_AND_NECK is refusal.value.code


def test_series_without_the_asked_organs_tells_what_else_was_found(series, tmp_path):
    with pytest.raises(SeriesUnsuitable, match="found, but not asked for: Brain, Eye_L, Eye_R"):
        contour(series, tmp_path, structures=["Parotid_L"])


def test_structure_set_altered_on_its_way_to_disk_is_not_accepted(series, tmp_path):
    def store(name, content):
        path = tmp_path / name
        path.write_bytes(content + b"\0\0")
        return path

    with pytest.raises(OutputRejected):
        contour(series, tmp_path, store=store)


TEMPLATE = """
name = "Site"

[[structures]]
organ = "Eye_L"
name = "Auge li"

[[structures]]
name = "Eye_L_PRV5"
margin = { of = "Auge li", mm = 5 }
"""


def test_a_sites_template_names_derives_and_orders_what_is_written(series, tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(TEMPLATE)

    done = contour_series(
        series, StubSegmenter(), IDENTITY, load_template(file), [STRUCTURE_SET], stored_in(tmp_path)
    )

    dataset = dcmread(done.files[0].path)
    assert [roi.ROIName for roi in dataset.StructureSetROISequence] == ["Auge li", "Eye_L_PRV5"]
    eye, margin = done.files[0].summaries
    assert margin.volume_cm3 > 1.5 * eye.volume_cm3


def test_a_margin_that_ends_before_the_next_slice_is_told(series, tmp_path):
    """The phantom's slices are 5 mm apart."""
    file = tmp_path / "site.toml"
    told = {}
    for mm in ("4", "5", "{ left = 4 }", "{ left = 4, superior = 2 }"):
        file.write_text(TEMPLATE.replace("mm = 5", f"mm = {mm}"))
        done = contour_series(
            series, StubSegmenter(), IDENTITY, load_template(file), [STRUCTURE_SET], stored_in(tmp_path)
        )
        told[mm] = [remark for remark in done.remarks if "no other slice" in remark]

    apart = "as slices are 5 mm apart"
    assert told == {
        "4": [
            f"Eye_L_PRV5 (Auge li + 4 mm): no other slice lies within 4 mm superior and 4 mm inferior, {apart}"
        ],
        "5": [],
        "{ left = 4 }": [],
        "{ left = 4, superior = 2 }": [
            f"Eye_L_PRV5 (Auge li + 4 mm left, 2 mm superior): no other slice lies within 2 mm superior, {apart}"
        ],
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_each_destination_gets_its_own_object_and_all_pass_their_check(series, tmp_path, profile):
    wanted = [STRUCTURE_SET, WantedObject(ResultKind.STRUCTURE_SET, profile, ("tps",))]
    wanted = list({each.file_name: each for each in wanted}.values())

    done = contour_series(series, StubSegmenter(), IDENTITY, template_of(WANTED), wanted, stored_in(tmp_path))

    for file in done.files:
        found = lint_file(file.path, images_of(done.volume), PROFILES[file.wanted.profile])
        assert [each for each in found if each.severity != "note"] == []
    uids = [dcmread(file.path).SOPInstanceUID for file in done.files]
    assert uids == [file.sop_instance_uid for file in done.files]
    assert len(set(uids)) == len(wanted)


@pytest.mark.parametrize(("policy", "marked"), [("warn", True), ("send", False)])
def test_what_is_doubtful_stands_in_the_description_of_series_and_structure(series, tmp_path, policy, marked):
    uncertain = StubSegmenter(confidence={"Eye_L": 0.6})
    done = contour_series(
        series, uncertain, IDENTITY, template_of(WANTED), [STRUCTURE_SET], stored_in(tmp_path), policy=policy
    )

    dataset = dcmread(done.files[0].path)
    assert ("CHECK" in dataset.SeriesDescription) is marked
    concerned = {each.structure: each.text for each in done.findings if each.structure in done.masks}
    assert concerned
    for roi in dataset.StructureSetROISequence:
        if roi.ROIName in concerned:
            assert concerned[roi.ROIName] in roi.ROIDescription


def test_what_was_asked_for_and_not_found_stands_in_the_structure_set(series, tmp_path):
    """Who plans sees the file alone."""
    stub = StubSegmenter()
    found = stub.segment
    stub.segment = lambda *given: replace(
        seen := found(*given), masks={name: mask for name, mask in seen.masks.items() if name != "Eye_L"}
    )

    done = contour(series, tmp_path, stub)

    assert "not found: Eye_L" in dcmread(done.files[0].path).StructureSetDescription


def test_doubts_about_organs_that_nobody_asked_for_are_none_of_the_results(series, tmp_path):
    uncertain = StubSegmenter(confidence={"Eye_L": 0.6, "Eye_R": 0.6})

    done = contour(series, tmp_path, uncertain, structures=("Brain", "Eye_R"))

    assert "Eye_R" in {each.structure for each in done.findings}
    assert "Eye_L" not in {each.structure for each in done.findings}


def test_sides_exchanged_are_a_doubt_about_the_one_that_was_asked_for_too(series, tmp_path):
    stub = StubSegmenter()
    found = stub.segment

    def exchanged(*given):
        masks = found(*given).masks
        return replace(found(*given), masks={"Eye_L": masks["Eye_R"], "Eye_R": masks["Eye_L"]})

    stub.segment = exchanged

    done = contour(series, tmp_path, stub, structures=("Eye_R",))

    assert "sides-swapped" in {each.code for each in done.findings if each.severity is Severity.HOLD}
    (eye,) = dcmread(done.files[0].path).StructureSetROISequence
    assert "Eye_L: lies" in eye.ROIDescription


def test_a_derived_structure_says_what_is_doubtful_about_its_source(series, tmp_path):
    file = tmp_path / "site.toml"
    file.write_text(TEMPLATE)
    uncertain = StubSegmenter(confidence={"Eye_L": 0.6})

    done = contour_series(
        series, uncertain, IDENTITY, load_template(file), [STRUCTURE_SET], stored_in(tmp_path)
    )

    eye, margin = dcmread(done.files[0].path).StructureSetROISequence
    text = next(each.text for each in done.findings if each.structure == "Eye_L")
    assert text in eye.ROIDescription
    assert f"Eye_L: {text}"[:60] in margin.ROIDescription


def test_a_segmentation_is_made_beside_the_structure_set(series, tmp_path):
    wanted = [STRUCTURE_SET, WantedObject(ResultKind.SEGMENTATION, "", ("tps",))]

    done = contour_series(series, StubSegmenter(), IDENTITY, template_of(WANTED), wanted, stored_in(tmp_path))

    segmentation = dcmread(done.files[1].path)
    assert segmentation.SOPClassUID == SegmentationStorage
    assert {segment.SegmentLabel for segment in segmentation.SegmentSequence} == set(done.masks)
    assert segmentation.SeriesInstanceUID != dcmread(done.files[0].path).SeriesInstanceUID
    assert "objects" in done.stage_seconds


def test_without_an_organ_there_is_no_segmentation_and_the_structure_set_is_made(series, tmp_path):
    file = tmp_path / "site.toml"
    file.write_text('name = "S"\n[[structures]]\nname = "Eyes"\nunion = ["Eye_L", "Eye_R"]\n')
    segmentation = WantedObject(ResultKind.SEGMENTATION, "", ("tps",))

    def made(*wanted):
        template = load_template(file)
        return contour_series(series, StubSegmenter(), IDENTITY, template, wanted, stored_in(tmp_path))

    done = made(STRUCTURE_SET, segmentation)

    assert [each.wanted for each in done.files] == [STRUCTURE_SET]
    assert "no segmentation is made: none of the template's organs was found" in done.remarks
    with pytest.raises(SeriesUnsuitable, match="there is nothing to write"):
        made(segmentation)


def test_a_template_of_which_nothing_remains_is_refused_with_what_is_left_out(series, tmp_path):
    file = tmp_path / "site.toml"
    file.write_text('name = "S"\n[[structures]]\nname = "Both"\nintersection = ["Eye_L", "Eye_R"]\n')

    with pytest.raises(SeriesUnsuitable, match=r"Both .* is left out: nothing remains of it") as refusal:
        contour_series(
            series, StubSegmenter(), IDENTITY, load_template(file), [STRUCTURE_SET], stored_in(tmp_path)
        )

    assert refusal.value.code is ReasonCode.NOTHING_TO_WRITE


@pytest.mark.parametrize(
    ("kind", "sop_class"),
    [
        (ResultKind.SECONDARY_CAPTURE, SecondaryCaptureImageStorage),
        (ResultKind.PDF, EncapsulatedPDFStorage),
    ],
)
def test_the_qa_sheet_is_made_for_destinations_that_want_it(series, tmp_path, kind, sop_class):
    wanted = [STRUCTURE_SET, WantedObject(kind, "", ("tps",))]

    done = contour_series(series, StubSegmenter(), IDENTITY, template_of(WANTED), wanted, stored_in(tmp_path))

    sheet, structure_set = dcmread(done.files[1].path), dcmread(done.files[0].path)
    assert (sheet.SOPClassUID, sheet.BurnedInAnnotation) == (sop_class, "YES")
    assert sheet.StudyInstanceUID == structure_set.StudyInstanceUID
    assert sheet.SOPInstanceUID == done.files[1].sop_instance_uid
