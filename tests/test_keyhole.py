"""Holes come back to every kind of reader, in every style."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.path import Path as Outline
from PIL import Image, ImageDraw
from scipy import ndimage

from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from daemon.structure_template import apply_template, template_of
from model.contours import Contour, fill, trace
from model.ct import read_series
from model.geometry import Mask
from model.keyhole import STYLES, count_holes, with_holes
from tests.phantom import make_grid, write_series
from tests.structure_set_samples import IDENTITY, MODEL

PIXEL_MM = (0.98, 0.98)


def rings(slices: int = 1) -> np.ndarray:
    """A disc with a large and a small hole, an island with a hole of its own in the large one, and one beside."""
    rows, columns = np.indices((90, 90))
    full = np.hypot(rows - 45, columns - 45) < 40
    full &= np.hypot(rows - 40, columns - 36) >= 18
    full &= np.hypot(rows - 62, columns - 66) >= 4
    full |= np.hypot(rows - 40, columns - 36) < 9
    full &= np.hypot(rows - 40, columns - 36) >= 3
    full[2:6, 2:6] = True
    return np.repeat(full[None], slices, axis=0)


@settings(max_examples=200, deadline=None)
@given(
    arrays.arrays(bool, st.tuples(st.just(2), *[st.integers(3, 11)] * 2)), st.sampled_from([None, PIXEL_MM])
)
def test_any_mask_survives_as_keyholes_for_both_kinds_of_reader(full, pixel_mm):
    """Those that count contours and those that unite them, with coordinates in hundredths of a millimetre."""
    nested = trace(Mask.from_full(full), pixel_mm)
    keyholes = [
        Contour(c.slice_index, np.round(c.points * PIXEL_MM, 2) / PIXEL_MM)
        for c in with_holes(nested, "keyhole")
    ]

    np.testing.assert_array_equal(fill(keyholes, full.shape, "xor").full(), full)
    np.testing.assert_array_equal(fill(keyholes, full.shape, "union").full(), full)
    assert len(keyholes) == len(nested) - count_holes(nested)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(bool, (2, 9, 9)))
def test_filled_holes_are_full_for_both_kinds_of_reader(full):
    """Also where an island lay in the hole, which a reader that counts would otherwise cut out."""
    filled = with_holes(trace(Mask.from_full(full), PIXEL_MM), "filled")
    around = np.ones((3, 3), dtype=bool)
    expected = [ndimage.binary_fill_holes(plane, structure=around) for plane in full]

    np.testing.assert_array_equal(fill(filled, full.shape, "xor").full(), expected)
    np.testing.assert_array_equal(fill(filled, full.shape, "union").full(), expected)


def test_nested_holes_are_lost_to_a_reader_that_unites_and_to_no_other():
    full = rings()
    nested = with_holes(trace(Mask.from_full(full), PIXEL_MM), "nested")

    np.testing.assert_array_equal(fill(nested, full.shape, "xor").full(), full)
    assert fill(nested, full.shape, "union").count > full.sum()


def test_holes_are_counted_islands_inside_them_are_not():
    assert count_holes(trace(Mask.from_full(rings(slices=2)))) == 6
    assert count_holes([]) == 0


def test_a_keyhole_is_one_contour_whose_channels_are_without_width():
    """Every vertex at the end of a channel stands twice, and the ways between them are gone there and back."""
    keyholes = with_holes(trace(Mask.from_full(rings()), PIXEL_MM), "keyhole")

    assert len(keyholes) == 3
    largest = max(keyholes, key=lambda c: len(c.points)).points
    edges = {(*a, *b) for a, b in zip(largest, np.roll(largest, -1, axis=0), strict=True)}
    assert sum((*edge[2:], *edge[:2]) in edges for edge in edges) == 4


def test_readers_that_count_turns_find_no_turn_in_a_hole():
    """The non-zero rule: holes run against their outer contour."""
    full = rings()
    rows, columns = np.indices(full.shape[1:])
    turns = np.zeros(rows.shape)
    for contour in with_holes(trace(Mask.from_full(full), PIXEL_MM), "keyhole"):
        turns += np.rint(turns_about(contour.points, rows, columns))

    np.testing.assert_array_equal(turns != 0, full[0])


@pytest.mark.parametrize("style", ["keyhole", "nested"])
@pytest.mark.parametrize("reader", ["matplotlib", "pillow"])
def test_independent_readers_get_the_mask_back(style, reader):
    """Matplotlib by its own geometry; Pillow by its own raster, on pixels eight times finer."""
    full = rings()[0]
    seen = np.zeros(full.shape, dtype=bool)
    for contour in with_holes(trace(Mask.from_full(full[None]), PIXEL_MM), style):
        inside = {"matplotlib": by_matplotlib, "pillow": by_pillow}[reader](contour.points, full.shape)
        seen = seen ^ inside if style == "nested" else seen | inside

    assert dice(seen, full) > 0.99


@pytest.mark.parametrize("style", ["keyhole", "nested"])
def test_plastimatch_gets_the_mask_back(style, tmp_path):
    """A reader of structure sets, told to unite contours for keyholes and to count them for nested ones."""
    if shutil.which("plastimatch") is None:
        pytest.skip("needs plastimatch on PATH")
    grid = make_grid(offsets_mm=np.arange(12) * 2.5, size=(90, 90), pixel_spacing_mm=PIXEL_MM)
    full = rings(slices=12)
    volume = read_series(write_series(tmp_path / "ct", np.where(full, 40, -1000), grid))
    masks = {"Brain": Mask.from_full(full)}
    (roi,) = apply_template(template_of(["Brain"]), masks, volume.grid)
    contours = with_holes(trace(roi.mask, PIXEL_MM), style)
    path = tmp_path / "rtstruct.dcm"
    path.write_bytes(encode(build_structure_set(volume, [replace(roi, contours=contours)], IDENTITY, MODEL)))
    command = ["plastimatch", "convert", "--input", path, "--referenced-ct", tmp_path / "ct"]
    command += ["--output-prefix", tmp_path / "masks", "--prefix-format", "nrrd"]
    command += ["--xor-contours"] if style == "nested" else []
    subprocess.run(command, capture_output=True, text=True, check=True)
    image = SimpleITK.ReadImage(tmp_path / "masks" / "Brain.nrrd")

    assert dice(SimpleITK.GetArrayFromImage(image).astype(bool), roi.mask.full()) > 0.99


def test_another_style_is_refused():
    with pytest.raises(ValueError, match=f"there are {', '.join(STYLES)}"):
        with_holes([], "open")


def turns_about(points, rows, columns):
    """(rows, columns) how often a polygon goes round each place."""
    away = points[:, None, None] - np.stack([rows, columns], axis=-1)
    angle = np.unwrap(np.arctan2(away[..., 0], away[..., 1]), axis=0)
    closing = np.angle(np.exp(1j * (angle[0] - angle[-1])))
    return (angle[-1] + closing - angle[0]) / (2 * np.pi)


def by_matplotlib(points, shape):
    centres = np.indices(shape).reshape(2, -1).T
    return Outline(np.vstack([points, points[:1]]), closed=True).contains_points(centres).reshape(shape)


def by_pillow(points, shape, finer=8):
    image = Image.new("1", (shape[1] * finer, shape[0] * finer))
    corners = (points[:, ::-1] + 0.5) * finer - 0.5
    ImageDraw.Draw(image).polygon([tuple(each) for each in corners], fill=1)
    return np.asarray(image)[finer // 2 :: finer, finer // 2 :: finer]


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())
