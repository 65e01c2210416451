"""Measure a bundle on cases that it never saw, and write what was found into the bundle and its model card.

python -m training.evaluate runs/first/bundle --packs runs/packs/openkbp-validation-00.npz \
        --packs runs/packs/tcia21-validation-00.npz --card docs/model-card.md
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from pydicom import Dataset
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.bundle import DEFAULT_BUNDLE, Bundle
from model.ct import CTVolume
from model.geometry import SliceGrid
from model.segmenter import Segmenter
from training.dataset import Case, Frame, read_packs
from training.metrics import dice


@dataclass(frozen=True)
class Score:
    """One organ of one case."""

    case: str
    group: str
    organ: str
    dice: float


@dataclass(frozen=True)
class Summary:
    """One organ over all cases of a group: mean, standard deviation and median of Dice, and how many cases."""

    group: str
    organ: str
    mean: float
    deviation: float
    median: float
    cases: int


def slice_grid(frame: Frame, shape: tuple[int, ...]) -> SliceGrid:
    """The planes of an array that runs feet to head, front to back, right to left (LPS mm)."""
    z, y, x = frame.origin_mm
    dz, dy, dx = frame.spacing_mm
    positions = np.array([(x, y, z + index * dz) for index in range(shape[0])])
    return SliceGrid(positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (dy, dx), shape[1], shape[2])


def as_volume(case: Case) -> CTVolume:
    """A case as the reader of DICOM series would give it."""
    uids = tuple(f"2.25.{index + 1}" for index in range(len(case.image)))
    return CTVolume(case.image, slice_grid(case.image_frame, case.image.shape), uids, Dataset())


def score_case(segmenter: Segmenter, case: Case) -> list[Score]:
    """Dice of every organ whose truth is known, on the grid of the truth and over the part that is known."""
    grid = slice_grid(case.label_frame, case.labels.shape)
    found = segmenter.segment(as_volume(case), grid=grid).masks
    heights = grid.positions_mm[:, 2]
    first, last = (corner[0] for corner in case.image_frame.extent(case.image.shape))
    within = (heights >= first) & (heights <= last)
    scores = []
    for organ, (low, high) in case.known.items():
        if organ not in segmenter.bundle.structure_names:
            continue
        counted = (within & (heights >= low) & (heights <= high))[:, None, None]
        predicted = found[organ].full() if organ in found else np.zeros(grid.shape, dtype=bool)
        scores.append(
            Score(case.name, case.group, organ, dice(case.organ(organ) & counted, predicted & counted))
        )
    return scores


def summarise(scores: Iterable[Score]) -> list[Summary]:
    """Per group and organ; a case in which the organ neither is nor was found does not count."""
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for score in scores:
        if not np.isnan(score.dice):
            values[score.group, score.organ].append(score.dice)
    return [_summary(group, organ, np.array(found)) for (group, organ), found in sorted(values.items())]


def _summary(group: str, organ: str, found: NDArray[np.float64]) -> Summary:
    mean, deviation, median = (round(float(f(found)), 3) for f in (np.mean, np.std, np.median))
    return Summary(group, organ, mean, deviation, median, len(found))


def main(
    bundle: Path = typer.Argument(DEFAULT_BUNDLE, help="Folder of the bundle."),  # noqa: B008
    packs: list[Path] = typer.Option(..., help="Packs of cases that were not trained on."),  # noqa: B008
    card: Path | None = typer.Option(None, help="Write the model card here."),  # noqa: B008
    device: str = typer.Option("auto"),
) -> None:
    """Print Dice per organ; write it into the bundle's model.json and, if asked, the model card."""
    console = Console()
    segmenter = Segmenter(Bundle.load(bundle), device)
    scores = []
    for case in track(list(read_packs(packs)), "measuring", console=console):
        scores += score_case(segmenter, case)
    summaries = summarise(scores)
    table = Table("data", "organ", "mean", "sd", "median", "cases", title="Dice on cases never trained on")
    for row in summaries:
        table.add_row(
            row.group, row.organ, *(f"{v:.3f}" for v in (row.mean, row.deviation, row.median)), str(row.cases)
        )
    console.print(table)
    about = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    about["card"]["validation_dice"] = [vars(row) for row in summaries]
    (bundle / "model.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if card is not None:
        card.write_text(model_card(about, summaries), encoding="utf-8")


def model_card(about: dict[str, object], summaries: list[Summary]) -> str:
    """The model card in Markdown: what the figures come from is written here, the figures are measured."""
    details = about["card"]
    assert isinstance(details, dict)
    lines = [
        f"# Model card: {about['name']} {about['version']}",
        "",
        "For research; not a medical device, and never to be used without a person's review of every contour.",
        "",
        "## What it was trained on",
        "",
        *(f"- {line}" for line in details["training_data"]),
        "",
        f"Training: {details['training']}.",
        "",
        "## What was measured",
        "",
        "Dice coefficient on cases whose patients were never trained on, on the grid of the reference contours.",
        "",
        "| data | organ | mean | sd | median | cases |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.group} | {r.organ} | {r.mean:.2f} | {r.deviation:.2f} | {r.median:.2f} | {r.cases} |"
        for r in summaries
    ]
    measured = {row.organ for row in summaries}
    names = about["structures"]
    assert isinstance(names, list)
    never = [name for name in names if name not in measured]
    lines += [
        "",
        f"Never measured on real CT: {', '.join(never) or 'none of the offered organs'}.",
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in details["limits"]),
        "",
        "## Licence and attribution",
        "",
        *(f"- {line}" for line in details["attribution"]),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
