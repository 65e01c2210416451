"""What the network is told: top-k cross-entropy as in the paper, and Dice, both blind to what is not known."""

import torch
from torch import Tensor
from torch.nn import functional as F

#: The threshold of the hardest voxels is read off this many voxels per organ; exact sorting of whole patches
#: costs more than the network.
QUANTILE_SAMPLE = 8192


def segmentation_loss(
    logits: Tensor, organs: Tensor, weights: Tensor, hardest: float, dice: float
) -> tuple[Tensor, Tensor]:
    """Loss over known voxels only.

    Parameters
    ----------
    logits, organs, weights
        (B, C, D, H, W); organs in [0, 1]; weights 1 where the organ's truth is known, else 0.
    hardest
        The share of each organ's known voxels, those with the highest cross-entropy, that counts.
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
        entropies.append(_hardest_mean(entropy, counted, hardest))
        present = (truth * counted).amax(1) > 0.5
        overlaps.append(
            _soft_dice(predicted[present].sigmoid() * counted[present], (truth * counted)[present])
        )
    nothing = logits.sum() * 0
    cross_entropy = torch.cat(entropies).mean() if entropies else nothing
    overlap = torch.cat(overlaps) if overlaps else nothing[None][:0]
    return cross_entropy, dice * (1 - overlap).mean() if len(overlap) else nothing


def _hardest_mean(entropy: Tensor, weights: Tensor, share: float) -> Tensor:
    """(K, N) to (K): mean of the hardest voxels among the known."""
    with torch.no_grad():
        step = max(1, entropy.shape[1] // QUANTILE_SAMPLE)
        ordered = entropy[:, ::step].masked_fill(weights[:, ::step] == 0, torch.inf).sort(dim=1).values
        finite = (ordered < torch.inf).sum(1, keepdim=True)
        threshold = ordered.gather(1, ((1 - share) * finite).long().clamp(max=ordered.shape[1] - 1))
        threshold = threshold.where(threshold < torch.inf, 0.0)
        chosen = (entropy >= threshold) & (weights > 0)
    return (entropy * chosen).sum(1) / chosen.sum(1).clamp_min(1)


def _soft_dice(probability: Tensor, organs: Tensor) -> Tensor:
    """(K, N) twice to (K)."""
    both = (probability * organs).sum(1)
    return (2 * both + 1) / (probability.sum(1) + organs.sum(1) + 1)
