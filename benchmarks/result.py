"""What a benchmark gives back: comparisons, curves, limits, and what it could not measure.

A module of this package measures in `run(*, quick: bool) -> Report`. It must raise `ResultsDifferError` where ours
and a peer's results are not equal, and it must not fail where a peer is missing: then it leaves the row out and
says so in `unmeasured`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import log

import numpy as np

SLOPE_TOLERANCE = 0.1
"""What a slope may exceed its goal by, for noise."""


class ResultsDifferError(AssertionError):
    """Ours and a peer's results are not equal, so their times are no comparison."""


class Unit(StrEnum):
    """What is counted."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "µs"
    MB = "MB"
    MB_PER_SECOND = "MB/s"
    IMAGES_PER_SECOND = "images/s"
    GFLOP_PER_SECOND = "GFLOP/s"

    @property
    def more_is_better(self) -> bool:
        """Whether it is a rate; of all others less is better."""
        return self.endswith("/s")


@dataclass(frozen=True)
class Sample:
    """Repeated measurements of one thing: the median, and the quartiles as spread."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Sample":
        """Summarise at least one value."""
        low, middle, high = (float(each) for each in np.percentile(values, (25, 50, 75)))
        return cls(middle, low, high, len(values))

    def scaled(self, factor: float) -> "Sample":
        """In another unit."""
        return Sample(self.median * factor, self.low * factor, self.high * factor, self.rounds)

    def as_rate(self, work: float) -> "Sample":
        """Work by time: the quickest round becomes the highest rate."""
        return Sample(work / self.median, work / self.high, work / self.low, self.rounds)


@dataclass(frozen=True)
class Goal:
    """What a row should reach; every number that is given.

    Parameters
    ----------
    ratio
        How many times better than the peer.
    at_most, at_least
        Ours alone, in the row's unit.
    """

    ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Row:
    """One comparison, or without a peer one measurement.

    Parameters
    ----------
    size
        How much work it was, with units: `512 × 512 × 200`.
    note
        What a reader has to know to judge it fairly, in a few words.
    """

    what: str
    size: str
    unit: Unit
    ours: Sample
    peer_name: str = ""
    peer: Sample | None = None
    goal: Goal | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; under 1 where the peer is better."""
        if self.peer is None:
            return None
        ours, peer = self.ours.median, self.peer.median
        return ours / peer if self.unit.more_is_better else peer / ours

    @property
    def reaches_goal(self) -> bool | None:
        """None where there is no goal."""
        if self.goal is None:
            return None
        return (
            (self.goal.ratio is None or (self.ratio is not None and self.ratio >= self.goal.ratio))
            and (self.goal.at_most is None or self.ours.median <= self.goal.at_most)
            and (self.goal.at_least is None or self.ours.median >= self.goal.at_least)
        )


@dataclass(frozen=True)
class Point:
    """Cost of so much work."""

    work: float
    cost: Sample


@dataclass(frozen=True)
class Curve:
    """Cost against work, for a plot on logarithmic axes.

    Parameters
    ----------
    work
        Name of the x axis: `rows in the job table`.
    points
        At least two, work over 0 and increasing.
    steepest
        The slope it may have: 1 is linear.
    ceiling
        Cost that no point may exceed, in the curve's unit; None where there is no such goal.
    """

    what: str
    work: str
    unit: Unit
    points: tuple[Point, ...]
    steepest: float = 1.0
    ceiling: float | None = None

    @property
    def slope(self) -> float:
        """Exponent of the cost at the large end: least squares on both logarithms, over the upper half of points.

        The lower half is left out because a fixed cost there would flatter.
        """
        upper = self.points[min(len(self.points) // 2, len(self.points) - 2) :]
        x = np.array([log(each.work) for each in upper])
        y = np.array([log(max(each.cost.median, 1e-12)) for each in upper])
        return float(np.polyfit(x, y, 1)[0])

    @property
    def reaches_goal(self) -> bool:
        """Whether it stays under its ceiling and is no steeper than allowed, but for `SLOPE_TOLERANCE`."""
        highest = max(each.cost.median for each in self.points)
        return self.slope <= self.steepest + SLOPE_TOLERANCE and (
            self.ceiling is None or highest <= self.ceiling
        )


@dataclass(frozen=True)
class Limit:
    """How far away a physical limit is.

    Parameters
    ----------
    limit
        Measured on the same machine, or computed; `source` says which and how, and in how many rounds.
    """

    what: str
    unit: Unit
    reached: float
    limit: float
    source: str

    @property
    def share(self) -> float:
        """1 at the limit."""
        return self.reached / self.limit if self.unit.more_is_better else self.limit / self.reached


@dataclass(frozen=True)
class Table:
    """Anything else that was counted, such as time by stage.

    Parameters
    ----------
    title
        Tells the rounds behind its figures too.
    verdict
        Sentences: what follows from it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdict: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What one module measured.

    Parameters
    ----------
    about
        Sentences: what is inside the timed part, what is not, how results were found equal.
    unmeasured
        Sentences: what a reader could expect here and why it is missing.
    versions
        Of peers, as `name version`.
    """

    title: str
    about: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    curves: tuple[Curve, ...] = ()
    limits: tuple[Limit, ...] = ()
    tables: tuple[Table, ...] = ()
    unmeasured: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
