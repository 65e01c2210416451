"""What a run leaves behind: the last checkpoint, the one before it, and the best weights so far.

A file appears whole or not at all (written beside, flushed, renamed); a last checkpoint that cannot be read is
set aside for the one before it.
"""

import dataclasses
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from model.bundle import all_finite
from model.network_input import Preprocessing
from model.unet import UNet3D, UNetConfig
from training.config import ConfigurationError
from training.stop import TrainingStoppedError

LAST, BEFORE, BEST = "checkpoint.pt", "previous.pt", "best.pt"


@dataclass(frozen=True)
class Taught:
    """What a network has learned, and by their marks from whom, in earlier runs too."""

    organs: frozenset[str] = frozenset()
    marks: frozenset[str] = frozenset()

    def __or__(self, other: "Taught") -> "Taught":
        """Both together."""
        return Taught(self.organs | other.organs, self.marks | other.marks)


class Trained:
    """Everything that changes while a network is trained, apart from the step."""

    def __init__(self, network: UNet3D, optimiser: torch.optim.Optimizer, grid: Preprocessing) -> None:
        self.network = network
        self.optimiser = optimiser
        self.grid = str(grid)  # on which it is trained, and on which alone it can be used
        self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.taught = Taught()

    @torch.no_grad()
    def follow(self, decay: float, step: int) -> None:
        """Move the running average of the weights; early on it forgets faster."""
        decay = min(decay, (1 + step) / (10 + step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def save(self, folder: Path, step: int) -> None:
        """Write the last checkpoint; the one there was becomes the one before it.

        Raises
        ------
        TrainingStoppedError
            Weights are no numbers. Nothing is written then: the last checkpoint stays one that can be continued.
        """
        if not all_finite(self.network.state_dict()):
            raise TrainingStoppedError(
                f"step {step}: the weights are no numbers any more, and nothing was saved; lower the learning "
                "rate and resume from the last checkpoint"
            )
        part = _written(
            folder / LAST,
            {
                "step": step,
                "network": self.network.state_dict(),
                "average": self.average,
                "optimiser": self.optimiser.state_dict(),
                "config": _shape(self.network.config),
                "grid": self.grid,
                "taught": _listed(self.taught),
            },
        )
        if (folder / LAST).exists():
            (folder / LAST).replace(folder / BEFORE)
        part.replace(folder / LAST)

    def save_best(self, folder: Path, step: int, dice: float) -> None:
        """Write the averaged weights with the Dice coefficient that makes them the best."""
        part = _written(
            folder / BEST,
            {
                "step": step,
                "dice": dice,
                "average": self.average,
                "config": _shape(self.network.config),
                "taught": _listed(self.taught),
            },
        )
        part.replace(folder / BEST)

    def resume(self, folder: Path, device: torch.device, console: Console) -> int:
        """Take up the last checkpoint that can be read; returns its step, 0 where there is none."""
        state = _newest(folder, device, console)
        if state is None:
            return 0
        if state["config"] != _shape(self.network.config):
            raise ConfigurationError(f"{folder} was trained with another [network]; choose another folder")
        if state.get("grid", self.grid) != self.grid:
            raise ConfigurationError(
                f"{folder} was trained on another grid, {state['grid']}; choose another folder"
            )
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.taught = _taught(state)
        return int(state["step"])


def best_dice(folder: Path) -> float:
    """The Dice coefficient of the best weights so far; -1, less than any, where there are none."""
    state = _read(folder / BEST, torch.device("cpu"))
    return float(state["dice"]) if state else -1.0


class Averaged(NamedTuple):
    """The running average of the weights at a step, and what they learned; empty in checkpoints of before."""

    weights: dict[str, Tensor]
    step: int
    taught: Taught


def averaged_weights(folder: Path, *, best: bool = False) -> Averaged:
    """The running average of the last checkpoint or of the best."""
    path = folder / (BEST if best else LAST)
    state = _read(path, torch.device("cpu"))
    if state is None:
        raise ConfigurationError(f"{path} is not there or cannot be read; train first")
    return Averaged(state["average"], int(state["step"]), _taught(state))


def _newest(folder: Path, device: torch.device, console: Console) -> dict[str, Any] | None:
    for name in (LAST, BEFORE):
        state = _read(folder / name, device)
        if state is not None:
            return state
        if (folder / name).exists():
            console.print(
                f"{folder / name} cannot be read (cut short?); trying the one before it", markup=False
            )
    if any((folder / name).exists() for name in (LAST, BEFORE)):
        raise ConfigurationError(f"no checkpoint in {folder} can be read; delete them to begin again")
    return None


def _read(path: Path, device: torch.device) -> dict[str, Any] | None:
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (OSError, EOFError, RuntimeError, UnpicklingError, zipfile.BadZipFile):
        return None
    return state


def _written(path: Path, state: dict[str, Any]) -> Path:
    """The file beside `path` that holds the state, safe on disk."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    return part


def _shape(config: UNetConfig) -> dict[str, str]:
    return {key: str(value) for key, value in dataclasses.asdict(config).items()}


def _listed(taught: Taught) -> dict[str, list[str]]:
    return {"organs": sorted(taught.organs), "marks": sorted(taught.marks)}


def _taught(state: dict[str, Any]) -> Taught:
    """What a checkpoint says was learned; those of before said nothing."""
    return Taught(**{key: frozenset(values) for key, values in state.get("taught", {}).items()})
