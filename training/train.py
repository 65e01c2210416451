"""Train the network, from a configuration to a bundle; read from top to bottom.

    python -m training.train training/configs/first.toml --out runs/first

Repeat the same command to resume: the last checkpoint in the folder is continued. Because every step draws
its randomness from (seed, step), an interrupted run follows the same curve as an uninterrupted one.
"""

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from model.bundle import Bundle, write_bundle
from model.preprocess import Preprocessing
from model.structures import STRUCTURES
from model.unet import UNet3D
from training.augment import DeviceCase, Sample, random_sample
from training.config import ConfigurationError, TrainConfig, load_config
from training.dataset import read_packs
from training.losses import segmentation_loss


class TrainingStoppedError(Exception):
    """Training cannot go on; the message says at which step and what to change."""


def main(
    config_path: Path = typer.Argument(..., metavar="CONFIG.toml"),  # noqa: B008
    out: Path = typer.Option(..., help="Folder of checkpoints, curve and bundle."),  # noqa: B008
    device: str = typer.Option("auto", help="auto, cpu or cuda"),
    minutes: float = typer.Option(0, help="Stop with a checkpoint after this long; 0: until the last step."),
) -> None:
    """Train, or go on training."""
    console = Console()
    try:
        config = load_config(config_path)
        finished = run(config, out, _device(device), minutes * 60 or math.inf, console)
        if finished:
            console.print(f"bundle written to {export(config, out)}")
    except (ConfigurationError, TrainingStoppedError) as error:
        console.print(f"[red]{error}")
        sys.exit(2 if isinstance(error, ConfigurationError) else 1)


def run(config: TrainConfig, out: Path, device: torch.device, seconds: float, console: Console) -> bool:
    """Train until the last step (True) or until time is up (False), leaving a checkpoint either way."""
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    started = time.monotonic()

    # Data: every case on the device, drawn by the weight of its group.
    packed = list(read_packs(Path(pack) for pack in config.data.packs))
    chances = _chances([case.group for case in packed], config.data.group_weights)
    cases = [DeviceCase(case, device) for case in packed]
    del packed

    # Network, its running average, optimiser.
    torch.manual_seed(config.seed)
    network = _network(config).to(device)
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay
    )
    step = _resume(out, network, average, optimiser, device)

    # Loop.
    curve = (out / "curve.csv").open("a", encoding="utf-8")
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task("training", total=config.optimiser.steps, completed=step)
    with bar, curve:
        while step < config.optimiser.steps and time.monotonic() - started < seconds:
            samples = draw(cases, chances, config, step)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(config, step)
            entropy, dice = optimise(network, optimiser, samples, config, step)
            follow(average, network, config.optimiser.ema, step)
            step += 1
            bar.update(task, completed=step, description=f"entropy {entropy:.3f} dice {dice:.3f}")
            curve.write(f"{step},{learning_rate(config, step):.3g},{entropy:.5f},{dice:.5f}\n")
            if step % 20 == 0:
                curve.flush()
            if step % 100 == 0:
                _save(out, network, average, optimiser, step)
    _save(out, network, average, optimiser, step)
    return step >= config.optimiser.steps


def export(config: TrainConfig, out: Path) -> Path:
    """Write the averaged weights of the last checkpoint as a bundle; returns its folder."""
    state = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)
    network = UNet3D(config.network)
    network.load_state_dict(state["average"])
    write_bundle(
        out / "bundle",
        network,
        name=config.name,
        version=config.version,
        structure_names=tuple(organ.name for organ in STRUCTURES),
        preprocessing=Preprocessing(config.spacing_mm, config.resolution_mm),
        tile=config.patch,
        card={
            "training_data": config.card.training_data,
            "training": f"{state['step']} steps of {config.optimiser.batch} patch of {config.patch} voxels",
            "limits": config.card.limits,
            "attribution": config.card.attribution,
        },
    )
    return out / "bundle"


def draw(cases: list[DeviceCase], chances: np.ndarray, config: TrainConfig, step: int) -> list[Sample]:
    """The patches of one step; they depend on the seed and the step alone."""
    rng = np.random.default_rng([config.seed, step])
    chosen = rng.choice(len(cases), config.optimiser.batch, p=chances)
    return [
        random_sample(cases[index], config.patch, config.spacing_mm, config.augment, rng) for index in chosen
    ]


def optimise(
    network: UNet3D, optimiser: torch.optim.Optimizer, samples: list[Sample], config: TrainConfig, step: int
) -> tuple[float, float]:
    """One step; returns both terms of the loss."""
    settings = config.optimiser
    image = torch.cat([sample.image for sample in samples])
    organs = torch.cat([sample.organs for sample in samples])
    weights = torch.cat([sample.weights for sample in samples])
    try:
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            logits = network(image)
        entropy, dice = segmentation_loss(logits, organs, weights, settings.hardest, settings.dice)
        loss = entropy + dice
        if not torch.isfinite(loss):
            raise TrainingStoppedError(
                f"step {step}: the loss is {float(loss)}; lower the learning rate, or resume from the last "
                "checkpoint with another seed"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
    except torch.OutOfMemoryError as error:
        raise TrainingStoppedError(
            f"step {step}: the device's memory does not hold batch {settings.batch} of {config.patch}; "
            "make [optimiser] batch or patch smaller and resume"
        ) from error
    return float(entropy.detach()), float(dice.detach())


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    settings = config.optimiser
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    share = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@torch.no_grad()
def follow(average: dict[str, Tensor], network: UNet3D, decay: float, step: int) -> None:
    """Move the running average of the weights; early on it forgets faster."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in network.state_dict().items():
        average[name].lerp_(value, 1 - decay)


def _chances(groups: list[str], weights: dict[str, float]) -> np.ndarray:
    unknown = set(groups) - set(weights)
    if unknown:
        raise ConfigurationError(f"[data] group_weights has no weight for {', '.join(sorted(unknown))}")
    counts = {group: groups.count(group) for group in weights}
    chances = np.array([weights[group] / counts[group] for group in groups])
    return np.asarray(chances / chances.sum())


def _network(config: TrainConfig) -> UNet3D:
    """The network as the first step finds it: random, or with the weights of an earlier bundle."""
    network = UNet3D(config.network)
    if config.begin_with:
        earlier = Bundle.load(Path(config.begin_with)).network
        try:
            network.load_state_dict(earlier.state_dict())
        except RuntimeError as error:
            raise ConfigurationError(
                f"begin_with: {config.begin_with} holds another [network]: {error}"
            ) from error
    return network


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _save(
    out: Path, network: UNet3D, average: dict[str, Tensor], optimiser: torch.optim.Optimizer, step: int
) -> None:
    state: dict[str, Any] = {
        "step": step,
        "network": network.state_dict(),
        "average": average,
        "optimiser": optimiser.state_dict(),
        "config": {key: str(value) for key, value in dataclasses.asdict(network.config).items()},
    }
    part = out / "checkpoint.part"
    torch.save(state, part)
    part.replace(out / "checkpoint.pt")


def _resume(
    out: Path,
    network: UNet3D,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> int:
    path = out / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location=device, weights_only=True)
    if state["config"] != {key: str(value) for key, value in dataclasses.asdict(network.config).items()}:
        raise ConfigurationError(f"{path} was trained with another [network]; choose another folder")
    network.load_state_dict(state["network"])
    optimiser.load_state_dict(state["optimiser"])
    for name, value in state["average"].items():
        average[name].copy_(value)
    return int(state["step"])


if __name__ == "__main__":
    typer.run(main)
