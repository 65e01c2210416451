"""The demonstration's CT is a plausible head and neck of nobody, the right way round."""

import json

import numpy as np
import pydicom
import pytest
import SimpleITK

from model.structures import STRUCTURES
from tests.anatomy import AVERAGE, average_anatomy, write_demo_series
from tests.paths import shared_data
from training.average_anatomy import training_scans
from training.average_ct import first_transforms, training_cases


@pytest.fixture(scope="module")
def anatomy():
    return average_anatomy()


@pytest.fixture(scope="module")
def middles(anatomy):
    """Return the middle of every organ in LPS mm."""
    _, grid, organs = anatomy
    found = {}
    for name, mask in organs.items():
        index = np.argwhere(mask.voxels).mean(axis=0) + mask.corner
        slice_index = round(index[0])
        found[name] = grid.to_patient(slice_index, index[None, 1:])[0]
    return found


def test_the_image_has_the_size_of_a_planning_ct(anatomy):
    hu, grid, organs = anatomy
    assert hu.shape == grid.shape
    assert hu.shape[1:] == (512, 512)
    assert hu.dtype == np.int16
    assert grid.spacing_mm == pytest.approx((2.5, 0.977, 0.977), abs=1e-3)
    assert 350 < grid.spacing_mm[0] * len(hu) < 420
    assert all(mask.shape == hu.shape for mask in organs.values())


def test_all_organs_of_the_model_are_there(anatomy):
    organs = anatomy[2]
    assert set(organs) == {structure.name for structure in STRUCTURES}
    assert not any(mask.is_empty for mask in organs.values())


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("Brain", 25, 45),
        ("Brainstem", 22, 45),
        ("Eye_L", 0, 30),
        ("Lens_R", 45, 110),
        ("OpticNrv_L", 10, 60),
        ("Parotid_L", -40, 30),
        ("Glnd_Submand_R", 20, 60),
        ("SpinalCord", 20, 50),
        ("Bone_Mandible", 500, 1200),
        ("Lung_L", -900, -650),
        ("Cochlea_R", 300, 1000),
    ],
)
def test_organs_have_their_hounsfield_units(anatomy, name, low, high):
    hu, _, organs = anatomy
    assert low < np.median(hu[organs[name].full()]) < high


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("Brain", 1100, 1600),
        ("Brainstem", 18, 36),
        ("Eye_L", 6, 11),
        ("Eye_R", 6, 11),
        ("Lens_L", 0.1, 0.4),
        ("Cochlea_L", 0.03, 0.2),
        ("Parotid_R", 15, 45),
        ("Bone_Mandible", 40, 85),
        ("SpinalCord", 9, 25),
    ],
)
def test_organs_have_the_size_of_organs(anatomy, name, low, high):
    _, grid, organs = anatomy
    assert low < organs[name].volume_cm3(grid) < high


def test_left_organs_lie_on_the_patients_left(middles):
    for name, middle in middles.items():
        if name.endswith("_L"):
            right = middles[name.removesuffix("_L") + "_R"]
            assert middle[0] > right[0] + 20, name


def test_organs_lie_above_and_before_each_other_as_in_a_patient(middles):
    heights = ["Lung_L", "Glnd_Submand_L", "Bone_Mandible", "Brainstem", "Eye_L", "Brain"]
    assert [middles[name][2] for name in heights] == sorted(middles[name][2] for name in heights)
    assert middles["Lens_L"][1] < middles["Eye_L"][1] < middles["OpticNrv_L"][1] < middles["Brainstem"][1]
    assert middles["Bone_Mandible"][1] < middles["SpinalCord"][1]


def test_lens_lies_in_the_eye_and_cord_in_the_canal(anatomy):
    organs = anatomy[2]
    for inner, outer in (("Lens_L", "Eye_L"), ("Lens_R", "Eye_R"), ("SpinalCord", "SpinalCanal")):
        inside = organs[inner].full()
        assert (inside & organs[outer].full()).sum() > 0.8 * inside.sum(), inner


def test_left_and_right_are_not_mirror_images(anatomy):
    """A flipped picture can be told from the right one: heart and great vessels lie to the left."""
    _, grid, organs = anatomy
    assert organs["Lung_R"].volume_cm3(grid) > organs["Lung_L"].volume_cm3(grid)


def test_air_lies_around_the_patient_and_the_head_is_whole(anatomy):
    hu, _, organs = anatomy
    assert np.median(hu[-1]) < -900
    above = organs["Brain"].corner[0] + len(organs["Brain"].voxels)
    assert hu[above : above + 5].max() > 300, "skull above the brain"


def test_the_seed_decides_the_noise_alone(anatomy):
    first, _, organs = anatomy
    other = average_anatomy(seed=1)
    assert not np.array_equal(first, other[0])
    assert abs(first.astype(int) - other[0]).mean() < 40
    assert organs["Brain"].count == other[2]["Brain"].count


def test_what_is_stored_is_small():
    assert AVERAGE.stat().st_size < 1.5e6


def test_the_series_is_the_same_each_time_and_names_an_invented_patient(tmp_path, anatomy):
    hu, _, _ = anatomy
    paths = write_demo_series(tmp_path)
    assert len(paths) == len(hu)
    dataset = pydicom.dcmread(paths[0])
    assert dataset.PatientName == "Phantom^Anatomy"
    assert dataset.PatientID == "OARLOCK-DEMO"
    assert np.array_equal(dataset.pixel_array + float(dataset.RescaleIntercept), hu[0])


def test_no_validation_patient_is_in_the_average():
    data = shared_data()
    openkbp = json.loads((data / "openkbp/cases.json").read_text())
    cases, scans = training_cases(data), training_scans(data)
    assert len(cases) >= 20
    assert {openkbp[case.name]["source_split"] for case in cases} == {"train"}
    kept_apart = {record["tcia_scan"] for record in openkbp.values() if record["source_split"] != "train"}
    assert len(scans) >= 20
    assert not {path.name.split("_")[0] for path in scans} & kept_apart


def test_cases_are_first_aligned_by_their_organs():
    """The middle of the average brainstem falls into every patient's brainstem."""
    cases = training_cases(shared_data())[:3]
    records = json.loads((shared_data() / "openkbp/cases.json").read_text())
    for case, transform in zip(cases, first_transforms(cases), strict=True):
        height = transform.TransformPoint((0.0, 0.0, 0.0))[2]
        image = SimpleITK.ReadImage(str(case.labels))
        first, last = (
            image.TransformIndexToPhysicalPoint((0, 0, k))[2]
            for k in records[case.name]["label_slices"]["Brainstem"]
        )
        assert first < height < last
