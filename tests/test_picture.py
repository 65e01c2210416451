"""The picture: sections where the organs are, upright, with the right letters, in true proportion."""

import subprocess
import sys
from functools import cache

import matplotlib.image
import numpy as np
import pytest

from daemon.picture import draw
from daemon.picture_panels import outlines_on
from daemon.picture_views import REFORMAT_MM, Section, choose_sections, letter
from model.geometry import Mask, SliceGrid
from model.structures import STRUCTURES, structure
from tests.phantom import ORIENTATIONS, make_grid
from tests.structure_set_samples import NOT_FOUND, ct_volume, organ_masks

KINDS = [*ORIENTATIONS, "tilted", "uneven"]


@cache
def grid_of(kind: str) -> SliceGrid:
    coarse = {"size": (64, 60), "pixel_spacing_mm": (3.5, 3.0)}
    if kind == "tilted":
        return make_grid(tilt_degrees=14, **coarse)
    if kind == "uneven":
        return make_grid(offsets_mm=[*np.arange(-100, 0, 2.5), *np.arange(0, 101, 5)], **coarse)
    return make_grid(kind, **coarse)


@cache
def masks_of(kind: str) -> dict[str, Mask]:
    return organ_masks(grid_of(kind))


def coordinates(grid: SliceGrid) -> np.ndarray:
    """(3, slices, rows, columns) LPS mm of every voxel."""
    rc = np.stack(np.mgrid[: grid.rows, : grid.columns], axis=-1).reshape(-1, 2)
    planes = [grid.to_patient(s, rc).T.reshape(3, grid.rows, grid.columns) for s in range(grid.shape[0])]
    return np.stack(planes, axis=1)


def middle(section: Section, mask: Mask) -> np.ndarray:
    """(down, right) of an organ's middle in the image, from 0 to 1."""
    inside = section.sample(mask.full(), 0)
    assert inside.max() > 0.5
    return np.array(
        [
            (axis.mean() + 0.5) / size
            for axis, size in zip(np.nonzero(inside > 0.5), inside.shape, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, -1, 0), "A"),
        ((0, 0, 1), "H"),
        ((0, 0.3, -0.9), "F"),
    ],
)
def test_letters_are_those_of_patient_coordinates(direction, expected):
    assert letter(np.array(direction)) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_every_section_is_shown_in_radiological_convention(kind):
    """However the patient lay: right at the left, front up; head up; front at the left in the sagittal."""
    *axial, coronal, sagittal = choose_sections(grid_of(kind), masks_of(kind))
    assert [section.letters for section in axial] == [("R", "L", "A", "P")] * 6
    assert coronal.letters == ("R", "L", "H", "F")
    assert sagittal.letters == ("A", "P", "H", "F")


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_stand_where_the_directions_and_spacings_say(kind):
    """Sampling the voxels' own coordinates: a step down or right moves by the spacing along the direction."""
    grid = grid_of(kind)
    where = coordinates(grid)
    for section in choose_sections(grid, masks_of(kind)):
        image = np.stack([section.sample(axis, np.nan) for axis in where], axis=-1)
        for axis, direction, spacing in zip(
            (0, 1), (section.down, section.right), section.spacing_mm, strict=True
        ):
            steps = np.diff(image, axis=axis) @ direction
            steps = steps[np.isfinite(steps)]
            assert len(steps) > 1000
            # The ends of reformatted lines may be cut, and a sheared slice is sampled at its nearest row.
            assert np.median(steps) == pytest.approx(spacing, abs=0.01)
            assert (steps > 0).mean() > 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_upright_sections_are_flat_even_where_slices_are_sheared(kind):
    grid = grid_of(kind)
    where = coordinates(grid)
    for section in choose_sections(grid, masks_of(kind))[-2:]:
        across = np.cross(section.down, section.right)
        image = np.stack([section.sample(axis, np.nan) for axis in where], axis=-1) @ across
        image = image[np.isfinite(image)]
        assert np.ptp(image) <= max(grid.pixel_spacing_mm)


@pytest.mark.parametrize("kind", KINDS)
def test_organs_appear_on_their_side(kind):
    grid, masks = grid_of(kind), masks_of(kind)
    *axial, coronal, sagittal = choose_sections(grid, masks)
    both = [s for s in axial if all(s.sample(masks[f"Parotid_{side}"].full(), 0).any() for side in "LR")]
    assert both
    for section in both:
        assert middle(section, masks["Parotid_L"])[1] > 0.55
        assert middle(section, masks["Parotid_R"])[1] < 0.45
    assert middle(coronal, masks["Brain"])[0] < 0.4
    assert middle(sagittal, masks["SpinalCord"])[0] > 0.55
    assert middle(sagittal, masks["SpinalCord"])[1] > middle(sagittal, masks["Brain"])[1]


@pytest.mark.parametrize("kind", KINDS)
def test_an_organ_is_outlined_on_every_section_that_shows_some_of_it(kind):
    """Also a single voxel, beside the plane of an upright section or on it, whatever the shear of the slices."""
    grid = grid_of(kind)
    random = np.random.default_rng(1)
    masks = {"nothing": Mask.from_full(np.zeros(grid.shape))}
    for number in range(60):
        low = random.integers(0, grid.shape)
        box = tuple(slice(at, at + side) for at, side in zip(low, random.integers(1, 9, 3), strict=True))
        full = np.zeros(grid.shape, dtype=bool)
        full[box] = random.random(full[box].shape) > 0.4
        masks[f"{number}"] = Mask.from_full(full)
    sections = choose_sections(grid, masks, coronal_count=2)

    found = outlines_on(sections, masks)

    for section, outlines in zip(sections, found, strict=True):
        insides = {name: section.sample(mask.full(), 0) for name, mask in masks.items()}
        shown = [name for name, inside in insides.items() if inside.max() > 0.5]
        assert list(outlines) == shown
        assert 0 < len(shown) < len(masks)
        for name in shown:
            np.testing.assert_array_equal(outlines[name], insides[name])


def test_axial_sections_run_from_head_to_feet_and_show_every_organ():
    grid = make_grid("FFS")
    masks = organ_masks(grid)
    axial = choose_sections(grid, masks)[:-2]
    heights = [grid.positions_mm[int(section.position)][2] for section in axial]
    assert heights == sorted(heights, reverse=True)
    assert np.diff(heights).max() <= -10
    for name, mask in masks.items():
        assert mask.is_empty or any(section.sample(mask.full(), 0).any() for section in axial), name


def test_sections_are_spread_over_the_volume_where_no_organ_was_found():
    grid = make_grid()
    *axial, coronal, sagittal = choose_sections(grid, {})
    indices = [int(section.position) for section in axial]
    assert len(set(indices)) == 6
    assert max(indices) - min(indices) > grid.shape[0] / 2
    assert abs(coronal.position) < 2
    assert abs(sagittal.position) < 2


@pytest.mark.parametrize("kind", ["HFS", "FFP", "HFDL", "tilted"])
def test_a_second_coronal_section_shows_what_the_first_does_not(kind):
    """From front to back, and apart; the sagittal section stays the last."""
    grid, masks = grid_of(kind), masks_of(kind)
    where = coordinates(grid)[1]
    front, back, sagittal = choose_sections(grid, masks, coronal_count=2)[-3:]
    assert [front.name, back.name, sagittal.name] == ["coronal", "coronal", "sagittal"]
    places = [float(np.nanmean(section.sample(where, np.nan))) for section in (front, back)]
    assert places[1] - places[0] >= 9
    single = choose_sections(grid, masks)[-2]
    assert single.position in {front.position, back.position}
    shown = [
        {name for name, mask in masks.items() if section.sample(mask.full(), 0).max() > 0.5}
        for section in (single, front, back)
    ]
    assert shown[0] < shown[1] | shown[2]


def test_axial_sections_say_where_planning_systems_show_them():
    grid, masks = grid_of("HFS"), masks_of("HFS")
    for section in choose_sections(grid, masks)[:-2]:
        index = int(section.position)
        number, z = section.name.split("\n")
        assert number == f"axial {index + 1} of {grid.shape[0]}"
        assert float(z.removeprefix("z ").removesuffix(" mm").replace("−", "-")) == pytest.approx(
            grid.positions_mm[index][2], abs=0.05
        )


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_slices_are_enough(tmp_path, count):
    grid = make_grid(offsets_mm=np.arange(count) * 3.0)
    draw(ct_volume(grid), {}, tmp_path / "few.png")
    assert (tmp_path / "few.png").stat().st_size > 10_000


def test_uneven_slices_are_shown_in_true_proportion():
    """200 mm from the first to the last slice are 201 rows of 1 mm, whatever the gaps."""
    grid = grid_of("uneven")
    coronal = choose_sections(grid, {})[-2]
    assert coronal.sample(np.zeros(grid.shape), 0).shape[0] == round(200 / REFORMAT_MM) + 1


def test_the_picture_shows_every_organ_in_its_colour(tmp_path):
    grid = make_grid(tilt_degrees=8)
    masks = organ_masks(grid)
    draw(ct_volume(grid), masks, tmp_path / "picture.png", "Phantom")
    picture = (matplotlib.image.imread(tmp_path / "picture.png")[..., :3] * 255).round()
    width = picture.shape[1]
    assert width > 1500
    panels = picture[:, : int(width * 0.84)]
    for name in masks:
        near = np.abs(panels - structure(name).colour_rgb).max(axis=-1) < 12
        assert near.any() == (name != NOT_FOUND), name


def test_without_organs_the_ct_alone_is_drawn(tmp_path):
    grid = make_grid()
    nothing = {each.name: Mask.from_full(np.zeros(grid.shape, dtype=bool)) for each in STRUCTURES}
    draw(ct_volume(grid), nothing, tmp_path / "nothing.png")
    draw(ct_volume(grid), {}, tmp_path / "none.png")
    assert (
        (tmp_path / "nothing.png").read_bytes()[:8]
        == (tmp_path / "none.png").read_bytes()[:8]
        == b"\x89PNG\r\n\x1a\n"
    )


def test_drawing_needs_no_display_and_no_state_of_pyplot():
    code = "import sys, daemon.picture; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
