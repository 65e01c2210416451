"""What each decision of the design is worth: short equal runs that differ in one thing, on the same cases.

    python -m training.ablation training/configs/ablation.toml --out runs/ablation --table docs/ablations.md
    python -m training.ablation training/configs/ablation-size.toml --out runs/sizes --table docs/ablations-size.md

Repeat the same command to go on where it was interrupted. The table is written anew after every run.
"""

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model.bundle import Bundle
from model.segmenter import Segmenter
from training.config import ConfigurationError, DataConfig, TrainConfig, build_config, merged, read_table
from training.dataset import described, read_packs
from training.distributed import local_device
from training.evaluate import score_case, with_every_output
from training.export import export
from training.failures import failures_in_words
from training.goals import AS_SENT
from training.stop import Stop
from training.train import Data, load_data, run

REFERENCE = "reference"
SMALL_ORGANS = ("Cochlea", "Glnd_Lacrimal", "Lens", "OpticNrv")
RESAMPLES = 2000


class Place(NamedTuple):
    """Where Dice was measured: on an organ of a case of a group of data."""

    group: str
    case: str
    organ: str


Scores = dict[Place, float]
"""Dice; no number where the organ neither is nor was found."""


@dataclass(frozen=True)
class Variant:
    """A run that differs from the reference in one thing."""

    name: str
    about: str
    config: TrainConfig
    settings: str  # the configuration as it was written


@dataclass(frozen=True)
class Difference:
    """Variant minus reference: mean over cases of the mean over a case's organs, its spread, 95 % interval.

    Of one case neither spread nor interval is known; of none, nothing.
    """

    case_count: int
    mean: float
    deviation: float
    low: float
    high: float


def main(
    config: Path = typer.Argument(..., metavar="ABLATION.toml"),  # noqa: B008
    out: Path = typer.Option(..., help="Folder of the runs, scores.csv and ablations.md."),  # noqa: B008
    table: Path | None = typer.Option(None, help="Write the table here too."),  # noqa: B008
    device: str = typer.Option("auto", help="auto, cpu or cuda"),
    minutes: float = typer.Option(0, help="Stop after this long; 0: until every run is measured."),
) -> None:
    """Run and measure what has not been measured yet."""
    console = Console()
    stop = Stop(minutes * 60 or math.inf)
    stop.listen()
    with failures_in_words():
        variants = read_variants(config)
        if not ablate(variants, out, local_device(device), stop, console, table):
            console.print("stopped; repeat the command to go on")


def read_variants(path: Path) -> list[Variant]:
    """The reference and every `[[variant]]` of a file: a run's configuration, and what each changes in it."""
    table = read_table(path)
    about = table.pop("about", "")
    changes: list[dict[str, Any]] = table.pop("variant", [])
    variants = [_variant(REFERENCE, about, table)]
    for change in changes:
        missing = {"name", "about", "change"} ^ set(change)
        if missing:
            raise ConfigurationError(
                f"each [[variant]] needs name, about and change alone: {', '.join(missing)}"
            )
        variants.append(_variant(change["name"], change["about"], merged(table, change["change"])))
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ConfigurationError("two [[variant]] have one name")
    return variants


def _variant(name: str, about: str, table: dict[str, Any]) -> Variant:
    return Variant(name, about, build_config(table), json.dumps(table, indent=1, sort_keys=True))


def ablate(
    variants: Sequence[Variant],
    out: Path,
    device: torch.device,
    stop: Stop,
    console: Console,
    table: Path | None = None,
) -> bool:
    """Train and measure each variant that was not yet measured; False where a stop was wanted before the end."""
    loaded: tuple[TrainConfig, Data] | None = None
    measured: dict[str, Scores] = {}
    for variant in variants:
        folder = out / variant.name
        _same_settings(folder, variant.settings)
        if not (folder / "scores.csv").exists():
            if loaded is None or not _same_data(loaded[0], variant.config):
                loaded = variant.config, load_data(variant.config, device)
            data = loaded[1].weighted(variant.config.data)
            console.print(f"{variant.name}: {variant.about}", markup=False)
            if not run(variant.config, folder, device, stop, console, data=data):
                return False
            measure(variant, folder, device, console)
        measured[variant.name] = read_scores(folder / "scores.csv", variant.config.data)
        text = as_markdown(variants, measured)
        for path in {out / "ablations.md", table or out / "ablations.md"}:
            path.write_text(text, encoding="utf-8")
        _write_all(measured, out / "scores.csv")
    return True


def _same_data(one: TrainConfig, other: TrainConfig) -> bool:
    """Whether both train on the same images, smoothed for the same grid, with the same truth."""
    parts = [(each.data.packs, each.data.untaught, each.preprocessing) for each in (one, other)]
    return parts[0] == parts[1]


def measure(variant: Variant, folder: Path, device: torch.device, console: Console) -> None:
    """Dice of every known organ of every validation case, whole images on the grid of the truth."""
    bundle = with_every_output(Bundle.load(export(variant.config, folder)))
    segmenter = Segmenter(bundle, device.type, variant.config.threads)
    cases = list(read_packs(variant.config.data.validation_files))
    rows = [
        (*Place(score.group, case.name, score.organ), score.dice)
        for case in track(cases, f"measuring {variant.name}", console=console)
        for score in score_case(segmenter, case)
        if not score.group.endswith(AS_SENT)
    ]
    part = folder / "scores.part"
    with part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    part.replace(folder / "scores.csv")


def read_scores(path: Path, data: DataConfig) -> Scores:
    """The scores of one variant.

    Runs of before did not write a case's group: it is looked up in the validation packs then.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = [*csv.reader(file)]
    if any(len(row) < 4 for row in rows):
        groups = {case.name: case.group for case in described(data.validation_files)}
        if unknown := {row[0] for row in rows} - groups.keys():
            raise ConfigurationError(
                f"{path} is of cases that no validation pack holds, such as {min(unknown)}; delete it to "
                "measure anew"
            )
        rows = [[groups[row[0]], *row] for row in rows]
    return {Place(group, case, organ): float(value) for group, case, organ, value in rows}


def organ_means(scores: Scores) -> dict[str, float]:
    """Mean of each organ over the cases in which it is or was found."""
    values: dict[str, list[float]] = defaultdict(list)
    for place, value in scores.items():
        if not math.isnan(value):
            values[place.organ].append(value)
    return {organ: float(np.mean(found)) for organ, found in values.items()}


def difference(scores: Scores, reference: Scores, group: str) -> Difference:
    """Of one group, paired by case and organ; the interval is drawn from the cases, which are what is random.

    Where an organ is not there and one of both invented it (0), the other did right (1).
    It says nothing of another seed: for that the reference itself is trained twice.
    """
    cases: dict[str, list[float]] = defaultdict(list)
    for place in scores.keys() & reference.keys():
        pair = np.array([scores[place], reference[place]])
        if place.group == group and not np.isnan(pair).all():
            cases[place.case].append(float(-np.diff(np.nan_to_num(pair, nan=1.0))[0]))
    values = np.array([np.mean(cases[case]) for case in sorted(cases)])
    if len(values) < 2:
        return Difference(
            len(values), float(values.sum()) if cases else math.nan, math.nan, math.nan, math.nan
        )
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Difference(len(values), float(values.mean()), float(values.std(ddof=1)), float(low), float(high))


def as_markdown(variants: Iterable[Variant], measured: dict[str, Scores]) -> str:
    """The table of what was measured so far."""
    variants = list(variants)
    settings = variants[0].config
    reference = measured[REFERENCE]
    cases = {(place.group, place.case) for place in reference}
    groups = Counter(group for group, _ in sorted(cases))
    lines = []
    for variant in variants:
        cells = ["not yet measured", "", "", *[""] * len(groups)]
        if variant.name in measured:
            cells = _cells(measured[variant.name])
            is_reference = variant.name == REFERENCE
            cells += ["" if is_reference else _change(measured[variant.name], reference, g) for g in groups]
        lines.append(f"| {variant.name} | {variant.about} | {' | '.join(cells)} |")
    patch = " x ".join(map(str, settings.patch))
    return PAGE.format(
        steps=settings.optimiser.steps,
        patch=patch,
        seed=settings.seed,
        cases=", ".join(f"{count} of {group}" for group, count in groups.items()),
        heads=" | ".join(f"difference on {group}" for group in groups),
        rules="---|" * len(groups),
        rows="\n".join(lines),
        silent=SILENT if not any(_means(scores, small=True).any() for scores in measured.values()) else "",
    )


PAGE = """# Ablations

What single decisions are worth: short equal runs of a small network from random weights, each of which differs
from the reference in one thing.
They tell which way to go, not how good a finished network is.

{steps} steps of patches of {patch} voxels, seed {seed}; validation cases: {cases}.

| run | what is different | all organs | large | small | {heads} |
|---|---|---|---|---|{rules}
{rows}

Dice of whole images on the grid of the truth.
All, large and small are means over organs of the mean over cases; small are lenses, cochleae, optic nerves and
lacrimal glands.
A difference is run minus reference over the cases of one group of data, paired by case (mean over the case's
organs): mean ± standard deviation over the cases [95 % interval drawn from the cases].
Intervals from few cases are narrower than they should be.
The same run with another seed shows how much chance alone moves a figure: what is smaller than that is not shown
to matter.
{silent}
Made with `python -m training.ablation` from one of `training/configs/ablation*.toml`.
"""


SILENT = """
No run found anything of a lens, cochlea, optic nerve or lacrimal gland: of these organs this page says nothing.
"""


def _cells(scores: Scores) -> list[str]:
    large, small = (_means(scores, small=small) for small in (False, True))
    every = np.concatenate([large, small])
    return [f"{values.mean():.3f}" if len(values) else "–" for values in (every, large, small)]


def _means(scores: Scores, *, small: bool) -> NDArray[np.float64]:
    means = organ_means(scores).items()
    return np.array([value for organ, value in means if organ.startswith(SMALL_ORGANS) == small])


def _change(scores: Scores, reference: Scores, group: str) -> str:
    d = difference(scores, reference, group)
    if d.case_count < 2:
        return f"{d.mean:+.3f} in one case" if d.case_count else "no case in both"
    return f"{d.mean:+.3f} ± {d.deviation:.3f} [{d.low:+.3f}, {d.high:+.3f}]"


def _write_all(measured: dict[str, Scores], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("run", *Place._fields, "dice"))
        for name, scores in measured.items():
            writer.writerows((name, *place, f"{value:.4f}") for place, value in scores.items())


def _same_settings(folder: Path, settings: str) -> None:
    """Refuse a folder that holds a run of another configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "configuration.json"
    if not path.exists():
        path.write_text(settings, encoding="utf-8")
    elif path.read_text(encoding="utf-8") != settings:
        raise ConfigurationError(
            f"{folder} holds a run of another configuration; delete it or choose another --out"
        )


if __name__ == "__main__":
    typer.run(main)
