"""Predict a volume tile by tile, blended with Gaussian weights. torch only.

Logits are blended, as nnU-Net and MONAI do, and by nnU-Net's weights. Their sums are kept in fixed point: two
bytes for an organ and voxel, and the same sum in whatever order tiles are done.
"""

import itertools
import math
import threading
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.all_tiles import each_tile
from model.arranged import ABSENT_LOGIT, Arranged
from model.unet import Triple

SOLID_HU = -400.0
"""Denser than this is patient, couch or clothing: no air, no lung."""
SOLID_STEP = 2
"""Solid things are looked for on every second row and column, and must be three of these thick."""
MARGIN = 4
"""Voxels that tiles reach beyond what is solid, where the image does: at its edge a tile sees too little."""

OVERLAP = 0.4
"""Share of a tile that its neighbour covers too; less is quicker and costs accuracy (docs/weights.md)."""

STEPS_PER_LOGIT = 1024
"""Of the fixed point in which logits are summed."""
HIGHEST_LOGIT = ABSENT_LOGIT + 31.0
"""So that sums fit in 16 bits; a probability of one, but for 4e-11."""


def predict(
    network: nn.Module,
    image: Tensor,
    tile: Triple,
    outputs: int,
    *,
    overlap: float = OVERLAP,
    everywhere: bool = False,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Probability of every organ.

    Parameters
    ----------
    network
        (1, C, D, H, W) to (1, at least `outputs`, D, H, W) logits; lies on the device of `image`.
    image
        (C, D, H, W), of which the first channel is HU.
    tile
        Sides of a tile; a volume smaller than the tile is padded with air.
    outputs
        How many of the network's channels are kept, from the first.
    overlap
        Share of a tile that its neighbour covers too.
    everywhere
        Spreads tiles over the whole volume, as nnU-Net does. By default those of each level cover what is solid
        there: a head needs fewer than the shoulders below it.
    dtype
        Precision of the network's arithmetic.
    progress
        Called with the share of tiles done.

    Returns
    -------
    Tensor
        (outputs, D, H, W) float16 on the CPU: at most 2 bytes per organ and voxel of the network's grid.
    """
    C, D, H, W = image.shape
    d, h, w = (max(0, side - length) for side, length in zip(tile, (D, H, W), strict=True))
    air = [-1024.0, *[0.0] * (C - 1)]
    padded = torch.stack(
        [F.pad(channel, (0, w, 0, h, 0, d), value=v) for channel, v in zip(image, air, strict=True)]
    )
    shape = padded.shape[1:]
    solid = _solid(padded[0]).cpu()
    boxes = _tiles(torch.ones_like(solid) if everywhere else solid, shape, tile, overlap)
    weight = gaussian(tile).to(image.device)
    total = torch.zeros(shape, device=image.device)
    for box in boxes:
        total[box] += weight
    boxes = [box for box in boxes if bool(solid[_coarse(box)].any())]
    with torch.inference_mode():
        arranged = Arranged(network, outputs, dtype)
        inputs = arranged.prepare(padded)
        sums = torch.zeros((outputs, *shape), dtype=torch.int16, device=image.device)
    turn = threading.Lock()

    def add(box: tuple[slice, ...]) -> None:
        with torch.inference_mode():
            steps = weight / total[box] * STEPS_PER_LOGIT
            for organs, logits in arranged.logits(inputs[(slice(None), *box)]):
                above = logits.float().clamp(ABSENT_LOGIT, HIGHEST_LOGIT).sub_(ABSENT_LOGIT)
                rounded = above.mul_(steps).round_().to(torch.int16)
                with turn:
                    sums[(organs, *box)] += rounded

    for done, _ in enumerate(each_tile(add, boxes, image.device)):
        if progress is not None:
            progress((done + 1) / len(boxes))
    return _probabilities(sums)[:, :D, :H, :W].cpu()


def _probabilities(sums: Tensor) -> Tensor:
    """Sums of logits (organs, D, H, W) to float16 in the same memory; 0 where an organ is absent."""
    probabilities = sums.view(torch.float16)
    for organ, found in zip(sums, probabilities, strict=True):
        logits = organ.float().div_(STEPS_PER_LOGIT).add_(ABSENT_LOGIT)
        found.copy_(logits.sigmoid_().mul_(organ > 0))
    return probabilities


def _solid(hu: Tensor) -> Tensor:
    """Where an image (D, H, W) is solid and not thin as a couch or a mask: (D, H / step, W / step).

    Whatever holds no such place holds no organ.
    """
    dense = (hu[:, None, ::SOLID_STEP, ::SOLID_STEP] > SOLID_HU).float()
    return (F.max_pool2d(1 - dense, 3, 1, 1)[:, 0]) == 0


def _coarse(box: tuple[slice, ...]) -> tuple[slice, ...]:
    slices, *sides = box
    return slices, *(slice(side.start // SOLID_STEP, -(-side.stop // SOLID_STEP)) for side in sides)


def gaussian(tile: Triple) -> Tensor:
    """Weights (D, H, W) that fall from 1 at the middle voxel; a standard deviation is an eighth of the side."""
    sides = [torch.exp(-0.5 * ((torch.arange(n) - n // 2) / (n / 8)) ** 2) for n in tile]
    return sides[0][:, None, None] * sides[1][None, :, None] * sides[2][None, None, :]


def _tiles(wanted: Tensor, shape: torch.Size, tile: Triple, overlap: float) -> list[tuple[slice, ...]]:
    """Tiles that cover what is wanted (D, H / step, W / step): a rectangle of them at each level of the slices."""
    boxes = []
    for first in _starts(0, shape[0], tile[0], overlap):
        level = wanted[first : first + tile[0]].any(0)
        rows = _covering(level.any(1), shape[1], tile[1], overlap)
        columns = _covering(level.any(0), shape[2], tile[2], overlap)
        boxes += [_box((first, *corner), tile) for corner in itertools.product(rows, columns)]
    return boxes


def _covering(wanted: Tensor, length: int, side: int, overlap: float) -> list[int]:
    """First index of every tile along an axis that covers what is wanted (length / step) with a margin."""
    places = wanted.nonzero()
    if not len(places):
        return []
    low = max(0, int(places[0]) * SOLID_STEP - MARGIN)
    high = min(length, (int(places[-1]) + 1) * SOLID_STEP + MARGIN)
    if high - low < side:
        low = min(max(0, (low + high - side) // 2), length - side)
        high = low + side
    return _starts(low, high, side, overlap)


def _starts(low: int, high: int, side: int, overlap: float) -> list[int]:
    """First index of every tile along an axis: evenly spread, the first at the low end, the last at the high."""
    length = high - low - side
    count = math.ceil(length / (side * (1 - overlap))) + 1
    return [low + round(index * length / max(1, count - 1)) for index in range(count)]


def _box(corner: tuple[int, ...], tile: Triple) -> tuple[slice, ...]:
    return tuple(slice(start, start + side) for start, side in zip(corner, tile, strict=True))
