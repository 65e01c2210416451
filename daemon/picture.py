"""A picture of the contours on the CT, for a first look; no one should plan on it."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from daemon.picture_panels import INK, WARNING, Colour, colour, draw_section, outlines_on, volume_text
from daemon.picture_views import AIR_HU, choose_sections
from model.ct import CTVolume
from model.geometry import Mask
from model.structures import structure

BACKGROUND, FAINT = "#101418", "#8b98a5"
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
    layers = outlines_on(sections, masks)
    colours = {name: colour(structure(name).colour_rgb) for name in masks}
    panel = (_PANEL_INCHES / width, _PANEL_INCHES / height)
    for section, place, outlines in zip(sections, places, layers, strict=True):
        row, column = divmod(place, _COLUMNS)
        box = (column * panel[0], (_ROWS - 1 - row) * panel[1])
        axes = figure.add_axes((box[0] + 0.002, box[1] + 0.004, panel[0] - 0.004, panel[1] - 0.008))
        draw_section(axes, section, section.sample(volume.hu, AIR_HU), outlines, colours)
    _write_heading(figure, title or "Organs at risk", height)
    _write_legend(figure, volume, masks, colours, left=_COLUMNS * panel[0], top=1 - _HEAD_INCHES / height)
    canvas.print_figure(path, format="png")


def _write_heading(figure: Figure, title: str, height: float) -> None:
    line = 1 - _HEAD_INCHES / 2 / height
    figure.text(0.008, line, title, color=INK, size=19, weight="bold", va="center", parse_math=False)
    figure.text(
        0.992, line, "automatic contours – not reviewed", color=WARNING, size=15, va="center", ha="right"
    )


def _write_legend(
    figure: Figure,
    volume: CTVolume,
    masks: Mapping[str, Mask],
    colours: Mapping[str, Colour],
    *,
    left: float,
    top: float,
) -> None:
    """Colour, name and volume of every organ, the ones that were not found without colour."""
    axes = figure.add_axes((left + 0.008, 0.01, 1 - left - 0.016, top - 0.01))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(masks), 21) + 1.5, 0)
    axes.text(1, 0.5, "cm³", color=FAINT, size=10, ha="right", va="center")
    for line, (name, mask) in enumerate(masks.items(), start=1):
        y = line + 0.5
        amount = "not found" if mask.is_empty else volume_text(mask.volume_cm3(volume.grid))
        ink = FAINT if mask.is_empty else INK
        if not mask.is_empty:
            axes.add_line(Line2D([0, 0.1], [y, y], color=colours[name], linewidth=5, solid_capstyle="butt"))
        axes.text(0.15, y, name, color=ink, size=12, va="center")
        axes.text(1, y, amount, color=ink, size=12, ha="right", va="center")
    if not masks:
        axes.text(0, 1.5, "no organ found", color=FAINT, size=12, va="center")
