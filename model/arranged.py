"""A network arranged for prediction: the layers of `model.unet` in the precision and layout that are fastest.

Convolutions are computed with all channels of a voxel beside each other; any other layout is rearranged before
and after every layer, which took as long as the layers.

On a CPU, bfloat16 is kept to where it saves time: below the finest level. At the finest, where memory is the limit
and most of the rounding that a mask would show comes about, and on the last steps up to it, layers are computed in
float32; so masks are those of float32 in all but a few voxels in a hundred thousand.
"""

import copy
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from model.convolution import ChannelByChannel, for_prediction
from model.unet import UNet3D, fold, unfold

ABSENT_LOGIT = -7.0
"""An organ that is nowhere in a tile likelier than one in a thousand is not there."""
FINE_STEPS_UP = 2
"""How many of the last steps on the way up are computed in float32."""


class Arranged:
    """A network that predicts one tile at a time.

    Parameters
    ----------
    network
        A `UNet3D` is copied and arranged; any other module, (1, C, D, H, W) to (1, at least `outputs`, D, H, W)
        logits, is called as it is.
    outputs
        How many of its channels are wanted, from the first.
    dtype
        Precision of the convolutions, on a CPU of the coarser levels only; sums of instance normalisation are
        always taken in float32.
    """

    def __init__(self, network: nn.Module, outputs: int, dtype: torch.dtype) -> None:
        self._outputs = outputs
        self._dtype = dtype
        self._plain = network
        self._layers = _arranged(network, outputs, dtype) if isinstance(network, UNet3D) else None

    def prepare(self, image: Tensor) -> Tensor:
        """(C, D, H, W) to that from which tiles are cut, (C', D, H, W) of equal sides."""
        if self._layers is None:
            return image
        return self._layers.normalised(image[None])[0].to(self._layers.stem.weight.dtype)

    def logits(self, tile: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Organs and their logits (n, D, H, W) in a tile (C', D, H, W) of a prepared image.

        Organs that are nowhere in it may be left out.
        """
        if self._layers is None:
            with torch.autocast(tile.device.type, self._dtype, enabled=self._dtype != torch.float32):
                yield slice(0, self._outputs), self._plain(tile[None])[0, : self._outputs]
            return
        factors = self._layers.config.fold
        folded = fold(tile[None], factors).contiguous(memory_format=torch.channels_last_3d)
        logits = self._layers.folded_logits(folded)
        for organs in self._likely(logits):
            channels = slice(organs.start * math.prod(factors), organs.stop * math.prod(factors))
            yield organs, unfold(logits[:, channels], factors)[0]

    def _likely(self, logits: Tensor) -> list[slice]:
        """Organs that may be somewhere in a tile; on a GPU all at once, as to ask would take longer."""
        if logits.device.type != "cpu":
            return [slice(0, self._outputs)]
        greatest = logits.view(self._outputs, -1).amax(dim=1)
        return [slice(n, n + 1) for n, logit in enumerate(greatest.tolist()) if logit > ABSENT_LOGIT]


def _arranged(network: UNet3D, outputs: int, dtype: torch.dtype) -> UNet3D:
    layers = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    fine = _fine(layers) if layers.head.weight.device.type == "cpu" else frozenset()
    for parent in list(layers.modules()):
        for name, child in list(parent.named_children()):
            precision = torch.float32 if child in fine else dtype
            if child is layers.head:
                kept = outputs * math.prod(network.config.fold)
                setattr(parent, name, ChannelByChannel(layers.head, kept, precision))
            elif isinstance(child, nn.Conv3d | nn.ConvTranspose3d):
                setattr(parent, name, for_prediction(child, precision))
    return layers


def _fine(layers: UNet3D) -> frozenset[nn.Module]:
    """All that is computed in float32."""
    parts = (
        layers.stem,
        layers.down[0],
        *layers.unpool[-FINE_STEPS_UP:],
        *layers.up[-FINE_STEPS_UP:],
        layers.head,
    )
    return frozenset(layer for part in parts for layer in part.modules())
