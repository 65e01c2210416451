"""One section of the CT with its contours, letters and scale, drawn on matplotlib axes."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke
from numpy.typing import NDArray
from scipy import ndimage

from daemon.picture_views import Section
from model.geometry import Mask

WINDOW_HU = (-160.0, 240.0)
"""Soft tissue: level 40, width 400."""

BODY_HU = -400
MARGIN_MM = 25.0
LEAST_SIDE_MM = 200.0
SCALE_BAR_MM = 50.0

Colour = tuple[float, float, float]
"""Red, green and blue, from 0 to 1."""

INK, WARNING = "#e8ecf0", "#ffb84d"


def outlines_on(
    sections: Sequence[Section], masks: Mapping[str, Mask]
) -> list[dict[str, NDArray[np.float64]]]:
    """For each section the organs that it meets, 0 outside to 1 inside."""
    layers: list[dict[str, NDArray[np.float64]]] = [{} for _ in sections]
    for name, mask in masks.items():
        full = mask.full()  # one organ at a time: 21 of them would be gigabytes
        for section, outlines in zip(sections, layers, strict=True):
            if section.reaches(mask) and (inside := section.sample(full, 0)).max(initial=0) > 0.5:
                outlines[name] = inside
    return layers


def draw_section(
    axes: Axes,
    section: Section,
    hu: NDArray[np.float64],
    outlines: Mapping[str, NDArray[np.float64]],
    colours: Mapping[str, Colour],
    scale: float = 1.0,
) -> None:
    """Draw one panel: a square around the organs, or around the body without organs.

    Parameters
    ----------
    hu, outlines
        (down, right) as the section samples them; outlines as `outlines_on` makes them.
    colours
        Of every outline.
    scale
        Size of letters and width of lines; 1 is for a panel of 4.4 inches.
    """
    rows, columns = hu.shape
    down_mm, right_mm = section.spacing_mm
    axes.set_facecolor("black")
    axes.imshow(
        hu,
        cmap="gray",
        vmin=WINDOW_HU[0],
        vmax=WINDOW_HU[1],
        interpolation="bilinear",
        extent=(-right_mm / 2, (columns - 0.5) * right_mm, (rows - 0.5) * down_mm, -down_mm / 2),
    )
    lines = [(line, colours[name]) for name, inside in outlines.items() for line in _lines_about(inside)]
    axes.add_collection(
        LineCollection(
            [line * (right_mm, down_mm) for line, _ in lines],
            colors=[shade for _, shade in lines],
            linewidths=1.7 * scale,
            path_effects=_halo(scale),
        ),
        autolim=False,
    )
    left, right, top, bottom = _crop_mm(hu, list(outlines.values()), section.spacing_mm)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    _write_on_section(axes, section, (left, bottom), scale)


def colour(rgb: tuple[int, int, int]) -> Colour:
    """As matplotlib wants it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255


def volume_text(cm3: float) -> str:
    """Three significant digits at most, as a planning system shows it."""
    return f"{cm3:.0f}" if cm3 >= 100 else f"{cm3:.1f}" if cm3 >= 10 else f"{cm3:.2f}"


def _lines_about(inside: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Lines (points, 2) of columns and rows between what is inside of an organ and what is not.

    `Axes.contour` finds the same ones, and needs ten times as long to make artists of them.
    """
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    top, left = max(rows[0] - 2, 0), max(columns[0] - 2, 0)
    near = inside[top : rows[-1] + 3, left : columns[-1] + 3]  # the rest costs time
    lines = contour_generator(z=near, line_type="Separate").lines(0.5)
    return [line + np.array([left, top]) for line in cast("list[NDArray[np.float64]]", lines)]


def _crop_mm(
    hu: NDArray[np.float64], insides: Sequence[NDArray[np.float64]], spacing_mm: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Left, right, top, bottom of a square around the organs with a margin, or around the body without organs."""
    shown = np.any([inside > 0.5 for inside in insides], axis=0) if len(insides) else _body(hu)
    margin = MARGIN_MM if len(insides) else 0.0
    low, high = [], []
    for axis, spacing in enumerate(spacing_mm):
        where = np.flatnonzero(shown.any(axis=1 - axis)) * spacing
        low.append(float(where[0]) - margin)
        high.append(float(where[-1]) + margin)
    half = max(high[0] - low[0], high[1] - low[1], LEAST_SIDE_MM) / 2
    middle_y, middle_x = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2
    return middle_x - half, middle_x + half, middle_y - half, middle_y + half


def _body(hu: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The largest thing that is not air, which is rarely the couch; everything if there is nothing."""
    labels, count = ndimage.label(hu > BODY_HU)
    if not count:
        return np.ones(hu.shape, dtype=bool)
    return np.asarray(labels == np.bincount(labels.ravel())[1:].argmax() + 1)


def _write_on_section(axes: Axes, section: Section, corner: tuple[float, float], scale: float) -> None:
    letters = zip(section.letters, ((0.025, 0.5), (0.975, 0.5), (0.5, 0.97), (0.5, 0.03)), strict=True)
    for text, (x, y) in letters:
        style = {"ha": "left" if x < 0.1 else "right" if x > 0.9 else "center"}
        style["va"] = "top" if y > 0.9 else "bottom" if y < 0.1 else "center"
        _write(axes, x, y, text, scale, color=WARNING, size=13 * scale, weight="bold", **style)
    _write(axes, 0.02, 0.975, section.name, scale, color=INK, size=9.5 * scale, ha="left", va="top")
    left, bottom = corner
    inset = 0.025 * abs(np.subtract(*axes.get_xlim()))
    start, height = left + inset, bottom - inset
    axes.add_line(
        Line2D(
            [start, start + SCALE_BAR_MM],
            [height, height],
            color=INK,
            linewidth=2 * scale,
            path_effects=_halo(scale),
        )
    )
    _write(axes, 0.03, 0.04, "5 cm", scale, color=INK, size=8.5 * scale, ha="left", va="bottom")


def _write(axes: Axes, x: float, y: float, text: str, scale: float, **style: Any) -> None:  # noqa: ANN401 -- matplotlib's own
    """Text at fractions of the panel, readable on bone too."""
    axes.text(x, y, text, transform=axes.transAxes, path_effects=_halo(scale), **style)


def _halo(scale: float) -> list[AbstractPathEffect]:
    return [Stroke(linewidth=3 * scale, foreground="black", alpha=0.6), Normal()]
