"""Rules about contours by themselves: their data, and whether they are polygons."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from daemon.lint_coordinates import MAX_DECIMAL_STRING
from daemon.lint_crossings import crossings
from daemon.lint_finding import Finding, Rule, error, note, warning
from daemon.lint_view import ContourView, RoiView, StructureSetView, integer, is_closed

NO_DATA = error(
    "contour-without-data", "a contour has no Contour Data", "Leave the contour out.", "PS3.3 C.8.8.6, type 1"
)
BROKEN = error(
    "contour-data-malformed",
    "a coordinate is no decimal string",
    "Write finite decimal numbers.",
    "PS3.5 6.2",
)
LONG = error(
    "contour-data-digits",
    "a coordinate has more than 16 characters",
    "Round to 0.01 mm: Eclipse refuses the whole file.",
    "PS3.5 6.2; TotalSegmentator-AIDE #11, rt-utils #80",
)
TRIPLES = error(
    "contour-data-not-triples",
    "the number of coordinates is no multiple of three",
    "Write x, y and z of each point.",
    "PS3.3 C.8.8.6",
)
COUNT = error(
    "contour-points-differ",
    "Number of Contour Points is not the number of points",
    "Count the points that are written.",
    "PS3.3 C.8.8.6; IHE-RO BRTO",
)
BIG = warning(
    "contour-data-over-64k",
    "Contour Data has more than 65534 bytes, which explicit VR cannot hold as DS",
    "Write fewer points or digits: who converts the file writes UN.",
    "PS3.5 7.1.2; pydicom PR #903",
)
UNKNOWN_VR = error(
    "contour-data-unknown-vr",
    "Contour Data stands in the file with another VR than DS",
    "Write implicit VR, or fewer points: readers that do not look the VR up lose the contour.",
    "PS3.5 6.2.2; dcmjs PR #450",
)
TYPE = error(
    "contour-type-unknown",
    "Contour Geometric Type is no defined term",
    "Write CLOSED_PLANAR, or POINT for a single point.",
    "PS3.3 C.8.8.6",
)
OPEN = warning(
    "contour-type-open",
    "a contour is neither CLOSED_PLANAR nor POINT",
    "Close it; planning systems take no volume from an open contour.",
    "IHE-RO BRTO",
)
POINT = error("point-of-many", "a contour of type POINT has several points", "Write one.", "PS3.3 C.8.8.6")
FEW = error(
    "contour-too-few-points",
    "a closed contour has fewer than three points",
    "Leave it out, or make it a POINT.",
    "PS3.3 C.8.8.6; rt-utils #87",
)
FLAT = warning(
    "contour-without-area", "a closed contour has no area", "Leave it out.", "PS3.3 C.8.8.6; rt-utils #87"
)
CLOSED = note(
    "contour-closed-twice",
    "the last point repeats the first",
    "Leave it out: a closed contour closes itself.",
    "all commercial files",
)
REPEATED = note(
    "point-repeated",
    "a point follows itself",
    "Leave the copies out.",
    "some readers divide by an edge's length",
)
CROSSED = warning(
    "contour-crosses-itself",
    "edges of one contour cross, so that inside and outside depend on the reader",
    "Draw it again, or split it where it crosses.",
    "SlicerRT #171, cornerstone3D #2477",
)
UNEVEN = error(
    "contour-not-planar",
    "the points of a planar contour do not lie in one plane",
    "Write all points of a contour on its slice.",
    "PS3.3 C.8.8.6; IHE-RO BRTO",
)
TWICE = error(
    "contour-twice",
    "an ROI has one contour twice, so that readers that toggle inside and outside see none",
    "Write it once.",
    "platipy #244",
)

RULES: tuple[Rule, ...] = (
    NO_DATA,
    BROKEN,
    LONG,
    TRIPLES,
    COUNT,
    BIG,
    UNKNOWN_VR,
    TYPE,
    OPEN,
    POINT,
    FEW,
    FLAT,
    CLOSED,
    REPEATED,
    CROSSED,
    UNEVEN,
    TWICE,
)

MAX_VALUE_BYTES = 65534
PLANE_TOLERANCE_MM = 0.01 + 0.005 * 3**0.5
"""How far from their plane points may lie: 0.01 mm (IHE-RO BRTO) and what rounding to 0.01 mm adds."""

LEAST_AREA_MM2 = 0.01
_TYPES = frozenset({"POINT", "OPEN_PLANAR", "OPEN_NONPLANAR", "CLOSED_PLANAR", "CLOSEDPLANAR_XOR"})


def check_data(view: StructureSetView) -> Iterator[Finding]:
    """Contour Data are decimal strings, three for each point, as many as said."""
    for contour in view.contours:
        for rule, words in _data(contour):
            yield _at(rule, contour, words, ".ContourData")
        for rule, words in _kind(contour):
            yield _at(rule, contour, words)


def _at(rule: Rule, contour: ContourView, words: str, attribute: str = "") -> Finding:
    return rule.at(contour.path + attribute, words, contour.roi, contour.z_mm)


def _data(contour: ContourView) -> Iterator[tuple[Rule, str]]:
    data = contour.coordinates
    if not len(data.values) and not data.broken:
        yield NO_DATA, "there are no coordinates"
        return
    if data.broken:
        yield BROKEN, data.broken
    elif len(data.values) % 3:
        yield TRIPLES, f"there are {len(data.values)} coordinates"
    if data.longest > MAX_DECIMAL_STRING:
        yield LONG, f"a coordinate has {data.longest} characters"
    if len(data.encoded) > MAX_VALUE_BYTES:
        yield BIG, f"it has {len(data.encoded)} bytes"
    if data.vr not in {"", "DS"}:
        yield UNKNOWN_VR, f"its VR is {data.vr}"
    said = integer(contour.item, "NumberOfContourPoints")
    if len(contour.points) and said is not None and said != len(contour.points):
        yield COUNT, f"it says {said} points and has {len(contour.points)}"


def _kind(contour: ContourView) -> Iterator[tuple[Rule, str]]:
    count = len(contour.points)
    if contour.type and contour.type not in _TYPES:
        yield TYPE, f"the type is {contour.type!r}"
    elif contour.type.startswith("OPEN") or contour.type == "CLOSEDPLANAR_XOR":
        yield OPEN, f"the type is {contour.type}"
    if contour.type == "POINT" and count > 1:
        yield POINT, f"it has {count} points"
    if is_closed(contour.type) and 0 < count < 3:
        yield FEW, f"it has {count} point" + "s" * (count > 1)
    if contour.type == "OPEN_PLANAR" and count > 3 and _off_plane_mm(contour.points) > PLANE_TOLERANCE_MM:
        yield UNEVEN, f"its points lie up to {_off_plane_mm(contour.points):.2f} mm off their plane"


def check_polygons(view: StructureSetView) -> Iterator[Finding]:
    """Closed contours are flat polygons with an inside, without copies of points."""
    for roi in view.rois:
        if not roi.outlines:
            continue
        for index in np.flatnonzero(_uneven(roi)).tolist():
            off = _off_plane_mm(roi.outlines[index].points)
            if off > PLANE_TOLERANCE_MM:
                yield _at(UNEVEN, roi.outlines[index], f"its points lie up to {off:.2f} mm off their plane")
        yield from _without_area(roi)
        yield from _copies_of_points(roi)
        for index, (count, where) in crossings(roi.stack).items():
            x, y, z = where
            words = f"edges cross in {count} place{'s' * (count > 1)}, such as ({x:.1f}, {y:.1f}, {z:.1f}) mm"
            yield _at(CROSSED, roi.outlines[index], words)


def _uneven(roi: RoiView) -> NDArray[np.bool_]:
    """(outlines,) whether the points are on no plane of one coordinate; most are on a plane of one z."""
    return np.asarray((roi.stack.high_mm - roi.stack.low_mm).min(axis=1) > PLANE_TOLERANCE_MM)


def _off_plane_mm(points: NDArray[np.float64]) -> float:
    """Farthest distance of (n, 3) points from the plane that fits them best."""
    centred = points - points.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return float(np.abs(centred @ vectors[:, 0]).max())


def _without_area(roi: RoiView) -> Iterator[Finding]:
    for index in np.flatnonzero(roi.stack.areas_mm2 < LEAST_AREA_MM2):
        yield _at(FLAT, roi.outlines[index], f"the area is {roi.stack.areas_mm2[index]:.4f} mm²")


def _copies_of_points(roi: RoiView) -> Iterator[Finding]:
    stack = roi.stack
    same = (stack.points == stack.points[stack.next_point]).all(axis=1)
    last = stack.starts + stack.sizes - 1
    for index in np.flatnonzero(same[last]):
        yield _at(CLOSED, roi.outlines[index], "its last point is its first")
    same[last] = False
    numbers = stack.sums(same.astype(float))
    for index in np.flatnonzero(numbers):
        copies = int(numbers[index])
        yield _at(REPEATED, roi.outlines[index], f"{copies} point{'s' * (copies > 1)} repeat the one before")


def check_copies(view: StructureSetView) -> Iterator[Finding]:
    """No ROI has a contour twice, wherever each begins and whichever way round it goes."""
    for roi in view.rois:
        first: dict[bytes, ContourView] = {}
        for contour in _candidates(roi):
            points = np.unique(contour.points.round(3) + 0.0, axis=0)
            earlier = first.setdefault(points.tobytes(), contour)
            if earlier is not contour:
                yield _at(TWICE, contour, f"it is the same as {earlier.path}")


def _candidates(roi: RoiView) -> Iterator[ContourView]:
    """Outlines that share bounding box and number of points with another: only these need comparing."""
    if not roi.outlines:
        return
    boxes = np.round(np.hstack([roi.stack.low_mm, roi.stack.high_mm]), 3) + 0.0
    groups: dict[bytes, list[ContourView]] = defaultdict(list)
    for contour, box in zip(roi.outlines, boxes, strict=True):
        groups[box.tobytes()].append(contour)
    for group in groups.values():
        if len(group) > 1:
            yield from group


CHECKS = (check_data, check_polygons, check_copies)
