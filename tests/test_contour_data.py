"""Contour Data: within DICOM's lengths, to 0.01 mm, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.contour_data import (
    MAX_VALUE_BYTES,
    count_points,
    decode_points,
    encode_contour,
    encode_contours,
    simplified,
)
from model.contours import Contour, fill, trace
from model.geometry import Mask
from model.keyhole import with_holes
from tests.phantom import make_grid


def grid_of(size: int, centre_mm=(0, 0, 0)):
    return make_grid(
        offsets_mm=[0, 2.5, 5], size=(size, size), pixel_spacing_mm=(0.5, 0.5), centre_mm=centre_mm
    )


def jagged_contour(size: int, least_points: int) -> Contour:
    """The traced outline of a comb, the most points for its size."""
    full = np.zeros((1, size, size), dtype=bool)
    full[0, 4:-4:2, 4:-4] = True
    full[0, 4:-4, 4] = True
    (contour,) = trace(Mask.from_full(full))
    assert len(contour.points) > least_points
    return contour


def test_coordinates_are_written_to_a_hundredth_of_a_millimetre():
    contour = Contour(1, np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0]]))
    assert encode_contour(contour, grid_of(21)) == (
        b"-5.00\\-5.00\\2.50\\0.00\\-5.00\\2.50\\0.00\\0.00\\2.50 "
    )


def test_a_point_just_below_zero_is_written_as_zero_without_a_sign():
    contour = Contour(0, np.array([[10 - 1e-6, 10 - 1e-9], [0.0, 10.0], [10.0, 20.0]]))
    assert b"-0.00" not in encode_contour(contour, grid_of(21))


@given(st.floats(-9000, 9000), st.floats(-9000, 9000))
def test_every_number_fits_a_decimal_string_and_comes_back_within_rounding(x, y):
    """However far from the patient origin: at most 16 characters, no exponent."""
    grid = grid_of(11, centre_mm=(x, y, 1e-7))
    points = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    value = encode_contour(Contour(0, points), grid)
    assert b"e" not in value
    assert max(map(len, value.split(b"\\"))) <= 16
    np.testing.assert_allclose(decode_points(value), grid.to_patient(0, points), atol=0.005 + 1e-9)


@pytest.mark.parametrize("max_points", [None, 40, 2400])
def test_contours_encoded_together_are_encoded_as_each_alone(max_points):
    """Also such as lose points by rounding, and such as are too long for a value."""
    full = np.random.default_rng(0).random((3, 21, 21)) < 0.5
    contours = [
        *trace(Mask.from_full(full), (0.5, 0.5)),
        Contour(2, np.array([[0.0, 0.0], [0.0, 1e-4], [0.0, 10.0], [10.0, 10.0], [1e-4, 0.0]])),
        jagged_contour(300, 20000),
    ]
    grid = grid_of(300)

    together = encode_contours(contours, grid, 2, max_points)

    assert together == [encode_contour(each, grid, 2, max_points) for each in contours]
    assert encode_contours([], grid, 2, max_points) == []


def test_points_that_rounding_makes_equal_are_written_once():
    points = np.array([[0.0, 0.0], [0.0, 1e-4], [0.0, 10.0], [10.0, 10.0], [1e-4, 0.0]])
    value = encode_contour(Contour(0, points), grid_of(21))
    assert count_points(value) == len(decode_points(value)) == 3


def test_a_contour_of_many_thousand_points_fits_explicit_vr_and_keeps_its_voxels():
    """Far from the origin, where numbers are long: simplified, but the same voxels inside."""
    contour = jagged_contour(120, least_points=4000)
    grid = grid_of(120, centre_mm=(-900, -900, -1900))
    value = encode_contour(contour, grid)
    assert len(value) <= MAX_VALUE_BYTES
    assert count_points(value) == len(decode_points(value)) > 2000
    back = Contour(0, grid.to_pixel(0, decode_points(value)))
    shape = (3, 120, 120)
    assert (fill([back], shape).full() == fill([contour], shape).full()).mean() == 1


@pytest.mark.parametrize(("decimals", "text"), [(1, b"-5.0\\3.3\\"), (3, b"-5.000\\3.333\\")])
def test_a_destination_may_want_other_decimals(decimals, text):
    points = np.array([[16 + 2 / 3, 0.0], [0.0, 10.0], [10.0, 10.0]])
    assert encode_contour(Contour(1, points), grid_of(21), decimals).startswith(text)


def test_a_destination_may_take_fewer_points_of_which_the_best_are_kept():
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = Contour(0, 60 + 50 * np.stack([np.sin(angle), np.cos(angle)], axis=1))
    grid = grid_of(121)
    value = encode_contour(circle, grid, max_points=60)
    assert count_points(value) <= 60
    kept = fill([Contour(0, grid.to_pixel(0, decode_points(value)))], grid.shape)
    assert (
        2
        * (kept.full() & fill([circle], grid.shape).full()).sum()
        / (kept.count + fill([circle], grid.shape).count)
        > 0.99
    )
    assert encode_contour(circle, grid, max_points=400) == encode_contour(circle, grid)


@pytest.mark.parametrize(("decimals", "max_points"), [(0, None), (7, None), (2, 2)])
def test_what_no_contour_can_be_written_with_is_refused(decimals, max_points):
    points = np.array([[0.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    with pytest.raises(ValueError, match="1 to 6 decimals and 3 points"):
        encode_contour(Contour(1, points), grid_of(21), decimals, max_points)


def test_a_keyhole_with_fewer_points_keeps_its_channel_without_width():
    """Whether a reader counts contours or unites them, the hole stays and the channel does not open."""
    rows, columns = np.indices((100, 100))
    full = (np.hypot(rows - 50, columns - 50) < 45) & (np.hypot(rows - 40, columns - 47) > 17)
    full &= np.hypot(rows - 72, columns - 60) > 6
    (keyhole,) = with_holes(trace(Mask.from_full(full[None])), "keyhole")
    for count in (200, 100, 50):
        fewer = Contour(0, simplified(keyhole.points, count))
        seen = fill([fewer], (1, 100, 100), "union").full()[0]
        assert len(fewer.points) == count
        assert 2 * (seen & full).sum() / (seen.sum() + full.sum()) > 0.97
        edges = {(*a, *b) for a, b in zip(fewer.points, np.roll(fewer.points, -1, axis=0), strict=True)}
        assert sum((*edge[2:], *edge[:2]) in edges for edge in edges) == 4


def test_simplifying_ends_even_when_every_vertex_stands_twice():
    assert len(simplified(np.repeat(np.random.default_rng(0).random((50, 2)), 2, axis=0), 7)) == 7


def test_simplifying_a_circle_moves_its_outline_by_less_than_a_tenth_of_a_voxel():
    angle = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    circle = 200 + 150 * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    fewer = simplified(circle, 1000)
    assert len(fewer) == 1000
    middles = (fewer + np.roll(fewer, -1, axis=0)) / 2
    assert np.abs(np.linalg.norm(middles - 200, axis=1) - 150).max() < 0.1


def test_simplifying_ends_even_when_all_points_lie_on_one_line():
    line = np.stack([np.zeros(1000), np.arange(1000.0)], axis=1)
    assert len(simplified(line, 3)) == 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"1.00\\2.00\\3.00\\4.00", "4 coordinates"),
        (b"1.00\\2.00\\-123456789012.345", "at most 16"),
        (b"1.00\\2.00\\nan", "'nan'"),
        (b"1.00\\2.00\\", "''"),
        (b"1.00\\2.00\\0x10", "'0x10'"),
    ],
)
def test_what_is_no_list_of_points_is_refused(value, reason):
    with pytest.raises(ValueError, match=reason):
        decode_points(value)


def test_an_exponent_is_read_although_never_written():
    np.testing.assert_allclose(decode_points(b"-6.8e-1\\0\\ 1.5 "), [[-0.68, 0, 1.5]])
