"""What the network is told: top-k cross-entropy as in the paper, and Dice, both blind to what is not known."""

import torch
from torch import Tensor
from torch.nn import functional as F

HARDEST_PER_ORGAN_VOXEL = 20
HARDEST_AT_LEAST = 200
"""A lens fills 20 of 300,000 voxels: among a tenth of them it would weigh nothing. So the hardest voxels that
count are no more than this many for each voxel of the organ, and this many where it is absent."""


def segmentation_loss(
    logits: Tensor, organs: Tensor, weights: Tensor, hardest: float, dice: float
) -> tuple[Tensor, Tensor]:
    """Loss over known voxels only.

    Parameters
    ----------
    logits, organs, weights
        (B, C, D, H, W); organs in [0, 1]; weights 1 where the organ's truth is known, else 0.
    hardest
        The largest share of each organ's known voxels, those with the highest cross-entropy, that counts;
        see `HARDEST_PER_ORGAN_VOXEL`.
    dice
        The weight of the Dice term.

    Returns
    -------
    tuple of Tensor
        Cross-entropy and weighted Dice terms; both have zero gradient where the weight is zero.
    """
    entropies, overlaps = [], []
    for patch in range(len(logits)):
        known = weights[patch].flatten(1).amax(1) > 0
        if not bool(known.any()):
            continue
        truth, counted = organs[patch, known].flatten(1), weights[patch, known].flatten(1)  # (K, N)
        predicted = logits[patch, known].float().flatten(1)
        entropy = F.binary_cross_entropy_with_logits(predicted, truth, reduction="none") * counted
        entropies.append(_hardest_mean(entropy, truth, counted, hardest))
        present = (truth * counted).amax(1) > 0.5
        overlaps.append(
            _soft_dice(predicted[present].sigmoid() * counted[present], (truth * counted)[present])
        )
    nothing = logits.sum() * 0
    cross_entropy = torch.cat(entropies).mean() if entropies else nothing
    overlap = torch.cat(overlaps) if overlaps else nothing[None][:0]
    return cross_entropy, dice * (1 - overlap).mean() if len(overlap) else nothing


def _hardest_mean(entropy: Tensor, truth: Tensor, weights: Tensor, share: float) -> Tensor:
    """(K, N) to (K): mean of the hardest voxels among the known; entropy is zero where nothing is known."""
    most = share * weights.sum(1)
    enough = HARDEST_AT_LEAST + HARDEST_PER_ORGAN_VOXEL * (truth * weights).sum(1)
    count = torch.minimum(most, enough).clamp_min(1).long()[:, None]
    hardest = entropy.topk(int(count.max()), dim=1).values
    rank = torch.arange(hardest.shape[1], device=hardest.device)
    return (hardest * (rank < count)).sum(1) / count[:, 0]


def _soft_dice(probability: Tensor, organs: Tensor) -> Tensor:
    """(K, N) twice to (K)."""
    both = (probability * organs).sum(1)
    return (2 * both + 1) / (probability.sum(1) + organs.sum(1) + 1)
