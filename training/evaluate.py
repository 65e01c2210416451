"""Measure a bundle on cases that it never saw, and write what was found into the bundle and its model card.

    python -m training.evaluate model/weights --packs runs/packs --card docs/model-card.md

A folder stands for its *-validation-*.npz. Into `--out` (runs/evaluation) go report.md, scores.csv with every
organ of every case, summary.csv, box plots, and pictures of the worst and the median case of every organ. Those
show patients and stay there; beside the card only box plots are written, into `figures/`.
`--cases 2` makes a trial on the first two cases of each pack, which changes neither bundle nor card.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import typer
from pydicom import Dataset
from rich.console import Console
from rich.progress import track

from model.bundle import DEFAULT_BUNDLE, Bundle
from model.ct import CTVolume
from model.geometry import SliceGrid
from model.segmenter import Segmenter
from model.structures import unqualified
from training.dataset import Case, Frame, counted, described, is_cut, read_packs
from training.evaluation_report import Judged, as_rich_table, write_card, write_into_bundle, write_report
from training.failures import failures_in_words
from training.figures import snapshot
from training.goals import AS_SENT
from training.scores import Score, score_organ, summarise
from training.starting_weights import outputs_of


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


def over_the_image(case: Case) -> Case:
    """The case with its labels grown to the image's field, in which no more organs lie than in their box.

    Packs hold labels cut to the box around all organs; what is drawn outside of it must count as well.
    """
    spacing = np.array(case.label_frame.spacing_mm)
    first, last = case.label_frame.extent(case.labels.shape)
    image_first, image_last = case.image_frame.extent(case.image.shape)
    before, after = (
        np.floor(gap / spacing + 1e-3).astype(int).clip(0) for gap in (first - image_first, image_last - last)
    )
    z, y, x = first - before * spacing
    labels = np.pad(case.labels, list(zip(before, after, strict=True)))
    return replace(case, labels=labels, label_frame=Frame((z, y, x), case.label_frame.spacing_mm))


def score_case(segmenter: Segmenter, case: Case) -> list[Score]:
    """Every organ whose truth is known, on the grid of the truth and over the part that is known."""
    return [judged.score for judged in judge_case(segmenter, case)]


def judge_case(segmenter: Segmenter, case: Case) -> Iterator[Judged]:
    """As `score_case`, with pictures.

    At the ends of what is known, organ and contour are both cut, and the cuts count as surface, just as they do at
    the end of a scan.
    """
    case = over_the_image(case)
    grid = slice_grid(case.label_frame, case.labels.shape)
    found = segmenter.segment(as_volume(case), grid=grid).masks
    for reference in case.known:
        slices = counted(case, reference)
        gt = case.organ(reference) & slices
        cut = is_cut(case, gt)
        for group, organ in _measured_by(reference, case.group):
            if organ not in segmenter.bundle.structure_names:
                continue
            pred = found[organ].full() & slices if organ in found else np.zeros_like(gt)
            score = score_organ(case.name, group, organ, (gt, pred), case.label_frame.spacing_mm)
            yield Judged(replace(score, is_cut=cut), snapshot(case, gt, pred, case.label_frame))


def _measured_by(reference: str, group: str) -> Iterator[tuple[str, str]]:
    """Groups and organs that one reference measures: by another protocol also the organ that is sent."""
    yield group, reference
    if unqualified(reference) != reference:
        yield group + AS_SENT, unqualified(reference)


def with_every_output(bundle: Bundle) -> Bundle:
    """The bundle offering all that its network was taught, so that organs it does not offer are measured too."""
    return replace(bundle, structure_names=outputs_of(bundle))


def pack_files(packs: Iterable[Path]) -> list[Path]:
    """Files as they are; of a folder, its packs of validation cases.

    Raises
    ------
    typer.BadParameter
        A folder has none.
    """
    files: list[Path] = []
    for path in packs:
        found = sorted(path.glob("*-validation-*.npz")) if path.is_dir() else [path]
        if not found:
            raise typer.BadParameter(f"{path} holds no *-validation-*.npz; training.prepare writes them")
        files += found
    return files


def require_untaught(bundle: Bundle, files: Iterable[Path]) -> None:
    """Refuse to measure a bundle on what it was trained on.

    Raises
    ------
    typer.BadParameter
        Cases, or cases of patients, that the bundle names as trained on.
    """
    trained_on = set(bundle.card.get("trained_on", ()))
    seen = [case.name for case in described(files) if case.marks & trained_on]
    if seen:
        raise typer.BadParameter(
            f"{len(seen)} of these cases, or their patients, were trained on, {seen[0]} among them: they say "
            "nothing of the network's accuracy; with --cases N they are measured as a trial, which changes "
            "neither bundle nor card"
        )


@failures_in_words("the bundle's accuracy and the card are as they were")
def main(
    bundle: Path = typer.Argument(DEFAULT_BUNDLE, help="Folder of the bundle."),  # noqa: B008
    packs: list[Path] = typer.Option(..., help="Packs of cases not trained on, or a folder of them."),  # noqa: B008
    out: Path = typer.Option(Path("runs/evaluation"), help="Folder for report, tables and pictures."),  # noqa: B008
    card: Path | None = typer.Option(None, help="Write the model card here."),  # noqa: B008
    cases: int = typer.Option(0, help="A trial on so many cases of each pack; bundle and card stay."),
    device: str = typer.Option("auto"),
) -> None:
    """Measure every organ of every case; write report, pictures, the bundle's accuracy and, if asked, its card."""
    console = Console()
    segmenter = Segmenter(with_every_output(Bundle.load(bundle)), device)
    files = pack_files(packs)
    if not cases:
        require_untaught(segmenter.bundle, files)
        if "trained_on" not in segmenter.bundle.card:
            console.print(f"{bundle} does not say on whom it was trained: look that these are others")
    chosen = [case for path in files for case in islice(read_packs([path]), cases or None)]
    out.mkdir(parents=True, exist_ok=True)
    judged: list[Judged] = []
    for case in track(chosen, "measuring", console=console):
        judged += judge_case(segmenter, case)
    summaries = summarise(each.score for each in judged)
    boxes = write_report(judged, json.loads((bundle / "model.json").read_text(encoding="utf-8")), out)
    console.print(as_rich_table(summaries))
    console.print(f"{out / 'report.md'} written")
    if cases:
        console.print("a trial: bundle and card stay as they are")
        return
    about = write_into_bundle(summaries, bundle)
    if card is not None:
        write_card(card, about, summaries, out, boxes)
        console.print(f"{card} written")


if __name__ == "__main__":
    typer.run(main)
