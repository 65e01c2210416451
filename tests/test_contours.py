"""Tracing and filling are inverse to each other, voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model.contours import Contour, fill, trace
from model.geometry import Mask

MASKS = {
    "single voxel": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "single voxel in the corner": [[1, 0], [0, 0]],
    "everything": [[1, 1, 1], [1, 1, 1]],
    "hole": [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
    "island in a hole": np.pad(np.pad(np.pad([[1]], 1), 1, constant_values=1), 1),
    "hole in an island in a hole": np.pad(
        np.pad(np.pad(np.pad([[0]], 1, constant_values=1), 1), 1, constant_values=1), 2
    ),
    "diagonal neighbours": [[1, 0, 1], [0, 1, 0], [1, 0, 1]],
    "diagonal hole": [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],
    "one voxel wide": [[0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 1]],
    "nothing": [[0, 0], [0, 0]],
}


@pytest.mark.parametrize("name", MASKS)
def test_filling_what_was_traced_returns_the_mask(name):
    """Holes, islands, single voxels and the image border survive exactly."""
    full = np.array([MASKS[name]], dtype=bool)
    mask = fill(trace(Mask.from_full(full)), full.shape)

    np.testing.assert_array_equal(mask.full(), full)


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)))
def test_any_mask_survives_the_round_trip(full):
    """There is no mask that tracing and filling change, nor its crop."""
    mask = Mask.from_full(full)
    again = fill(trace(mask), full.shape)

    np.testing.assert_array_equal(again.full(), full)
    assert (again.corner, again.voxels.shape) == (mask.corner, mask.voxels.shape)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(bool, (1, 7, 8)), st.integers(0, 2**32 - 1))
def test_rounding_to_hundredths_of_a_voxel_changes_nothing(full, seed):
    """A planning system reads decimals, and moves nothing by it."""
    noise = np.random.default_rng(seed)
    contours = [
        Contour(c.slice_index, c.points + noise.uniform(-0.02, 0.02, c.points.shape))
        for c in trace(Mask.from_full(full))
    ]

    np.testing.assert_array_equal(fill(contours, full.shape).full(), full)


def test_contours_are_open_lists_of_at_least_three_points_in_slice_order():
    """The first point is not repeated, and slices ascend."""
    full = np.random.default_rng(0).random((5, 20, 20)) < 0.4
    contours = trace(Mask.from_full(full))

    assert [c.slice_index for c in contours] == sorted(c.slice_index for c in contours)
    assert all(len(c.points) >= 3 and not np.array_equal(c.points[0], c.points[-1]) for c in contours)


def test_a_voxel_is_traced_just_inside_its_edges():
    """The contour of voxel (row 4, column 7) runs 0.49 voxels around its centre."""
    full = np.zeros((2, 9, 9), bool)
    full[1, 4, 7] = True
    (contour,) = trace(Mask.from_full(full))

    assert contour.slice_index == 1
    np.testing.assert_allclose(np.sort(contour.points[:, 0]), [3.51, 4, 4, 4.49])
    np.testing.assert_allclose(np.sort(contour.points[:, 1]), [6.51, 7, 7, 7.49])


def test_voxels_touching_by_a_corner_get_one_contour_each():
    """Readers that fill and readers that wind then agree."""
    assert len(trace(Mask.from_full(np.eye(4, dtype=bool)[None]))) == 4


def test_an_edge_through_voxel_centres_counts_once():
    """Triangles that share the diagonal share no voxel and leave none out: left edges in, right out."""
    upper = Contour(0, np.array([[-0.5, -0.5], [-0.5, 3.5], [3.5, 3.5]]))
    lower = Contour(0, np.array([[-0.5, -0.5], [3.5, -0.5], [3.5, 3.5]]))

    np.testing.assert_array_equal(fill([upper], (1, 4, 4)).full()[0], np.triu(np.ones((4, 4), bool)))
    np.testing.assert_array_equal(fill([lower], (1, 4, 4)).full()[0], np.tril(np.ones((4, 4), bool), -1))


def test_two_overlapping_contours_leave_out_their_overlap():
    """Inside is inside an odd number of contours, as planning systems write holes."""
    outer = Contour(0, np.array([[-0.5, -0.5], [-0.5, 5.5], [5.5, 5.5], [5.5, -0.5]]))
    inner = Contour(0, np.array([[1.5, 1.5], [3.5, 1.5], [3.5, 3.5], [1.5, 3.5]]))
    expected = np.ones((6, 6), bool)
    expected[2:4, 2:4] = False

    np.testing.assert_array_equal(fill([outer, inner], (1, 6, 6)).full()[0], expected)


def test_what_reaches_out_of_the_volume_is_cut_off():
    """Contours of other systems may be larger than the image."""
    contour = Contour(0, np.array([[-9, -9], [-9, 1.5], [1.5, 1.5], [1.5, -9.0]]))

    assert fill([contour], (1, 4, 4)).full()[0].nonzero()[0].tolist() == [0, 0, 1, 1]
    assert fill([Contour(0, contour.points + 50)], (1, 4, 4)).is_empty


@pytest.mark.parametrize(
    "contour",
    [
        Contour(2, np.zeros((3, 2))),
        Contour(-1, np.zeros((3, 2))),
        Contour(0, np.zeros((2, 2))),
        Contour(0, np.full((3, 2), np.nan)),
    ],
)
def test_contours_that_cannot_be_filled_are_refused(contour):
    """Off the volume, too few points, or no numbers."""
    with pytest.raises(ValueError, match="contour of"):
        fill([contour], (2, 4, 4))
