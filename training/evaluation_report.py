"""What an evaluation leaves behind: report, tables and pictures of the run, the bundle's accuracy and card."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from model.bundle import write_description
from training.figures import Snapshot, draw_boxes, draw_cases
from training.goals import HUMAN_GROUPS
from training.model_card import COMPARISONS, accuracy, model_card
from training.scores import (
    Score,
    Summary,
    as_table,
    read_baseline,
    read_clinical_baseline,
    summarise,
    write_scores,
    write_summaries,
)


@dataclass(frozen=True, eq=False)
class Judged:
    """One organ of one case, measured and pictured; no picture where it neither is nor was drawn."""

    score: Score
    picture: Snapshot | None


def worst_and_median(judged: Sequence[Judged]) -> list[tuple[str, Snapshot]]:
    """Captions and pictures of the case with the lowest surface Dice and of that in the middle."""
    shown = sorted((each for each in judged if each.picture), key=lambda each: each.score.surface_dice)
    chosen = {"worst": shown[0], "median": shown[len(shown) // 2]}
    return [
        (
            f"{word} of {len(shown)}: {each.score.case}\nsurface Dice {each.score.surface_dice:.3f}",
            each.picture,
        )
        for word, each in chosen.items()
        if each.picture
    ]


def draw_everything(judged: Sequence[Judged], out: Path) -> dict[str, str]:
    """Box plots of every group and pictures of every organ; group to the name of its box plots."""
    human = read_baseline()
    pictures = out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for of_an_earlier_run in pictures.glob("*.png"):
        of_an_earlier_run.unlink()
    boxes = {}
    for group in dict.fromkeys(each.score.group for each in judged):
        of_group = [each for each in judged if each.score.group == group and each.picture]
        if not of_group:
            continue
        boxes[group] = f"accuracy-{group}.png"
        scores = [each.score for each in of_group]
        title = f"{group}: the model, every case a point"
        if group in HUMAN_GROUPS:
            title += "; lines: a second observer, with ±5 %"
        draw_boxes(scores, human if group in HUMAN_GROUPS else {}, out / boxes[group], title)
        for organ in dict.fromkeys(score.organ for score in scores):
            panels = worst_and_median([each for each in of_group if each.score.organ == organ])
            draw_cases(panels, pictures / f"{group}-{organ}.png")
    return boxes


def write_report(judged: Sequence[Judged], about: Mapping[str, Any], out: Path) -> dict[str, str]:
    """Everything that goes into the folder of the run; group to the name of its box plots."""
    out.mkdir(parents=True, exist_ok=True)
    scores = [each.score for each in judged]
    summaries = summarise(scores)
    write_scores(scores, out / "scores.csv")
    write_summaries(summaries, out / "summary.csv")
    boxes = draw_everything(judged, out)
    title = f"# {about['name']} {about['version']}, weights {about['weights_sha256'][:12]}"
    lines = [
        title,
        "",
        *accuracy(summaries, read_baseline(), read_clinical_baseline(), boxes),
        "## The worst and the median case",
        "",
    ]
    lines += [f"![{row.group} {row.organ}](pictures/{row.group}-{row.organ}.png)" for row in summaries]
    (out / "report.md").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return boxes


def write_into_bundle(summaries: Sequence[Summary], bundle: Path) -> dict[str, Any]:
    """Put the accuracy into the card of `model.json`, which is replaced at once; returns what it says now."""
    about: dict[str, Any] = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    card = about.setdefault("card", {})
    card.pop("validation_dice", None)  # the name it had when there was no more than Dice
    card["accuracy"] = as_table(summaries)
    write_description(bundle, about)
    return about


def write_card(
    card: Path, about: Mapping[str, Any], summaries: Sequence[Summary], out: Path, boxes: Mapping[str, str]
) -> None:
    """The model card, and beside it the box plots; no picture of a patient."""
    figures = card.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for name in boxes.values():
        (figures / name).write_bytes((out / name).read_bytes())
    addresses = {group: f"figures/{name}" for group, name in boxes.items()}
    pages = [page for page in COMPARISONS if (card.parent / page).exists()]
    text = model_card(about, summaries, read_baseline(), read_clinical_baseline(), addresses, pages)
    card.write_text(text, encoding="utf-8")


def as_rich_table(summaries: Iterable[Summary]) -> Table:
    """What is shown at the end of a run."""
    table = Table(
        "data", "organ", "cases", "missed", "Dice", "surface Dice", "HD95 mm", title="Means over cases"
    )
    for row in summaries:
        means = [
            "–" if figure.mean is None else f"{figure.mean:.{digits}f}"
            for figure, digits in ((row.dice, 3), (row.surface_dice, 3), (row.hd95_mm, 1))
        ]
        table.add_row(row.group, row.organ, str(row.dice.cases), str(row.missed), *means)
    return table
