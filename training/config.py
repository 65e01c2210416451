"""One TOML file says everything about a training run; unknown keys are refused."""

import dataclasses
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from model.network_input import Preprocessing
from model.structures import EXTRA_STRUCTURES, OTHER_PROTOCOLS, STRUCTURES
from model.unet import UNetConfig

#: Organ i is output channel i of the network and bit i of every label mask: the 21, and those learned beside.
ORGANS: tuple[str, ...] = tuple(organ.name for organ in STRUCTURES + EXTRA_STRUCTURES + OTHER_PROTOCOLS)


T = TypeVar("T")


class ConfigurationError(Exception):
    """The training configuration cannot be used; the message says which key and why."""


def _require(**is_right: bool) -> None:
    """Refuse values by their key."""
    if wrong := [key for key, right in is_right.items() if not right]:
        raise ValueError(f"{', '.join(wrong)}: out of range")


@dataclass(frozen=True)
class DataConfig:
    """Which packs are trained on, how often each group is drawn, and what is kept for measuring."""

    packs: tuple[str, ...]  # a name may hold wildcards, as prepare splits what is large
    group_weights: dict[str, float]  # how often a case of this group is drawn
    untaught: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Organs that are drawn by another protocol in this group: its truth of them is not taught."""
    organ_weights: dict[str, float] = field(default_factory=dict)
    """How much likelier a case is drawn that knows this organ: few do of some."""
    validation_packs: tuple[str, ...] = ()
    foreground: float = 0.75  # share of patches that are drawn about a random organ, the others anywhere

    def __post_init__(self) -> None:
        """Refuse organs that do not exist."""
        untaught = {organ for organs in self.untaught.values() for organ in organs}
        for key, named in (("untaught", untaught), ("organ_weights", set(self.organ_weights))):
            if unknown := named - set(ORGANS):
                raise ValueError(f"{key}: no organ is named {', '.join(sorted(unknown))}")
        weights = self.group_weights.values()
        _require(
            group_weights=min(weights, default=0) >= 0 and sum(weights) > 0,
            organ_weights=min(self.organ_weights.values(), default=1) > 0,
            foreground=0 <= self.foreground <= 1,
        )

    @property
    def pack_files(self) -> list[Path]:
        """Those that are trained on."""
        return _files(self.packs)

    @property
    def validation_files(self) -> list[Path]:
        """Those that are measured."""
        return _files(self.validation_packs)


def _files(names: Sequence[str]) -> list[Path]:
    """Files by name; one that matches nothing stays, to be missed by its name."""
    paths = map(Path, names)
    return [file for path in paths for file in sorted(path.parent.glob(path.name)) or [path]]


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the augmentation; lengths in mm, angles in degrees, intensities in HU."""

    enabled: bool = True
    rotation_degrees: float = 9.0
    scale: tuple[float, float] = (0.8, 1.2)
    shear: float = 0.1
    mirror: float = 0.5  # probability; left and right labels are swapped with the image
    mirror_swap: bool = True  # false only to measure what the swap is worth
    elastic_grid_mm: float = 100.0
    elastic_sigma_mm: float = 5.0
    middle_sigma_mm: float = 10.0  # error of the body's middle, from which the lateral channel counts
    shift_hu: float = 25.0
    contrast: float = 0.1
    noise_hu: float = 25.0
    blur_mm: float = 2.0
    thick_slices: float = 0.15  # probability of neighbouring slices being averaged
    field_of_view: float = 0.1  # probability of a circular cut
    metal: float = 0.0  # probability of dental metal with its streaks
    couch: float = 0.0  # probability of a table top behind the patient
    low_resolution: float = 0.0  # probability of an image sampled up to twice as coarsely
    gamma: float = 0.0  # HU above air are raised to a power between 1 / (1 + gamma) and 1 + gamma

    def __post_init__(self) -> None:
        """Refuse what is no probability, no size or no spread."""
        low, high = self.scale
        chances = ("mirror", "thick_slices", "field_of_view", "metal", "couch", "low_resolution")
        spreads = (
            "rotation_degrees", "shear", "elastic_sigma_mm", "middle_sigma_mm", "shift_hu", "noise_hu", "blur_mm",
            "gamma",
        )  # fmt: skip
        _require(
            **{key: 0 <= getattr(self, key) <= 1 for key in chances},
            **{key: getattr(self, key) >= 0 for key in spreads},
            scale=0 < low <= high,
            contrast=0 <= self.contrast < 1,
            elastic_grid_mm=self.elastic_grid_mm > 0,
        )


HARDEST_BY = ("size", "presence", "share")
"""Of which voxels the top-k cross-entropy counts how many.

share: of every organ a share, however small it is.
size: of an organ that is there no more than befits its size (`training.losses.HARDEST_PER_ORGAN_VOXEL`).
presence: of one that is absent, as most are in most patches, a few hundred alone.
"""


@dataclass(frozen=True)
class OptimiserConfig:
    """The schedule: linear warm-up, then a cosine (or a polynomial of power 0.9) to zero at the last step."""

    steps: int
    batch: int = 1
    learning_rate: float = 6e-4
    weight_decay: float = 1e-2
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.998
    hardest: float = 0.1  # the share of voxels in the top-k cross-entropy
    hardest_by: str = "size"  # one of HARDEST_BY
    dice: float = 1.0  # weight of the Dice term beside the cross-entropy
    schedule: str = "cosine"  # or "poly"
    precision: str = "bfloat16"  # of the network's arithmetic; or "float32"

    def __post_init__(self) -> None:
        """Refuse words that nothing stands for, and numbers with which nothing can be learned."""
        for key, words in (
            ("schedule", ("cosine", "poly")),
            ("precision", ("bfloat16", "float32")),
            ("hardest_by", HARDEST_BY),
        ):
            if getattr(self, key) not in words:
                raise ValueError(f"{key}: {getattr(self, key)!r} is neither {' nor '.join(words)}")
        _require(
            steps=self.steps >= 1,
            batch=self.batch >= 1,
            learning_rate=self.learning_rate > 0,
            weight_decay=self.weight_decay >= 0,
            warmup=self.warmup >= 0,
            clip=self.clip > 0,
            ema=0 <= self.ema < 1,
            hardest=0 < self.hardest <= 1,
            dice=self.dice >= 0,
        )


@dataclass(frozen=True)
class ValidationConfig:
    """How often a few validation cases are segmented during training; the best weights are kept."""

    every: int = 0  # steps; 0: never
    cases: int = 4  # evenly chosen from the validation packs

    def __post_init__(self) -> None:
        """Refuse to look on no case, or before the first step."""
        _require(every=self.every >= 0, cases=self.cases >= 1)


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
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    card: CardConfig = field(default_factory=CardConfig)
    spacing_mm: tuple[float, float, float] = (2.5, 2.0, 2.0)
    resolution_mm: float = (
        4.0  # in-plane; finer images are smoothed to it, because the training images are so
    )
    patch: tuple[int, int, int] = (64, 96, 96)
    seed: int = 1
    begin_with: str = ""  # a bundle whose weights the first step starts from; empty: random weights
    threads: int = 0  # 0: as many as torch finds

    def __post_init__(self) -> None:
        """Refuse lengths that are none, and a network that has not one output for each organ."""
        _require(
            spacing_mm=min(self.spacing_mm) > 0,
            resolution_mm=self.resolution_mm > 0,
            patch=min(self.patch) > 0,
            seed=self.seed >= 0,
            threads=self.threads >= 0,
        )
        if self.network.outputs != len(ORGANS):
            raise ValueError(f"network.outputs: leave it out; there are {len(ORGANS)} organs")
        if not self.data.packs:
            raise ValueError("data.packs: none is named; training.prepare writes them")

    @property
    def preprocessing(self) -> Preprocessing:
        """How an image is brought to the network, in training as in use."""
        return Preprocessing(self.spacing_mm, self.resolution_mm)


def load_config(path: Path, changes: Sequence[str] = ()) -> TrainConfig:
    """Read a run's configuration, or raise `ConfigurationError` naming the key.

    Parameters
    ----------
    changes
        Lines of TOML with dotted keys that are applied over the file, such as `optimiser.steps=1`.
    """
    table = read_table(path)
    for change in changes:
        try:
            table = merged(table, tomllib.loads(change))
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{change!r} is not KEY=VALUE in TOML: {error}") from error
    return build_config(table)


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file as it stands."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def merged(table: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A table with the values of another laid over it, section by section."""
    both = dict(table)
    for key, value in change.items():
        inner = both.get(key)
        both[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both


SECTIONS: dict[str, type[Any]] = {
    "data": DataConfig,
    "optimiser": OptimiserConfig,
    "validation": ValidationConfig,
    "card": CardConfig,
    "augment": AugmentConfig,
    "network": UNetConfig,
}


def build_config(table: dict[str, Any]) -> TrainConfig:
    """A run's configuration from its table, or `ConfigurationError` naming the key."""
    table = merged({"network": {"outputs": len(ORGANS)}}, table)
    for name in SECTIONS:
        if not isinstance(table.get(name, {}), dict):
            raise ConfigurationError(f"{name} is a section: write its keys below [{name}]")
    sections = {name: _build(kind, table.get(name, {}), name) for name, kind in SECTIONS.items()}
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
    values = {key: _tuples(value) for key, value in table.items()}
    kinds = get_type_hints(kind)
    for key, value in values.items():
        if not _is(value, kinds[key]):
            raise ConfigurationError(f"[{section}] {key}: {value!r} is no {_words(kinds[key])}")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"[{section}] {error}") from error


def _is(value: Any, kind: Any) -> bool:  # noqa: ANN401 - TOML values, and the types of fields
    """Whether a value is of a field's type; whole numbers are numbers too, true and false are not."""
    of = get_args(kind)
    if get_origin(kind) is tuple:
        parts = of[:1] * len(value) if isinstance(value, tuple) and of[-1] is ... else of
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_is, value, parts))
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is(each, of[1]) for each in value.values())
    if kind in {int, float}:
        return isinstance(value, (int, kind)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: Any) -> str:  # noqa: ANN401 - the type of a field
    """A field's type for people."""
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)


def _tuples(value: Any) -> Any:  # noqa: ANN401 - TOML values
    """Lists as tuples, all the way down."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
