"""The QA sheet: legible, complete, honest about what is missing, and the same bytes each time."""

import subprocess
import sys
from dataclasses import replace
from functools import cache
from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from pydicom import Dataset

from daemon import qa_sheet
from daemon.qa_sheet import QASheet, _compose, build_qa_sheet
from daemon.qa_sheet_table import rows_of
from daemon.qa_sheet_words import drawable, patient_line, shortened, width_points, wrapped
from daemon.result_building import Contoured
from daemon.structure_template import ROI, apply_template, template_of
from daemon.template_file import load_template
from model.ct import CTVolume
from model.findings import Finding, Severity
from model.geometry import Mask
from model.structures import STRUCTURES, structure
from tests.phantom import make_grid
from tests.structure_set_samples import IDENTITY, MODEL, NOT_FOUND, ct_header, ct_volume, organ_masks, rois_of

GRID = make_grid(size=(64, 60), pixel_spacing_mm=(3.5, 3.0), offsets_mm=np.arange(-100, 101, 2.5))
MASKS = organ_masks(GRID)
HEADER = ct_header(
    PatientID="MRN-4711",
    PatientName="Doe^Jane",
    StudyDate="20240228",
    SeriesNumber="3",
    SeriesDescription="Head of Jane",
)
RANGES = {"Parotid_L": (1.0, 2.0), "Parotid_R": (50.0, 60.0), "Lens_L": (0.1, 9.0), "Brain": (1000.0, 2000.0)}
FINDINGS = (
    Finding("unlike", Severity.NOTE, None, "contrast medium in the vessels"),
    Finding("wrong-side", Severity.HOLD, "Parotid_R", "lies to the left of Parotid_L"),
    Finding("volume-high", Severity.WARNING, "Parotid_L", "20 cm³, usual are 1 to 2 cm³"),
)


def rois(masks: dict[str, Mask]) -> list[ROI]:
    return apply_template(template_of(list(masks)), masks, GRID)


def volume(**attributes: object) -> CTVolume:
    return ct_volume(GRID, ct_header(**attributes) if attributes else HEADER)


@cache
def sheet() -> QASheet:
    return build_qa_sheet(
        volume(), rois(MASKS), IDENTITY, MODEL, identify=True, ranges=RANGES, findings=FINDINGS
    )


def composed(given: CTVolume | None = None, structures: list[ROI] | None = None, **options: object) -> Figure:
    settings = {"identify": True, "ranges": RANGES, "findings": FINDINGS, **options}
    shown = rois(MASKS) if structures is None else structures
    return _compose(given or volume(), shown, IDENTITY, MODEL, **settings)


def texts(figure: Figure) -> list[Text]:
    """Of the page, without the panels'."""
    return [text for text in figure.axes[0].texts if text.get_text().strip()]


def said(figure: Figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    renderer = FigureCanvasAgg(figure).get_renderer()
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]


# What it says


def test_it_says_who_what_when_and_that_nobody_looked():
    words = said(composed())
    for part in (
        "Doe, Jane",
        "MRN-4711",
        "2024-02-28",
        "CT series 3",
        "Head of Jane",
        "81 slices 2.5 mm apart",
        f"{MODEL.name} {MODEL.version}",
        MODEL.digest[:12],
        "2024-02-29 23:59 UTC+0200",
        "NEEDS REVIEW",
    ):
        assert part in words


def test_it_names_the_patient_only_where_it_may():
    words = said(composed(identify=False)).casefold()
    for part in ("doe", "jane", "mrn", "4711"):
        assert part not in words
    assert "patient not named on this sheet" in words
    assert "2024-02-28" in words


def test_every_organ_stands_in_the_table_with_its_volume():
    words = said(composed()).splitlines()
    for name, mask in MASKS.items():
        assert name in words
        assert mask.is_empty or any(f"{mask.volume_cm3(GRID):.{digits}f}" in words for digits in range(3))
    assert "not found" in words
    assert f"Not found: {NOT_FOUND}." in words


def test_a_derived_structure_is_listed_and_what_is_left_out_is_told_with_its_reason(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text(
        'name = "S"\n[[structures]]\norgan = "Brain"\n'
        '[[structures]]\nname = "Cord PRV"\nmargin = { of = "SpinalCord", mm = 5 }\n'
        f'[[structures]]\nname = "{"Both glands " * 5}."\nunion = ["Parotid_L", "{NOT_FOUND}"]\n'
    )
    made = apply_template(load_template(site), MASKS, GRID)

    lines = said(composed(structures=made)).splitlines()
    words = " ".join(lines)

    assert {"Cord PRV", f"{made[1].mask.volume_cm3(GRID):.1f}"} <= set(lines)
    assert "All structures were found" not in words
    assert "Not found: Both glands" in words
    assert f"{NOT_FOUND} was not found" in words


def test_where_there_are_no_structures_none_are_said_to_be_found():
    assert "All structures were found" not in said(composed(structures=[]))


def test_findings_are_numbered_gravest_first_and_the_table_refers_to_them():
    words = said(composed()).splitlines()
    order = [words.index(severity) for severity in ("HOLD", "WARNING", "NOTE")]
    assert order == sorted(order)
    assert words[order[0] - 1 : order[0] + 2] == ["1", "HOLD", "Parotid_R: lies to the left of Parotid_L"]
    ordered = (FINDINGS[1], FINDINGS[2], FINDINGS[0])
    notes = {row.name: row.notes for row in rows_of(rois(MASKS), GRID, RANGES, ordered) if row.notes}
    assert notes == {"Parotid_R": (1,), "Parotid_L": (2,)}


def test_names_and_colours_are_those_of_the_structure_set():
    """A person compares both side by side; exchanged colours would say the other side."""
    left, right = (structure(f"Parotid_{side}").colour_rgb for side in "LR")
    others = {"Parotid_L": ("Ohrspeichel li", right), "Parotid_R": ("Ohrspeichel re", left)}
    renamed = [
        replace(roi, name=others[roi.name][0], colour_rgb=others[roi.name][1]) if roi.name in others else roi
        for roi in rois(MASKS)
    ]
    figure = composed(structures=renamed)
    rows = {row.name: row.colour_rgb for row in rows_of(renamed, GRID, RANGES, ())}
    assert rows["Ohrspeichel li"] == right
    assert {
        "Ohrspeichel li",
        "Ohrspeichel re",
        "Ohrspeichel re (Parotid_R): lies to the left of Parotid_L",
    } <= {text.get_text() for text in texts(figure)}
    table = figure.axes[0].patches
    at = {text.get_text(): text.get_position()[1] for text in texts(figure)}
    for name, shade in (("Ohrspeichel li", right), ("Ohrspeichel re", left)):
        swatch = min(table, key=lambda patch, y=at[name]: abs(patch.get_y() + 1.5 - y))
        assert np.allclose(swatch.get_facecolor()[:3], np.array(shade) / 255)
    # In the first axial section with both, the left one lies at the right.
    drawn = [
        (tuple((np.array(shade[:3]) * 255).round().astype(int)), line[:, 0].mean())
        for axes in figure.axes[1:7]
        for lines in axes.collections
        for line, shade in zip(lines.get_segments(), lines.get_colors(), strict=True)
    ]
    assert min(x for shade, x in drawn if shade == right) > max(x for shade, x in drawn if shade == left)


def test_no_findings_and_no_checks_are_told_apart():
    assert "found nothing; that is no review" in said(composed(findings=())).replace("\n", " ")
    assert "checks did not run" in said(composed(findings=None)).replace("\n", " ")


def test_what_is_remarkable_about_the_ct_comes_last():
    words = said(composed(replace(volume(), remarks=("1 copied file left out",)))).splitlines()
    assert words[words.index("CT") - 1 : words.index("CT") + 2] == ["4", "CT", "1 copied file left out"]


def test_findings_and_remarks_without_room_are_counted():
    many = [
        Finding("x", Severity.WARNING, "Brain", f"finding {n}, with words enough for a line")
        for n in range(90)
    ]
    words = said(composed(replace(volume(), remarks=("unheard of",)), findings=many))
    shown = sum(f"finding {n}, " in words for n in range(90))
    assert 5 < shown < 90
    assert f"and {91 - shown} more in the job's record" in words


def test_grave_doubts_are_red():
    grave = imread(BytesIO(sheet().png))[..., :3]
    mild = build_qa_sheet(
        volume(), rois(MASKS), IDENTITY, MODEL, identify=True, ranges=RANGES, findings=FINDINGS[:1]
    )
    pixels = [
        picture[20:100, -400:-60].reshape(-1, 3) for picture in (grave, imread(BytesIO(mild.png))[..., :3])
    ]
    red, amber = (np.median(each, axis=0) for each in pixels)
    assert red[1] < 0.2
    assert amber[1] > 0.7


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("Parotid_L", "high"),
        ("Parotid_R", "low"),
        ("Lens_L", "usual"),
        ("SpinalCord", ""),
        (NOT_FOUND, "not found"),
    ],
)
def test_volumes_are_judged_by_their_ranges(name, verdict):
    (row,) = (row for row in rows_of(rois(MASKS), GRID, RANGES, ()) if row.name == name)
    assert row.verdict == verdict


@pytest.mark.parametrize("slices", [slice(0, 30), slice(60, None)])
def test_an_organ_that_the_image_cuts_is_not_called_small(slices):
    full = np.zeros(GRID.shape, dtype=bool)
    full[slices, 20:30, 20:30] = True
    (row,) = rows_of(rois({"Brain": Mask.from_full(full)}), GRID, RANGES, ())
    assert row.verdict == "cut off"


# How it looks


def test_it_is_large_enough_for_a_screen_and_a4():
    height, width = imread(BytesIO(sheet().png)).shape[:2]
    assert width > 1600
    assert width / height == pytest.approx(297 / 210, rel=0.01)
    assert b"/MediaBox [ 0 0 841.8" in sheet().pdf
    assert all(text.get_fontsize() >= 6 for axes in composed().axes for text in axes.texts if text.get_text())


def test_every_organ_is_drawn_in_its_colour_in_the_panels():
    picture = (imread(BytesIO(sheet().png))[..., :3] * 255).round()
    panels = picture[140:, : int(picture.shape[1] * 0.6)]
    for name in MASKS:
        near = np.abs(panels - structure(name).colour_rgb).max(axis=-1) < 12
        assert near.any() == (name != NOT_FOUND), name


def test_nine_panels_have_their_letters_right_at_the_left():
    panels = composed().axes[1:]
    assert len(panels) == 9
    for panel in panels:
        letters = {text.get_text(): text.get_position() for text in panel.texts if len(text.get_text()) == 1}
        left, right = ("A", "P") if "A" in letters and "H" in letters else ("R", "L")
        assert letters[left][0] < 0.1
        assert letters[right][0] > 0.9


FULL = {each.name: MASKS["Parotid_L"] for each in STRUCTURES}
NOTHING = {each.name: MASKS[NOT_FOUND] for each in STRUCTURES}
LONG = [Finding("x", Severity.HOLD, "Bone_Mandible", "words of some length " * 9)] * 12


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"structures": rois(FULL), "findings": LONG, "ranges": dict.fromkeys(FULL, (1234.0, 9876.0))},
        {"structures": rois(NOTHING), "findings": None, "ranges": None},
        {"given": volume(PatientName="W" * 64, PatientID="W" * 64, SeriesDescription="W" * 64)},
    ],
    ids=["usual", "full", "nothing found", "long names"],
)
def test_no_words_overlap_or_leave_the_page(options):
    figure = composed(**options)
    placed = boxes(figure)
    page = figure.bbox
    for text, box in placed:
        assert page.x0 < box.x0, text
        assert box.x1 < page.x1, text
        assert page.y0 < box.y0, text
        assert box.y1 < page.y1, text
    for (text, box), (other_text, other) in combinations(placed, 2):
        inner = box.padded(-1.5)  # the boxes of lines have room for accents
        assert not inner.overlaps(other.padded(-1.5)), (text, other_text)
    for panel in figure.axes[1:]:
        for text, box in placed:
            assert not panel.get_window_extent().overlaps(box.padded(-1.5)), text


# What must not break it


@pytest.mark.parametrize("name", ["$x^2$^{Broken", "山田^太郎=Yamada^Taro", "^^^^"])
def test_any_name_can_be_written(name):
    header = ct_header(PatientName=name, SpecificCharacterSet="ISO_IR 192")
    made = build_qa_sheet(ct_volume(GRID, header), rois(MASKS), IDENTITY, MODEL, identify=True)
    assert made.png.startswith(b"\x89PNG")


def test_what_the_font_lacks_becomes_a_question_mark():
    assert drawable("Zoë 山\n³ ▼") == "Zoë ? ³ ▼"


def test_a_ct_without_optional_attributes_and_with_few_slices_is_drawn():
    grid = make_grid(offsets_mm=[0, 3], size=(64, 60))
    bare = ct_volume(grid, ct_header())
    words = said(composed(bare, [], ranges=None, findings=None))
    assert "unknown date" in words
    assert "no name" in words


def test_lines_are_no_wider_than_they_may_be():
    text = "a few words and one_that_is_far_too_long_for_any_line_of_this_width and more"
    lines = wrapped(text, 8, 100)
    assert all(width_points(line, 8) <= 100 for line in lines)
    assert " ".join(lines).startswith("a few words and one_that_is")
    assert shortened("short", 8, 100) == "short"
    assert shortened(text, 8, 100).endswith("…")


# Bytes


def test_the_same_arguments_make_the_same_bytes_in_another_process():
    code = (
        "import sys, hashlib\n"
        "from tests.test_qa_sheet import sheet\n"
        "made = sheet()\n"
        "print(hashlib.sha256(made.png + made.pdf).hexdigest())"
    )
    answers = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(answers) == 1


def test_neither_file_says_when_it_was_drawn():
    for word in (b"CreationDate", b"ModDate", b"matplotlib", b"Software"):
        assert word not in sheet().pdf
        assert word not in sheet().png


def test_two_patients_whose_names_the_font_lacks_are_told_apart():
    lines = set()
    for name, number in (("王^小东", "病人-1"), ("李^大明", "住院-1")):
        header = Dataset()
        header.SpecificCharacterSet, header.PatientName, header.PatientID = "ISO_IR 192", name, number
        lines.add(drawable(patient_line(header, identify=True)))

    assert lines == {
        r"\u738b, \u5c0f\u4e1c · ID \u75c5\u4eba-1",
        r"\u674e, \u5927\u660e · ID \u4f4f\u9662-1",
    }


def test_the_sheet_is_drawn_with_the_findings_and_the_usual_volumes(monkeypatch):
    grid, seen = make_grid(), {}
    monkeypatch.setattr(qa_sheet, "build_qa_sheet", lambda *_args, **words: seen.update(words))
    findings, usual = [Finding("wrong-side", Severity.HOLD, "Brain", "expected")], {"Brain": (900.0, 1700.0)}

    contoured = Contoured(
        ct_volume(grid), rois_of(organ_masks(grid), grid), findings, (), MODEL, IDENTITY, usual
    )
    assert contoured.qa_sheet is None

    assert seen == {"identify": True, "findings": findings, "ranges": usual}
