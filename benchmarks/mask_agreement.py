"""How far masks of organs agree, and from where on they count as equal."""

from torch import Tensor

LEAST_DICE = 0.999
EQUAL = f"a Dice of {LEAST_DICE} of all voxels and of each organ, or all but one of an organ's voxels alike"


def dice(a: Tensor, b: Tensor) -> float:
    """Of two masks; 1 where both are empty."""
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def is_equal(a: Tensor, b: Tensor) -> bool:
    """Whether one organ's masks count as equal."""
    return dice(a, b) >= LEAST_DICE or int((a != b).sum()) <= 1
