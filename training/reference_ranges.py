"""Measure the organs of training patients and keep their usual ranges with a bundle.

    python -m training.reference_ranges runs/packs/openkbp-train-*.npz runs/packs/shapes-train-*.npz \
        --bundle model/weights

To be run whenever new weights were exported, for the bundle names the ranges' digest.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.bundle import DEFAULT_BUNDLE, add_reference_ranges
from model.geometry import Mask
from model.organ_measures import OrganMeasure, measure_organ
from model.plausibility import ANCHORS, LONG_ORGANS, NEVER_WHOLE, offset_key, offset_mm
from model.reference_ranges import FEWEST_VALUES, Range, ReferenceRanges
from model.structures import STRUCTURES, unqualified
from training.dataset import Case, read_packs
from training.evaluate import slice_grid
from training.failures import failures_in_words

VOLUME_FACTOR = 1.25
SECTION_FACTOR = 1.25
ROUGHNESS_FACTOR = 1.15
RATIO_FACTOR = 1.15
OFFSET_MM = 5.0
"""How far ranges are widened: other scanners and other hands differ more than the training patients do."""

SMALLEST_VOXELS = 8
"""Fewer are too coarse a picture of an organ to measure it."""

OFFERED = frozenset(organ.name for organ in STRUCTURES)

Measures = Mapping[str, OrganMeasure]


def measure_case(case: Case) -> dict[str, OrganMeasure]:
    """Measures of `whole_organs`."""
    grid = slice_grid(case.label_frame, case.labels.shape)
    return {organ: measure_organ(mask, grid) for organ, mask in whole_organs(case).items()}


def whole_organs(case: Case) -> dict[str, Mask]:
    """Organs that were contoured whole, and those of which a part is as good as the whole, as they were drawn.

    An organ counts as whole if neither the labels nor the image end within it. Whoever drew it, it is the organ;
    but sections of the clinics' cord are a third larger, always.
    """
    grid = slice_grid(case.label_frame, case.labels.shape)
    first, last = (corner[0] for corner in case.image_frame.extent(case.image.shape))
    organs = {}
    for drawn in case.known:
        organ = unqualified(drawn)
        if organ not in OFFERED or (organ in LONG_ORGANS and organ != drawn):
            continue
        mask = Mask.from_full(case.organ(drawn))
        if mask.count < SMALLEST_VOXELS:
            continue
        bottom, top = grid.positions_mm[[mask.corner[0], mask.corner[0] + len(mask.voxels) - 1], 2]
        step = grid.spacing_mm[0]
        is_whole = bottom - step >= first and top + step <= last
        if is_whole or organ in NEVER_WHOLE:
            organs[organ] = mask
    return organs


def reference_ranges(cases: Iterable[Measures], source: str) -> ReferenceRanges:
    """Ranges over measured cases; what too few of them show has none. Left and right share theirs."""
    volumes, sections, roughness, ratios = (defaultdict[str, list[float]](list) for _ in range(4))
    offsets: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for organs in cases:
        for name, organ in organs.items():
            if name in LONG_ORGANS:
                sections[_stem(name)].append(organ.section_cm2)
            elif name not in NEVER_WHOLE:
                volumes[_stem(name)].append(organ.volume_cm3)
                roughness[_stem(name)].append(organ.roughness)
                _note_pair(name, organs, ratios[_stem(name)])
            for anchor in ANCHORS.get(name, ()):
                if anchor in organs:
                    offsets[offset_key(name, anchor)].append(offset_mm(name, organ, organs[anchor]))
    return ReferenceRanges(
        source=source,
        volume_cm3=_for_both_sides(_ranges(volumes, VOLUME_FACTOR)),
        section_cm2=_ranges(sections, SECTION_FACTOR),
        roughness=_for_both_sides(_ranges(roughness, ROUGHNESS_FACTOR)),
        side_ratio=_ratio_ranges(ratios),
        offset_mm={
            key: tuple(Range.of_values(axis, OFFSET_MM) for axis in np.transpose(values).tolist())  # type: ignore[misc]
            for key, values in offsets.items()
            if len(values) >= FEWEST_VALUES
        },
    )


def _note_pair(name: str, organs: Measures, ratios: list[float]) -> None:
    """Left volume over right, once per pair."""
    partner = organs.get(f"{_stem(name)}_R")
    if name.endswith("_L") and partner is not None:
        ratios.append(organs[name].volume_cm3 / partner.volume_cm3)


def _ranges(values: Mapping[str, list[float]], factor: float) -> dict[str, Range]:
    return {
        name: Range.of_logarithms(found, factor)
        for name, found in values.items()
        if len(found) >= FEWEST_VALUES
    }


def _ratio_ranges(ratios: Mapping[str, list[float]]) -> dict[str, Range]:
    """Larger over smaller: the scatter of left over right, taken both ways."""
    ranges = {}
    for stem, found in ratios.items():
        if len(found) >= FEWEST_VALUES:
            both = Range.of_logarithms([*found, *(1 / ratio for ratio in found)], RATIO_FACTOR)
            ranges[stem] = Range(1.0, both.high, len(found))
    return ranges


def _for_both_sides(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges by organ instead of by organ without side."""
    return {organ.name: ranges[_stem(organ.name)] for organ in STRUCTURES if _stem(organ.name) in ranges}


def _stem(name: str) -> str:
    return name.removesuffix("_L").removesuffix("_R")


def main(
    packs: list[Path] = typer.Argument(..., help="Packs of training cases."),  # noqa: B008
    bundle: Path = typer.Option(DEFAULT_BUNDLE, help="Folder of the bundle that gets the ranges."),  # noqa: B008
) -> None:
    """Write `reference.json` into a bundle."""
    console = Console()
    if any("validation" in path.name for path in packs):
        raise typer.BadParameter("validation cases are no part of any statistics; name training packs only")
    groups: dict[str, int] = defaultdict(int)
    measured = []
    with failures_in_words("the bundle is as it was"):
        for case in track(read_packs(packs), "measuring", console=console):
            groups[case.group] += 1
            measured.append(measure_case(case))
        source = ", ".join(f"{count} of {group}" for group, count in sorted(groups.items()))
        ranges = reference_ranges(measured, f"training cases: {source}")
        add_reference_ranges(bundle, ranges)
    console.print(_as_table(ranges))


def _as_table(ranges: ReferenceRanges) -> Table:
    table = Table("organ", "cm³ (canal and cord: cm²)", "roughness to", "cases", title=ranges.source)
    for organ in STRUCTURES:
        size = ranges.volume_cm3.get(organ.name) or ranges.section_cm2.get(organ.name)
        rough = ranges.roughness.get(organ.name)
        table.add_row(
            organ.name,
            f"{size.low:.3g} – {size.high:.3g}" if size else "–",
            f"{rough.high:.2f}" if rough else "–",
            str(size.cases) if size else "0",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
