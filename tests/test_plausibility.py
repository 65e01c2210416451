"""What was found is judged organ by organ: each fault of contours is noticed, and good contours pass."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from model.findings import Finding, Severity, gravest
from model.geometry import Mask, SliceGrid
from model.organ_measures import measure_organ, measure_organs
from model.plausibility import ABOVE, ANCHORS, IN_FRONT, LEAST_CONFIDENCE, MIDLINE, check_plausibility
from model.reference_ranges import Range, ReferenceRanges
from model.structures import STRUCTURES
from tests.anatomy import average_anatomy
from tests.phantom import make_grid, phantom_masks
from training.reference_ranges import reference_ranges

Masks = dict[str, Mask]


@cache
def anatomy() -> tuple[Masks, SliceGrid]:
    _, grid, organs = average_anatomy()
    return organs, grid


@cache
def ranges() -> ReferenceRanges:
    """Of ten patients who resemble the average anatomy within a tenth."""
    organs = measure_organs(*anatomy())
    cases = [
        {
            name: replace(organ, volume_cm3=organ.volume_cm3 * scale, section_cm2=organ.section_cm2 * scale)
            for name, organ in organs.items()
        }
        for scale in np.linspace(0.9, 1.1, 10).tolist()
    ]
    return reference_ranges(cases, "ten phantoms")


def judged(changes: Masks) -> set[tuple[str, str | None, Severity]]:
    """Findings on the anatomy with some masks changed, other than that the canal leaves the image."""
    masks, grid = anatomy()
    found = check_plausibility({**masks, **changes}, grid, ranges())
    return {(f.code, f.structure, f.severity) for f in found} - {
        ("organ-cut-off", "SpinalCanal", Severity.NOTE)
    }


def moved(name: str, slices: int = 0, rows: int = 0, columns: int = 0) -> Mask:
    mask = anatomy()[0][name]
    shift = (slices, rows, columns)
    corner = tuple(c + s for c, s in zip(mask.corner, shift, strict=True))
    return replace(mask, corner=corner)


def below(name: str, share: float) -> Mask:
    """The part of an organ in the lowest share of its slices."""
    full = anatomy()[0][name].full()
    filled = np.flatnonzero(full.any(axis=(1, 2)))
    full[filled[0] + max(1, round(share * len(filled))) :] = False
    return Mask.from_full(full)


def test_good_contours_are_no_news() -> None:
    """The anatomy's own organs have no finding but that the canal goes on below the image."""
    assert judged({}) == set()


def test_left_and_right_exchanged_is_held() -> None:
    masks = anatomy()[0]

    found = judged({"Parotid_L": masks["Parotid_R"], "Parotid_R": masks["Parotid_L"]})

    assert ("sides-swapped", "Parotid_L", Severity.HOLD) in found
    assert {("wrong-side", f"Parotid_{side}", Severity.HOLD) for side in "LR"} <= found


def test_what_two_organs_may_be_wrong_about_concerns_both() -> None:
    masks, grid = anatomy()
    swapped = {"Parotid_L": masks["Parotid_R"], "Parotid_R": masks["Parotid_L"]}
    upside_down = {"Brainstem": below("SpinalCanal", 0.2), "SpinalCord": masks["Brainstem"]}

    found = {f.code: f for f in check_plausibility({**swapped, **upside_down}, grid, None)}

    assert found["sides-swapped"].concerns({"Parotid_R"})
    assert found["wrong-order-head-feet"].concerns({"SpinalCord"})
    assert not found["wrong-order-head-feet"].concerns({"Brain"})


def test_an_organ_on_the_other_side_without_its_partner_is_held() -> None:
    """The midline tells the side where only one of a pair was found."""
    masks, grid = anatomy()
    only = {"Brainstem": masks["Brainstem"], "Cochlea_L": masks["Cochlea_R"]}

    found = check_plausibility(only, grid, None)

    assert ("wrong-side", "Cochlea_L", Severity.HOLD) in {(f.code, f.structure, f.severity) for f in found}


@pytest.mark.parametrize(("front", "back"), IN_FRONT)
def test_what_lies_in_front_is_held_when_it_lies_behind(front: str, back: str) -> None:
    """Every pair of the table: the order that the anatomy has is not noticed, the opposite is."""
    masks, grid = anatomy()
    organs = measure_organs({name: masks[name] for name in (front, back)}, grid)
    gap = organs[back].centroid_mm[1] - organs[front].centroid_mm[1]
    behind = moved(front, rows=round(float(gap) / grid.pixel_spacing_mm[0]) + 3)

    assert ("wrong-order-front-back", front, Severity.HOLD) in judged({front: behind})


@pytest.mark.parametrize(("high", "low"), [pair for pair in ABOVE if not pair[1].startswith("Lung")])
def test_what_lies_above_is_held_when_it_lies_below(high: str, low: str) -> None:
    masks, grid = anatomy()
    organs = measure_organs({name: masks[name] for name in (high, low)}, grid)
    gap = organs[high].centroid_mm[2] - organs[low].centroid_mm[2]
    lowered = moved(high, slices=-round(float(gap) / grid.spacing_mm[0]) - 2)
    assume_inside = max(0, lowered.corner[0])

    found = judged({high: replace(lowered, corner=(assume_inside, *lowered.corner[1:]))})

    assert ("wrong-order-head-feet", high, Severity.HOLD) in found


def test_too_small_is_warned_about_and_far_too_small_held() -> None:
    """Half an eye is doubtful, a twentieth of one is no eye."""
    assert ("organ-too-small", "Eye_L", Severity.WARNING) in judged({"Eye_L": below("Eye_L", 0.5)})
    assert ("organ-too-small", "Eye_L", Severity.HOLD) in judged({"Eye_L": below("Eye_L", 0.1)})


def test_too_large_is_warned_about_and_far_too_large_held() -> None:
    masks = anatomy()[0]
    wider = masks["Eye_R"].full()
    for axis in (1, 2):
        for step in (-3, 3):
            wider |= np.roll(wider, step, axis)

    assert ("organ-too-large", "Eye_R", Severity.WARNING) in judged({"Eye_R": Mask.from_full(wider)})
    assert ("organ-too-large", "Cochlea_R", Severity.HOLD) in judged({"Cochlea_R": masks["Eye_R"]})


def test_the_canal_is_judged_by_its_cross_section_and_not_by_its_length() -> None:
    """An image that shows half the canal is no news, a canal as thick as a neck is."""
    masks = anatomy()[0]
    fat = masks["SpinalCanal"].full()
    for axis in (1, 2):
        for step in (-12, 12):
            fat |= np.roll(fat, step, axis)

    assert "organ-too-small" not in {
        code for code, _, _ in judged({"SpinalCanal": below("SpinalCanal", 0.5)})
    }
    assert "organ-too-large" in {code for code, _, _ in judged({"SpinalCanal": Mask.from_full(fat)})}


def test_an_organ_at_the_end_of_the_image_is_cut_off_and_not_too_small() -> None:
    """A parotid of which the image shows a third is warned about for that, and for nothing else."""
    mask = below("Parotid_L", 0.3)
    masks, grid = anatomy()
    last = mask.corner[0] + len(mask.voxels)
    shorter = replace(grid, positions_mm=grid.positions_mm[:last])
    cut = {
        name: Mask.from_full(whole.full()[:last])
        for name, whole in masks.items()
        if name in {"Parotid_L", "Bone_Mandible"}
    }

    found = check_plausibility(cut, shorter, ranges())

    about = {(f.code, f.severity) for f in found if f.structure == "Parotid_L"}
    assert about == {("organ-cut-off", Severity.WARNING)}


def test_an_organ_at_the_edge_of_the_slices_is_cut_off() -> None:
    mask = anatomy()[0]["Parotid_R"]

    found = judged({"Parotid_R": replace(mask, corner=(mask.corner[0], mask.corner[1], 0))})

    assert ("organ-cut-off", "Parotid_R", Severity.WARNING) in found


def test_sides_of_unequal_size_are_warned_about_at_the_smaller() -> None:
    assert ("unequal-sides", "Parotid_L", Severity.WARNING) in judged({"Parotid_L": below("Parotid_L", 0.5)})


def test_a_ragged_surface_is_warned_about() -> None:
    """Every second voxel knocked out of an organ's shell is no shape of an organ."""
    full = anatomy()[0]["Parotid_L"].full()
    slices, rows, columns = np.indices(full.shape, sparse=True)
    full &= (slices + rows + columns) % 3 > 0

    assert ("ragged-organ", "Parotid_L", Severity.WARNING) in judged({"Parotid_L": Mask.from_full(full)})


def test_an_organ_in_parts_is_warned_about() -> None:
    full = anatomy()[0]["Glnd_Submand_L"].full()
    full |= np.roll(full, -40, axis=1)

    assert ("several-parts", "Glnd_Submand_L", Severity.WARNING) in judged(
        {"Glnd_Submand_L": Mask.from_full(full)}
    )


def test_an_organ_far_from_its_usual_place_is_warned_about() -> None:
    """A parotid 50 mm too low is on its side and has its size, but lies where no parotid lies.

    From its partner alone it cannot be told which of the two is misplaced, so both are named.
    """
    lowered = {"Parotid_R": moved("Parotid_R", slices=-20)}
    masks, grid = anatomy()
    of_pair = {"Parotid_L": masks["Parotid_L"], **lowered}

    found = judged(lowered)
    without_others = check_plausibility(of_pair, grid, ranges())

    assert ("unusual-place", "Parotid_R", Severity.WARNING) in found
    assert {f.structure for f in without_others if f.code == "unusual-place"} == {"Parotid_L", "Parotid_R"}


def test_an_organ_that_another_was_compared_with_is_doubtful_too() -> None:
    """A site that wants the cord alone must hear that the eyes lie on the wrong side of it: it may be the cord."""
    masks, grid = anatomy()
    across = {f"Eye_{side}": moved(f"Eye_{side}", columns=-60) for side in "LR"}
    small = {"Parotid_L": below("Parotid_L", 0.5)}
    low = {"Parotid_R": moved("Parotid_R", slices=-20)}

    def others(changes: dict[str, Mask], code: str) -> set[str]:
        found = check_plausibility({**masks, **changes}, grid, ranges())
        return {name for each in found if each.code == code for name in each.others}

    assert "Brainstem" in others(across, "wrong-side")
    assert others(small, "unequal-sides") == {"Parotid_R"}
    assert "Brainstem" in others(low, "unusual-place")


def test_what_the_network_doubts_is_warned_about() -> None:
    masks, grid = anatomy()

    found = check_plausibility(
        masks, grid, ranges(), {"Eye_L": LEAST_CONFIDENCE - 0.1, "Eye_R": LEAST_CONFIDENCE + 0.1}
    )

    assert {f.structure for f in found if f.code == "uncertain-organ"} == {"Eye_L"}


def test_without_ranges_facts_are_judged_and_a_note_says_what_is_not() -> None:
    """An older bundle still has its sides checked."""
    masks, grid = anatomy()
    swapped = {**masks, "Eye_L": masks["Eye_R"], "Eye_R": masks["Eye_L"]}

    good = check_plausibility(masks, grid, None)
    bad = check_plausibility(swapped, grid, None)

    assert {(f.code, f.severity) for f in good if f.structure is None} == {
        ("plausibility-not-checked", Severity.NOTE)
    }
    assert gravest(good) is Severity.NOTE
    assert gravest(bad) is Severity.HOLD


def test_empty_masks_are_passed_over() -> None:
    masks, grid = anatomy()
    empty = Mask.from_full(np.zeros(grid.shape, bool))

    assert check_plausibility({"Brain": empty}, grid, ranges()) == ()
    assert "Brain" not in measure_organs({**masks, "Brain": empty}, grid)


def test_texts_have_numbers_found_and_expected() -> None:
    """A reader at night needs no manual: every text says what was found and what was expected."""
    masks, grid = anatomy()
    wrong = {**masks, "Eye_L": below("Eye_L", 0.5), "Parotid_R": moved("Parotid_R", slices=-20)}

    found: tuple[Finding, ...] = check_plausibility(wrong, grid, ranges())

    assert len(found) > 2
    assert all("expected" in f.text for f in found)
    assert all(any(c.isdigit() for c in f.text) for f in found if f.code != "organ-cut-off")


def test_tables_of_facts_name_organs() -> None:
    names = {organ.name for organ in STRUCTURES}
    assert {name for pair in (*IN_FRONT, *ABOVE) for name in pair} <= names
    assert set(ANCHORS) <= names
    for name, anchors in ANCHORS.items():
        assert name not in anchors
        assert set(anchors) <= names, name


SCANS: dict[str, dict] = {
    "as usual": {},
    "feet first prone": {"orientation": "FFP"},
    "tilted": {"tilt_degrees": 14},
    "uneven": {"offsets_mm": [*np.arange(-100, 0, 2.5), *np.arange(0, 101, 5)]},
}


@pytest.mark.parametrize("scan", SCANS.values(), ids=SCANS.keys())
def test_measures_do_not_depend_on_how_the_slices_lie(scan: dict) -> None:
    """A ball of 22 mm radius at (45, 0, 0) LPS measures the same on every grid."""
    grid = make_grid(**scan)

    ball = measure_organ(phantom_masks(grid)["left_ball"], grid)

    assert ball.centroid_mm == pytest.approx((45, 0, 0), abs=1.0)
    assert ball.volume_cm3 == pytest.approx(4 / 3 * np.pi * 2.2**3, rel=0.05)
    assert ball.roughness == pytest.approx(1.5, abs=0.1)
    assert ball.part_shares == (1.0,)


def test_ranges_outside_which_nothing_is_expected() -> None:
    """Ends belong to a range."""
    usual = Range(1.0, 2.0, 9)
    inside: Callable[[float], bool] = usual.__contains__
    assert [inside(value) for value in (0.99, 1.0, 2.0, 2.01)] == [False, True, True, False]


@pytest.mark.parametrize("middle", MIDLINE)
def test_whatever_was_found_of_the_midline_tells_the_side(middle):
    masks, grid = anatomy()
    found = check_plausibility({middle: masks[middle], "Cochlea_L": masks["Cochlea_R"]}, grid, None)
    assert ("wrong-side", "Cochlea_L", Severity.HOLD) in {(f.code, f.structure, f.severity) for f in found}


def test_no_fact_about_places_is_lost():
    assert {front for front, _ in IN_FRONT} == {
        f"{stem}_{side}"
        for stem in ("Eye", "Lens", "OpticNrv", "Glnd_Lacrimal", "Glnd_Submand")
        for side in "LR"
    } | {"Bone_Mandible"}
    assert len(IN_FRONT) == 8 + 3 + 2 + 2 + 2 + 2
    assert len(ABOVE) == 3 + 4 + 2 + 4


def test_a_canal_that_leaves_the_image_may_still_be_too_thin():
    full = anatomy()[0]["SpinalCanal"].full()
    thin = np.zeros_like(full)
    for index in np.flatnonzero(full.any(axis=(1, 2))):
        inside = np.argwhere(full[index])
        middle = inside[len(inside) // 2]
        thin[index, middle[0], middle[1]] = True
    assert ("organ-too-small", "SpinalCanal", Severity.HOLD) in judged({"SpinalCanal": Mask.from_full(thin)})


def test_a_lung_at_the_side_of_the_image_is_warned_about():
    _, grid = anatomy()
    full = np.zeros(grid.shape, bool)
    full[5:20, 100:120, :20] = True
    found = {f.code: f for f in check_plausibility({"SpinalCanal": Mask.from_full(full)}, grid, None)}
    assert found["organ-cut-off"].severity is Severity.WARNING
