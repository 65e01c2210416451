"""Rules about which way round a patient is: left and right, up and down, front and back."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

import numpy as np

from daemon.lint_finding import Finding, error, warning
from daemon.lint_view import RoiView, StructureSetView
from daemon.side_words import SIDE_WORDS, sides, words
from model.structures import LEFT, RIGHT, Code

SWAPPED = error(
    "sides-swapped",
    "an ROI named left lies to the patient's right of its partner",
    "Look at both in the images; exchange names or contours.",
    "PS3.3 C.7.6.2: x grows to the patient's left",
)
WRONG_SIDE = warning(
    "side-doubtful",
    "an ROI named left or right lies on the other side of the patient's middle",
    "Look at it in the images.",
    "PS3.3 C.7.6.2: x grows to the patient's left",
)
CONTOUR_ON_OTHER_SIDE = warning(
    "contour-side-doubtful",
    "some contours of an ROI named left or right lie wholly on the other side of the patient's middle",
    "Look at these slices; delete what was drawn by mistake, or exchange it with the partner's.",
    "PS3.3 C.7.6.2: x grows to the patient's left",
)
UPSIDE_DOWN = warning(
    "order-upside-down",
    "organs lie above each other in an order that no patient has",
    "Look whether z is inverted.",
    "TotalSegmentator 2.18.0, rt-utils #24",
)
BACK_TO_FRONT = warning(
    "order-back-to-front",
    "organs lie behind each other in an order that no patient has",
    "Look whether y is inverted.",
    "TotalSegmentator 2.18.0",
)
RULES = (SWAPPED, WRONG_SIDE, CONTOUR_ON_OTHER_SIDE, UPSIDE_DOWN, BACK_TO_FRONT)

MARGIN_MM = 5.0
"""How far beyond the middle an ROI must lie before its side, or order, is doubted."""

_MIDLINE = frozenset(
    {"brainstem", "spinalcord", "spinalcanal", "larynx", "esophagus", "trachea", "mandible"}
) | {
    "brain",
    "bonemandible",
    "oralcavity",
    "cavityoral",
    "pharynx",
    "cord",
}
_ABOVE = {
    "brain": ("larynx", "bonemandible", "mandible", "trachea", "esophagus", "thyroid", "spinalcord"),
    "brainstem": ("larynx", "trachea", "thyroid"),
}
_BEFORE = {
    "eye": ("brainstem", "spinalcord", "spinalcanal"),
    "lens": ("brainstem", "spinalcord"),
    "larynx": ("spinalcord", "spinalcanal"),
    "trachea": ("spinalcord", "spinalcanal"),
}


def side(name: str) -> Code | None:
    """Left or right where exactly one side is named."""
    found = sides(name)
    return next(iter(found)) if len(found) == 1 else None


def stem(name: str) -> str:
    """Return the words of a name but for its side, run together."""
    return "".join(each for each in words(name) if each not in SIDE_WORDS)


def check_sides(view: StructureSetView) -> Iterator[Finding]:
    """What is named left lies at larger x than its partner, or than the patient's middle."""
    placed = [roi for roi in view.rois if np.isfinite(roi.centre_mm[0])]
    by_side = {each: _by_stem(roi for roi in placed if side(roi.name) == each) for each in (LEFT, RIGHT)}
    paired = by_side[LEFT].keys() & by_side[RIGHT].keys()
    pairs = [pair for key in sorted(paired) for pair in product(by_side[LEFT][key], by_side[RIGHT][key])]
    for left, right in pairs:
        if left.centre_mm[0] <= right.centre_mm[0]:
            x = f"x {left.centre_mm[0]:.1f} and {right.centre_mm[0]:.1f} mm"
            yield SWAPPED.at(left.path, f"{left.name} lies to the right of {right.name}: {x}", left.name)
    middle = _middle_mm(placed, pairs)
    if middle is None:
        return
    for which, sign in ((LEFT, 1), (RIGHT, -1)):
        for roi in (each for key, rois in by_side[which].items() if key not in paired for each in rois):
            off = sign * (roi.centre_mm[0] - middle)
            if off < -MARGIN_MM:
                x = f"x {roi.centre_mm[0]:.1f} mm, the patient's middle at {middle:.1f} mm"
                yield WRONG_SIDE.at(
                    roi.path, f"{roi.name} lies {-off:.1f} mm beyond the middle: {x}", roi.name
                )
        for roi in (each for rois in by_side[which].values() for each in rois):
            yield from _stray_contours(roi, sign, middle)


def _stray_contours(roi: RoiView, sign: int, middle_mm: float) -> Iterator[Finding]:
    """Contours beyond the middle of an ROI that as a whole is where its name says; else that is told already."""
    if sign * (roi.centre_mm[0] - middle_mm) < -MARGIN_MM:
        return
    stray = [each for each in roi.outlines if (sign * (each.points[:, 0] - middle_mm)).max() < -MARGIN_MM]
    if stray:
        places = (
            f"{len(stray)} of {len(roi.outlines)} contours of {roi.name}, the first at z {stray[0].z_mm} mm"
        )
        yield CONTOUR_ON_OTHER_SIDE.at(
            stray[0].path, f"{places}, lie beyond the middle at x {middle_mm:.1f} mm", roi.name
        )


def _by_stem(rois: Iterable[RoiView]) -> dict[str, list[RoiView]]:
    """ROIs by their names without a side: `Parotid_L` and `L Parotid` share one."""
    found: dict[str, list[RoiView]] = {}
    for roi in rois:
        found.setdefault(stem(roi.name), []).append(roi)
    return found


def _middle_mm(rois: Sequence[RoiView], pairs: Sequence[tuple[RoiView, RoiView]]) -> float | None:
    """Patient x of the middle: of organs of the midline, else of pairs, else of the outline; None if unknown."""
    midline = [roi.centre_mm[0] for roi in rois if stem(roi.name) in _MIDLINE and not side(roi.name)]
    outlines = [roi.centre_mm[0] for roi in rois if roi.interpreted_type == "EXTERNAL"]
    between = [(left.centre_mm[0] + right.centre_mm[0]) / 2 for left, right in pairs]
    known = midline or between or outlines
    return float(np.median(known)) if known else None


def check_order(view: StructureSetView) -> Iterator[Finding]:
    """Brain above larynx, eyes before brainstem: what is true of every head."""
    centres = _by_stem(roi for roi in view.rois if np.isfinite(roi.centre_mm).all())
    for rule, order, axis, sign, word in (
        (UPSIDE_DOWN, _ABOVE, 2, 1, "below"),
        (BACK_TO_FRONT, _BEFORE, 1, -1, "behind"),
    ):
        for one, others in order.items():
            for roi in centres.get(one, ()):
                for other in (each for name in others for each in centres.get(name, ())):
                    off = sign * (other.centre_mm[axis] - roi.centre_mm[axis])
                    if off > MARGIN_MM:
                        yield rule.at(roi.path, f"{roi.name} lies {off:.0f} mm {word} {other.name}", roi.name)


CHECKS = (check_sides, check_order)
