"""What size, shape and place organs usually have: ranges measured on training patients, kept with the bundle."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
from scipy.special import stdtrit

FORMAT = 1
COVERAGE = 0.99
"""A new patient's value lies within the range with this probability, before widening."""

FEWEST_VALUES = 8


@dataclass(frozen=True)
class Range:
    """Usual values of one quantity, and how many organs were measured; left and right count as two."""

    low: float
    high: float
    cases: int

    def __post_init__(self) -> None:
        """Refuse what no value can be compared with."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"{self.low} to {self.high} is no range")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    @classmethod
    def of_logarithms(cls, values: Sequence[float], widening: float) -> Self:
        """Of positive values whose logarithms scatter normally; both ends moved outwards by a factor.

        Raises
        ------
        ValueError
            Fewer than 8 values, or one that is not positive.
        """
        if min(values, default=0) <= 0:
            raise ValueError(f"{len(values)} values, of which some are not positive")
        low, high = _prediction_interval([math.log(value) for value in values])
        return cls(round(math.exp(low) / widening, 4), round(math.exp(high) * widening, 4), cases=len(values))

    @classmethod
    def of_values(cls, values: Sequence[float], widening: float) -> Self:
        """Of values that scatter normally; both ends moved outwards by an amount."""
        low, high = _prediction_interval(values)
        return cls(round(low - widening, 2), round(high + widening, 2), cases=len(values))


@dataclass(frozen=True)
class ReferenceRanges:
    """Ranges by organ name; an organ that was not measured is absent.

    Parameters
    ----------
    source
        Which patients they come from.
    volume_cm3
        Of whole organs.
    section_cm2
        Mean cross-section of organs that images show over part of their length only.
    roughness
        Surface over that of a ball of the same volume, as `organ_measures.OrganMeasure` has it.
    side_ratio
        Volume of the larger over the smaller of a pair, by the pair's name without side: low is 1.
    offset_mm
        "organ from other" to (leftwards, backwards, headwards) from the other's centroid to the organ's; for
        organs of the right side as if mirrored.
    """

    source: str
    volume_cm3: Mapping[str, Range] = field(default_factory=dict)
    section_cm2: Mapping[str, Range] = field(default_factory=dict)
    roughness: Mapping[str, Range] = field(default_factory=dict)
    side_ratio: Mapping[str, Range] = field(default_factory=dict)
    offset_mm: Mapping[str, tuple[Range, Range, Range]] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text for `reference.json`."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read `to_json`'s text.

        Raises
        ------
        ValueError
            It is no such text, or of another format; the message says what.
        """
        try:
            table: dict[str, Any] = json.loads(text)
            if table["format"] != FORMAT:
                raise ValueError(f"format {table['format']!r}, this version reads {FORMAT}")
            simple = {
                key: {name: Range(**limits) for name, limits in table[key].items()}
                for key in ("volume_cm3", "section_cm2", "roughness", "side_ratio")
            }
            offsets = {name: _three(limits) for name, limits in table["offset_mm"].items()}
            return cls(source=str(table["source"]), offset_mm=offsets, **simple)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a table of reference ranges: {error!r}") from error


def _three(limits: list[dict[str, Any]]) -> tuple[Range, Range, Range]:
    left, back, head = (Range(**each) for each in limits)
    return left, back, head


def _prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the next value lies with a probability of `COVERAGE`, by Student's distribution."""
    count = len(values)
    if count < FEWEST_VALUES:
        raise ValueError(f"{count} values; {FEWEST_VALUES} are needed for a range")
    reach = float(stdtrit(count - 1, (1 + COVERAGE) / 2)) * math.sqrt(1 + 1 / count)
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    return mean - reach * spread, mean + reach * spread
