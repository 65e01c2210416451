"""Holes survive every style of writing, for readers by parity and by winding."""

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image, ImageDraw

from model.contours import fill, trace
from model.geometry import Mask
from model.holes import with_holes

SHAPE = (3, 60, 70)
SPACING_MM = (0.98, 0.98)


def disc(row, column, radius):
    rows, columns = np.indices(SHAPE[1:])
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


RING = disc(30, 35, 20) & ~disc(28, 33, 8)
SIEVE = disc(30, 35, 25) & ~disc(20, 30, 5) & ~disc(32, 45, 6) & ~disc(42, 28, 4) & ~disc(30, 33, 1)
TARGET = disc(30, 35, 25) & ~disc(30, 35, 18) | disc(30, 35, 10) & ~disc(30, 35, 4)
PLANES = {"ring": RING, "sieve": SIEVE, "rings within each other": TARGET, "two": RING | disc(30, 62, 4)}


@pytest.fixture(params=PLANES)
def mask(request):
    full = np.zeros(SHAPE, dtype=bool)
    full[1] = PLANES[request.param]
    return Mask.from_full(full)


@pytest.fixture(params=[None, SPACING_MM], ids=["exact", "smooth"])
def contours(mask, request):
    return trace(mask, request.param)


def by_parity(contours):
    return fill(contours, SHAPE).full()[1]


def by_winding(contours):
    """Each contour by itself with the non-zero rule, then together."""
    rows, columns = np.indices(SHAPE[1:])
    centres = np.column_stack([rows.ravel(), columns.ravel()])
    inside = np.zeros(len(centres), dtype=bool)
    for each in contours:
        inside |= winding_number(each.points, centres) != 0
    return inside.reshape(SHAPE[1:])


def winding_number(points, centres):
    """How often a closed line goes around each of the centres."""
    total = np.zeros(len(centres), dtype=int)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        row, column = centres[:, 0], centres[:, 1]
        side = (c1 - c0) * (row - r0) - (column - c0) * (r1 - r0)
        total += (r0 <= row) & (r1 > row) & (side > 0)
        total -= (r0 > row) & (r1 <= row) & (side < 0)
    return total


def drawn_by_pillow(contours):
    """An independent reader: polygons on a raster eight times as fine, those within others cut out by parity."""
    fine = 8
    canvas = np.zeros((SHAPE[1] * fine, SHAPE[2] * fine), dtype=bool)
    for each in contours:
        image = Image.new("1", canvas.shape[::-1])
        corners = [tuple(point) for point in ((each.points[:, ::-1] + 0.5) * fine - 0.5)]
        ImageDraw.Draw(image).polygon(corners, fill=1)
        canvas ^= np.asarray(image)
    return canvas[fine // 2 :: fine, fine // 2 :: fine]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_nested_contours_stay_as_they_are(mask, contours):
    assert with_holes(contours, "nested") == contours
    assert (by_parity(contours) == mask.full()[1]).all()


def test_a_keyhole_is_read_alike_by_parity_and_by_winding(mask, contours):
    keyholes = with_holes(contours, "keyhole")

    truth = mask.full()[1]
    assert dice(by_parity(keyholes), truth) > 0.999
    assert dice(by_winding(keyholes), truth) > 0.999
    assert dice(drawn_by_pillow(keyholes), truth) > 0.98  # it paints the edge as well


def test_a_keyhole_leaves_no_contour_within_another_but_islands(contours):
    keyholes = with_holes(contours, "keyhole")
    for each in keyholes:
        outside = [other for other in keyholes if other is not each]
        rule = sum(Outline(other.points).contains_point(each.points[0]) for other in outside)
        assert rule == 0


def test_filled_keeps_the_outermost_contours(mask, contours):
    filled = with_holes(contours, "filled")

    from scipy.ndimage import binary_fill_holes

    assert (by_parity(filled) == binary_fill_holes(mask.full()[1])).all()
    assert (by_winding(filled) == by_parity(filled)).all()
