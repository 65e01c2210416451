"""Whether what was found could be a patient's organs: size, shape, sides, order, and where the image ends.

Facts of anatomy hold for everybody and put a result on hold; ranges come from training patients and warn.
"""

from collections.abc import Iterator, Mapping

from model.findings import Finding, Severity
from model.geometry import Mask, SliceGrid
from model.organ_measures import BACKWARD_MM, HEADWARD_MM, LATERAL_MM, OrganMeasure, measure_organs
from model.reference_ranges import Range, ReferenceRanges
from model.structures import LEFT, structure

LONG_ORGANS = ("SpinalCanal", "SpinalCord")
"""Judged by cross-section: how much of them there is depends on where the image ends."""

NEVER_WHOLE = ("Lung_L", "Lung_R", *LONG_ORGANS)
"""Head-and-neck images end within them, which is no news and is only noted."""

_ANCHORS_OF_PAIRS: Mapping[str, tuple[str, ...]] = {
    "Cochlea": ("Brainstem",),
    "Eye": ("Brainstem",),
    "Parotid": ("Brainstem", "Bone_Mandible"),
    "Glnd_Submand": ("Brainstem", "Bone_Mandible"),
    "Lens": ("Eye_{side}",),
    "OpticNrv": ("Eye_{side}",),
    "Glnd_Lacrimal": ("Eye_{side}",),
}

ANCHORS: Mapping[str, tuple[str, ...]] = {
    "Bone_Mandible": ("Brainstem",),
    "Brain": ("Brainstem",),
    **{
        f"{stem}_{side}": (*(anchor.format(side=side) for anchor in anchors), f"{stem}_{other}")
        for stem, anchors in _ANCHORS_OF_PAIRS.items()
        for side, other in ("LR", "RL")
    },
}
"""Organ to the organs from which its place is measured; of a pair, also the partner."""

MIDLINE = ("Brainstem", "SpinalCanal", "SpinalCord", "Bone_Mandible", "Brain")

IN_FRONT = (
    *((f"{front}_{side}", "Brainstem") for front in ("Eye", "Lens", "OpticNrv", "Glnd_Lacrimal") for side in "LR"),
    ("Bone_Mandible", "SpinalCanal"),
    ("Bone_Mandible", "SpinalCord"),
    ("Bone_Mandible", "Brainstem"),
    *(("Bone_Mandible", f"Parotid_{side}") for side in "LR"),
    *((f"Lens_{side}", f"Eye_{side}") for side in "LR"),
    *((f"Eye_{side}", f"OpticNrv_{side}") for side in "LR"),
    *((f"Glnd_Submand_{side}", "SpinalCanal") for side in "LR"),
)  # fmt: skip
"""The first lies in front of the second in every patient."""

ABOVE = (
    ("Brainstem", "SpinalCanal"),
    ("Brainstem", "SpinalCord"),
    ("Brainstem", "Bone_Mandible"),
    *(("Brainstem", f"{low}_{side}") for low in ("Lung", "Glnd_Submand") for side in "LR"),
    *((f"Eye_{side}", "Bone_Mandible") for side in "LR"),
    *((f"Parotid_{side}", f"{low}_{side}") for low in ("Glnd_Submand", "Lung") for side in "LR"),
)
"""The first lies nearer to the head than the second in every patient."""

GROSS_FACTOR = 3.0
"""So many times beyond its range, a volume is impossible."""

LARGEST_SPARE_PART = 0.02
LARGEST_SHARE_LEFT_OUT = 0.1
"""A choice: a cord that is broken on one slice loses much more, and other organs' crumbs are less."""
LEAST_CONFIDENCE = 0.75
"""Mean probability; a choice, half-way between the least there can be and certainty."""


def check_plausibility(
    masks: Mapping[str, Mask],
    grid: SliceGrid,
    ranges: ReferenceRanges | None,
    confidence: Mapping[str, float] | None = None,
    left_out: Mapping[str, float] | None = None,
) -> tuple[Finding, ...]:
    """Everything about a segmentation that a person should look at.

    Parameters
    ----------
    masks
        Structure name to mask; empty masks are passed over.
    ranges
        The bundle's, or None: then sizes, shapes and places are not judged, and a note says so.
    confidence
        Structure name to the network's mean probability within the structure, as `Segmentation.confidence`.
    left_out
        Structure name to the share of what was found that is not in its mask, as `Segmentation.left_out`.
    """
    organs = measure_organs(masks, grid)
    findings = [
        *_sides(organs),
        *_order(organs),
        *_ends(organs),
        *_parts(organs),
        *_left_out(left_out or {}),
        *_doubts(confidence or {}),
    ]
    if ranges is None:
        text = "the bundle has no reference ranges: sizes, shapes and places of organs were not judged"
        return (*findings, Finding("plausibility-not-checked", Severity.NOTE, None, text))
    return (
        *findings,
        *_sizes(organs, ranges),
        *_shapes(organs, ranges),
        *_side_ratios(organs, ranges),
        *_places(organs, ranges),
    )


# Facts


def _sides(organs: Mapping[str, OrganMeasure]) -> Iterator[Finding]:
    """A left organ has its right partner on its right, and neither lies across the midline."""
    for name, organ in organs.items():
        if structure(name).laterality is None:
            continue
        towards = 1 if structure(name).laterality == LEFT else -1
        partner = organs.get(structure(name).mirror)
        if partner is not None and towards == 1:
            apart = _apart(organ, partner, LATERAL_MM)
            if apart <= 0:
                text = (
                    f"lies {-apart:.0f} mm to the right of {structure(name).mirror}; expected is to its left"
                )
                yield Finding("sides-swapped", Severity.HOLD, name, text, (structure(name).mirror,))
        middle = next((middle for middle in MIDLINE if middle in organs), None)
        if middle is not None:
            out = towards * _apart(organ, organs[middle], LATERAL_MM)
            if out <= 0:
                side = "left" if towards == 1 else "right"
                text = (
                    f"its middle lies {-out:.0f} mm beyond that of {middle}; expected is to the {side} of it"
                )
                yield Finding("wrong-side", Severity.HOLD, name, text, (middle,))


def _order(organs: Mapping[str, OrganMeasure]) -> Iterator[Finding]:
    """One finding per organ and direction, naming every organ to which it lies the wrong way."""
    for pairs, axis, sign, code, words in (
        (IN_FRONT, BACKWARD_MM, -1, "wrong-order-front-back", ("behind", "in front of")),
        (ABOVE, HEADWARD_MM, 1, "wrong-order-head-feet", ("below", "above")),
    ):
        wrong: dict[str, dict[str, float]] = {}
        for name, other in pairs:
            if name in organs and other in organs:
                apart = sign * _apart(organs[name], organs[other], axis)
                if apart <= 0:
                    wrong.setdefault(name, {})[other] = -apart
        for name, off_mm in wrong.items():
            places = ", ".join(f"{mm:.0f} mm {words[0]} {other}" for other, mm in off_mm.items())
            text = f"its middle lies {places}; expected is {words[1]}"
            yield Finding(code, Severity.HOLD, name, text, tuple(off_mm))


def _apart(organ: OrganMeasure, other: OrganMeasure, axis: int) -> float:
    return float(organ.centroid_mm[axis] - other.centroid_mm[axis])


def _ends(organs: Mapping[str, OrganMeasure]) -> Iterator[Finding]:
    for name, organ in organs.items():
        if organ.is_cut:
            severity = Severity.NOTE if name in NEVER_WHOLE and "edge" not in organ.ends else Severity.WARNING
            text = (
                f"reaches the image's {' and '.join(organ.ends)}: expected is a margin, so it may be cut off"
            )
            yield Finding("organ-cut-off", severity, name, text)


def _parts(organs: Mapping[str, OrganMeasure]) -> Iterator[Finding]:
    for name, organ in organs.items():
        spare = [share for share in organ.part_shares[1:] if share > LARGEST_SPARE_PART]
        if spare:
            text = (
                f"is in {len(spare) + 1} parts, the largest with {organ.part_shares[0]:.0%}; expected is one"
            )
            yield Finding("several-parts", Severity.WARNING, name, text)


def _left_out(shares: Mapping[str, float]) -> Iterator[Finding]:
    for name, share in shares.items():
        if share > LARGEST_SHARE_LEFT_OUT:
            text = (
                f"{share:.0%} of what was found of it lay apart and was left out: a part of it may be missing"
            )
            yield Finding("parts-left-out", Severity.WARNING, name, text)


def _doubts(confidence: Mapping[str, float]) -> Iterator[Finding]:
    for name, mean in confidence.items():
        if mean < LEAST_CONFIDENCE:
            text = f"mean probability within it is {mean:.2f}; expected is {LEAST_CONFIDENCE} at least"
            yield Finding("uncertain-organ", Severity.WARNING, name, text)


# Ranges


def _sizes(organs: Mapping[str, OrganMeasure], ranges: ReferenceRanges) -> Iterator[Finding]:
    for name, organ in organs.items():
        if name in LONG_ORGANS:
            usual, value, unit = ranges.section_cm2.get(name), organ.section_cm2, "cm² in mean cross-section"
        else:
            usual, value, unit = ranges.volume_cm3.get(name), organ.volume_cm3, "cm³"
        if usual is None or value in usual:
            continue
        is_small = value < usual.low
        if is_small and organ.is_cut and name not in LONG_ORGANS:
            continue
        is_gross = value > GROSS_FACTOR * usual.high or value < usual.low / GROSS_FACTOR
        text = f"{value:.3g} {unit}; {_expected(usual)}"
        code = "organ-too-small" if is_small else "organ-too-large"
        yield Finding(code, Severity.HOLD if is_gross else Severity.WARNING, name, text)


def _shapes(organs: Mapping[str, OrganMeasure], ranges: ReferenceRanges) -> Iterator[Finding]:
    for name, organ in organs.items():
        usual = ranges.roughness.get(name)
        if usual is not None and not organ.is_cut and organ.roughness > usual.high:
            text = (
                f"its surface is {organ.roughness:.2f} times that of a ball of its volume; {_expected(usual)}"
            )
            yield Finding("ragged-organ", Severity.WARNING, name, text)


def _side_ratios(organs: Mapping[str, OrganMeasure], ranges: ReferenceRanges) -> Iterator[Finding]:
    for stem, usual in ranges.side_ratio.items():
        left, right = organs.get(f"{stem}_L"), organs.get(f"{stem}_R")
        if left is None or right is None or left.is_cut or right.is_cut:
            continue
        ratio = max(left.volume_cm3, right.volume_cm3) / min(left.volume_cm3, right.volume_cm3)
        if ratio > usual.high:
            smaller, larger = sorted((f"{stem}_L", f"{stem}_R"), key=lambda name: organs[name].volume_cm3)
            volumes = f"left has {left.volume_cm3:.3g} cm³ and right {right.volume_cm3:.3g} cm³"
            text = f"{volumes}, a ratio of {ratio:.1f}; {_expected(usual)}"
            yield Finding("unequal-sides", Severity.WARNING, smaller, text, (larger,))


def _places(organs: Mapping[str, OrganMeasure], ranges: ReferenceRanges) -> Iterator[Finding]:
    for name, anchors in ANCHORS.items():
        unusual = {
            anchor: words
            for anchor in anchors
            if name in organs
            and anchor in organs
            and (words := [*_unusual_offsets(name, organs[name], anchor, organs[anchor], ranges)])
        }
        if unusual:
            places = ", ".join(place for words in unusual.values() for place in words)
            text = f"lies {places}; expected are the ranges in brackets"
            yield Finding("unusual-place", Severity.WARNING, name, text, tuple(unusual))


def _unusual_offsets(
    name: str, organ: OrganMeasure, anchor_name: str, anchor: OrganMeasure, ranges: ReferenceRanges
) -> Iterator[str]:
    usual = ranges.offset_mm.get(offset_key(name, anchor_name))
    if usual is None or organ.is_cut or anchor.is_cut:
        return
    offset = offset_mm(name, organ, anchor)
    for value, limits, words in zip(offset, usual, ("to its side", "backwards", "headwards"), strict=True):
        if value not in limits:
            yield f"{value:.0f} mm {words} from {anchor_name} ({limits.low:.0f} to {limits.high:.0f})"


def offset_key(name: str, anchor: str) -> str:
    """The name under which an organ's place is kept: one for both sides."""
    return f"{_stem(name)} from {_stem(anchor)}"


def offset_mm(name: str, organ: OrganMeasure, anchor: OrganMeasure) -> tuple[float, float, float]:
    """From an anchor's centroid to an organ's: (leftwards, backwards, headwards), mirrored for right organs."""
    left, back, head = (organ.centroid_mm - anchor.centroid_mm).tolist()
    return (-left if name.endswith("_R") else left, back, head)


def _stem(name: str) -> str:
    return name.removesuffix("_L").removesuffix("_R")


def _expected(usual: Range) -> str:
    low, high = (f"{each:.0f}" if each >= 100 else f"{each:.3g}" for each in (usual.low, usual.high))
    return f"expected is {low} to {high}, as in {usual.cases} contours of training patients"
