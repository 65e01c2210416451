"""A picture of the contours on the CT, for a first look; no one should plan on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from scipy import ndimage

from daemon.picture_views import AIR_HU, Section, choose_sections
from model.ct import CTVolume
from model.geometry import Mask
from model.structures import structure

WINDOW_HU = (-160.0, 240.0)
"""Soft tissue: level 40, width 400."""

BODY_HU = -400
MARGIN_MM = 25.0
LEAST_SIDE_MM = 200.0
SCALE_BAR_MM = 50.0

BACKGROUND, INK, FAINT, WARNING = "#101418", "#e8ecf0", "#8b98a5", "#ffb84d"
_HALO = [Stroke(linewidth=3, foreground="black", alpha=0.6), Normal()]
_COLUMNS, _ROWS, _PANEL_INCHES, _LEGEND_INCHES, _HEAD_INCHES = 4, 2, 4.4, 3.1, 0.9
_DPI = 110


def draw(volume: CTVolume, masks: Mapping[str, Mask], path: Path, title: str = "") -> None:
    """Write a PNG: contours on six axial slices, one coronal and one sagittal section, with volumes.

    Radiological convention with letters from the CT's own directions, true proportions, soft-tissue window.
    Organs with an empty mask are listed as not found; without any organ the CT alone is drawn.

    Parameters
    ----------
    masks
        By TG-263 name.
    title
        Heading; this is the place for what names the study, if anything may.
    """
    width = _COLUMNS * _PANEL_INCHES + _LEGEND_INCHES
    height = _ROWS * _PANEL_INCHES + _HEAD_INCHES
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    sections = choose_sections(volume.grid, masks)
    # Three columns of axial sections, the last column for the coronal and the sagittal one.
    places = [*(0, 1, 2, 4, 5, 6)[: len(sections) - 2], 3, 7]
    layers = _layers(sections, masks)
    panel = (_PANEL_INCHES / width, _PANEL_INCHES / height)
    for section, place, outlines in zip(sections, places, layers, strict=True):
        row, column = divmod(place, _COLUMNS)
        box = (column * panel[0], (_ROWS - 1 - row) * panel[1])
        axes = figure.add_axes((box[0] + 0.002, box[1] + 0.004, panel[0] - 0.004, panel[1] - 0.008))
        _draw_section(axes, section, section.sample(volume.hu, AIR_HU), outlines)
    _write_heading(figure, title or "Organs at risk", height)
    _write_legend(figure, volume, masks, left=_COLUMNS * panel[0], top=1 - _HEAD_INCHES / height)
    canvas.print_figure(path, format="png")


def _layers(sections: Sequence[Section], masks: Mapping[str, Mask]) -> list[dict[str, NDArray[np.float64]]]:
    """For each section the organs that it meets, 0 outside to 1 inside."""
    layers: list[dict[str, NDArray[np.float64]]] = [{} for _ in sections]
    for name, mask in masks.items():
        full = mask.full()  # one organ at a time: 21 of them would be gigabytes
        for section, outlines in zip(sections, layers, strict=True):
            inside = section.sample(full, 0)
            if inside.max(initial=0) > 0.5:
                outlines[name] = inside
    return layers


def _draw_section(
    axes: Axes, section: Section, hu: NDArray[np.float64], outlines: Mapping[str, NDArray[np.float64]]
) -> None:
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
    x, y = np.arange(columns) * right_mm, np.arange(rows) * down_mm
    for name, inside in outlines.items():
        lines = axes.contour(x, y, inside, levels=[0.5], colors=[_colour(name)], linewidths=1.7)
        lines.set_path_effects(_HALO)
    left, right, top, bottom = _crop_mm(hu, list(outlines.values()), section.spacing_mm)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    _write_on_section(axes, section, left, bottom)


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


def _write_on_section(axes: Axes, section: Section, left: float, bottom: float) -> None:
    letters = zip(section.letters, ((0.025, 0.5), (0.975, 0.5), (0.5, 0.97), (0.5, 0.03)), strict=True)
    for text, place in letters:
        _write(axes, *place, text, color=WARNING, size=13, weight="bold", ha="center", va="center")
    _write(axes, 0.02, 0.975, section.name, color=INK, size=9.5, ha="left", va="top")
    inset = 0.025 * abs(np.subtract(*axes.get_xlim()))
    start, height = left + inset, bottom - inset
    bar = Line2D([start, start + SCALE_BAR_MM], [height, height], color=INK, linewidth=2, path_effects=_HALO)
    axes.add_line(bar)
    _write(axes, 0.03, 0.04, "5 cm", color=INK, size=8.5, ha="left", va="bottom")


def _write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:  # noqa: ANN401 -- matplotlib's own
    """Text at fractions of the panel, readable on bone too."""
    axes.text(x, y, text, transform=axes.transAxes, path_effects=_HALO, **style)


def _write_heading(figure: Figure, title: str, height: float) -> None:
    line = 1 - _HEAD_INCHES / 2 / height
    figure.text(0.008, line, title, color=INK, size=19, weight="bold", va="center")
    figure.text(
        0.992, line, "automatic contours – not reviewed", color=WARNING, size=15, va="center", ha="right"
    )


def _write_legend(
    figure: Figure, volume: CTVolume, masks: Mapping[str, Mask], left: float, top: float
) -> None:
    """Colour, name and volume of every organ, the ones that were not found without colour."""
    axes = figure.add_axes((left + 0.008, 0.01, 1 - left - 0.016, top - 0.01))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(masks), 21) + 1.5, 0)
    axes.text(1, 0.5, "cm³", color=FAINT, size=10, ha="right", va="center")
    for line, (name, mask) in enumerate(masks.items(), start=1):
        y = line + 0.5
        amount = "not found" if mask.is_empty else _volume_text(mask.volume_cm3(volume.grid))
        ink = FAINT if mask.is_empty else INK
        if not mask.is_empty:
            axes.add_line(Line2D([0, 0.1], [y, y], color=_colour(name), linewidth=5, solid_capstyle="butt"))
        axes.text(0.15, y, name, color=ink, size=12, va="center")
        axes.text(1, y, amount, color=ink, size=12, ha="right", va="center")
    if not masks:
        axes.text(0, 1.5, "no organ found", color=FAINT, size=12, va="center")


def _volume_text(cm3: float) -> str:
    """Three significant digits at most, as a planning system shows it."""
    return f"{cm3:.0f}" if cm3 >= 100 else f"{cm3:.1f}" if cm3 >= 10 else f"{cm3:.2f}"


def _colour(name: str) -> tuple[float, float, float]:
    red, green, blue = structure(name).colour_rgb
    return red / 255, green / 255, blue / 255
