"""Pictures of an evaluation: box plots of every organ, and of single cases a slice with both outlines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from training.config import ORGANS
from training.dataset import Case, Frame
from training.goals import BAND
from training.scores import Score, Summary
from training.surface_distance import joint_box

MARGIN_MM = 15.0
WINDOW_HU = (-160, 240)
TRUTH, MODEL, HUMAN = "#ffd400", "#00c2ff", "#d04a02"


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The slice in which reference and model differ most, cut to both.

    Arrays are (rows, columns), rows running to the patient's back and columns to his left; `spacing_mm` likewise.
    """

    hu: NDArray[np.int16]
    gt: NDArray[np.bool_]
    pred: NDArray[np.bool_]
    spacing_mm: tuple[float, float]


def snapshot(case: Case, gt: NDArray[np.bool_], pred: NDArray[np.bool_], frame: Frame) -> Snapshot | None:
    """The picture of one organ of one case; None where it neither is nor was drawn.

    `gt` and `pred` are (slices, rows, columns) and lie in `frame`.
    """
    box = joint_box(gt, pred)
    if box is None:
        return None
    different = (gt[box] ^ pred[box]).sum(axis=(1, 2))
    in_all = (gt[box] | pred[box]).sum(axis=(1, 2))
    index = box[0].start + int(np.lexsort((in_all, different))[-1])
    rows, columns = (
        slice(max(0, side.start - more), min(length, side.stop + more))
        for side, more, length in (
            (side, int(MARGIN_MM / step) + 1, length)
            for side, step, length in zip(box[1:], frame.spacing_mm[1:], gt.shape[1:], strict=True)
        )
    )
    hu = _image_at(case, frame, index, rows, columns)
    _, dy, dx = frame.spacing_mm
    return Snapshot(hu, gt[index, rows, columns].copy(), pred[index, rows, columns].copy(), (dy, dx))


def _image_at(case: Case, frame: Frame, index: int, rows: slice, columns: slice) -> NDArray[np.int16]:
    """The CT at a part of a slice of another grid, linearly between its voxels; air beyond it."""
    axes = (np.array([index]), np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop))
    places = [
        (start + each * step - image_start) / image_step
        for start, step, image_start, image_step, each in zip(
            frame.origin_mm,
            frame.spacing_mm,
            case.image_frame.origin_mm,
            case.image_frame.spacing_mm,
            axes,
            strict=True,
        )
    ]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    nearby = ndimage.map_coordinates(case.image, grid, order=1, mode="constant", cval=-1000)
    hu: NDArray[np.int16] = nearby[0].astype(np.int16)
    return hu


def draw_boxes(scores: Sequence[Score], human: Mapping[str, Summary], path: Path, title: str) -> None:
    """Box plots of both Dice coefficients of one group, organ by organ; every case is a point.

    Where `human` has the organ, its mean is marked, for the surface with the band of 5 % about it.
    """
    found = {score.organ for score in scores if score.is_there or score.is_drawn}
    organs = [organ for organ in ORGANS if organ in found]
    figure = Figure(figsize=(max(4.5, 0.45 * len(organs) + 1.2), 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    _boxes(upper, organs, [[each.dice for each in _counted(scores, organ)] for organ in organs])
    _boxes(lower, organs, [[each.surface_dice for each in _counted(scores, organ)] for organ in organs])
    upper.set_ylabel("Dice")
    lower.set_ylabel("surface Dice at the organ's tolerance")
    for place, organ in enumerate(organs, start=1):
        if organ in human:
            _mark(upper, place, human[organ].dice.mean, band=0)
            _mark(lower, place, human[organ].surface_dice.mean, band=BAND)
    upper.set_title(title, fontsize=10)
    figure.savefig(path, dpi=90)


def _counted(scores: Sequence[Score], organ: str) -> list[Score]:
    return [each for each in scores if each.organ == organ and (each.is_there or each.is_drawn)]


def _boxes(axes: Axes, organs: Sequence[str], values: Sequence[Sequence[float]]) -> None:
    axes.boxplot(values, showfliers=False, widths=0.6, medianprops={"color": "black"})
    for place, each in enumerate(values, start=1):
        spread = np.linspace(-0.18, 0.18, len(each)) if len(each) > 1 else [0.0]
        axes.plot(place + np.array(spread), each, ".", color="#4878a8", markersize=3)
    axes.set_xticks(range(1, len(organs) + 1), organs, rotation=60, ha="right", fontsize=8)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(axis="y", linewidth=0.3)


def _mark(axes: Axes, place: int, mean: float | None, band: float) -> None:
    if mean is None:
        return
    axes.plot([place - 0.35, place + 0.35], [mean, mean], color=HUMAN, linewidth=1.2)
    if band:
        axes.fill_between(
            [place - 0.35, place + 0.35],
            mean - band,
            min(mean + band, 1),
            color=HUMAN,
            alpha=0.2,
            linewidth=0,
        )


def draw_cases(panels: Sequence[tuple[str, Snapshot]], path: Path) -> None:
    """Slices side by side, each under its caption: reference and model as outlines on the CT."""
    figure = Figure(figsize=(3.6 * len(panels), 3.9), layout="constrained")
    for axes, (caption, shot) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        low, high = WINDOW_HU
        axes.imshow(shot.hu, cmap="gray", vmin=low, vmax=high, aspect=shot.spacing_mm[0] / shot.spacing_mm[1])
        for mask, colour in ((shot.gt, TRUTH), (shot.pred, MODEL)):
            if mask.any() and not mask.all():
                axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1)
        axes.set_title(caption, fontsize=8)
        axes.set_axis_off()
    figure.supxlabel("yellow: reference, blue: model", fontsize=8)
    figure.savefig(path, dpi=90)
