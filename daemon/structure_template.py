"""What a site wants in its structure sets: which organs, under which names and colours, and what is derived."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from daemon.derivation import Derivation, derive
from model.contours import Contour
from model.derived import misses_next
from model.geometry import Mask, SliceGrid
from model.structures import EXTRA_STRUCTURES, STRUCTURES, Code, Structure, offered_structure


def is_plain(text: str) -> bool:
    """Whether it is a value of VR LO that every character set of a CT can hold."""
    return text == text.strip() and text.isascii() and text.isprintable() and "\\" not in text


class InterpretedType(StrEnum):
    """RT ROI Interpreted Type (3006,00A4) of what this program may contour: never a target."""

    ORGAN = "ORGAN"
    AVOIDANCE = "AVOIDANCE"
    CAVITY = "CAVITY"
    CONTROL = "CONTROL"


@dataclass(frozen=True)
class Codes:
    """By which codes a structure is identified; all None for most derived structures, which no scheme knows.

    Parameters
    ----------
    snomed, laterality, fma
        Of an organ, as in `model.structures`.
    site
        The site's own, which then stands before the others.
    """

    snomed: Code | None = None
    laterality: Code | None = None
    fma: Code | None = None
    site: Code | None = None


@dataclass(frozen=True)
class TemplateStructure:
    """One line of a template.

    Parameters
    ----------
    number
        ROI Number, the same in every structure set made by the template.
    name
        The site's, which becomes the ROI Name.
    organ, derivation
        What it is; exactly one of the two is not None.
    synonyms
        What else it is called on site; for people, and for the check of names.
    """

    number: int
    name: str
    colour_rgb: tuple[int, int, int]
    interpreted_type: InterpretedType
    organ: Structure | None = None
    derivation: Derivation | None = None
    codes: Codes = Codes()
    synonyms: tuple[str, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """What it is derived from; nothing for an organ."""
        return self.derivation.sources if self.derivation else ()


@dataclass(frozen=True)
class Template:
    """A site's structures in the order in which they are written."""

    name: str
    structures: tuple[TemplateStructure, ...]

    @property
    def organs(self) -> tuple[str, ...]:
        """TG-263 names of all organs that must be segmented for it, each once, in the order of `STRUCTURES`."""
        named = {each.organ.name for each in self.structures if each.organ}
        own = {each.name for each in self.structures}
        named |= {source for each in self.structures for source in each.sources if source not in own}
        return tuple(each.name for each in STRUCTURES + EXTRA_STRUCTURES if each.name in named)

    def line(self, name: str) -> TemplateStructure | None:
        """The structure of this name; None where the template has none, as an organ may be a source."""
        return next((each for each in self.structures if each.name == name), None)

    def organs_of(self, name: str) -> frozenset[str]:
        """TG-263 names of the organs that a structure is, or that it is made from, however often derived."""
        line = self.line(name)
        if line is None:
            return frozenset({name})
        if line.organ:
            return frozenset({line.organ.name})
        return frozenset[str]().union(*map(self.organs_of, line.sources))


@dataclass(frozen=True, eq=False)
class ROI:
    """One structure as it is written: what the template says of it and what was found of it.

    Parameters
    ----------
    number, name, colour_rgb, interpreted_type, codes
        See `TemplateStructure`.
    organ
        TG-263 name; None for a derived structure.
    mask
        Empty where it was not found.
    generation
        What a derived structure was made from; empty for an organ.
    missing
        Sources that were not found; a derived structure that lacks one is left out.
    contours
        Of the mask, in the profile's style of holes.
    remark
        For whoever looks at this structure, such as that it is smaller than any seen before.
    """

    number: int
    name: str
    colour_rgb: tuple[int, int, int]
    interpreted_type: InterpretedType
    codes: Codes
    organ: str | None
    mask: Mask
    generation: str = ""
    missing: tuple[str, ...] = ()
    contours: Sequence[Contour] = field(default=())
    remark: str = ""

    @property
    def is_found(self) -> bool:
        """Whether there is anything of it to write."""
        return not self.mask.is_empty


def organ_line(organ: Structure, number: int, name: str | None = None) -> TemplateStructure:
    """An organ as it is written where a site says nothing else."""
    codes = Codes(organ.code, organ.laterality, organ.fma_code)
    return TemplateStructure(
        number, name or organ.name, organ.colour_rgb, InterpretedType.ORGAN, organ, codes=codes
    )


_ALL_ORGANS = tuple(
    organ_line(organ, number) for number, organ in enumerate(STRUCTURES + EXTRA_STRUCTURES, start=1)
)
DEFAULT_TEMPLATE = Template("TG-263, 21 organs", _ALL_ORGANS[: len(STRUCTURES)])
"""Where nobody asks for anything else."""


def template_of(names: Sequence[str]) -> Template:
    """The organs with these TG-263 names as they are in `DEFAULT_TEMPLATE`; those it lacks are known too.

    Raises
    ------
    ValueError
        A name that is no organ's.
    """
    wanted = {offered_structure(name).name for name in names}
    return Template("TG-263", tuple(each for each in _ALL_ORGANS if each.name in wanted))


def apply_template(template: Template, masks: Mapping[str, Mask], grid: SliceGrid) -> list[ROI]:
    """Return one ROI for each of the template's structures, in its order, also for those that were not found.

    Parameters
    ----------
    masks
        By TG-263 name, all of one volume; an organ that is absent or empty was not found.
    grid
        The volume's; margins are measured on it in mm.
    """
    shape = grid.shape
    nothing = Mask(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0), shape)
    by_name = {each.name: each for each in template.structures}
    done: dict[str, ROI] = {}

    def mask_of(name: str) -> Mask:
        return made(by_name[name]).mask if name in by_name else masks.get(name, nothing)

    def made(line: TemplateStructure) -> ROI:
        if line.name not in done:
            if line.organ:
                done[line.name] = _roi(line, masks.get(line.organ.name, nothing))
            else:
                sources = [mask_of(name) for name in line.sources]
                done[line.name] = _derived(line, sources, nothing, grid)
        return done[line.name]

    return [made(line) for line in template.structures]


def left_out(rois: Sequence[ROI]) -> Iterator[str]:
    """A sentence for each derived structure that could not be made, and why."""
    for roi in rois:
        if roi.missing:
            yield f"{roi.name} ({roi.generation}) is left out: {', '.join(roi.missing)} was not found"
        elif roi.generation and not roi.is_found:
            yield f"{roi.name} ({roi.generation}) is left out: nothing remains of it"


def unreached_slices(template: Template, grid: SliceGrid) -> Iterator[str]:
    """A sentence for each margin that is wanted upwards or downwards and ends before the next slice somewhere."""
    gaps_mm = np.abs(np.diff(grid.positions_mm[:, 2]))
    for line in template.structures:
        margin = line.derivation.margin if line.derivation else None
        if margin is None:
            continue
        wanted = {"superior": margin.superior, "inferior": margin.inferior}
        ends = {
            side: misses_next(grid, margin, upwards=side == "superior") for side, mm in wanted.items() if mm
        }
        short = [side for side, missed in ends.items() if missed.any()]
        if short:
            missed = np.any([ends[side] for side in short], axis=0)
            yield (
                f"{line.name} ({line.derivation}): no other slice lies within "
                f"{' and '.join(f'{wanted[side]:g} mm {side}' for side in short)}"
                f"{'' if missed.all() else f' at {missed.sum()} of {len(missed)} places'}, "
                f"as slices are {_apart(gaps_mm[missed])} mm apart"
            )


def _apart(gaps_mm: NDArray[np.float64]) -> str:
    low, high = (f"{gap:.3g}" for gap in (gaps_mm.min(), gaps_mm.max()))
    return low if low == high else f"{low} to {high}"


def _roi(line: TemplateStructure, mask: Mask) -> ROI:
    return ROI(
        line.number,
        line.name,
        line.colour_rgb,
        line.interpreted_type,
        line.codes,
        line.organ.name if line.organ else None,
        mask,
        generation=str(line.derivation or ""),
    )


def _derived(line: TemplateStructure, sources: Sequence[Mask], nothing: Mask, grid: SliceGrid) -> ROI:
    missing = tuple(name for name, mask in zip(line.sources, sources, strict=True) if mask.is_empty)
    if missing or line.derivation is None:
        return replace(_roi(line, nothing), missing=missing)
    return _roi(line, derive(line.derivation, sources, grid))
