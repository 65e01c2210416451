"""Tracing and filling are inverse to each other, voxel by voxel, and smooth contours look drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from model.contours import Contour, fill, trace, trace_all
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


# Smooth contours

SPACINGS = st.tuples(*[st.sampled_from([0.4, 0.98, 1.5, 3.0])] * 2)


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)), SPACINGS, st.sampled_from([0.05, 0.1, 0.7]))
def test_any_mask_survives_being_drawn_smoothly(full, spacing_mm, tolerance_mm):
    """However small its islands and thin its walls; no contour is lost, none leaves the image."""
    mask = Mask.from_full(full)
    contours = trace(mask, spacing_mm, tolerance_mm)

    np.testing.assert_array_equal(fill(contours, full.shape).full(), full)
    assert [c.slice_index for c in contours] == [c.slice_index for c in trace(mask)]
    for contour in contours:
        assert len(contour.points) >= 3
        assert contour.points.min() >= -0.5 - 1e-6
        assert (contour.points <= np.array(full.shape[1:]) - 0.5 + 1e-6).all()


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(bool, (1, 7, 8)), SPACINGS)
def test_smooth_contours_cross_neither_each_other_nor_themselves(full, spacing_mm):
    """Voxels that touch by a corner, and walls of one voxel, keep their contours apart."""
    contours = trace(Mask.from_full(full), spacing_mm)
    if contours:
        assert proper_crossings(contours) == 0


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(bool, (1, 9, 9)))
def test_smooth_contours_written_to_hundredths_of_a_millimetre_return_the_mask(full):
    spacing = np.array([0.98, 0.98])
    contours = [
        Contour(c.slice_index, np.round(c.points * spacing, 2) / spacing)
        for c in trace(Mask.from_full(full), (0.98, 0.98))
    ]

    np.testing.assert_array_equal(fill(contours, full.shape).full(), full)


@pytest.mark.parametrize("radius_mm", [8, 15, 30, 60, 90])
def test_a_ball_is_drawn_round(radius_mm):
    """Its outline turns hardly more than once, has the area of its voxels, and follows the circle closely."""
    pixel = 0.98
    rows, columns = np.indices((210, 210)) - 104.3
    full = (rows**2 + columns**2 < (radius_mm / pixel) ** 2)[None]
    (contour,) = trace(Mask.from_full(full), (pixel, pixel))
    (stairs,) = trace(Mask.from_full(full))

    assert turns(contour) < 1.4 < turns(stairs)
    assert area(contour) == pytest.approx(full.sum(), rel=0.005)
    assert np.abs(np.linalg.norm(contour.points - 104.3, axis=1) * pixel - radius_mm).max() < 0.4 * pixel
    assert len(contour.points) < len(stairs.points) / 2 + 12


def test_a_slanted_edge_is_drawn_straight():
    """Stairs of one in seven become one line."""
    rows, columns = np.indices((60, 60))
    full = ((rows > 12 + columns / 7) & (rows < 50) & (columns > 5) & (columns < 54))[None]
    (contour,) = trace(Mask.from_full(full), (1.0, 1.0))
    edge = contour.points[(np.abs(contour.points[:, 1] - 30) < 18) & (contour.points[:, 0] < 30)]
    slope, at_zero = np.polyfit(edge[:, 1], edge[:, 0], 1)

    assert slope == pytest.approx(1 / 7, abs=0.02)
    assert np.abs(np.polyval([slope, at_zero], edge[:, 1]) - edge[:, 0]).max() < 0.2


def test_vertices_left_out_lie_within_the_tolerance():
    """A coarser line stays by the finest one, with fewer points."""
    mask = Mask.from_full(np.pad(np.indices((40, 40)).sum(0) % 40 > 9, 5)[None])
    spacing = np.array([0.98, 0.98])
    fine = trace(mask, (0.98, 0.98), 1e-6)
    for tolerance in (0.1, 0.3):
        coarse = trace(mask, (0.98, 0.98), tolerance)
        assert sum(len(c.points) for c in coarse) < sum(len(c.points) for c in fine)
        for line, reference in zip(coarse, fine, strict=True):
            # What chords take from the area is given back by a shift, which adds less than the tolerance again.
            assert distance_to_line(reference.points * spacing, line.points * spacing).max() < 2 * tolerance


def test_a_hole_and_its_island_keep_their_areas():
    """Each contour for itself, with pixels that are no squares."""
    rows, columns = np.indices((60, 60))
    distance = np.hypot((rows - 30) / 1.2, columns - 30)
    full = (((distance < 22) & (distance > 11)) | (distance < 5))[None]
    smooth = trace(Mask.from_full(full), (1.2, 1.0))

    inside = [(distance < 22).sum(), (distance <= 11).sum(), (distance < 5).sum()]
    assert sorted(map(area, smooth), reverse=True) == pytest.approx(inside, rel=0.01)


def test_the_same_mask_gives_the_same_lines():
    mask = Mask.from_full(np.random.default_rng(1).random((3, 30, 30)) < 0.5)
    for first, second in zip(trace(mask, (1.0, 1.0)), trace(mask, (1.0, 1.0)), strict=True):
        np.testing.assert_array_equal(first.points, second.points)


@pytest.mark.parametrize("spacing_mm", [None, (0.98, 1.2)])
def test_masks_traced_together_give_what_each_gives_alone(spacing_mm):
    """Large and small, empty and full, in corners: no mask sees another."""
    rng = np.random.default_rng(3)
    fulls = [np.zeros((3, 20, 21), bool) for _ in range(5)]
    fulls[0][1:, 2:12, 3:9] = rng.random((2, 10, 6)) < 0.6
    fulls[1][:] = True
    fulls[3][0, 0, 0] = fulls[3][2, 19, 20] = True
    fulls[4][1] = rng.random((20, 21)) < 0.5
    masks = [Mask.from_full(full) for full in fulls]

    together = trace_all(masks, spacing_mm)

    assert trace_all([], spacing_mm) == []
    for mask, contours in zip(masks, together, strict=True):
        alone = trace(mask, spacing_mm)
        assert [c.slice_index for c in contours] == [c.slice_index for c in alone]
        for first, second in zip(contours, alone, strict=True):
            np.testing.assert_allclose(first.points, second.points, atol=1e-9)
        np.testing.assert_array_equal(fill(contours, mask.shape).full(), mask.full())


def turns(contour: Contour) -> float:
    """How often a polygon turns about in all: 1 for a convex one."""
    edges = np.roll(contour.points, -1, axis=0) - contour.points
    following = np.roll(edges, -1, axis=0)
    angles = np.arctan2(cross(edges, following), (edges * following).sum(axis=1))
    return float(np.abs(angles).sum() / (2 * np.pi))


def area(contour: Contour) -> float:
    return abs(float(cross(contour.points, np.roll(contour.points, -1, axis=0)).sum())) / 2


def cross(a, b):
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def distance_to_line(points, line):
    """(points,) to the nearest edge of a closed polygon."""
    edges = np.roll(line, -1, axis=0) - line
    from_start = points[:, None] - line
    share = np.clip((from_start * edges).sum(axis=-1) / (edges**2).sum(axis=-1), 0, 1)
    return np.linalg.norm(from_start - share[..., None] * edges, axis=-1).min(axis=1)


def proper_crossings(contours: list[Contour]) -> int:
    """Of all edges of one slice with each other; those that only touch do not count."""
    start = np.concatenate([c.points for c in contours])
    end = np.concatenate([np.roll(c.points, -1, axis=0) for c in contours])
    edge = (end - start)[:, None]
    sides = cross(edge, start - start[:, None]) * cross(edge, end - start[:, None])
    return int(((sides < -1e-12) & (sides.T < -1e-12)).sum())


# Filling


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
