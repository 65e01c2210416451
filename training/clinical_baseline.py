"""How well people agree with OpenKBP's clinical contours: two observers of the same CTs against them.

    python -m training.clinical_baseline ../shared/data/tcia21 --packs runs/packs

The folder holds the masks of two observers, who contoured some of OpenKBP's CTs by a protocol of their own; the
packs hold the CTs and the clinical contours. What people reach stands beside the model's Dice in every evaluation.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.structures import unqualified
from training.dataset import OPENKBP, Case, counted, is_cut, read_packs
from training.failures import failures_in_words
from training.scores import CLINICAL_BASELINE, Score, Summary, score_organ, summarise, write_baseline
from training.volumes import read_image

OBSERVERS = ("oncologist", "radiographer")


def main(
    root: Path = typer.Argument(..., help="Folder tcia21."),  # noqa: B008
    packs: Path = typer.Option(Path("runs/packs"), help="Folder of OpenKBP's packs."),  # noqa: B008
    out: Path = typer.Option(CLINICAL_BASELINE, help="Write the statistics here, as JSON."),  # noqa: B008
) -> None:
    """Compare both observers of every CT with its clinical contours."""
    console = Console()
    scans = {
        about["openkbp_case"]: name
        for name, about in json.loads((root / "cases.json").read_text(encoding="utf-8")).items()
    }
    bit_of = json.loads((root / "dataset.json").read_text(encoding="utf-8"))["bit_of_label"]
    every = read_packs(sorted(packs.glob("openkbp-*.npz")))
    cases = [case for case in every if case.group in OPENKBP and case.name in scans]
    if not cases:
        raise typer.BadParameter(f"{packs} holds no CT of {root}; training.prepare openkbp writes them")
    scores: list[Score] = []
    for case in track(cases, "comparing observers", console=console):
        scores += score_scan(case, root / "bitmask", scans[case.name], bit_of)
    rows = summarise(scores)
    console.print(as_rich_table(rows))
    write_baseline(
        out,
        "observers of deepmind/tcia-ct-scan-dataset (CC BY 4.0) against OpenKBP's clinical contours (MIT)",
        len(cases),
        "on the CT's own grid, where there is an image and the organ was contoured",
        rows,
    )
    console.print(f"{out} written")


def score_scan(case: Case, masks: Path, scan: str, bit_of: dict[str, int]) -> Iterator[Score]:
    """Every organ that the clinic and both observers contoured, the clinic's contours being the reference.

    Parameters
    ----------
    case
        CT and clinical contours on one grid.
    masks
        Folder of SCAN_OBSERVER.nii.gz, organ bits on the same grid.

    Raises
    ------
    ValueError
        An observer's masks are not on the grid of the CT.
    """
    for observer in OBSERVERS:
        labels, frame = read_image(masks / f"{scan}_{observer}.nii.gz")
        starts = np.array([frame.origin_mm, case.label_frame.origin_mm])
        if labels.shape != case.labels.shape or np.ptp(starts, axis=0).max() > 0.01:
            raise ValueError(f"{scan}: the {observer}'s masks are not on the grid of {case.name}")
        for organ in case.known:
            same = unqualified(organ)  # the clinics' beside the observers'
            if same in bit_of:
                slices = counted(case, organ)
                drawn = (labels.astype(np.uint32) >> np.uint32(bit_of[same])) & np.uint32(1) > 0
                gt, pred = case.organ(organ) & slices, drawn & slices
                score = score_organ(case.name, observer, organ, (gt, pred), case.label_frame.spacing_mm)
                yield replace(score, is_cut=is_cut(case, gt))


def as_rich_table(rows: list[Summary]) -> Table:
    """What each observer reached."""
    table = Table("observer", "organ", "scans", "Dice", "surface Dice", title="Against the clinical contours")
    for row in rows:
        means = (f"{figure.mean:.3f}" for figure in (row.dice, row.surface_dice))
        table.add_row(row.group, row.organ, str(row.dice.cases), *means)
    return table


if __name__ == "__main__":
    with failures_in_words():
        typer.run(main)
