"""Rules of one receiver: what its profile says that it takes."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID

from daemon.destination_profile import EmptyStructures, HoleStyle, Profile
from daemon.lint_finding import Finding, error, note, warning
from daemon.lint_view import RoiView, StructureSetView, referenced_studies, text

_SOURCE = "daemon/destination_profile.py, with its evidence"

NAME = error("profile-name-too-long", "a name is longer than the receiver takes", "Shorten it.", _SOURCE)
DIGITS = warning(
    "profile-decimals", "coordinates have more decimals than the receiver's own", "Round them.", _SOURCE
)
POINTS = warning(
    "profile-points", "a contour has more points than the receiver takes", "Write fewer points.", _SOURCE
)
SYNTAX = error(
    "profile-transfer-syntax",
    "the receiver does not take the transfer syntax",
    "Convert the file; a sender that negotiates does it by itself.",
    _SOURCE,
)
EMPTY = error(
    "profile-empty-structure", "the receiver takes no ROI without contours", "Leave it out.", _SOURCE
)
HOLES = warning(
    "profile-holes",
    "a hole is a contour of its own, the receiver's style is another",
    "Join it to its outer contour by a channel, or leave it out, as the profile says.",
    _SOURCE,
)
STUDY = note(
    "profile-study-class",
    "the class of the referenced study is not the one the receiver's own files have",
    "Write the class that the profile names if the import fails.",
    _SOURCE,
)

RULES = (NAME, DIGITS, POINTS, SYNTAX, EMPTY, HOLES, STUDY)


def check_roi_limits(view: StructureSetView, profile: Profile) -> Iterator[Finding]:
    """Names, empty structures and holes."""
    for roi in view.rois:
        if len(roi.name) > profile.max_name_length:
            words = f"the name has {len(roi.name)} characters, {profile.name} takes {profile.max_name_length}"
            yield NAME.at(f"{roi.path}.ROIName", words, roi.name)
        if not roi.contours and profile.empty_structures is EmptyStructures.LEAVE_OUT:
            yield EMPTY.at(roi.path, f"it has no contours, and {profile.name} wants it left out", roi.name)
        if profile.holes is not HoleStyle.NESTED:
            for outer, inner in nested(roi):
                contour = roi.outlines[inner]
                words = (
                    f"it lies inside {roi.outlines[outer].path}; {profile.name} wants holes {profile.holes}"
                )
                yield HOLES.at(contour.path, words, roi.name, contour.z_mm)


def check_contour_limits(view: StructureSetView, profile: Profile) -> Iterator[Finding]:
    """Points and decimals."""
    for contour in view.contours:
        if len(contour.points) > profile.max_points:
            words = f"it has {len(contour.points)} points, {profile.name} takes {profile.max_points}"
            yield POINTS.at(contour.path, words, contour.roi, contour.z_mm)
        if contour.coordinates.decimals > profile.decimals:
            words = f"it has {contour.coordinates.decimals} decimals, {profile.name} {profile.decimals}"
            yield DIGITS.at(f"{contour.path}.ContourData", words, contour.roi, contour.z_mm)


def check_file_limits(view: StructureSetView, profile: Profile) -> Iterator[Finding]:
    """Transfer syntax and the class of the referenced study."""
    meta: Dataset = getattr(view.dataset, "file_meta", Dataset())
    syntax = UID(text(meta, "TransferSyntaxUID"))
    if syntax and syntax not in profile.transfer_syntaxes:
        names = " or ".join(each.name for each in profile.transfer_syntaxes)
        yield SYNTAX.at("TransferSyntaxUID", f"it is {syntax.name}, {profile.name} takes {names}")
    for path, study in referenced_studies(view.dataset):
        found = UID(text(study, "ReferencedSOPClassUID"))
        if found and found != profile.study_sop_class_uid:
            words = f"it is {found.name}, {profile.name} wants {profile.study_sop_class_uid.name}"
            yield STUDY.at(f"{path}.ReferencedSOPClassUID", words)


def nested(roi: RoiView) -> Iterator[tuple[int, int]]:
    """(outer, inner) indices of outlines of one ROI and one slice of which one lies inside the other."""
    stack = roi.stack
    for inner in range(len(stack)):
        holds = (stack.low_mm[:, :2] < stack.low_mm[inner, :2]).all(axis=1)
        holds &= (stack.high_mm[:, :2] > stack.high_mm[inner, :2]).all(axis=1)
        apart_mm = ((stack.means_mm - stack.means_mm[inner]) * stack.normals).sum(axis=1)
        holds &= np.abs(apart_mm) < 0.1
        for outer in np.flatnonzero(holds):
            if _contains(roi.outlines[outer].points, roi.outlines[inner].points[0]):
                yield int(outer), inner
                break


def _contains(polygon: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    """Whether an (n, 3) polygon has a point's x and y inside, by the even-odd rule."""
    x, y = polygon[:, 0], polygon[:, 1]
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    straddles = (y > point[1]) != (y_next > point[1])
    slope = (x_next - x)[straddles] / (y_next - y)[straddles]
    crossing_x = x[straddles] + (point[1] - y[straddles]) * slope
    return bool(np.count_nonzero(crossing_x > point[0]) % 2)


CHECKS = (check_roi_limits, check_contour_limits, check_file_limits)
