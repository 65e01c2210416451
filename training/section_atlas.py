"""Average the axial sections of training patients into the atlas by which images are judged.

    python -m training.section_atlas runs/packs/openkbp-train-*.npz

Levels count from the lower end of the brainstem; patients without one find their place by matching.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from model.body_sections import LEVEL_MM, Sections
from model.section_atlas import AVERAGE_SECTIONS, SectionAtlas, Values
from model.structures import unqualified
from training.dataset import Case, read_packs
from training.evaluate import as_volume

FEWEST_PATIENTS = 8
"""Levels that fewer patients show are left out."""


def sections_of(case: Case) -> Sections | None:
    """The sections of a case's image."""
    return as_volume(case).sections


def brainstem_end_mm(case: Case) -> float | None:
    """LPS z of the lower end of the contoured brainstem, None where it was not contoured."""
    for organ in (drawn for drawn in case.known if unqualified(drawn) == "Brainstem"):
        filled = np.flatnonzero(case.organ(organ).any(axis=(1, 2)))
        if len(filled):
            return float(case.label_frame.origin_mm[0] + filled[0] * case.label_frame.spacing_mm[0])
    return None


def average(placed: Iterable[tuple[Sections, float]]) -> SectionAtlas:
    """Mean section per level, of pairs (sections, LPS z of level 0); ValueError without any."""
    levels: dict[int, list[Values]] = defaultdict(list)
    for sections, zero_mm in placed:
        for height, section in zip(sections.heights_mm, sections.hu, strict=True):
            levels[round((height - zero_mm) / LEVEL_MM)].append(section)
    if not levels:
        raise ValueError("no patient has an image of a body with a brainstem: no section can be placed")
    kept = sorted(level for level, found in levels.items() if len(found) >= FEWEST_PATIENTS)
    means = np.stack([np.mean(levels[level], axis=0) for level in range(kept[0], kept[-1] + 1)])
    return SectionAtlas(means, kept[0] * LEVEL_MM)


def main(
    packs: list[Path] = typer.Argument(..., help="Packs of training cases, of real images."),  # noqa: B008
    out: Path = typer.Option(AVERAGE_SECTIONS, help="File to write."),  # noqa: B008
) -> None:
    """Write the average sections."""
    console = Console()
    if any("validation" in path.name for path in packs):
        raise typer.BadParameter("validation cases are no part of any statistics; name training packs only")
    placed = []
    for case in track(read_packs(packs), "averaging", console=console):
        sections, zero_mm = sections_of(case), brainstem_end_mm(case)
        if sections is not None and zero_mm is not None:
            placed.append((sections, zero_mm))
    try:
        atlas = average(placed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    atlas.save(out)
    console.print(
        f"{out}: {len(atlas.hu)} levels of {len(placed)} patients, from {atlas.bottom_mm:.0f} mm "
        f"to {atlas.bottom_mm + (len(atlas.hu) - 1) * LEVEL_MM:.0f} mm from the brainstem's lower end"
    )


if __name__ == "__main__":
    typer.run(main)
