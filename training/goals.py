"""What the figures should reach, and by how much they do not."""

from collections.abc import Iterable, Mapping, Sequence

from model.structures import unqualified
from training.scores import Summary

BAND = 0.05
"""Surface Dice of model and human that differ by less differ in nothing that matters (arXiv 1809.04430)."""

HUMAN_GROUPS = ("tcia21",)
"""Data whose reference was drawn by the people, by the protocol and in the pixels of the human baseline.

Others are not set beside it: contours of many clinics in pixels of 4 mm cannot agree to a tolerance of 1 mm.
"""

AS_SENT = "-as-sent"
"""How the group ends of organs by the protocol of the 21, which are sent, against references by another one."""

OPENKBP_GOALS: Mapping[str, float] = {
    "Brainstem^Clin": 0.85,
    "SpinalCord^Clin": 0.80,
    "Parotid_L^Clin": 0.80,
    "Parotid_R^Clin": 0.80,
    "Bone_Mandible^Clin": 0.88,
    "Larynx": 0.70,
    "Esophagus": 0.70,
}

DICE_GOALS: Mapping[str, Mapping[str, float]] = {
    "openkbp": OPENKBP_GOALS,
    f"openkbp{AS_SENT}": {
        unqualified(organ): goal for organ, goal in OPENKBP_GOALS.items() if unqualified(organ) != organ
    },
}
"""Group to organ to the mean Dice coefficient that is asked for, on images of 3.5 to 5 mm pixels.

The same is asked of what is sent as of the output that was taught the clinics' contours.
"""


def dice_goal(row: Summary) -> float | None:
    """The Dice coefficient asked for, if any."""
    return DICE_GOALS.get(row.group, {}).get(row.organ)


def of_people(clinical: Iterable[Summary], organ: str) -> list[float]:
    """Mean Dice of each observer against the clinical contours of an organ; of none where nobody drew it."""
    return [
        row.dice.mean
        for row in clinical
        if unqualified(row.organ) == unqualified(organ) and row.dice.mean is not None
    ]


def verdicts(summaries: Sequence[Summary], human: Mapping[str, Summary]) -> list[str]:
    """Lines that say of each group which organs reach what is asked for, and how much the others lack.

    Parameters
    ----------
    human
        The human baseline by organ, which the surfaces of `HUMAN_GROUPS` are to come within `BAND` of.
    """
    dice = [
        (
            _outputs(group),
            [
                (f"{row.organ} {row.dice.mean:.3f} of {goal:.2f}", row.dice.mean - goal)
                for row in summaries
                if row.group == group and (goal := dice_goal(row)) is not None and row.dice.mean is not None
            ],
        )
        for group in DICE_GOALS
    ]
    surface = [
        (row.organ, row.surface_dice.mean - (of_human - BAND))
        for row in summaries
        if row.group in HUMAN_GROUPS
        and row.organ in human
        and row.surface_dice.mean is not None
        and (of_human := human[row.organ].surface_dice.mean) is not None
    ]
    return [
        *(line for outputs, found in dice for line in _verdict(f"Dice on {outputs}", found)),
        *_verdict(f"surface Dice within {100 * BAND:.0f} points of a second person's", surface),
    ]


def _outputs(group: str) -> str:
    """Which of the network's outputs a group measures, on which data."""
    data = group.removesuffix(AS_SENT)
    return f"{data}, as these clinics draw" if group == data else f"{data}, of what is sent"


def _verdict(what: str, found: Iterable[tuple[str, float]]) -> list[str]:
    """Two lines from organs and by how much they exceed their goal; none of what was not measured."""
    found = list(found)
    reached = [organ for organ, more in found if more >= 0]
    missed = [
        f"{organ} (by {-100 * more:.1f} points)"
        for organ, more in sorted(found, key=lambda each: each[1])
        if more < 0
    ]
    return [
        f"- {what}, {word}: {', '.join(organs) or 'none'}."
        for word, organs in (("reached", reached), ("not reached", missed))
        if found
    ]
