"""The invented CT keeps the organs where they were and looks like tissue."""

import json

import numpy as np
import pytest
import SimpleITK

from tests.paths import shared_data
from training.synthesis import synthesise, with_room


def ball(shape, centre, radii):
    """Return an ellipsoid of voxels."""
    grid = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True)) < 1


SPACING = (5.0, 4.0, 4.0)


def crude_patient():
    """Return balls where the organs of a patient are, left and right told apart by size."""
    shape = (80, 64, 128)
    z = np.arange(shape[0])[:, None, None]
    organs = {
        "Brain": ball(shape, (66, 32, 64), (11, 20, 17)),
        "Brainstem": ball(shape, (55, 31, 64), (6, 4, 4)),
        "SpinalCanal": ball(shape, (0, 36, 64), (1e9, 3, 3)) & (z < 52),
        "SpinalCord": ball(shape, (0, 36, 64), (1e9, 1.5, 1.5)) & (z < 52),
        "Bone_Mandible": ball(shape, (38, 18, 64), (6, 10, 13)) & ~ball(shape, (38, 22, 64), (9, 10, 10)),
    }
    for side, x in (("R", 47), ("L", 81)):
        toward_middle = 64 + np.sign(x - 64) * 8
        organs |= {
            f"Eye_{side}": ball(shape, (58, 10, toward_middle), (2.4, 3, 3)),
            f"Lens_{side}": ball(shape, (58, 8, toward_middle), (1, 1, 1)),
            f"OpticNrv_{side}": ball(shape, (58, 18, 64 + np.sign(x - 64) * 5), (1, 5, 1)),
            f"Cochlea_{side}": ball(shape, (54, 27, 64 + np.sign(x - 64) * 9), (1.1, 1.1, 1.1)),
            f"Glnd_Lacrimal_{side}": ball(shape, (60, 11, 64 + np.sign(x - 64) * 12), (1, 2, 1.5)),
            f"Parotid_{side}": ball(shape, (44, 28, 64 + np.sign(x - 64) * 14), (5, 6, 3)),
            f"Glnd_Submand_{side}": ball(shape, (35, 24, 64 + np.sign(x - 64) * 8), (3, 3, 2.5)),
            f"Lung_{side}": ball(shape, (0, 34, 64 + np.sign(x - 64) * 20), (14, 16, 13)),
        }
    return organs


@pytest.fixture(scope="module")
def patient():
    organs = crude_patient()
    return organs, synthesise(organs, SPACING, np.random.default_rng(3))


def test_the_image_stands_on_the_grid_of_the_organs(patient):
    organs, hu = patient
    assert hu.shape == organs["Brain"].shape
    assert hu.dtype == np.int16
    assert hu.min() >= -1024


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("Brain", 20, 50),
        ("Parotid_L", -90, 80),
        ("Lung_R", -950, -650),
        ("Bone_Mandible", 300, 1600),
        ("Eye_L", -15, 40),
        ("SpinalCord", 10, 60),
        ("Glnd_Submand_R", 0, 90),
    ],
)
def test_every_organ_has_its_own_hounsfield_units(patient, name, low, high):
    organs, hu = patient
    assert low < np.median(hu[organs[name]]) < high


def test_skull_lies_around_the_brain_and_air_around_the_patient(patient):
    _, hu = patient
    assert hu[66, 32, 64 - 20 : 64 - 16].max() > 200
    assert hu[66, 32, 64 + 16 : 64 + 20].max() > 200
    assert np.median(hu[66, :, :8]) < -900


def test_the_same_generator_gives_the_same_image_and_another_gives_another():
    organs = crude_patient()
    first, again, other = (synthesise(organs, SPACING, np.random.default_rng(s)) for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_organ_that_everything_is_placed_by_is_asked_for_by_name():
    organs = crude_patient()
    del organs["Cochlea_L"]
    with pytest.raises(ValueError, match="Cochlea_L"):
        synthesise(organs, SPACING, np.random.default_rng(0))


def test_room_is_added_everywhere_but_at_the_feet():
    """An organ cropped to its own box keeps its first slice and gains skin's worth of air elsewhere."""
    cropped = {"Brain": np.ones((10, 10, 10), bool)}
    brain = with_room(cropped, (2.5, 1.0, 1.0))["Brain"]
    first, last = np.argwhere(brain).min(axis=0), np.argwhere(brain).max(axis=0)
    assert first[0] == 0
    assert np.all(first[1:] >= 20)
    assert np.all(np.array(brain.shape) - 1 - last >= (8, 60, 20))
    assert brain.sum() == 1000


def test_a_real_map_of_organs_becomes_a_ct_in_seconds():
    """On real shapes the skin encloses every organ and the left eye stays on the left."""
    folder = shared_data() / "tcia-shapes"
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(folder / "0522c0014_oncologist.nii.gz")), "LPS")
    bits = json.loads((folder / "organs.json").read_text())["bits"]
    coded = SimpleITK.GetArrayFromImage(image)[:, ::2, ::2]
    spacing = tuple(np.array(image.GetSpacing()[::-1]) * (1, 2, 2))
    organs = with_room({name: (coded >> bit & 1).astype(bool) for name, bit in bits.items()}, spacing)
    hu = synthesise(organs, spacing, np.random.default_rng(0))
    assert np.argwhere(organs["Eye_L"]).mean(axis=0)[2] > np.argwhere(organs["Eye_R"]).mean(axis=0)[2]
    for name, mask in organs.items():
        if not name.startswith("Lung"):
            assert np.median(hu[mask]) > -120, name
