"""Ranges are measured on training patients only, hold most of them, and come back from disk as they were."""

import json
from dataclasses import replace

import numpy as np
import pytest
import typer

from model.bundle import Bundle, add_reference_ranges
from model.geometry import Mask
from model.organ_measures import OrganMeasure
from model.reference_ranges import FEWEST_VALUES, Range, ReferenceRanges
from tests.band_bundle import write_band_bundle
from tests.disks import needs_mount, small_disk
from tests.paths import REPOSITORY
from training.dataset import Case, Frame, bits, write_packs
from training.reference_ranges import main, measure_case, reference_ranges


def test_the_range_of_logarithms_holds_nearly_all_new_values() -> None:
    """Of 20,000 values from where 30 came from, at least 97 of 100 lie in the range without widening."""
    rng = np.random.default_rng(1)
    usual = Range.of_logarithms(np.exp(rng.normal(3, 0.3, 30)).tolist(), 1.0)

    fresh = np.exp(rng.normal(3, 0.3, 20_000))

    assert np.mean((fresh >= usual.low) & (fresh <= usual.high)) > 0.97
    assert usual.high / usual.low < np.exp(2.8 * 2 * 0.3 * 1.6)
    assert usual.cases == 30


def test_few_values_make_a_wider_range_than_many() -> None:
    """With few patients the scatter is itself uncertain."""
    values = [1.0, 2.0, 3.0, 4.0]

    few, many = Range.of_values(values * 2, 0), Range.of_values(values * 20, 0)

    assert few.low < many.low < many.high < few.high


def test_widening_moves_both_ends() -> None:
    values = [10.0, 11, 12, 13, 14, 15, 16, 17]
    plain, wide = (Range.of_values(values, by) for by in (0, 5))
    assert (wide.low, wide.high) == (pytest.approx(plain.low - 5), pytest.approx(plain.high + 5))


def test_too_few_values_or_none_above_zero_are_refused() -> None:
    with pytest.raises(ValueError, match=f"{FEWEST_VALUES} are needed"):
        Range.of_values([1.0, 2.0], 0)
    with pytest.raises(ValueError, match="not positive"):
        Range.of_logarithms([1.0] * 10 + [0.0], 1.0)


def organ(volume: float, centroid: tuple[float, float, float] = (0, 0, 0)) -> OrganMeasure:
    return OrganMeasure(volume, np.array(centroid, float), 2.0, 1.6, (), (1.0,))


def test_left_and_right_share_their_range_and_places_are_mirrored() -> None:
    """Twenty eyes of ten patients make one range, and 30 mm to the right is 30 mm to the organ's side."""
    cases = [
        {
            "Brainstem": organ(25),
            "Eye_L": organ(8 + 0.1 * index, (30, -70, 20)),
            "Eye_R": organ(8 - 0.1 * index, (-30, -70, 20)),
        }
        for index in range(10)
    ]

    ranges = reference_ranges(cases, "test")

    assert ranges.volume_cm3["Eye_L"] == ranges.volume_cm3["Eye_R"]
    assert ranges.volume_cm3["Eye_L"].cases == 20
    assert ranges.offset_mm["Eye from Brainstem"][0] == Range(25.0, 35.0, 20)
    assert ranges.side_ratio["Eye"].low == 1.0
    assert "Parotid_L" not in ranges.volume_cm3


def test_organs_of_fewer_patients_than_needed_have_no_range() -> None:
    ranges = reference_ranges([{"Brainstem": organ(25)}] * (FEWEST_VALUES - 1), "test")
    assert ranges == ReferenceRanges("test")


def case_with(brainstem: slice) -> Case:
    labels = np.zeros((40, 20, 20), bool)
    labels[brainstem, 5:15, 5:15] = True
    frame = Frame((0.0, 0.0, 0.0), (2.5, 2.0, 2.0))
    image = np.zeros((40, 20, 20), np.int16)
    known = {"Brainstem": (-np.inf, np.inf)}
    return Case("invented", "test", image, frame, bits({"Brainstem": labels}), frame, known)


def test_an_organ_that_the_image_cuts_off_is_not_measured() -> None:
    """Half an organ says nothing about the size of whole ones."""
    assert set(measure_case(case_with(slice(10, 20)))) == {"Brainstem"}
    assert measure_case(case_with(slice(0, 10))) == {}
    assert measure_case(case_with(slice(30, 40))) == {}
    assert measure_case(replace(case_with(slice(10, 20)), known={})) == {}


def test_what_the_clinics_drew_is_measured_as_the_organ_but_not_their_cord() -> None:
    """Sizes are those of patients, whoever drew them; sections of the clinics' cord are another's."""
    case = case_with(slice(10, 20))
    for name, measured in (("Brainstem", {"Brainstem"}), ("SpinalCord", set())):
        labels = bits({f"{name}^Clin": case.organ("Brainstem")})
        clinical = replace(case, labels=labels, known={f"{name}^Clin": (-np.inf, np.inf)})
        assert set(measure_case(clinical)) == measured


def test_a_measured_case_is_in_patient_coordinates() -> None:
    measured = measure_case(case_with(slice(10, 20)))["Brainstem"]
    assert measured.centroid_mm.tolist() == [19.0, 19.0, 36.25]
    assert measured.volume_cm3 == pytest.approx(10 * 10 * 10 * 10 / 1000)


def test_validation_packs_are_refused(tmp_path) -> None:
    """Patients of the validation split are no part of any statistics."""
    with pytest.raises(typer.BadParameter, match="training packs only"):
        main([tmp_path / "openkbp-validation-00.npz"], tmp_path)


def test_a_pack_that_is_not_there_is_told_with_its_name(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main([tmp_path / "none.npz"], tmp_path)
    assert ended.value.code == 2
    assert "none.npz cannot be read as a pack" in capsys.readouterr().err


@needs_mount
def test_on_a_full_disk_the_bundle_stays_as_it_was(tmp_path, capsys) -> None:
    """One that does not load any more would stop a node at its next start."""
    with small_disk(tmp_path / "disk") as disk:
        bundle = write_band_bundle(disk.path / "bundle")
        add_reference_ranges(bundle, reference_ranges([], "nobody"))
        before = Bundle.load(bundle)
        (pack,) = write_packs([case_with(slice(4, 12))], tmp_path / "more")
        disk.leave(0)

        with pytest.raises(SystemExit) as ended:
            main([pack], bundle)

        assert ended.value.code == 1
        assert "the bundle is as it was" in " ".join(capsys.readouterr().err.split())
        assert Bundle.load(bundle).reference_ranges == before.reference_ranges


def test_ranges_survive_being_written() -> None:
    written = reference_ranges(
        [{"Brainstem": organ(25 + i), "Eye_L": organ(8, (30, -70 + i, 20))} for i in range(9)], "test"
    )
    assert ReferenceRanges.from_json(written.to_json()) == written


@pytest.mark.parametrize(
    "damage",
    [
        lambda table: table.pop("volume_cm3"),
        lambda table: table.update(format=2),
        lambda table: table.update(volume_cm3={"Eye_L": {"low": 1}}),
        lambda table: table.update(offset_mm={"Eye from Brainstem": []}),
    ],
)
def test_a_table_that_is_none_is_refused(damage) -> None:
    table = json.loads(ReferenceRanges("test").to_json())
    damage(table)
    with pytest.raises(ValueError, match=r"format|not a table|not enough values"):
        ReferenceRanges.from_json(json.dumps(table))


def test_shapes_of_validation_patients_are_in_no_training_pack() -> None:
    """By name: what `training.prepare` keeps apart stays apart."""
    packs = sorted((REPOSITORY / "runs" / "packs").glob("*.npz"))
    if not packs:
        pytest.skip("needs packs in runs/packs, made by python -m training.prepare")
    names: dict[str, set[str]] = {"train": set(), "validation": set()}
    for path in packs:
        with np.load(path, allow_pickle=False) as pack:
            split = "validation" if "-validation-" in path.name else "train"
            names[split] |= {
                case["name"].removeprefix("TCIA_") for case in json.loads(pack["about"].tobytes())
            }
    assert names["train"].isdisjoint(names["validation"])


def test_masks_measured_are_those_of_the_case() -> None:
    case = case_with(slice(10, 20))
    assert Mask.from_full(case.organ("Brainstem")).count == 1000
