"""Which level of head and neck an axial section shows, and which way round: compared with average sections.

The average was taken over training patients; the comparison is a normalised correlation, so it asks for no
network and no reference image of the patient.
"""

from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model.body_sections import LEVEL_MM, Sections

AVERAGE_SECTIONS = Path(__file__).with_name("average_sections.npz")

LEAST_OVERLAP = 0.7
"""Share of the shorter of image and average that must lie within the other."""

Values = NDArray[np.float32]


@dataclass(frozen=True)
class Way:
    """How an image would have to be turned; several at once mean one after the other, rows and columns first."""

    rows_and_columns: bool = False
    head_and_feet: bool = False
    front_and_back: bool = False
    left_and_right: bool = False

    def turned(self, sections: Values) -> Values:
        """(levels, rows, columns) turned this way."""
        if self.rows_and_columns:
            sections = sections.transpose(0, 2, 1)
        if self.head_and_feet:
            sections = sections[::-1]
        if self.front_and_back:
            sections = sections[:, ::-1]
        return sections[:, :, ::-1] if self.left_and_right else sections

    def __str__(self) -> str:
        parts = [
            name
            for name, is_set in (
                ("rows and columns", self.rows_and_columns),
                ("head and feet", self.head_and_feet),
                ("front and back", self.front_and_back),
                ("left and right", self.left_and_right),
            )
            if is_set
        ]
        return f"{' as well as '.join(parts)} exchanged" if parts else "as the header has it"


AS_GIVEN = Way()
MIRRORED = Way(left_and_right=True)
WAYS = tuple(Way(*flags) for flags in product((False, True), repeat=3))
"""Every way to lay an image along the axes, but for left and right, which hardly differ."""


@dataclass(frozen=True)
class Match:
    """Where sections fit the average best.

    Parameters
    ----------
    similarity
        Correlation coefficient, at most 1.
    bottom_mm, top_mm
        Ends of the sections that overlap the average, from the brainstem's lower end, positive to the head.
    zero_mm
        LPS z at which the brainstem's lower end should then lie, if the image was not turned.
    """

    similarity: float
    bottom_mm: float
    top_mm: float
    zero_mm: float


@dataclass(frozen=True, eq=False)
class SectionAtlas:
    """Average sections of many patients.

    Parameters
    ----------
    hu
        (levels, 37, 37) float32, feet to head, front to back, right to left.
    bottom_mm
        Height of the first level above the brainstem's lower end.
    """

    hu: Values
    bottom_mm: float

    @classmethod
    def load(cls, path: Path = AVERAGE_SECTIONS) -> Self:
        """Read the average that comes with the program."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["hu"].astype(np.float32), float(stored["bottom_mm"]))

    def save(self, path: Path) -> None:
        """Write it in whole HU."""
        np.savez_compressed(path, hu=np.rint(self.hu).astype(np.int16), bottom_mm=self.bottom_mm)

    def match(self, sections: Sections, way: Way = AS_GIVEN) -> Match:
        """Slide sections along the average and keep the best place."""
        image = way.turned(sections.hu)
        least = max(2, round(LEAST_OVERLAP * min(len(image), len(self.hu))))
        best = Match(-1.0, 0.0, 0.0, 0.0)
        for shift in range(least - len(image), len(self.hu) - least + 1):
            first, last = max(0, shift), min(len(self.hu), shift + len(image))
            similarity = _correlation(image[first - shift : last - shift], self.hu[first:last])
            if similarity > best.similarity:
                bottom, top = (self.bottom_mm + level * LEVEL_MM for level in (first, last - 1))
                zero = float(sections.heights_mm[0]) - self.bottom_mm - shift * LEVEL_MM
                best = Match(similarity, bottom, top, zero)
        return best


@cache
def average_sections() -> SectionAtlas:
    """The average that comes with the program, read once."""
    return SectionAtlas.load()


def _correlation(a: Values, b: Values) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt(np.vdot(a, a) * np.vdot(b, b)))
    return float(np.vdot(a, b)) / norm if norm else -1.0
