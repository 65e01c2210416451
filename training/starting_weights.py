"""The network as the first step finds it: random, or from an earlier bundle, whatever outputs that had."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from model.bundle import Bundle
from model.structures import unqualified
from model.unet import UNet3D
from training.config import ORGANS, ConfigurationError, TrainConfig

HEAD = ("head.weight", "head.bias")
"""The last layer, whose rows are outputs and, within each, the voxels of a fold."""


def starting_network(config: TrainConfig) -> UNet3D:
    """The network as the first step finds it: random, or with the weights of an earlier bundle.

    Raises
    ------
    BundleError
        `begin_with` names no bundle.
    ConfigurationError
        Its network is another.
    """
    network = UNet3D(config.network)
    if config.begin_with:
        bundle = Bundle.load(Path(config.begin_with))
        _require_same_network(bundle, config)
        earlier, names = bundle.network.state_dict(), outputs_of(bundle)
        try:
            heads = {key: _placed(earlier[key], names, network.state_dict()[key]) for key in HEAD}
            network.load_state_dict(earlier | heads)
        except RuntimeError as error:
            raise ConfigurationError(
                f"begin_with: {config.begin_with} holds another [network]: {error}"
            ) from error
    return network


def _require_same_network(bundle: Bundle, config: TrainConfig) -> None:
    """Refuse weights that would fit and mean something else: of other windows, folded or strided otherwise."""
    earlier = asdict(bundle.network.config) if isinstance(bundle.network, UNet3D) else {}
    wanted = asdict(config.network) | {"outputs": earlier.get("outputs")}
    if other := [key for key, value in wanted.items() if earlier.get(key) != value]:
        raise ConfigurationError(
            f"begin_with: {config.begin_with} holds another [network]: its {', '.join(other)} differ; "
            "set them as in its model.json"
        )


def outputs_of(bundle: Bundle) -> tuple[str, ...]:
    """What each output of a bundle's network draws; of those not offered, bundles did not always say so."""
    outputs = bundle.network.config.outputs if isinstance(bundle.network, UNet3D) else 0
    is_silent = len(bundle.output_names) < outputs
    if is_silent and bundle.structure_names == ORGANS[: len(bundle.structure_names)]:
        return ORGANS[:outputs]
    return bundle.output_names


def _placed(head: Tensor, names: Sequence[str], new: Tensor) -> Tensor:
    """The head of a network with an output for each of `ORGANS`, from one that has those of `names`.

    An organ by another protocol that was not taught yet begins as the organ itself, others as in `new`.
    """
    rows = head.unflatten(0, (len(names), -1))
    placed = new.clone().unflatten(0, (len(ORGANS), -1))
    for place, organ in enumerate(ORGANS):
        source = organ if organ in names else unqualified(organ)
        if source in names:
            placed[place] = rows[names.index(source)]
    flat: Tensor = placed.flatten(0, 1)
    return flat
