"""What the network is told: top-k cross-entropy as in the paper, and Dice, both blind to what is not known."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

HARDEST_PER_ORGAN_VOXEL = 20
HARDEST_AT_LEAST = 200
"""A lens fills 20 of 300,000 voxels: among a tenth of them it would weigh nothing. So the hardest voxels that
count are no more than this many for each voxel of the organ, and this many beside them."""


class Terms(NamedTuple):
    """Both terms as sums and counts, so that processes that share a batch can divide by the whole batch's counts.

    Each is a scalar: the sum over known organs of the cross-entropy and how many they are, the sum over present
    organs of 1 - Dice and how many they are.
    """

    entropy: Tensor
    known: Tensor
    overlap: Tensor
    present: Tensor


def segmentation_loss(
    logits: Tensor, organs: Tensor, weights: Tensor, hardest: float, dice: float, by: str = "size"
) -> tuple[Tensor, Tensor]:
    """Cross-entropy, and Dice term weighted by `dice`; parameters as in `segmentation_terms`."""
    terms = segmentation_terms(logits, organs, weights, hardest, by)
    return terms.entropy / terms.known.clamp_min(1), dice * terms.overlap / terms.present.clamp_min(1)


def segmentation_terms(
    logits: Tensor, organs: Tensor, weights: Tensor, hardest: float, by: str = "size"
) -> Terms:
    """Loss over known voxels only, each organ of each patch for itself; no gradient where the weight is zero.

    Parameters
    ----------
    logits, organs, weights
        (B, C, D, H, W); organs in [0, 1]; weights 1 where the organ's truth is known, else 0.
    hardest
        The largest share of each organ's known voxels, those with the highest cross-entropy, that counts.
    by
        One of `HARDEST_BY`.
    """
    entropies, losses = [], []
    for patch in range(len(logits)):
        known = weights[patch].flatten(1).amax(1) > 0
        if not bool(known.any()):
            continue
        truth, counted = organs[patch, known].flatten(1), weights[patch, known].flatten(1)  # (K, N)
        predicted = logits[patch, known].float().flatten(1)
        entropy = F.binary_cross_entropy_with_logits(predicted, truth, reduction="none") * counted
        entropies.append(_hardest_mean(entropy, truth, counted, hardest, by))
        there = truth * counted
        overlap = _soft_dice(predicted.sigmoid() * counted, there)
        losses.append(1 - overlap[there.amax(1) > 0.5])
    nothing = logits.sum()[None].float() * 0
    entropy, overlap = torch.cat([nothing, *entropies]), torch.cat([nothing, *losses])
    counts = [torch.tensor(float(len(values) - 1), device=logits.device) for values in (entropy, overlap)]
    return Terms(entropy.sum(), counts[0], overlap.sum(), counts[1])


def hardest_counts(truth: Tensor, weights: Tensor, share: float, by: str = "size") -> Tensor:
    """How many of the hardest voxels count: (K, N) twice to (K) whole numbers, at least one."""
    count = share * weights.sum(1)
    if by != "share":
        size = (truth * weights).sum(1)
        enough = torch.minimum(count, HARDEST_AT_LEAST + HARDEST_PER_ORGAN_VOXEL * size)
        count = enough if by == "presence" else torch.where(size > 0.5, enough, count)
    return count.clamp_min(1).long()


def _hardest_mean(entropy: Tensor, truth: Tensor, weights: Tensor, share: float, by: str) -> Tensor:
    """(K, N) to (K): mean of the hardest voxels among the known; entropy is zero where nothing is known."""
    count = hardest_counts(truth, weights, share, by)[:, None]
    hardest = entropy.topk(int(count.max()), dim=1).values
    rank = torch.arange(hardest.shape[1], device=hardest.device)
    return (hardest * (rank < count)).sum(1) / count[:, 0]


def _soft_dice(probability: Tensor, organs: Tensor) -> Tensor:
    """(K, N) twice to (K)."""
    both = (probability * organs).sum(1)
    return (2 * both + 1) / (probability.sum(1) + organs.sum(1) + 1)
