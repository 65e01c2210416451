"""One TOML file says everything about a training run; unknown keys are refused."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from model.structures import EXTRA_STRUCTURES, STRUCTURES
from model.unet import UNetConfig

#: Organ i is output channel i of the network and bit i of every label mask: the 21 and the two learned beside.
ORGANS: tuple[str, ...] = tuple(organ.name for organ in (*STRUCTURES, *EXTRA_STRUCTURES))


T = TypeVar("T")


class ConfigurationError(Exception):
    """The training configuration cannot be used; the message says which key and why."""


@dataclass(frozen=True)
class DataConfig:
    """Which packs are trained on, how often each group is drawn, and what is kept for measuring."""

    packs: tuple[str, ...]
    group_weights: dict[str, float]  # how often a case of this group is drawn
    validation_packs: tuple[str, ...] = ()


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentation; lengths in mm, angles in degrees, intensities in HU."""

    rotation_degrees: float = 9.0
    scale: tuple[float, float] = (0.8, 1.2)
    shear: float = 0.1
    mirror: float = 0.5  # probability; left and right labels are swapped with the image
    elastic_grid_mm: float = 100.0
    elastic_sigma_mm: float = 5.0
    middle_sigma_mm: float = 10.0  # error of the body's middle, from which the lateral channel counts
    shift_hu: float = 25.0
    contrast: float = 0.1
    noise_hu: float = 25.0
    blur_mm: float = 2.0
    thick_slices: float = 0.15  # probability of neighbouring slices being averaged
    field_of_view: float = 0.1  # probability of a circular or rectangular cut


@dataclass(frozen=True)
class OptimiserConfig:
    """The schedule: linear warm-up, then a cosine to zero at the last step."""

    steps: int
    batch: int = 1
    learning_rate: float = 6e-4
    weight_decay: float = 1e-2
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.998
    hardest: float = 0.1  # the share of voxels in the top-k cross-entropy
    dice: float = 1.0  # weight of the Dice term beside the cross-entropy


@dataclass(frozen=True)
class CardConfig:
    """Sentences for the model card that no measurement can supply."""

    training_data: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    attribution: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """A training run."""

    name: str
    version: str
    data: DataConfig
    optimiser: OptimiserConfig
    network: UNetConfig
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    card: CardConfig = field(default_factory=CardConfig)
    spacing_mm: tuple[float, float, float] = (2.5, 2.0, 2.0)
    resolution_mm: float = (
        4.0  # in-plane; finer images are smoothed to it, because the training images are so
    )
    patch: tuple[int, int, int] = (64, 96, 96)
    seed: int = 1
    begin_with: str = ""  # a bundle whose weights the first step starts from; empty: random weights
    threads: int = 0  # 0: as many as torch finds


def load_config(path: Path) -> TrainConfig:
    """Read a run's configuration, or raise `ConfigurationError` naming the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    network = {"outputs": len(ORGANS), **table.pop("network", {})}
    sections = {
        "data": _build(DataConfig, table.pop("data", {}), "data"),
        "optimiser": _build(OptimiserConfig, table.pop("optimiser", {}), "optimiser"),
        "card": _build(CardConfig, table.pop("card", {}), "card"),
        "augment": _build(AugmentConfig, table.pop("augment", {}), "augment"),
        "network": _build(UNetConfig, network, "network"),
    }
    config = _build(TrainConfig, {**table, **sections}, "")
    for side, multiple in zip(config.patch, config.network.multiple, strict=True):
        if side % multiple:
            raise ConfigurationError(f"patch: {config.patch} must be multiples of {config.network.multiple}")
    return config


def _build(kind: type[T], table: dict[str, Any], section: str) -> T:
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(table) - fields)
    if unknown:
        raise ConfigurationError(f"[{section}] has unknown keys: {', '.join(unknown)}")
    try:
        return kind(**{key: _tuples(value) for key, value in table.items()})
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"[{section}] {error}") from error


def _tuples(value: Any) -> Any:  # noqa: ANN401 - TOML values
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
