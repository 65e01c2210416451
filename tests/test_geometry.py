"""Voxel indices against patient millimetres, worked by hand where numbers stand."""

import numpy as np
import pytest

from model.geometry import Mask, SliceGrid
from tests.phantom import ORIENTATIONS, make_grid


def grid_at(z_mm, pixel_spacing_mm=(3.0, 2.0)):
    """Axial grid of 4 rows and 5 columns at (10, 20, z)."""
    positions = np.array([[10, 20, z] for z in z_mm], float)
    return SliceGrid(positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), pixel_spacing_mm, 4, 5)


def test_row_steps_use_the_first_value_of_pixel_spacing():
    """Two rows down are 2 × 3 mm towards the back, one column right is 2 mm to the left."""
    point = grid_at([0, 5]).to_patient(1, [[2, 1]])

    np.testing.assert_allclose(point, [[12, 26, 5]])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pixel_to_patient_and_back(orientation):
    """Fractional pixels return unchanged, whatever the orientation and tilt."""
    grid = make_grid(orientation, tilt_degrees=14)
    pixels = np.random.default_rng(1).uniform(-5, 130, (20, 2))

    np.testing.assert_allclose(grid.to_pixel(3, grid.to_patient(3, pixels)), pixels, atol=1e-9)


@pytest.mark.parametrize("tilt_degrees", [0, 14, -20])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_affine_agrees_with_every_slice(orientation, tilt_degrees):
    """One matrix places all voxels of evenly stepped slices where the slices place them, sheared or not."""
    grid = make_grid(orientation, tilt_degrees=tilt_degrees)
    by_matrix = grid.affine() @ [7, 11, 30, 1]

    assert grid.is_uniform
    np.testing.assert_allclose(by_matrix[:3], grid.to_patient(30, [[11, 7]])[0], atol=1e-9)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_slices_ascend_along_the_normal(orientation):
    """Slice order follows the normal, even where that points to the feet."""
    assert (np.diff(make_grid(orientation).offsets_mm) > 0).all()


def test_tilt_is_the_angle_of_the_shear():
    """A gantry tilted by 14 degrees with 5 mm of table movement leaves planes 4.851 mm apart."""
    grid = make_grid(tilt_degrees=14)

    assert grid.tilt_degrees == pytest.approx(14)
    assert grid.spacing_mm[0] == pytest.approx(5 * np.cos(np.radians(14)))


def test_runs_share_the_slice_where_the_spacing_changes():
    """No space between slices is left to nobody."""
    grid = grid_at([0, 2.5, 5, 10, 15])

    assert grid.uniform_runs() == [slice(0, 3), slice(2, 5)]
    assert not grid.is_uniform
    np.testing.assert_allclose(grid.affine(2)[:3, 2:], [[0, 10], [0, 20], [5, 5]])


def test_affine_refuses_to_begin_within_a_run():
    """There is no answer for a slice at which no run begins."""
    with pytest.raises(ValueError, match=r"\[0, 2\]"):
        grid_at([0, 2.5, 5, 10, 15]).affine(1)


def test_positions_rounded_to_a_tenth_are_even():
    """0.625 mm spacing written with one decimal is one run, and its step is the true one."""
    grid = grid_at(np.round(np.arange(200) * 0.625, 1))

    assert grid.uniform_runs() == [slice(0, 200)]
    assert grid.affine()[2, 2] == pytest.approx(0.625, abs=0.001)


def test_a_drifting_step_never_adds_up():
    """Steps that grow by a hair each are no single run: no slice is ever further off than the tolerance."""
    grid = grid_at(np.cumsum(np.linspace(2.5, 3.0, 100)))

    assert len(grid.uniform_runs()) > 1


def test_a_lone_slice_has_no_spacing_but_a_place():
    """Nothing divides by zero on a single slice."""
    grid = grid_at([7])

    assert grid.uniform_runs() == [slice(0, 1)]
    assert grid.spacing_mm == (0, 3, 2)
    assert grid.tilt_degrees == 0
    np.testing.assert_allclose(grid.affine() @ [0, 0, 0, 1], [10, 20, 7, 1])


def test_mask_is_cropped_and_whole_again():
    """The crop holds what the volume held, and knows where."""
    full = np.zeros((3, 4, 5), bool)
    full[1, 2:4, 1:3] = True
    mask = Mask.from_full(full)

    assert (mask.corner, mask.voxels.shape, mask.count) == ((1, 2, 1), (1, 2, 2), 4)
    np.testing.assert_array_equal(mask.full(), full)


def test_a_mask_of_a_part_lies_where_the_part_lies():
    """A part with its own corner gives the mask that the whole volume gives; nothing in it, an empty mask."""
    full = np.zeros((6, 7, 8), bool)
    full[2:4, 3, 4:6] = True

    mask = Mask.from_part(full[1:5, 2:6, 3:8], (1, 2, 3), full.shape)

    assert mask.corner == (2, 3, 4)
    assert np.array_equal(mask.full(), full)
    assert Mask.from_part(full[:2], (0, 0, 0), full.shape).is_empty


def test_an_empty_mask_is_empty_everywhere():
    """No voxel, no volume, nothing in the whole."""
    mask = Mask.from_full(np.zeros((3, 4, 5)))

    assert mask.is_empty
    assert mask.count == 0
    assert mask.volume_cm3(grid_at([0, 1, 2])) == 0
    assert mask.full().shape == (3, 4, 5)
    assert not mask.full().any()


def test_volume_gives_each_slice_half_the_gaps_beside_it():
    """One voxel of 3 × 2 mm on each of four slices at 0, 2, 4 and 10 mm: thickness 2, 2, 4 and 6 mm."""
    full = np.zeros((4, 4, 5), bool)
    full[:, 1, 1] = True
    grid = grid_at([0, 2, 4, 10])

    assert Mask.from_full(full).volume_cm3(grid) == pytest.approx(6 * (2 + 2 + 4 + 6) / 1000)
    assert Mask.from_full(full & (np.arange(4) == 2)[:, None, None]).volume_cm3(grid) == pytest.approx(0.024)


def test_volume_of_tilted_slices_uses_the_distance_between_planes():
    """Shear does not change a volume: the table moves 5 mm, the planes are 4.851 mm apart."""
    grid = make_grid(tilt_degrees=14, size=(4, 4))
    mask = Mask.from_full(np.ones(grid.shape))

    assert mask.volume_cm3(grid) == pytest.approx(41 * 16 * 3 * 5 * np.cos(np.radians(14)) / 1000)
