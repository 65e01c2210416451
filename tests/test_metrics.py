"""Measures of agreement, against the values that google-deepmind/surface-distance gives for the same masks."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from training.metrics import (
    added_path_length_mm,
    average_distances_mm,
    dice,
    hausdorff_mm,
    overlap_at,
    surface_dice,
    surface_dice_at,
)
from training.surface import corner_codes, on_surface, surface_sizes
from training.surface_distance import SurfaceDistances, bounding_box, surface_distances

INF, NAN = math.inf, math.nan
Mask = NDArray[np.bool_]


def marked(shape: tuple[int, ...], *where: object) -> Mask:
    """An empty mask with the places set."""
    mask = np.zeros(shape, dtype=bool)
    for place in where:
        mask[place] = True
    return mask


def ball(radius: float) -> Mask:
    z, y, x = np.ogrid[:64, :64, :64]
    return (z - 31.5) ** 2 + (y - 31.5) ** 2 + (x - 31.5) ** 2 <= radius**2


def cube(shift: int = 0) -> Mask:
    return marked((64, 64, 64), np.s_[20 + shift : 40 + shift, 20:40, 20:40])


def close(value: object) -> object:
    """Equal to 1e-6, NaN to NaN."""
    return pytest.approx(value, abs=1e-6, rel=0, nan_ok=True)


@dataclass(frozen=True)
class Golden:
    """What the original gives for two masks; None where it was not asked."""

    name: str
    gt: Mask
    pred: Mask
    spacing_mm: tuple[float, ...]
    average: tuple[float, float] | None = None
    hd100: float | None = None
    hd95: float | None = None
    overlap_at_1: tuple[float, float] | None = None
    surface_dice: tuple[tuple[float, float], ...] = ()  # tolerance, value
    dice: float | None = None
    sizes: tuple[float, float] | None = None  # of both surfaces together


FLAT, SOLID = (128, 128), (128, 128, 128)
EMPTY_FLAT, EMPTY_SOLID = marked(FLAT), marked(SOLID)
DOT_FLAT, DOT_SOLID = marked(FLAT, (50, 70)), marked(SOLID, (50, 60, 70))

GOLDEN = (
    Golden(
        "2-D, two pixels apart", DOT_FLAT, marked(FLAT, (50, 72)), (2, 1),
        average=(1.5, 1.5), hd100=2, hd95=2, overlap_at_1=(0.5, 0.5), surface_dice=((1, 0.5),), dice=0,
        sizes=(4 * 1.118034, 4 * 1.118034),
    ),
    Golden(
        "2-D, one row more", marked((6, 6), np.s_[1:3, 1:3]), marked((6, 6), np.s_[1:4, 1:3]), (2, 1),
        average=(0.095491503, 0.447213595), hd100=2, hd95=2, overlap_at_1=(1, 0.776393202),
        surface_dice=((0, 0.830178728), (1, 0.870268092), (2, 1)), dice=0.8, sizes=(10.472136, 14.472136),
    ),
    Golden(
        "3-D, two voxels apart", DOT_SOLID, marked(SOLID, (50, 60, 72)), (3, 2, 1),
        average=(1.5, 1.5), hd100=2, hd95=2, overlap_at_1=(0.5, 0.5), surface_dice=((1, 0.5),), dice=0,
        sizes=(7, 7),
    ),
    Golden(
        "3-D, cut by the image's end", marked((100,) * 3, np.s_[0:50]), marked((100,) * 3, np.s_[0:51]), (2, 1, 1),
        average=(0.322447073, 0.339396293), hd100=2, hd95=2, overlap_at_1=(0.842066397, 0.830301853),
        surface_dice=((0, 0.832876953), (1, 0.836145008), (2, 1)), dice=0.99009901,
        sizes=(59575.668777, 60373.325632),
    ),
    *(
        Golden(
            f"{gt.ndim}-D, nothing predicted", gt, none, spacing,
            average=(INF, NAN), hd100=INF, hd95=INF, overlap_at_1=(0, NAN), surface_dice=((1, 0),), dice=0,
        )
        for gt, none, spacing in ((DOT_FLAT, EMPTY_FLAT, (3, 2)), (DOT_SOLID, EMPTY_SOLID, (3, 2, 1)))
    ),
    *(
        Golden(
            f"{pred.ndim}-D, nothing there", none, pred, spacing,
            average=(NAN, INF), hd100=INF, hd95=INF, overlap_at_1=(NAN, 0), surface_dice=((1, 0),), dice=0,
        )
        for pred, none, spacing in ((DOT_FLAT, EMPTY_FLAT, (3, 2)), (DOT_SOLID, EMPTY_SOLID, (3, 2, 1)))
    ),
    *(
        Golden(
            f"{none.ndim}-D, both empty", none, none, spacing,
            average=(NAN, NAN), hd100=INF, hd95=INF, overlap_at_1=(NAN, NAN), surface_dice=((1, NAN),), dice=NAN,
        )
        for none, spacing in ((EMPTY_FLAT, (3, 2)), (EMPTY_SOLID, (3, 2, 1)))
    ),
    Golden(
        "cube moved by two slices", cube(), cube(2), (1, 1, 1),
        average=(0.669846542, 0.669846542), hd100=2,
        surface_dice=((0, 0.632695555), (1, 0.697457904), (2, 1)), dice=0.9, sizes=(2328.952397, 2328.952397),
    ),
    Golden(
        "cube moved by two thick slices", cube(), cube(2), (2.5, 0.98, 0.98),
        average=(0.838633914, 0.838633914), hd100=5,
        surface_dice=((1, 0.798709636), (2, 0.812169858), (2.5, 0.854462911), (5, 1)), dice=0.9,
        sizes=(4566.462644, 4566.462644),
    ),
    Golden(
        "balls", ball(15), ball(17), (1, 1, 1),
        average=(1.551634609, 1.588740253), hd100=2.236068, hd95=2.236068,
        surface_dice=((1, 0.157507004), (2, 0.91514207), (3, 1)), dice=0.818742857,
        sizes=(3103.36855, 3945.696137),
    ),
    Golden(
        "balls in thick slices", ball(15), ball(17), (3, 1, 1),
        average=(1.855518046, 2.025006407), hd100=6, hd95=3.605551,
        surface_dice=((1, 0.123161279), (2, 0.744569632), (3, 0.929577552)),
    ),
)  # fmt: skip


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_every_measure_equals_that_of_the_original(golden: Golden) -> None:
    distances = surface_distances(golden.gt, golden.pred, golden.spacing_mm)
    if golden.average is not None:
        assert average_distances_mm(distances) == close(golden.average)
    if golden.hd100 is not None:
        assert hausdorff_mm(distances) == close(golden.hd100)
    if golden.hd95 is not None:
        assert hausdorff_mm(distances, 95) == close(golden.hd95)
    if golden.overlap_at_1 is not None:
        assert overlap_at(distances, 1) == close(golden.overlap_at_1)
    if golden.dice is not None:
        assert dice(golden.gt, golden.pred) == close(golden.dice)
    if golden.sizes is not None:
        assert (distances.gt_sizes.sum(), distances.pred_sizes.sum()) == close(golden.sizes)
    for tolerance_mm, value in golden.surface_dice:
        assert surface_dice_at(distances, tolerance_mm) == close(value)
        assert surface_dice(golden.gt, golden.pred, golden.spacing_mm, tolerance_mm) == close(value)


def test_single_pieces_are_those_of_the_original() -> None:
    """Four pieces of outline about a pixel, eight of surface about a voxel, with their distances."""
    flat = surface_distances(DOT_FLAT, marked(FLAT, (50, 72)), (2, 1))
    assert sorted(flat.gt_to_pred_mm) == sorted(flat.pred_to_gt_mm) == [1, 1, 2, 2]
    assert flat.gt_sizes == close(np.full(4, 1.118034))
    solid = surface_distances(DOT_SOLID, marked(SOLID, (50, 60, 72)), (3, 2, 1))
    assert len(solid.gt_sizes) == len(solid.pred_sizes) == 8


@pytest.mark.parametrize(
    ("mask", "pieces", "area"),
    [
        (np.ones((4, 4, 4), dtype=bool), 98, 81.187895),
        (marked((8,) * 3, np.s_[3:5, 3:5, 3:5]), 26, 16.217332),
    ],
)
def test_surface_of_cubes(mask: Mask, pieces: int, area: float) -> None:
    """A surface is closed, also where the mask touches the end of its array."""
    distances = surface_distances(mask, mask, (1, 1, 1))
    assert len(distances.gt_sizes) == pieces
    assert distances.gt_sizes.sum() == close(area)
    assert surface_dice_at(distances, 0) == 1


def test_sizes_of_the_pieces() -> None:
    """The sums over all codes, single codes and the largest are those of the original's tables."""
    areas = surface_sizes((1, 1, 1))
    assert (areas.sum(), areas.max(), areas[0], areas[255]) == close((241.3431397, 1.5731322, 0, 0))
    assert tuple(areas[[1, 3, 15]]) == close((math.sqrt(3) / 8, 0.7071068, 1))
    assert surface_sizes((3, 2, 1)).sum() == close(950.4895896)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("spacing_mm", [(3.0, 2.0, 1.0), (2.5, 0.98, 0.98)])
def test_sizes_know_neither_left_nor_right(axis: int, spacing_mm: tuple[float, float, float]) -> None:
    """Mirrored masks have surfaces of one size, and so have a mask and what it leaves out."""
    mask = np.random.default_rng(5).random((7, 6, 5)) < 0.5
    sizes = surface_sizes(spacing_mm)
    original = np.sort(sizes[corner_codes(mask)], axis=None)
    np.testing.assert_allclose(np.sort(sizes[corner_codes(np.flip(mask, axis))], axis=None), original)
    np.testing.assert_allclose(sizes, sizes[::-1])


def test_codes_weigh_the_voxels_as_the_original_does() -> None:
    """The voxel before the corner along every axis is the highest bit, the one after it the lowest."""
    assert corner_codes(np.ones((1, 1, 1), dtype=bool)).ravel().tolist() == [1, 2, 4, 8, 16, 32, 64, 128]
    assert corner_codes(np.ones((1, 1), dtype=bool)).ravel().tolist() == [1, 2, 4, 8]


def by_distance_transform(gt: Mask, pred: Mask, spacing_mm: tuple[float, ...]) -> SurfaceDistances:
    """The definition itself: a distance to the other surface for every corner of the grid."""
    codes = [corner_codes(mask) for mask in (gt, pred)]
    surfaces = [on_surface(each, gt.ndim) for each in codes]
    far = [
        ndimage.distance_transform_edt(~surface, sampling=spacing_mm)
        if surface.any()
        else np.full(surface.shape, INF)
        for surface in surfaces
    ]
    sizes = surface_sizes(spacing_mm)
    return SurfaceDistances(
        far[1][surfaces[0]], far[0][surfaces[1]], sizes[codes[0][surfaces[0]]], sizes[codes[1][surfaces[1]]]
    )


@st.composite
def two_masks(draw: st.DrawFn) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Two masks of few, scattered voxels in 2-D or 3-D, often far apart, with any spacing."""
    shape = tuple(draw(st.lists(st.integers(1, 24), min_size=2, max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.001, 0.01, 0.3]))
    spacing_mm = tuple(draw(st.sampled_from([0.5, 0.98, 1.0, 2.5, 7.0])) for _ in shape)
    return rng.random(shape) < share, rng.random(shape) < share, spacing_mm


@given(two_masks(), st.sampled_from([0.0, 0.98, 2.0, 2.97, 9.0]))
@settings(deadline=None, max_examples=150)
def test_distances_are_those_of_a_distance_transform(
    masks: tuple[Mask, Mask, tuple[float, ...]], limit_mm: float
) -> None:
    """Near and far, by neighbourhood or by tree; with a limit the same up to it and infinite beyond."""
    gt, pred, spacing_mm = masks
    expected = by_distance_transform(gt, pred, spacing_mm)
    for limit in (INF, limit_mm):
        found = surface_distances(gt, pred, spacing_mm, limit)
        for mine, true in (
            (found.gt_to_pred_mm, expected.gt_to_pred_mm),
            (found.pred_to_gt_mm, expected.pred_to_gt_mm),
        ):
            np.testing.assert_allclose(mine, np.where(true <= limit, true, INF), atol=1e-9)
        np.testing.assert_array_equal(found.gt_sizes, expected.gt_sizes)
        np.testing.assert_array_equal(found.pred_sizes, expected.pred_sizes)


def test_masks_need_not_be_contiguous() -> None:
    """A view into a larger array, in whatever order, gives what its copy gives."""
    gt, pred = (ball(radius).transpose(2, 0, 1)[::2, :, ::-1] for radius in (9, 11))
    copies = [np.ascontiguousarray(mask) for mask in (gt, pred)]
    assert surface_dice(gt, pred, (3, 1, 2), 2) == surface_dice(copies[0], copies[1], (3, 1, 2), 2)


@pytest.mark.parametrize(
    ("gt", "pred", "spacing_mm", "words"),
    [
        (marked((4, 4)), marked((4, 4, 4)), (1, 1), "one shape"),
        (marked((4, 4)), marked((4, 5)), (1, 1), "one shape"),
        (marked((4, 4)), marked((4, 4)), (1, 1, 1), "3 spacings"),
        (marked((4,)), marked((4,)), (1,), "not in 1-D"),
        (marked((2,) * 4), marked((2,) * 4), (1,) * 4, "not in 4-D"),
        (np.zeros((4, 4)), marked((4, 4)), (1, 1), "boolean"),
        (marked((4, 4)), marked((4, 4)), (1, 0), "positive"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    gt: Mask, pred: Mask, spacing_mm: tuple[float, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        surface_distances(gt, pred, spacing_mm)


def test_limits_and_percentages_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        surface_distances(DOT_FLAT, DOT_FLAT, (1, 1), -1)
    with pytest.raises(ValueError, match="from 0 to 100"):
        hausdorff_mm(surface_distances(DOT_FLAT, DOT_FLAT, (1, 1)), 101)
    with pytest.raises(ValueError, match="one shape"):
        dice(DOT_FLAT, DOT_FLAT[:4])


def test_dice_of_masks() -> None:
    """Empty masks are defined: NaN where both are, 0 where one is."""
    a, b = marked((4, 4)), marked((4, 4))
    assert np.isnan(dice(a, b))
    a[:2, :2] = True
    assert dice(a, b) == 0.0
    b[:1, :2] = True
    assert dice(a, b) == pytest.approx(2 * 2 / 6)


def test_box_about_a_mask() -> None:
    assert bounding_box(marked((9, 8, 7), (3, 4, 5), (6, 2, 5))) == np.s_[3:7, 2:5, 5:6]
    assert bounding_box(marked((9, 8, 7))) is None


def square(side: int, rows: int = 0) -> Mask:
    """A square in the middle one of three slices, from a row onwards."""
    return marked((3, 24, 24), np.s_[1, 8 + rows : 8 + rows + side, 8 : 8 + side])


def test_path_to_draw_of_an_organ_that_was_missed() -> None:
    """All of it: sides of the pixels' lengths in mm, corners cut by a diagonal."""
    corner = math.hypot(0.5, 0.25) / 2
    expected = 2 * 5 * 0.5 + 2 * 5 * 0.25 + 4 * corner
    assert added_path_length_mm(square(6), square(0), (2.5, 0.5, 0.25)) == pytest.approx(expected)
    assert added_path_length_mm(square(0), square(6), (2.5, 0.5, 0.25)) == 0
    assert added_path_length_mm(square(0), square(0), (2.5, 0.5, 0.25)) == 0
    assert added_path_length_mm(square(6), square(6), (2.5, 0.5, 0.25)) == 0


def test_path_to_draw_is_what_does_not_coincide() -> None:
    """A square that is one row short leaves its last side, with both corners, to draw."""
    short = square(6) & ~square(6, rows=5)
    corners = 2 * math.hypot(1, 1) / 2
    assert added_path_length_mm(square(6), short, (2.5, 1, 1)) == pytest.approx(5 + corners)
    assert added_path_length_mm(square(6), short, (2.5, 1, 1), tolerance_mm=1) == 0


def test_path_to_draw_is_looked_for_in_its_own_slice() -> None:
    """The same outline one slice further does not help, however thin the slices are."""
    moved = np.roll(square(6), 1, axis=0)
    whole = added_path_length_mm(square(6), square(0), (0.1, 1, 1))
    assert added_path_length_mm(square(6), moved, (0.1, 1, 1), tolerance_mm=5) == whole
    with pytest.raises(ValueError, match="slices"):
        added_path_length_mm(DOT_FLAT, DOT_FLAT, (1, 1))
