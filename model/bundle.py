"""A model on disk: `model.json`, which says everything about it, and `weights.safetensors`. Tensors only.

Beside them may stand `reference.json`, the usual sizes and places of organs; `model.json` names both digests.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from model.errors import BundleError
from model.network_input import Preprocessing
from model.reference_ranges import ReferenceRanges
from model.structures import structure
from model.unet import Triple, UNet3D, UNetConfig

DEFAULT_BUNDLE = Path(__file__).with_name("weights")
FORMAT = 1

_MISDESCRIBED = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a description that is JSON and no bundle's raises wherever it is used."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A network ready to predict, and what it was made for.

    Parameters
    ----------
    digest
        SHA-256 of the weights file, hexadecimal.
    structure_names
        The structures that are offered: the first of the network's outputs.
    output_names
        All that the network was taught, in the order of its outputs; what is not offered can be measured.
    tile
        (D, H, W) the size on which the network was trained, and on which it predicts.
    card
        What the bundle's author says of training data, licence and accuracy.
    reference_ranges
        By which results are judged; None in a bundle without them.
    """

    name: str
    version: str
    digest: str
    structure_names: tuple[str, ...]
    network: nn.Module
    preprocessing: Preprocessing
    tile: Triple
    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reference_ranges: ReferenceRanges | None = None
    output_names: tuple[str, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a bundle; `BundleError` says what is missing, changed or does not fit."""
        about = _read_json(folder / "model.json")
        weights = _read_bytes(folder / "weights.safetensors")
        try:
            digest = _checked_digest(weights, about["weights_sha256"], folder / "weights.safetensors")
            config = UNetConfig(**{key: _tuples(value) for key, value in about["network"].items()})
            preprocessing = _preprocessing(about["preprocessing"])
            names = tuple(structure(name).name for name in about["structures"])
            bundle = cls(
                name=str(about["name"]),
                version=str(about["version"]),
                digest=digest,
                structure_names=names,
                network=_network(config, weights, folder),
                preprocessing=preprocessing,
                tile=_tile(about["tile"], config),
                card=about.get("card", {}),
                reference_ranges=_reference_ranges(about, folder / "reference.json"),
                output_names=tuple(structure(name).name for name in about.get("outputs", names)),
            )
        except _MISDESCRIBED as error:
            raise BundleError(f"{folder / 'model.json'} does not describe a bundle: {error!r}") from error
        if not bundle.output_names or len(names) > config.outputs:
            raise BundleError(
                f"{folder}: {len(names)} structures, but the network has {config.outputs} outputs"
            )
        for several in (names, bundle.output_names):
            if len(set(several)) < len(several):
                raise BundleError(f"{folder}: a structure stands twice among {', '.join(several)}")
        if bundle.output_names[: len(names)] != names or len(bundle.output_names) > config.outputs:
            raise BundleError(f"{folder}: the structures are not the first of the network's outputs")
        return bundle


def write_bundle(
    folder: Path,
    network: UNet3D,
    *,
    name: str,
    version: str,
    structure_names: tuple[str, ...],
    preprocessing: Preprocessing,
    tile: Triple,
    card: Mapping[str, Any],
    output_names: tuple[str, ...] = (),
) -> str:
    """Write a bundle with weights in half precision; returns the digest.

    Over a bundle of the same weights, the accuracy that was measured of them and their reference ranges stay.

    Raises
    ------
    BundleError
        Weights that are not finite in half precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.half().contiguous().cpu() for key, value in network.state_dict().items()}
    if not all_finite(tensors):
        raise BundleError("the weights hold values that are not finite; nothing was written")
    weights = save(tensors)
    (folder / "weights.safetensors").write_bytes(weights)  # safetensors itself would let nobody else read it
    digest = hashlib.sha256(weights).hexdigest()
    about = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "weights_sha256": digest,
        "structures": structure_names,
        "outputs": output_names or structure_names,
        "network": dataclasses.asdict(network.config),
        "preprocessing": dataclasses.asdict(preprocessing),
        "tile": tile,
        "card": card,
    }
    write_description(folder, about | _measured_of(folder, digest, card))
    return digest


def _measured_of(folder: Path, digest: str, card: Mapping[str, Any]) -> dict[str, Any]:
    """What the description in a folder says that was measured of these weights, if it is theirs."""
    try:
        earlier = _read_json(folder / "model.json")
    except BundleError:
        return {}
    if earlier.get("weights_sha256") != digest:
        return {}
    kept = {key: earlier[key] for key in ("reference_sha256",) if key in earlier}
    accuracy = earlier.get("card", {}).get("accuracy")
    return kept | ({"card": {**card, "accuracy": accuracy}} if accuracy else {})


def write_description(folder: Path, about: Mapping[str, Any]) -> None:
    """Replace a bundle's `model.json` at once."""
    _description(folder, about).replace(folder / "model.json")


def _description(folder: Path, about: Mapping[str, Any]) -> Path:
    return _part(folder / "model.json", (json.dumps(about, indent=1) + "\n").encode())


def _part(path: Path, content: bytes) -> Path:
    """Write a file's content beside it."""
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    return part


def add_reference_ranges(folder: Path, ranges: ReferenceRanges) -> None:
    """Put ranges beside a bundle's weights, in place of any that are there.

    Of the two files, `model.json` is replaced last and at once: a bundle that was interrupted does not load.

    Raises
    ------
    BundleError
        There is no bundle in the folder.
    """
    about = _read_json(folder / "model.json")
    text = ranges.to_json().encode()
    about["reference_sha256"] = hashlib.sha256(text).hexdigest()
    parts = [_part(folder / "reference.json", text), _description(folder, about)]
    for part in parts:  # what is written has room: a full disk leaves the bundle as it was
        part.replace(part.with_suffix(""))


def _reference_ranges(about: Mapping[str, Any], path: Path) -> ReferenceRanges | None:
    """Ranges that `model.json` names; a file that it does not name is not read."""
    expected = about.get("reference_sha256")
    if expected is None:
        return None
    text = _read_bytes(path)
    _checked_digest(text, expected, path)
    return ReferenceRanges.from_json(text)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(_read_bytes(path))
    except (RecursionError, ValueError) as error:
        raise BundleError(f"{path} is not JSON: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise BundleError(f"{path}: this version reads bundles of format {FORMAT}")
    return about


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from error


def _checked_digest(content: bytes, expected: str, path: Path) -> str:
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected:
        raise BundleError(
            f"{path} was changed: its SHA-256 is {digest}, model.json says {expected}; copy the bundle again"
        )
    return digest


def _network(config: UNetConfig, weights: bytes, folder: Path) -> UNet3D:
    try:
        tensors: dict[str, Tensor] = load(weights)
    except SafetensorError as error:
        raise BundleError(f"{folder / 'weights.safetensors'} is not a safetensors file: {error}") from error
    try:
        network = _unfilled(config, len(tensors))
        network.load_state_dict(
            {key: value.float() for key, value in tensors.items()}, strict=True, assign=True
        )
    except RuntimeError as error:
        raise BundleError(f"{folder}: weights and network do not fit: {error}") from error
    if not all_finite(tensors):
        raise BundleError(f"{folder / 'weights.safetensors'} holds values that are not finite")
    return network.eval()


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether every weight is a number."""
    return all(bool(torch.isfinite(value).all()) for value in tensors.values())


def _unfilled(config: UNetConfig, tensors: int) -> UNet3D:
    """The network without memory for its weights, whatever sizes are asked for: those in the file are put in."""
    if sum(config.blocks) > tensors:
        raise ValueError(f"{sum(config.blocks)} blocks, but the file holds {tensors} tensors")
    with torch.device("meta"):
        return UNet3D(config)


def _preprocessing(values: Mapping[str, Any]) -> Preprocessing:
    found = Preprocessing(**{key: _tuples(value) for key, value in values.items()})
    depth, height, width = found.spacing_mm
    if not all(math.isfinite(mm) and mm > 0 for mm in (depth, height, width, found.resolution_mm)):
        raise ValueError(f"spacing {found.spacing_mm} and resolution {found.resolution_mm} mm")
    return found


def _tile(sides: list[int], config: UNetConfig) -> Triple:
    depth, height, width = sides
    if any(side <= 0 or side % step for side, step in zip(sides, config.multiple, strict=True)):
        raise ValueError(f"tile {sides} is no multiple of {config.multiple}, which the network needs")
    return depth, height, width


def _tuples(value: Any) -> Any:  # noqa: ANN401 - JSON values
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
