"""What was measured of each organ of each case, and what it comes to over all cases."""

import csv
import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.structures import structure
from training.config import ORGANS
from training.metrics import added_path_length_mm, dice, hausdorff_mm, surface_dice_at
from training.surface_distance import joint_box, surface_distances

RESAMPLES = 10_000
SEED = 2021

HUMAN_BASELINE = Path(__file__).with_name("human_baseline.json")
"""How well a second person agrees with the reference, written by `training.human_baseline`."""

CLINICAL_BASELINE = Path(__file__).with_name("clinical_baseline.json")
"""How well two people agree with the clinical contours of OpenKBP, written by `training.clinical_baseline`."""


@dataclass(frozen=True)
class Score:
    """One organ of one case; NaN where a measure means nothing.

    Attributes
    ----------
    dice, surface_dice
        0 where the organ is there and was not drawn, or the other way about; NaN where neither.
        The surface's is taken at the organ's own tolerance.
    hd95_mm
        NaN unless the organ is there and was drawn.
    added_path_mm
        NaN unless the organ is there; all of its outlines where it was not drawn.
    is_cut
        The reference reaches the image's first or last slice: there may be more of the organ than the image holds.
    """

    case: str
    group: str
    organ: str
    is_there: bool
    is_drawn: bool
    dice: float
    surface_dice: float
    hd95_mm: float
    added_path_mm: float
    is_cut: bool = False


def score_organ(
    case: str,
    group: str,
    organ: str,
    masks: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    spacing_mm: Sequence[float],
) -> Score:
    """Measure one organ.

    Parameters
    ----------
    masks
        The reference and what is judged by it, (slices, rows, columns) bool on the reference's own grid.
    """
    box = joint_box(*masks)
    if box is None:
        nan = float("nan")
        return Score(case, group, organ, False, False, nan, nan, nan, nan)  # noqa: FBT003 - the row in order
    gt, pred = (mask[box] for mask in masks)
    # NIfTI's 32 bits make 0.98 mm a little more, and a tolerance of 0.98 mm would miss the next voxel.
    spacing_mm = [round(step, 5) for step in spacing_mm]
    is_there, is_drawn = bool(gt.any()), bool(pred.any())
    distances = surface_distances(gt, pred, spacing_mm)
    return Score(
        case,
        group,
        organ,
        is_there,
        is_drawn,
        dice=dice(gt, pred),
        surface_dice=surface_dice_at(distances, structure(organ).tolerance_mm),
        hd95_mm=hausdorff_mm(distances, 95) if is_there and is_drawn else float("nan"),
        added_path_mm=added_path_length_mm(gt, pred, spacing_mm) if is_there else float("nan"),
    )


@dataclass(frozen=True)
class Statistic:
    """A measure over cases: mean with its 95 % bootstrap interval, sample standard deviation and median.

    None stands for what the number of cases does not allow: all of it without any, the spread of a single one.
    """

    cases: int
    mean: float | None
    deviation: float | None
    median: float | None
    low: float | None
    high: float | None


NOT_MEASURED = Statistic(0, None, None, None, None, None)


def statistic(values: Iterable[float]) -> Statistic:
    """Over all values that are not NaN. The same values give the same interval: the resampling is seeded."""
    counted = np.array([value for value in values if not np.isnan(value)])
    if not len(counted):
        return NOT_MEASURED
    mean, median = float(counted.mean()), float(np.median(counted))
    if len(counted) == 1:
        return Statistic(1, mean, None, median, None, None)
    rng = np.random.default_rng(SEED)
    means = rng.choice(counted, (RESAMPLES, len(counted))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Statistic(len(counted), mean, float(counted.std(ddof=1)), median, float(low), float(high))


@dataclass(frozen=True)
class Summary:
    """One organ over all cases of a group.

    Attributes
    ----------
    there
        Cases in which the reference has the organ.
    missed
        Of these, those in which it was not drawn at all.
    invented
        Cases in which it is not there and was drawn.
    whole_dice
        Of the cases in which the image's end does not cut the reference.
    """

    group: str
    organ: str
    there: int
    missed: int
    invented: int
    dice: Statistic
    surface_dice: Statistic
    hd95_mm: Statistic
    added_path_mm: Statistic
    whole_dice: Statistic = NOT_MEASURED


def summarise(scores: Iterable[Score]) -> list[Summary]:
    """One row per group and organ, organs in their usual order; what neither is nor was drawn does not count."""
    rows: dict[tuple[str, str], list[Score]] = defaultdict(list)
    for score in scores:
        if score.is_there or score.is_drawn:
            rows[score.group, score.organ].append(score)
    in_order = sorted(rows, key=lambda key: (key[0], ORGANS.index(key[1])))
    return [_summary(group, organ, rows[group, organ]) for group, organ in in_order]


def _summary(group: str, organ: str, rows: Sequence[Score]) -> Summary:
    return Summary(
        group,
        organ,
        there=sum(row.is_there for row in rows),
        missed=sum(row.is_there and not row.is_drawn for row in rows),
        invented=sum(row.is_drawn and not row.is_there for row in rows),
        dice=statistic(row.dice for row in rows),
        surface_dice=statistic(row.surface_dice for row in rows),
        hd95_mm=statistic(row.hd95_mm for row in rows),
        added_path_mm=statistic(row.added_path_mm for row in rows),
        whole_dice=statistic(row.dice for row in rows if not row.is_cut),
    )


def mean_over_organs(rows: Iterable[Summary], measure: Callable[[Summary], Statistic]) -> float:
    """Mean of the organs' means, each organ counting once."""
    means = [mean for row in rows if (mean := measure(row).mean) is not None]
    return float(np.mean(means)) if means else float("nan")


def as_table(rows: Iterable[Summary], digits: int = 4) -> list[dict[str, object]]:
    """Summaries as JSON holds them, rounded."""
    return [{key: _rounded(value, digits) for key, value in dataclasses.asdict(row).items()} for row in rows]


def _rounded(value: object, digits: int) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item, digits) for key, item in value.items()}
    return round(value, digits) if isinstance(value, float) else value


def from_table(rows: Iterable[Mapping[str, object]]) -> list[Summary]:
    """The inverse of `as_table`."""
    return [
        Summary(
            **{
                key: Statistic(**value) if isinstance(value, dict) else value  # type: ignore[arg-type]
                for key, value in row.items()
            }
        )
        for row in rows
    ]


def write_scores(scores: Iterable[Score], path: Path) -> None:
    """Every score as a line of CSV; empty fields are NaN."""
    _write_csv([dataclasses.asdict(score) for score in scores], path)


def write_summaries(rows: Iterable[Summary], path: Path) -> None:
    """Every summary as a line of CSV, a statistic's figures in columns of their own."""
    _write_csv([_flat(row) for row in as_table(rows, 6)], path)


def _flat(row: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key}_{figure}": number for figure, number in value.items()}
        else:
            flat[key] = value
    return flat


def _write_csv(rows: Sequence[Mapping[str, object]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows({key: "" if _is_nan(value) else value for key, value in row.items()} for row in rows)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and np.isnan(value)


def read_baseline(path: Path = HUMAN_BASELINE) -> dict[str, Summary]:
    """Summaries by organ from a file that `training.human_baseline` wrote."""
    return {row.organ: row for row in from_table(json.loads(path.read_text(encoding="utf-8"))["organs"])}


def write_baseline(path: Path, data: str, scans: int, rule: str, rows: Iterable[Summary]) -> None:
    """Keep what people reached: of which data, over how many scans, how it was counted."""
    about = {"data": data, "scans": scans, "rule": rule, "organs": as_table(rows)}
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_clinical_baseline(path: Path = CLINICAL_BASELINE) -> list[Summary]:
    """Summaries from a file that `training.clinical_baseline` wrote; their group is the observer."""
    return from_table(json.loads(path.read_text(encoding="utf-8"))["organs"])
