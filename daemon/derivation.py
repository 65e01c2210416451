"""Structures made from others: margins, unions, intersections, and what is cut away."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from model import derived
from model.geometry import Mask, SliceGrid


class Operation(StrEnum):
    """How a structure is made from others; the words of a template's keys."""

    MARGIN = "margin"
    UNION = "union"
    INTERSECTION = "intersection"
    SUBTRACT = "subtract"
    CROP = "crop"


@dataclass(frozen=True)
class Margin:
    """Millimetres towards each side of the patient."""

    left: float = 0.0
    right: float = 0.0
    anterior: float = 0.0
    posterior: float = 0.0
    superior: float = 0.0
    inferior: float = 0.0

    @classmethod
    def uniform(cls, mm: float) -> "Margin":
        """The same in all directions."""
        return cls(mm, mm, mm, mm, mm, mm)

    def __str__(self) -> str:
        """As `5 mm`, or `5 mm left, 3 mm superior`."""
        sides = {each.name: getattr(self, each.name) for each in fields(self)}
        if len(set(sides.values())) == 1:
            return f"{self.left:g} mm"
        return ", ".join(f"{mm:g} mm {side}" for side, mm in sides.items() if mm)


@dataclass(frozen=True)
class Derivation:
    """One structure made from others.

    Parameters
    ----------
    sources
        Names of the template, or TG-263 names of organs. A margin has one. Of a subtraction or a crop, the first
        is what is kept and the others are what is cut away from it.
    margin
        Of a margin, how far the source grows; of a crop, how far away from the others the result stays.
    """

    operation: Operation
    sources: tuple[str, ...]
    margin: Margin | None = None

    def __str__(self) -> str:
        """As a formula: `SpinalCord + 5 mm`, `Parotid_L or Parotid_R`, `Brain minus Brainstem`."""
        first, *others = self.sources
        match self.operation:
            case Operation.MARGIN:
                return f"{first} + {self.margin}"
            case Operation.UNION:
                return " or ".join(self.sources)
            case Operation.INTERSECTION:
                return " and ".join(self.sources)
            case Operation.SUBTRACT:
                return f"{first} minus {', '.join(others)}"
            case Operation.CROP:
                return f"{first}, {self.margin} away from {', '.join(others)}"


def derive(derivation: Derivation, sources: Sequence[Mask], grid: SliceGrid) -> Mask:
    """Make one structure's mask.

    Parameters
    ----------
    sources
        The masks of `derivation.sources`, in their order, of one volume.
    grid
        The volume's.
    """
    first, *others = sources
    margin = derivation.margin or Margin()
    match derivation.operation:
        case Operation.MARGIN:
            return derived.expand(first, grid, margin)
        case Operation.UNION:
            return derived.union(sources)
        case Operation.INTERSECTION:
            return derived.intersection(sources)
        case Operation.SUBTRACT:
            return derived.subtract(first, derived.union(others))
        case Operation.CROP:
            return derived.crop(first, derived.union(others), grid, margin)
