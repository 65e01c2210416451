"""Train the network, from a configuration to a bundle; read from top to bottom.

    python -m training.train training/configs/first.toml --out runs/first

Repeat the same command to resume: the last checkpoint in the folder is continued. Because every sample draws
its randomness from (seed, step, place in the batch), an interrupted run follows the same curve as an uninterrupted
one, and several processes (see `training.distributed`) the same as one.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from model.bundle import Bundle
from model.unet import UNet3D
from training.augment import DeviceCase, Sample, random_sample
from training.checkpoint import Taught, Trained, best_dice
from training.config import ConfigurationError, DataConfig, TrainConfig, load_config
from training.curve import Curve, draw
from training.dataset import Case, Known, described, read_packs
from training.distributed import Ranks, joined, local_device
from training.export import export, taught_by
from training.failures import failures_in_words
from training.losses import segmentation_terms
from training.starting_weights import starting_network
from training.stop import Stop, TrainingStoppedError
from training.validation import mean_agreement, mean_of, validation_cases

CHECKPOINT_EVERY = 100
ALONE = Ranks()


def main(
    config_path: Path = typer.Argument(..., metavar="CONFIG.toml"),  # noqa: B008
    out: Path = typer.Option(..., help="Folder of checkpoints, curve and bundle."),  # noqa: B008
    device: str = typer.Option("auto", help="auto, cpu or cuda"),
    minutes: float = typer.Option(0, help="Stop with a checkpoint after this long; 0: until the last step."),
    change: list[str] = typer.Option([], "--set", help="Change a key: --set optimiser.steps=100"),  # noqa: B008
    best: bool = typer.Option(False, help="Export the weights that were best on validation, not the last."),  # noqa: FBT001, FBT003
) -> None:
    """Train, or go on training; SIGTERM and Ctrl-C leave a checkpoint."""
    stop = Stop(minutes * 60 or math.inf)
    with failures_in_words("what was trained is in the last checkpoint: repeat the command to resume"):
        place = local_device(device)
        config = load_config(config_path, change)
        if best:
            _require_validation(config)
        with joined(place) as ranks:
            stop.listen()
            console = Console(quiet=not ranks.first)
            finished = run(config, out, place, stop, console, ranks)
            if finished and ranks.first:
                _tell(export(config, out, best=best), console)
            elif not finished:
                console.print("stopped before the last step; repeat the command to resume")


def _tell(bundle: Path, console: Console) -> None:
    console.print(f"bundle written to {bundle}")
    if not Bundle.load(bundle).structure_names:
        console.print(
            "none of the 21 organs that may be sent was taught: it can be measured, and no node will use it",
            style="yellow",
        )


def _require_validation(config: TrainConfig) -> None:
    """Refuse to ask for the best weights of a run that never looks which they are."""
    if not config.validation.every:
        raise ConfigurationError(
            "--best needs [validation] every: without it nothing tells which weights are best"
        )


class Data(NamedTuple):
    """Every case on the device, what each can teach, and how likely each is drawn."""

    cases: list[DeviceCase]
    known: list[Known]
    chances: np.ndarray

    def weighted(self, data: DataConfig) -> "Data":
        """The same cases, drawn by other weights."""
        return self._replace(chances=draw_chances(self.known, data))


def load_data(config: TrainConfig, device: torch.device) -> Data:
    """Read the packs, without what their groups are not to teach.

    Raises
    ------
    ConfigurationError
        A case is to be trained on and measured too, or its group has no weight.
    """
    _require_apart(config.data)
    packed = [
        _taught(case, config.data.untaught.get(case.group, ()))
        for case in read_packs(config.data.pack_files, config.preprocessing)
    ]
    known = [
        Known(case.name, case.group, frozenset(case.known), case.absent, case.patient) for case in packed
    ]
    chances = draw_chances(known, config.data)
    try:
        return Data([DeviceCase(case, device) for case in packed], known, chances)
    except torch.OutOfMemoryError as error:
        raise TrainingStoppedError(
            f"the device's memory does not hold the images of {len(packed)} cases; name fewer packs in [data] or "
            "train on a device with more"
        ) from error


def _require_apart(data: DataConfig) -> None:
    """Let no patient be trained on who is measured; packs of validation cases need not be at hand."""
    trained, measured = (
        list(described(path for path in packs if path.exists()))
        for packs in (data.pack_files, data.validation_files)
    )
    marks = {mark for case in measured for mark in case.marks}
    if both := sorted(case.name for case in trained if case.marks & marks):
        raise ConfigurationError(
            f"[data] {len(both)} cases, or their patients, are in packs and in validation_packs too, such as "
            f"{both[0]}: prepare anew"
        )


def _require_untaught(data: DataConfig, taught: Taught) -> None:
    """Let no patient be measured who was trained on, whatever the packs hold by now."""
    packs = (path for path in data.validation_files if path.exists())
    if seen := sorted(case.name for case in described(packs) if case.marks & taught.marks):
        raise ConfigurationError(
            f"[data] {len(seen)} cases of validation_packs, or their patients, were trained on in this folder or "
            f"in begin_with, such as {seen[0]}: measure others, or begin without them in another folder"
        )


def _taught(case: Case, untaught: Collection[str]) -> Case:
    return replace(case, known={name: span for name, span in case.known.items() if name not in untaught})


def draw_chances(known: Sequence[Known], data: DataConfig) -> np.ndarray:
    """(cases,) how likely each is drawn: by the weight of its group, within it by the organs it knows."""
    groups = {case.group for case in known}
    _require_groups(groups, data)
    wanted = np.array([_wanted(case, data.organ_weights) for case in known])
    chances = np.zeros(len(known))
    for group in groups:
        members = np.array([case.group == group for case in known])
        chances[members] = data.group_weights[group] * wanted[members] / wanted[members].sum()
    return np.asarray(chances / chances.sum())


def _require_groups(groups: set[str], data: DataConfig) -> None:
    """Refuse groups without a weight, and keys that mean no group and so would change nothing."""
    if silent := groups - data.group_weights.keys():
        raise ConfigurationError(f"[data] group_weights has no weight for {', '.join(sorted(silent))}")
    for key, named in (("group_weights", data.group_weights), ("untaught", data.untaught)):
        if unknown := named.keys() - groups:
            raise ConfigurationError(
                f"[data] {key}: no pack has a case of {', '.join(sorted(unknown))}, only of "
                f"{', '.join(sorted(groups))}; correct the name or take it out"
            )


def _wanted(case: Known, organ_weights: Mapping[str, float]) -> float:
    """How much likelier a case is drawn than others of its group: by its rarest organ."""
    return max((weight for organ, weight in organ_weights.items() if organ in case.organs), default=1.0)


def run(
    config: TrainConfig,
    out: Path,
    device: torch.device,
    stop: Stop,
    console: Console,
    ranks: Ranks = ALONE,
    data: Data | None = None,
) -> bool:
    """Train until the last step (True) or until a stop is wanted (False), leaving a checkpoint either way."""
    out.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    settings = config.optimiser
    if settings.batch < ranks.count:
        raise ConfigurationError(
            f"[optimiser] batch {settings.batch} cannot be shared by {ranks.count} processes"
        )

    # Data on the device, the network, its optimiser and running average.
    data = data or load_data(config, device)
    torch.manual_seed(config.seed)
    network, optimiser = network_and_optimiser(config, device)
    trained = Trained(network, optimiser, config.preprocessing)
    step = trained.resume(out, device, console)
    if step < settings.steps or not trained.taught.marks:
        trained.taught |= taught_by(data.known, config)
    _require_untaught(config.data, trained.taught)
    shared = ranks.wrap(network)
    judge = Judge(config, out, device) if config.validation.every and ranks.first else None

    # Loop: all processes step together, the first one writes.
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    task = bar.add_task("training", total=settings.steps, completed=step)
    with bar, Curve(out, step) if ranks.first else nullcontext() as curve:
        while step < settings.steps and not ranks.agree(stop=stop.wanted(), device=device):
            samples = draw_samples(data, config, step, ranks)
            entropy, dice = optimise(shared, trained.optimiser, samples, config, step, ranks)
            trained.follow(settings.ema, step)
            step += 1
            if curve is None:
                continue
            bar.update(task, completed=step, description=f"entropy {entropy:.3f} dice {dice:.3f}")
            curve.add(step, learning_rate(config, step), entropy, dice)
            # A checkpoint says that its step is done: what of it was not validated never would be.
            if judge and (step % config.validation.every == 0 or step == settings.steps):
                judge.validate(trained, step, curve)
            if step % CHECKPOINT_EVERY == 0:
                trained.save(out, step)
    if ranks.first:
        trained.save(out, step)
        draw(out)
    return step >= settings.steps


class Judge:
    """Segments the validation cases with the averaged weights, and keeps the best."""

    def __init__(self, config: TrainConfig, out: Path, device: torch.device) -> None:
        self.config = config
        self.out = out
        self.cases = validation_cases(config, device)
        if not self.cases:
            raise ConfigurationError("[validation] every is set, but [data] validation_packs has no case")
        self.network = UNet3D(config.network).to(device).eval()
        self.best = best_dice(out)

    def validate(self, trained: Trained, step: int, curve: Curve) -> None:
        """Measure, write it to the curve, and keep the weights if their Dice is the best so far."""
        self.network.load_state_dict(trained.average)
        organs = mean_agreement(self.network, self.cases, self.config.patch, _precision(self.config))
        mean = mean_of(organs.values())
        curve.add_validation(step, organs, mean)
        if mean.dice > self.best:
            self.best = mean.dice
            trained.save_best(self.out, step, mean.dice)


def network_and_optimiser(config: TrainConfig, device: torch.device) -> tuple[UNet3D, torch.optim.Optimizer]:
    """Both as the first step finds them."""
    network = starting_network(config).to(device)
    if device.type == "cpu":
        # oneDNN would bring every tensor into this order and back: the network takes half as long with it.
        network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    settings = config.optimiser
    return network, torch.optim.AdamW(
        network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )


def draw_samples(data: Data, config: TrainConfig, step: int, ranks: Ranks = ALONE) -> list[Sample]:
    """Patches of one step that this process draws; each depends on seed, step and its place in the batch alone."""
    samples = []
    for place in ranks.share(config.optimiser.batch):
        rng = np.random.default_rng([config.seed, step, place])
        case = data.cases[rng.choice(len(data.cases), p=data.chances)]
        augment = config.augment if config.augment.enabled else None
        samples.append(
            random_sample(case, config.patch, config.spacing_mm, augment, rng, config.data.foreground)
        )
    return samples


def optimise(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: Sequence[Sample],
    config: TrainConfig,
    step: int,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """One step; returns both terms of the loss of the whole batch, whoever drew it."""
    settings = config.optimiser
    image, organs, weights = (_together(parts) for parts in zip(*map(_parts, samples), strict=True))
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(config, step)
    try:
        with torch.autocast(image.device.type, _precision(config), enabled=settings.precision != "float32"):
            logits = network(image)
        terms = segmentation_terms(logits, organs, weights, settings.hardest, settings.hardest_by)
        # Means over the whole batch: each process divides by the organs that all of them know.
        entropy, known, overlap, present = ranks.total(torch.stack(terms).detach())
        known, present = known.clamp_min(1), present.clamp_min(1)
        entropy, overlap = entropy / known, settings.dice * overlap / present
        if not torch.isfinite(entropy + overlap):
            raise TrainingStoppedError(
                f"step {step}: the loss is {float(entropy + overlap)}; lower the learning rate, or resume from "
                "the last checkpoint with another seed"
            )
        optimiser.zero_grad(set_to_none=True)
        loss = terms.entropy / known + settings.dice * terms.overlap / present
        (loss * ranks.count).backward()  # the gradient's mean over the processes is then its sum
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimiser.step()
    except torch.OutOfMemoryError as error:
        raise TrainingStoppedError(
            f"step {step}: the device's memory does not hold batch {settings.batch} of {config.patch}; "
            "make [optimiser] batch or patch smaller and resume"
        ) from error
    return float(entropy), float(overlap)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, then a cosine or a polynomial to zero."""
    settings = config.optimiser
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    share = min(1.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    falling = (1 - share) ** 0.9 if settings.schedule == "poly" else 0.5 * (1 + math.cos(math.pi * share))
    return settings.learning_rate * falling


def _parts(sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return sample.image, sample.organs, sample.weights


def _together(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """One batch; a sample alone is not copied, which would take as long as a layer."""
    return torch.cat([*parts]) if len(parts) > 1 else parts[0]


def _precision(config: TrainConfig) -> torch.dtype:
    return torch.bfloat16 if config.optimiser.precision == "bfloat16" else torch.float32


if __name__ == "__main__":
    typer.run(main)
