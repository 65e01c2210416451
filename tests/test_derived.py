"""Masks from masks, against distances that are counted voxel by voxel."""

import numpy as np
import pytest

from daemon.derivation import Margin
from model.derived import crop, expand, intersection, misses_next, subtract, union
from model.geometry import Mask
from tests.phantom import make_grid


def voxels(grid):
    """(slices, rows, columns, 3) LPS mm of every voxel centre."""
    rows, columns = np.meshgrid(np.arange(grid.rows), np.arange(grid.columns), indexing="ij")
    return np.stack(
        [grid.to_patient(k, np.stack([rows, columns], -1).reshape(-1, 2)) for k in range(grid.shape[0])]
    ).reshape(*grid.shape, 3)


def grown_by_counting(mask, grid, margin):
    """Every pair of voxels looked at."""
    centres = voxels(grid)
    inside = centres[mask.full()]
    half = np.array([half_a_voxel(grid, index) for index in np.argwhere(mask.full())[:, 0]])
    step = centres[..., None, :] - inside
    axes = np.where(
        step >= 0,
        [margin.left, margin.posterior, margin.superior],
        [margin.right, margin.anterior, margin.inferior],
    )
    still = np.abs(step) <= half
    shares = np.where(axes > 0, step / np.where(axes > 0, axes, 1), np.where(still, 0, np.inf))
    return ((shares**2).sum(-1) <= 1 + 1e-9).any(-1)


def half_a_voxel(grid, index):
    """Along x, y and z, by the side of the slice's voxels that lies nearest to each."""
    offsets = grid.offsets_mm
    gap = np.abs(np.delete(offsets, index) - offsets[index]).min()
    directions = np.abs(np.stack([grid.row_direction, grid.column_direction, grid.normal]))
    sides = np.array([grid.pixel_spacing_mm[1], grid.pixel_spacing_mm[0], gap])
    return [0.499 * directions[n, axis] * sides[n] for axis, n in enumerate(directions.argmax(axis=0))]


GRIDS = {
    "even": {},
    "uneven": {"offsets_mm": [0, 2, 4, 7, 10, 13, 14, 18, 22, 27]},
    "tilted": {"tilt_degrees": 15},
    "much tilted": {"tilt_degrees": 60},
    "feet first, prone": {"orientation": "FFP"},
}


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize(
    "margin",
    [
        Margin.uniform(5),
        Margin.uniform(0.4),
        Margin(left=6),
        Margin(2, 5, 3, 7, 6, 4),
        Margin(superior=5),
        Margin(posterior=6),
        Margin(5, 5, 5, 5),
    ],
    ids=str,
)
def test_a_margin_is_what_counting_every_distance_gives(kind, margin):
    options = {"offsets_mm": range(0, 30, 3), **GRIDS[kind]}
    grid = make_grid(pixel_spacing_mm=(2.0, 1.5), size=(15, 17), **options)
    rng = np.random.default_rng(3)
    full = np.zeros(grid.shape, dtype=bool)
    full[3:6, 4:9, 5:8] = rng.random((3, 5, 3)) < 0.4
    full[9, 0, 16] = True  # at the border
    mask = Mask.from_full(full)

    assert (expand(mask, grid, margin).full() == grown_by_counting(mask, grid, margin)).all()


@pytest.mark.parametrize("tilt", [0.01, 1, 15, 25, 40])
@pytest.mark.parametrize(
    ("side", "axis", "sign"), [("left", 0, 1), ("posterior", 1, 1), ("anterior", 1, -1), ("inferior", 2, -1)]
)
def test_a_margin_to_one_side_reaches_there_however_slices_are_tilted(tilt, side, axis, sign):
    """Every step within a tilted slice goes a little up or down, where there is no margin."""
    grid = make_grid(
        pixel_spacing_mm=(1.0, 1.0), size=(61, 61), offsets_mm=range(0, 60, 3), tilt_degrees=tilt
    )
    full = np.zeros(grid.shape, dtype=bool)
    full[10, 30, 30] = True
    start = voxels(grid)[10, 30, 30]

    reached = voxels(grid)[expand(Mask.from_full(full), grid, Margin(**{side: 9})).full()] - start

    assert 9 - 3 < (sign * reached[:, axis]).max() <= 9 + 1e-6
    others = np.delete(reached, axis, axis=1)
    assert np.abs(others).max() <= 1.5, "no farther aside than half a gap"


@pytest.mark.parametrize("tilt", [0, 0.01, 15, 25, 40])
def test_without_margin_nothing_changes(tilt):
    grid = make_grid(size=(12, 12), offsets_mm=range(0, 30, 3), tilt_degrees=tilt)
    full = np.zeros(grid.shape, dtype=bool)
    full[4, 5:7, 5:8] = True
    mask = Mask.from_full(full)

    assert (expand(mask, grid, Margin()).full() == full).all()


def test_left_is_the_patients_left():
    grid = make_grid(pixel_spacing_mm=(2.0, 2.0), size=(20, 20), offsets_mm=range(0, 30, 3))
    full = np.zeros(grid.shape, dtype=bool)
    full[5, 10, 10] = True

    grown = expand(Mask.from_full(full), grid, Margin(left=8)).full()

    x = voxels(grid)[grown][:, 0]
    assert (x >= voxels(grid)[5, 10, 10, 0]).all()
    assert grown.sum() == 5


def test_a_negative_margin_is_refused():
    grid = make_grid(size=(12, 12), offsets_mm=range(0, 30, 3))
    with pytest.raises(ValueError, match="may not be negative"):
        expand(Mask.from_full(np.ones(grid.shape, dtype=bool)), grid, Margin(left=-1))


def test_an_empty_mask_stays_empty():
    grid = make_grid(size=(12, 12), offsets_mm=range(0, 30, 3))
    assert expand(Mask.from_full(np.zeros(grid.shape, dtype=bool)), grid, Margin.uniform(5)).is_empty


def test_sets_of_voxels():
    rng = np.random.default_rng(1)
    a, b = (rng.random((4, 6, 5)) < 0.5 for _ in range(2))
    first, second = Mask.from_full(a), Mask.from_full(b)

    assert (union([first, second]).full() == (a | b)).all()
    assert (intersection([first, second]).full() == (a & b)).all()
    assert (subtract(first, second).full() == (a & ~b)).all()


def test_a_crop_keeps_its_distance():
    grid = make_grid(pixel_spacing_mm=(2.0, 1.5), size=(15, 17), offsets_mm=range(0, 30, 3))
    rng = np.random.default_rng(2)
    organ, target = (Mask.from_full(rng.random(grid.shape) < share) for share in (0.5, 0.01))

    kept = crop(organ, target, grid, Margin.uniform(4)).full()

    assert (kept == (organ.full() & ~grown_by_counting(target, grid, Margin.uniform(4)))).all()


@pytest.mark.parametrize("orientation", ["HFS", "FFP"])
@pytest.mark.parametrize(
    ("slices", "tilt_degrees", "margin", "missed"),
    [
        ([*range(0, 20, 2), *range(20, 41, 5)], 0, Margin.uniform(3), 4),
        (range(0, 40, 3), 20, Margin(superior=2.9, inferior=2.9), 13),
        (range(0, 40, 3), 20, Margin.uniform(3.2), 0),
        (range(0, 40, 3), 0, Margin(superior=3, left=9), 0),
    ],
)
def test_where_a_margin_ends_before_the_next_slice_nothing_grows_there(
    orientation, slices, tilt_degrees, margin, missed
):
    grid = make_grid(
        orientation,
        offsets_mm=np.array(slices, float),
        tilt_degrees=tilt_degrees,
        size=(24, 24),
        pixel_spacing_mm=(1, 1),
    )
    gaps = len(grid.positions_mm) - 1
    for upwards in (True, False):
        if not (margin.superior if upwards else margin.inferior):
            continue
        forwards = (grid.normal[2] > 0) == upwards
        ends = []
        for gap in range(gaps):
            full = np.zeros(grid.shape, bool)
            full[gap if forwards else gap + 1, 12, 12] = True
            grown = expand(Mask.from_full(full), grid, margin).full()
            ends.append(not grown[gap + 1 if forwards else gap].any())

        assert misses_next(grid, margin, upwards=upwards).tolist() == ends
        assert sum(ends) == missed


def test_three_organs_are_united_and_cut():
    rng = np.random.default_rng(1)
    a, b, c = (rng.random((4, 6, 5)) < 0.5 for _ in range(3))
    masks = [Mask.from_full(each) for each in (a, b, c)]
    assert (union(masks).full() == (a | b | c)).all()
    assert (intersection(masks).full() == (a & b & c)).all()
