"""Rules about each ROI: that it has contours, an algorithm, a type that fits and a colour of its own."""

from collections.abc import Iterator

from daemon.lint_finding import Finding, error, note, warning
from daemon.lint_view import RoiView, StructureSetView, text

EMPTY_ROI = warning(
    "roi-empty",
    "an ROI has no contours",
    "Leave it out, unless somebody is to contour it: some systems refuse it.",
    "dicom_tools #18, OHIF #1897",
)
ALGORITHM = warning(
    "algorithm-missing",
    "ROI Generation Algorithm is empty",
    "Write AUTOMATIC, SEMIAUTOMATIC or MANUAL.",
    "IHE-RO BRTO",
)
ALGORITHM_TERM = error(
    "algorithm-unknown",
    "ROI Generation Algorithm is none of its defined terms",
    "Write AUTOMATIC, SEMIAUTOMATIC or MANUAL.",
    "PS3.3 C.8.8.5",
)
TYPE_MISSING = note(
    "type-missing",
    "RT ROI Interpreted Type is empty",
    "Write ORGAN for an organ; planning systems treat types differently.",
    "PS3.3 C.8.8.8",
)
TYPE = warning(
    "type-unfit",
    "RT ROI Interpreted Type is unknown, or is not for contours of this kind",
    "Use a term that IHE-RO allows for closed contours or for points.",
    "IHE-RO BRTO",
)
COLOUR = error(
    "colour-invalid",
    "ROI Display Color is not three numbers from 0 to 255",
    "Write red, green and blue.",
    "PS3.3 C.8.8.6",
)
NO_COLOUR = note("colour-missing", "an ROI has no colour", "Write ROI Display Color.", "all commercial files")
SAME_COLOUR = note(
    "colour-twice",
    "two ROIs have one colour",
    "Give them colours that a reader can tell apart.",
    "all commercial files",
)
RULES = (
    EMPTY_ROI,
    ALGORITHM,
    ALGORITHM_TERM,
    TYPE_MISSING,
    TYPE,
    COLOUR,
    NO_COLOUR,
    SAME_COLOUR,
)

_ALGORITHMS = frozenset({"AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"})
_CLOSED_TYPES = frozenset({"EXTERNAL", "PTV", "CTV", "GTV", "TREATED_VOLUME", "IRRAD_VOLUME", "BOLUS"}) | {
    "AVOIDANCE",
    "ORGAN",
    "MARKER",
    "CONTRAST_AGENT",
    "CAVITY",
}
_POINT_TYPES = frozenset({"MARKER", "REGISTRATION", "ISOCENTER"})
_OTHER_TYPES = frozenset({"BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP", "BRACHY_CHNL_SHLD"}) | {
    "SUPPORT",
    "FIXATION",
    "DOSE_REGION",
    "CONTROL",
    "DOSE_MEASUREMENT",
}
"""Defined terms of PS3.3 C.8.8.8 that IHE-RO does not ask for, and that no rule forbids."""


def check_rois(view: StructureSetView) -> Iterator[Finding]:
    """Every ROI has contours, an algorithm and a type that fits."""
    for roi in view.rois:
        if not roi.contours:
            what = "there is no ROI Contour item" if roi.contours_item is None else "its item has no contours"
            yield EMPTY_ROI.at(roi.contours_path or roi.path, what, roi.name)
        algorithm = text(roi.item, "ROIGenerationAlgorithm")
        path = f"{roi.path}.ROIGenerationAlgorithm"
        if not algorithm:
            yield ALGORITHM.at(path, "ROI Generation Algorithm is empty", roi.name)
        elif algorithm not in _ALGORITHMS:
            yield ALGORITHM_TERM.at(path, f"ROI Generation Algorithm is {algorithm!r}", roi.name)
        if roi.observation is not None:
            yield from _type(roi)


def _type(roi: RoiView) -> Iterator[Finding]:
    path, found = f"{roi.observation_path}.RTROIInterpretedType", roi.interpreted_type
    are_points = bool(roi.contours) and all(each.type == "POINT" for each in roi.contours)
    allowed = _POINT_TYPES if are_points else _CLOSED_TYPES
    if not found:
        yield TYPE_MISSING.at(path, "RT ROI Interpreted Type is empty", roi.name)
    elif found not in allowed | _OTHER_TYPES and (roi.contours or found not in _POINT_TYPES):
        kind = "points" if are_points else "closed contours"
        yield TYPE.at(path, f"the type is {found!r}, of {kind}", roi.name)


def check_colours(view: StructureSetView) -> Iterator[Finding]:
    """Every ROI has a colour of its own."""
    first: dict[str, str] = {}
    for roi in view.rois:
        if roi.contours_item is None:
            continue
        colour, path = text(roi.contours_item, "ROIDisplayColor"), f"{roi.contours_path}.ROIDisplayColor"
        if not colour:
            yield NO_COLOUR.at(path, "there is no colour", roi.name)
        elif not _is_colour(colour):
            yield COLOUR.at(path, f"the colour is {colour}", roi.name)
        elif colour in first:
            yield SAME_COLOUR.at(path, f"{colour} is also the colour of {first[colour]}", roi.name)
        first.setdefault(colour, roi.name)


def _is_colour(colour: str) -> bool:
    parts = colour.split("\\")
    return len(parts) == 3 and all(part.isdecimal() and int(part) <= 255 for part in parts)


CHECKS = (check_rois, check_colours)
