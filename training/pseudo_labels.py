"""Let a bundle contour the training CTs on which people did not draw every organ: pseudo-labels.

    python -m training.pseudo_labels runs/packs/openkbp-train-*.npz --out runs/packs/openkbp-pseudo --organ Brain

The next network learns them beside what people drew, on many more patients (D.-H. Lee, Pseudo-Label, ICML workshop
2013; Q. Xie et al., Self-training with Noisy Student, arXiv 1911.04252).
They go into cases of their own, `GROUP-pseudo`, so that `group_weights` says how much they count, and no mask that
a person drew is touched.
Left out are organs that a person drew on the case by the same protocol, organs not found, and those of which
`model.plausibility` has more than a note to say.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.bundle import DEFAULT_BUNDLE, Bundle
from model.findings import Severity
from model.plausibility import check_plausibility
from model.segmenter import Segmenter
from training.dataset import PSEUDO, Case, Frame, bits, read_packs, write_packs
from training.evaluate import as_volume, slice_grid
from training.failures import failures_in_words

EVERYWHERE = (-np.inf, np.inf)


class Outcome(StrEnum):
    """What became of an organ on a case; members are the columns of the report."""

    TAUGHT = "taught"
    DRAWN = "drawn by people"
    NOT_FOUND = "not found"
    IMPLAUSIBLE = "implausible"


Counts = dict[str, Counter[Outcome]]


def pseudo_labelled(segmenter: Segmenter, case: Case, organs: Collection[str], counts: Counts) -> Case | None:
    """The case with the bundle's contours of some organs instead of people's; None if none is left.

    Parameters
    ----------
    organs
        Those that are wanted, as far as the bundle offers them.
    counts
        Organ to how often each outcome came about; grows.
    """
    frame, shape = _network_frame(segmenter.bundle, case)
    grid = slice_grid(frame, shape)
    found = segmenter.segment(as_volume(case), grid=grid)
    findings = check_plausibility(
        found.masks, grid, segmenter.bundle.reference_ranges, found.confidence, found.left_out
    )
    doubts = [finding for finding in findings if finding.severity != Severity.NOTE]
    taught = {}
    for organ in organs:
        if organ in case.known:
            outcome = Outcome.DRAWN
        elif organ not in found.masks:
            outcome = Outcome.NOT_FOUND
        elif any(doubt.concerns({organ}) for doubt in doubts):
            outcome = Outcome.IMPLAUSIBLE
        else:
            outcome = Outcome.TAUGHT
            taught[organ] = found.masks[organ].full()
        counts[organ][outcome] += 1
    if not taught:
        return None
    known = dict.fromkeys(taught, EVERYWHERE)
    return Case(
        case.name, case.group + PSEUDO, case.image, case.image_frame, bits(taught), frame, known,
        smoothed_to_mm=case.smoothed_to_mm, patient=case.patient,
    )  # fmt: skip


def _network_frame(bundle: Bundle, case: Case) -> tuple[Frame, tuple[int, int, int]]:
    """The network's voxels over the case's image: contours lose nothing there, as they would in coarser pixels."""
    spacing = bundle.preprocessing.spacing_mm
    first, last = case.image_frame.extent(case.image.shape)
    depth, height, width = (np.floor((last - first) / spacing + 1e-3) + 1).astype(int).tolist()
    return Frame(case.image_frame.origin_mm, spacing), (depth, height, width)


def main(
    packs: list[Path] = typer.Argument(..., help="Packs of training cases."),  # noqa: B008
    out: Path = typer.Option(..., help="Beginning of the new packs' names."),  # noqa: B008
    organ: list[str] = typer.Option([], help="An organ to contour, again for more; none: all offered."),  # noqa: B008
    bundle: Path = typer.Option(DEFAULT_BUNDLE, help="Folder of the bundle that contours."),  # noqa: B008
    device: str = typer.Option("auto"),
) -> None:
    """Write `OUT`-00.npz and so on, and tell how often each organ was taken."""
    console = Console()
    if any("validation" in path.name for path in packs):
        raise typer.BadParameter("validation cases are never trained on; name training packs only")
    _refuse_to_replace(packs, out)
    counts: Counts = defaultdict(Counter)
    with failures_in_words("no pack was written, and those of before stay"):
        segmenter = Segmenter(Bundle.load(bundle), device)
        organs = _offered(segmenter.bundle, organ)
        cases = list(read_packs(packs))
        labelled = _each(segmenter, cases, organs, counts, console)
        first = next(labelled, None)
        paths = write_packs(chain([first], labelled), out) if first else []
    console.print(_as_table(counts, len(cases)))
    for path in paths:
        console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if not paths:
        console.print("nothing could be labelled: no pack was written, and those of before stay")


def _refuse_to_replace(packs: list[Path], out: Path) -> None:
    """Packs of the same stem as the new ones would be replaced, and what people drew in them be lost."""
    beside = [pack for pack in packs if pack.resolve().parent == out.resolve().parent]
    if lost := [pack for pack in beside if re.fullmatch(rf"{re.escape(out.name)}-\d+\.npz", pack.name)]:
        raise typer.BadParameter(f"--out {out} would replace {lost[0]}, which is to be read: name another")


def _offered(bundle: Bundle, wanted: Collection[str]) -> Collection[str]:
    if unknown := set(wanted) - set(bundle.structure_names):
        raise typer.BadParameter(
            f"the bundle does not offer {', '.join(sorted(unknown))}, only {', '.join(bundle.structure_names)}"
        )
    return wanted or bundle.structure_names


def _each(
    segmenter: Segmenter, cases: list[Case], organs: Collection[str], counts: Counts, console: Console
) -> Iterator[Case]:
    for case in track(cases, "contouring", console=console):
        labelled = pseudo_labelled(segmenter, case, organs, counts)
        if labelled is not None:
            yield labelled


def _as_table(counts: Counts, cases: int) -> Table:
    table = Table("organ", *Outcome, title=f"pseudo-labels on {cases} cases")
    for name, outcomes in counts.items():
        table.add_row(name, *(str(outcomes[outcome]) for outcome in Outcome))
    return table


if __name__ == "__main__":
    typer.run(main)
