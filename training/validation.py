"""A few validation cases, segmented now and then during training, to see whether it still gets better.

Each is held on the network's grid, cut to the box around its known organs and 30 mm more, and segmented as a
daemon would. Quick, and therefore a little kind: what is drawn far from every organ is not seen, and surfaces are
those of the network's voxels, of which some are larger than the tolerance.
`training.evaluate` measures whole images on the grid of the truth.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.sliding_window import predict
from model.structures import structure
from model.unet import UNet3D
from training.augment import DeviceCase
from training.config import ORGANS, TrainConfig
from training.dataset import Case, read_packs
from training.metrics import dice, surface_dice

MARGIN_MM = 30.0
OVERLAP = 0.25


@dataclass(frozen=True, eq=False)
class ValidationCase:
    """Image (2, D, H, W) on the device; of each known organ its mask and the voxels that count."""

    name: str
    image: Tensor
    organs: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]
    spacing_mm: Sequence[float]


class Agreement(NamedTuple):
    """How well truth and drawing agree, both NaN where the organ neither is nor was drawn."""

    dice: float
    surface_dice: float  # at the organ's own tolerance


def validation_cases(config: TrainConfig, device: torch.device) -> list[ValidationCase]:
    """As many cases as the configuration asks for, evenly chosen from its validation packs."""
    wanted = config.validation.cases
    every = list(read_packs(config.data.validation_files, config.preprocessing))
    chosen = np.unique(np.linspace(0, len(every) - 1, min(wanted, len(every))).round().astype(int))
    return [_held(every[index], config.spacing_mm, device) for index in chosen]


def mean_agreement(
    network: UNet3D, cases: Iterable[ValidationCase], tile: tuple[int, int, int], precision: torch.dtype
) -> dict[str, Agreement]:
    """Of each organ the mean over the cases in which it is known and is there or was drawn."""
    found: dict[str, list[Agreement]] = defaultdict(list)
    for case in cases:
        for organ, value in case_agreement(network, case, tile, precision).items():
            if not np.isnan(value.dice):
                found[organ].append(value)
    return {organ: mean_of(found[organ]) for organ in ORGANS if organ in found}


def mean_of(values: Iterable[Agreement]) -> Agreement:
    """The mean of each measure; 0 of none."""
    return Agreement(*np.mean([*values] or [Agreement(0.0, 0.0)], axis=0).tolist())


def case_agreement(
    network: UNet3D, case: ValidationCase, tile: tuple[int, int, int], precision: torch.dtype
) -> dict[str, Agreement]:
    """Every known organ of one case."""
    probability = predict(network, case.image, tile, len(ORGANS), overlap=OVERLAP, dtype=precision)
    found = {}
    for organ, (truth, counted) in case.organs.items():
        masks = truth & counted, (probability[ORGANS.index(organ)] > 0.5).numpy() & counted
        surface = surface_dice(*masks, case.spacing_mm, structure(organ).tolerance_mm)
        found[organ] = Agreement(dice(*masks), surface)
    return found


def _held(case: Case, spacing_mm: Sequence[float], device: torch.device) -> ValidationCase:
    held = DeviceCase(case, device)
    points = np.concatenate([*held.centres.values()]) if held.centres else np.stack([held.first, held.last])
    low = np.maximum(points.min(0) - MARGIN_MM, held.first)
    high = np.minimum(points.max(0) + MARGIN_MM, held.last)
    axes = [
        torch.arange(a, b + 1e-3, s, device=device) for a, b, s in zip(low, high, spacing_mm, strict=True)
    ]
    sample = held.sample(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).float())
    organs = {}
    for name in case.known:
        truth, counted = (values[0, ORGANS.index(name)] > 0.5 for values in (sample.organs, sample.weights))
        organs[name] = (truth.cpu().numpy(), counted.cpu().numpy())
    return ValidationCase(case.name, sample.image[0], organs, spacing_mm)
