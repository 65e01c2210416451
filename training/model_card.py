"""The model card in Markdown: what the figures come from is written here, the figures are measured."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from model.structures import structure
from training.config import ORGANS
from training.goals import AS_SENT, BAND, HUMAN_GROUPS, dice_goal, of_people, verdicts
from training.scores import Statistic, Summary, mean_over_organs

EXPLANATION = """\
Measured on the grid of the reference contours, over the part of the image for which the reference is known.

- *Dice* and *surface Dice*: mean ± standard deviation (median) [95 % bootstrap interval of the mean].
  Surface Dice is the share of both surfaces that lies within the tolerance τ of the other (arXiv 1809.04430).
- An organ that is there and was not drawn, or was drawn and is not there, counts as 0; one that neither is nor was
  drawn does not count. *missed* and *invented* say how often the two happened.
- *HD95*: Hausdorff distance of 95 % of the surface, where organ and contour both exist; mean (median).
- *path*: length of the reference's contours that would have to be drawn again for them to coincide; mean.
- Intervals from few cases are narrower than they should be.
- Where anything was chosen on these cases, as which weights to keep, expect a little less on others.
"""

KEPT_APART = "Cases whose patients were never trained on."
NOT_KNOWN = "Whether these cases were trained on is not known: the bundle does not say on which it was."

AS_DRAWN_EXPLANATION = """\
`^Clin` marks organs as these clinics draw them, learned by outputs of their own that are never sent.
"""

AS_SENT_EXPLANATION = """\
The organs that are sent, which keep to the protocol of the 21, against the contours of clinics who keep to others:
whether they are found and lie right, on more scans than have contours by that protocol.
"""

GOAL_EXPLANATION = """\
*goal*: the mean Dice that is asked for, and what was measured less the goal, in points of a hundred.
"""

PEOPLE_EXPLANATION = """\
*people*: mean Dice of two people, who kept to the protocol of the 21, against contours of the same clinics, on
the scans of the last table, most of which are not those of this one.
*whole*: mean Dice (median) and number of the cases in which the image's end does not cut the reference.
"""

BEFORE_USE = """\
1. Ask who in your country may use such a program, and for what: this is research software without any approval.
2. Take at least 20 planning CTs of your own scanners and protocols with contours of your own people, the hard ones
   too: metal, resections, large tumours. List all patients in a file, pack them with
   `python -m training.prepare archive FOLDER --validation FILE`, and measure with `python -m training.evaluate`.
3. Let a second person contour some of them, so that you know what agreement your own hospital has.
4. Send only the organs that are good enough to correct (`docs/templates.md`), and leave the gates on.
5. Send a CT whose sides you know through the whole path, and look at left, right, head and feet in your planning
   system.
6. Have every contour reviewed before it is planned on, and write down how long corrections take.
7. Repeat 2 and 5 after each change of scanner, protocol, weights or planning system.
"""

COMPARISONS = {
    "nnunet.md": "nnU-Net, trained on the same cases for the same time",
    "ablations.md": "what loss, augmentation, mirror with swap, synthetic organs and a coarser grid are worth",
    "ablations-size.md": "what size, a finer grid and the looks of other scanners are worth",
    "weights.md": "what was tried for better weights, and what became of it",
}
"""Pages of the weights that come with oarlock, and what each says."""

HUMAN_EXPLANATION = f"""\
*human*: surface Dice of a second observer against the same kind of reference, on the scans of the last table.
*difference* is the model's less the human's, in per cent; within ±{100 * BAND:.0f} they are held to be alike.
"""


def accuracy(
    summaries: Sequence[Summary],
    human: Mapping[str, Summary],
    clinical: Sequence[Summary],
    figures: Mapping[str, str],
) -> list[str]:
    """Lines of one section per group of data: figure and table.

    Parameters
    ----------
    human
        The human baseline by organ.
    clinical
        Observers against clinical contours.
    figures
        Group to the address of its box plots; a group may have none.
    """
    lines = [*EXPLANATION.splitlines(), ""]
    for group in dict.fromkeys(row.group for row in summaries):
        rows = [row for row in summaries if row.group == group]
        lines += [f"### {group}", ""]
        if group in figures:
            lines += [f"![Box plots of every organ of {group}]({figures[group]})", ""]
        if group in HUMAN_GROUPS:
            lines += [*HUMAN_EXPLANATION.splitlines(), ""]
        if of_clinics := _of_clinics(rows):
            lines += [*of_clinics, ""]
        lines += [*_table(rows, human if group in HUMAN_GROUPS else {}, clinical), ""]
    return [*lines, *verdicts(summaries, human), ""]


def _of_clinics(rows: Sequence[Summary]) -> list[str]:
    """Lines that explain the table of a group whose references are the clinics'; none of another."""
    if not _are_of_clinics(rows):
        return []
    text = AS_SENT_EXPLANATION if rows[0].group.endswith(AS_SENT) else AS_DRAWN_EXPLANATION
    text += GOAL_EXPLANATION if _has_goals(rows) else ""
    return (text + PEOPLE_EXPLANATION).splitlines()


def _are_of_clinics(rows: Sequence[Summary]) -> bool:
    return _has_goals(rows) or rows[0].group.endswith(AS_SENT)


def _has_goals(rows: Sequence[Summary]) -> bool:
    return any(dice_goal(row) for row in rows)


def _table(rows: Sequence[Summary], human: Mapping[str, Summary], clinical: Sequence[Summary]) -> list[str]:
    heads = ["organ", "τ mm", "cases", "missed", "invented", "Dice", "surface Dice"]
    heads += ["human", "difference"] if human else []
    has_goals, has_people = _has_goals(rows), _are_of_clinics(rows)
    heads += ["goal"] if has_goals else []
    heads += ["people", "whole"] if has_people else []
    heads += ["HD95 mm", "path mm"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for row in rows:
        cells = [row.organ, f"{structure(row.organ).tolerance_mm:.2f}", str(row.dice.cases)]
        cells += [str(row.missed), str(row.invented), _long(row.dice), _long(row.surface_dice)]
        cells += _beside(row, human.get(row.organ)) if human else []
        cells += [_goal(row)] if has_goals else []
        cells += [_people(row, clinical), _whole(row.whole_dice)] if has_people else []
        lines.append(_line([*cells, _short(row.hd95_mm, 1), _number(row.added_path_mm.mean, 0)]))
    macro = [mean_over_organs(rows, measure) for measure in (lambda r: r.dice, lambda r: r.surface_dice)]
    rest = [""] * (len(heads) - 7)
    return [*lines, _line(["mean of organs", "", "", "", "", *(f"{value:.3f}" for value in macro), *rest])]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _beside(row: Summary, human: Summary | None) -> list[str]:
    """The human's surface Dice, and what the model's is more."""
    mine, other = row.surface_dice.mean, human.surface_dice.mean if human else None
    if mine is None or other is None:
        return ["–", "–"]
    more = mine - other
    verdict = "alike" if abs(more) <= BAND else "better" if more > 0 else "worse"
    return [f"{other:.3f}", f"{100 * more:+.1f} {verdict}"]


def _goal(row: Summary) -> str:
    """The Dice coefficient asked for, and how much more was measured."""
    goal = dice_goal(row)
    if goal is None:
        return "–"
    return f"{goal:.2f} ({100 * (row.dice.mean - goal):+.1f})" if row.dice.mean is not None else f"{goal:.2f}"


def _people(row: Summary, clinical: Sequence[Summary]) -> str:
    return ", ".join(f"{mean:.3f}" for mean in of_people(clinical, row.organ)) or "–"


def _whole(figure: Statistic) -> str:
    return f"{_short(figure, 3)} of {figure.cases}" if figure.cases else "–"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _short(figure: Statistic, digits: int) -> str:
    return f"{_number(figure.mean, digits)} ({_number(figure.median, digits)})" if figure.cases else "–"


def _long(figure: Statistic) -> str:
    mean, deviation, median = (_number(v, 3) for v in (figure.mean, figure.deviation, figure.median))
    return f"{mean} ± {deviation} ({median}) [{_number(figure.low, 2)}, {_number(figure.high, 2)}]"


def human_table(human: Mapping[str, Summary]) -> list[str]:
    """Lines of a table: how well the second observer agrees with the reference."""
    lines = [_line(["organ", *HUMAN_HEADS, "drawn by one alone"]), _line(["---"] * 7)]
    return [
        *lines,
        *(_line([row.organ, *_human_cells(row), str(row.missed + row.invented)]) for row in human.values()),
    ]


def clinical_table(clinical: Sequence[Summary]) -> list[str]:
    """Lines of a table: how well each observer agrees with clinical contours, organ by organ."""
    lines = [_line(["organ", "observer", *HUMAN_HEADS]), _line(["---"] * 7)]
    in_order = sorted(clinical, key=lambda row: (ORGANS.index(row.organ), row.group))
    return [*lines, *(_line([row.organ, row.group, *_human_cells(row)]) for row in in_order)]


HUMAN_HEADS = ("scans", "Dice", "surface Dice", "HD95 mm", "path mm")


def _human_cells(row: Summary) -> list[str]:
    cells = [str(row.dice.cases), _long(row.dice), _long(row.surface_dice)]
    return [*cells, _short(row.hd95_mm, 1), _number(row.added_path_mm.mean, 0)]


def model_card(
    about: Mapping[str, Any],
    summaries: Sequence[Summary],
    human: Mapping[str, Summary],
    clinical: Sequence[Summary],
    figures: Mapping[str, str],
    pages: Collection[str] = (),
) -> str:
    """The card of a bundle; the baselines and figures as for `accuracy`.

    Parameters
    ----------
    about
        The bundle's `model.json`.
    pages
        Those of `COMPARISONS` that lie beside the card.
    """
    details = about["card"]
    measured = {row.organ for row in summaries if row.there}
    never = [name for name in about["structures"] if name not in measured]
    beside = [name for name in ORGANS if name in measured and name not in about["structures"]]
    lines = [
        f"# Model card: {about['name']} {about['version']}",
        "",
        "For research; not a medical device, and never to be used without a person's review of every contour.",
        "",
        f"Weights: SHA-256 `{about['weights_sha256']}`.",
        "This page is written by `python -m training.evaluate`.",
        "",
        "## What it was trained on",
        "",
        *_said(details, "training_data"),
        "",
        f"Training: {details.get('training', 'not said')}.",
        "",
        "## What was measured",
        "",
        KEPT_APART if details.get("trained_on") else NOT_KNOWN,
        *accuracy(summaries, human, clinical, figures),
        f"Never measured on real CT: {', '.join(never) or 'none of the offered organs'}.",
        f"Measured, but not offered and never sent: {', '.join(beside) or 'none'}.",
        "",
        "## A second person",
        "",
        "A radiographer against an oncologist's contours in deepmind/tcia-ct-scan-dataset.",
        "Measured where both drew the organ.",
        "",
        *human_table(human),
        "",
        "The same two people's contours, by a protocol of their own, against the clinical contours of OpenKBP,",
        "on the CTs that have both, in the CT's own pixels.",
        "",
        *clinical_table(clinical),
        "",
        *_compared(pages),
        "## Limits",
        "",
        *_said(details, "limits"),
        "",
        "## Before a hospital uses it",
        "",
        *BEFORE_USE.splitlines(),
        "",
        "## Licence and attribution",
        "",
        *_said(details, "attribution"),
        "",
    ]
    return "\n".join(lines)


def _compared(pages: Collection[str]) -> list[str]:
    """Lines of a section; none where no page lies beside the card, as beside that of a hospital's own bundle."""
    links = [f"- [{page}]({page}): {says}." for page, says in COMPARISONS.items() if page in pages]
    return ["## How it compares, and what decided its design", "", *links, ""] if links else []


def _said(details: Mapping[str, Any], key: str) -> list[str]:
    """What the bundle's author says, a line each."""
    return [f"- {line}" for line in details.get(key, ["not said by the bundle's author"])]
