"""The curve of a run: `curve.csv`, `validation.csv`, a picture of both, and TensorBoard where it is installed.

    python -m training.curve runs/paper

draws the picture of any run, also of one that is still going on.
"""

import csv
import importlib.util
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
import typer

HEADER = ("step", "learning_rate", "entropy", "dice_loss")
VALIDATION_HEADER = ("step", "organ", "dice", "surface_dice")
MEAN = "mean"
FLUSH_EVERY = 20


class Curve:
    """Appends to the files of a run, from which what lies after the resumed step is removed first."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        self.steps = _continued(folder / "curve.csv", HEADER, step)
        self.validations = _continued(folder / "validation.csv", VALIDATION_HEADER, step)
        self.board = _tensorboard(folder, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.steps.close()
        self.validations.close()
        if self.board is not None:
            self.board.close()

    def add(self, step: int, learning_rate: float, entropy: float, dice_loss: float) -> None:
        """One step; on disk at the latest 20 steps later."""
        self.steps.write(f"{step},{learning_rate:.3g},{entropy:.5f},{dice_loss:.5f}\n")
        if step % FLUSH_EVERY == 0:
            self.steps.flush()
        if self.board is not None:
            values = (learning_rate, entropy, dice_loss)
            for name, value in zip(HEADER[1:], values, strict=True):
                self.board.add_scalar(f"training/{name}", value, step)

    def add_validation(
        self, step: int, organs: Mapping[str, tuple[float, float]], mean: tuple[float, float]
    ) -> None:
        """Dice and surface Dice of each organ on the validation cases, and the picture anew."""
        for organ, (dice, surface_dice) in {MEAN: mean, **organs}.items():
            self.validations.write(f"{step},{organ},{dice:.4f},{surface_dice:.4f}\n")
            if self.board is not None:
                self.board.add_scalar(f"validation/{organ}", dice, step)
                self.board.add_scalar(f"validation_surface/{organ}", surface_dice, step)
        self.steps.flush()
        self.validations.flush()
        draw(self.folder)


def read(path: Path) -> list[list[str]]:
    """The rows of a curve without its header; none where the file is missing."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.reader(file) if row and row[0].isdigit()]


def draw(folder: Path) -> Path | None:
    """Write `curve.png`: both terms of the loss, smoothed, and both measures of validation.

    None without matplotlib.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4), layout="constrained")
    left, *others = figure.subplots(1, 3)
    rows = np.array(read(folder / "curve.csv"), float).reshape(-1, len(HEADER))
    for column in (2, 3):
        left.plot(*_smoothed(rows[:, 0], rows[:, column]), label=HEADER[column].replace("_", " "))
    left.set(xlabel="step", ylabel="loss", title="training")
    left.legend()
    for axes, column, name in zip(others, (2, 3), ("Dice", "surface Dice"), strict=True):
        for organ, points in _validated(folder, column).items():
            style: dict[str, Any] = (
                {"color": "black", "linewidth": 2, "label": MEAN} if organ == MEAN else {"alpha": 0.5}
            )
            axes.plot(*zip(*points, strict=True), **style)
        axes.set(xlabel="step", ylabel=name, title="validation, one line per organ", ylim=(0, 1))
    figure.savefig(folder / "curve.png", dpi=100)
    return folder / "curve.png"


def _validated(folder: Path, column: int) -> dict[str, list[tuple[float, float]]]:
    """Steps and values of each organ from a column of `validation.csv`, without those that were not measured."""
    organs: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read(folder / "validation.csv"):
        if any(row[column:]):
            organs[row[1]].append((float(row[0]), float(row[column])))
    return organs


def _smoothed(steps: Any, values: Any) -> tuple[Any, Any]:  # noqa: ANN401 - numpy arrays of floats
    """At most 200 means of neighbouring steps."""
    size = max(1, len(steps) // 200)
    count = len(steps) // size
    return tuple(row[: count * size].reshape(count, size).mean(1) for row in (steps, values))


def _continued(path: Path, header: Sequence[str], step: int) -> TextIO:
    """A file of rows up to and with a step, open to append; a last line cut short is dropped too.

    Rows of a run from before a column was added stay, with nothing in it.
    """
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    width = len(written.partition("\n")[0].split(","))
    missing = [""] * (len(header) - width)
    rows = [[*row, *missing] for row in read(path) if len(row) == width and int(row[0]) <= step]
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    part.replace(path)
    return path.open("a", encoding="utf-8")


def _tensorboard(folder: Path, step: int) -> Any:  # noqa: ANN401 - an optional package's writer
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)


def main(folder: Path = typer.Argument(..., help="Folder of a run.")) -> None:  # noqa: B008
    """Draw the curve of a run."""
    print(draw(folder) or "matplotlib is not installed")


if __name__ == "__main__":
    typer.run(main)
