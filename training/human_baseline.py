"""How well a second person agrees with the reference: radiographer against oncologist, organ by organ.

    python -m training.human_baseline ../shared/data/tcia-shapes --out training/human_baseline.json

The folder holds SCAN_oncologist.nii.gz and SCAN_radiographer.nii.gz, one bit per organ, and `organs.json`, which
names the bits. The result stands beside the model's in every evaluation.
`--tables FOLDER` also writes each scan's figures.
"""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from training.dataset import Frame
from training.failures import failures_in_words
from training.scores import (
    HUMAN_BASELINE,
    Score,
    Summary,
    mean_over_organs,
    score_organ,
    summarise,
    write_baseline,
    write_scores,
)
from training.volumes import read_image

REFERENCE = Path(__file__).with_name("human_reference.toml")
GROUP = "tcia"

Labels = NDArray[np.uint32]


@dataclass(frozen=True)
class Expected:
    """Mean Dice and surface Dice of one organ on the 28 scans of `human_reference.toml`."""

    dice: float
    surface_dice: float


def on_one_grid(pair: Iterable[tuple[Labels, Frame]]) -> tuple[tuple[Labels, ...], Frame]:
    """Two crops of one scan, grown to the box that holds both; what a crop leaves out is background.

    Raises
    ------
    ValueError
        The crops are not of one grid: spacing differs, or they lie a part of a voxel apart.
    """
    crops = list(pair)
    first = crops[0][1]
    spacing = np.array(first.spacing_mm)
    starts = []
    for _, frame in crops:
        steps = (np.array(frame.origin_mm) - first.origin_mm) / spacing
        if not np.allclose(frame.spacing_mm, spacing, atol=1e-4) or abs(steps - steps.round()).max() > 0.05:
            raise ValueError(f"the observers' masks are not of one grid: {first} and {frame}")
        starts.append(steps.round().astype(int))
    low = np.min(starts, axis=0)
    shape = np.max([start + crop.shape for start, (crop, _) in zip(starts, crops, strict=True)], axis=0) - low
    grown = []
    for start, (crop, _) in zip(starts, crops, strict=True):
        whole = np.zeros(shape, np.uint32)
        whole[tuple(slice(a, a + n) for a, n in zip(start - low, crop.shape, strict=True))] = crop
        grown.append(whole)
    z, y, x = first.origin_mm + low * spacing
    return tuple(grown), Frame((float(z), float(y), float(x)), first.spacing_mm)


def score_scan(root: Path, scan: str, bit_of: Mapping[str, int]) -> list[Score]:
    """Every organ of one scan, the oncologist being the reference."""
    files = [root / f"{scan}_{observer}.nii.gz" for observer in ("oncologist", "radiographer")]
    labels, frame = on_one_grid((labels.astype(np.uint32), frame) for labels, frame in map(read_image, files))
    scores = []
    for organ, bit in bit_of.items():
        gt, pred = ((each & np.uint32(1 << bit)) > 0 for each in labels)
        scores.append(score_organ(scan, GROUP, organ, (gt, pred), frame.spacing_mm))
    return scores


def read_reference(path: Path = REFERENCE) -> dict[str, Expected]:
    """What 28 scans gave before, by organ."""
    percent = tomllib.loads(path.read_text(encoding="utf-8"))["percent"]
    return {organ: Expected(row[0] / 100, row[2] / 100) for organ, row in percent.items()}


def comparison(rows: Iterable[Summary], expected: Mapping[str, Expected]) -> Table:
    """Organ by organ: these scans, the 28, and the difference, in per cent.

    Of the 28, scans in which only one observer drew the organ were left out: leave them out of the rows as well.
    """
    rows = list(rows)
    table = Table("organ", "n", "DSC", "28 scans", "diff", "sDSC", "28 scans", "diff")
    table.title = "In per cent, where both observers drew the organ"
    for row in rows:
        cells = []
        for mine, other in (
            (row.dice.mean, expected[row.organ].dice),
            (row.surface_dice.mean, expected[row.organ].surface_dice),
        ):
            cells += _cells(mine, other)
        table.add_row(row.organ, str(row.dice.cases), *cells)
    macro = []
    for mine, others in (
        (mean_over_organs(rows, lambda row: row.dice), [each.dice for each in expected.values()]),
        (
            mean_over_organs(rows, lambda row: row.surface_dice),
            [each.surface_dice for each in expected.values()],
        ),
    ):
        macro += _cells(mine, float(np.mean(others)))
    table.add_row("mean of organs", "", *macro)
    return table


def _cells(mine: float | None, other: float) -> list[str]:
    if mine is None:
        return ["–", f"{other:.1%}", "–"]
    return [f"{100 * mine:.1f}", f"{100 * other:.1f}", f"{100 * (mine - other):+.1f}"]


def where_both_drew(scores: Sequence[Score]) -> list[Summary]:
    """Agreement on organs that both drew; how often only one did stands beside it, as missed and invented.

    Two people who disagree whether a gland is there say nothing of how well its surface can be drawn.
    """
    every = {row.organ: row for row in summarise(scores)}
    both = summarise([score for score in scores if score.is_there and score.is_drawn])
    return [replace(row, missed=every[row.organ].missed, invented=every[row.organ].invented) for row in both]


def main(
    root: Path = typer.Argument(..., help="Folder of both observers' masks."),  # noqa: B008
    out: Path = typer.Option(HUMAN_BASELINE, help="Write the statistics here, as JSON."),  # noqa: B008
    tables: Path | None = typer.Option(None, help="Write every scan's figures into this folder."),  # noqa: B008
) -> None:
    """Compare the two observers of every scan; print the result beside what 28 scans gave before."""
    console = Console()
    bit_of = json.loads((root / "organs.json").read_text(encoding="utf-8"))["bits"]
    scans = sorted(path.name.removesuffix("_oncologist.nii.gz") for path in root.glob("*_oncologist.nii.gz"))
    if not scans:
        raise typer.BadParameter(f"{root} holds no SCAN_oncologist.nii.gz")
    scores: list[Score] = []
    for scan in track(scans, "comparing observers", console=console):
        scores += score_scan(root, scan, bit_of)
    rows = where_both_drew(scores)
    console.print(comparison(rows, read_reference()))
    for score in scores:
        if score.is_there != score.is_drawn:
            alone = "oncologist" if score.is_there else "radiographer"
            console.print(f"{score.case} {score.organ}: drawn by the {alone} alone")
    write_baseline(
        out,
        "deepmind/tcia-ct-scan-dataset (CC BY 4.0), radiographer against oncologist",
        len(scans),
        "where both drew the organ; missed and invented: where only one of them did",
        rows,
    )
    console.print(f"{out} written")
    if tables is not None:
        tables.mkdir(parents=True, exist_ok=True)
        write_scores(scores, tables / "human-scores.csv")


if __name__ == "__main__":
    with failures_in_words():
        typer.run(main)
