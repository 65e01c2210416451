"""Closed contours of one ROI in one array, so that thousands are measured at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Stack:
    """Polygons of one ROI in one array, so that thousands are measured at once.

    Parameters
    ----------
    points
        (n, 3) LPS mm, polygon after polygon.
    starts
        (polygons,) index of each polygon's first point.
    """

    points: NDArray[np.float64]
    starts: NDArray[np.intp]

    @classmethod
    def of(cls, polygons: Sequence[NDArray[np.float64]]) -> "Stack":
        """Put (n, 3) polygons one after the other."""
        sizes = np.array([len(each) for each in polygons], dtype=np.intp)
        starts = np.concatenate([[0], np.cumsum(sizes)])[: len(sizes)].astype(np.intp)
        return cls(np.concatenate([np.empty((0, 3)), *polygons]), starts)

    def __len__(self) -> int:
        return len(self.starts)

    @cached_property
    def sizes(self) -> NDArray[np.intp]:
        """(polygons,) points of each."""
        return np.diff(np.append(self.starts, len(self.points)))

    @cached_property
    def owner(self) -> NDArray[np.intp]:
        """(n,) which polygon each point belongs to."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @cached_property
    def next_point(self) -> NDArray[np.intp]:
        """(n,) index of the point after each, round each polygon."""
        following = np.arange(1, len(self.points) + 1)
        if len(self):
            following[self.starts + self.sizes - 1] = self.starts
        return following

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(polygons, ...) sums of (n, ...) values over each polygon."""
        if not len(self):
            return np.empty((0, *values.shape[1:]))
        return np.asarray(np.add.reduceat(values, self.starts, axis=0))

    def highest(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(polygons, ...) maxima of (n, ...) values over each polygon."""
        if not len(self):
            return np.empty((0, *values.shape[1:]))
        return np.asarray(np.maximum.reduceat(values, self.starts, axis=0))

    @cached_property
    def low_mm(self) -> NDArray[np.float64]:
        """(polygons, 3) lowest coordinates of each."""
        return -self.highest(-self.points)

    @cached_property
    def high_mm(self) -> NDArray[np.float64]:
        """(polygons, 3) highest coordinates of each."""
        return self.highest(self.points)

    @cached_property
    def means_mm(self) -> NDArray[np.float64]:
        """(polygons, 3) mean of the points of each."""
        return self.sums(self.points) / self.sizes[:, None]

    @cached_property
    def _cross(self) -> NDArray[np.float64]:
        """(n, 3) doubled area vector of the triangle between each edge and the polygon's mean."""
        centred = self.points - self.means_mm[self.owner]
        return np.cross(centred, centred[self.next_point])

    @cached_property
    def area_vectors(self) -> NDArray[np.float64]:
        """(polygons, 3) normal times doubled area in mm² (Newell)."""
        return self.sums(self._cross)

    @cached_property
    def normals(self) -> NDArray[np.float64]:
        """(polygons, 3) of length 1; zero where a polygon has no area."""
        lengths = np.linalg.norm(self.area_vectors, axis=1, keepdims=True)
        return np.asarray(self.area_vectors / np.where(lengths > 0, lengths, 1.0))

    @cached_property
    def areas_mm2(self) -> NDArray[np.float64]:
        """(polygons,) area of each; of a polygon that crosses itself, parts count against each other."""
        return np.asarray(np.linalg.norm(self.area_vectors, axis=1) / 2)

    @cached_property
    def centres_mm(self) -> NDArray[np.float64]:
        """(polygons, 3) centre of area of each; the mean of its points where it has no area."""
        squares = (self.area_vectors**2).sum(axis=1)
        shares = (self._cross * self.area_vectors[self.owner]).sum(axis=1)
        following = self.points[self.next_point]
        middles = (self.points + following + self.means_mm[self.owner]) / 3
        weighted = self.sums(shares[:, None] * middles)
        flat = squares <= 1e-12
        return np.where(flat[:, None], self.means_mm, weighted / np.where(flat, 1.0, squares)[:, None])
