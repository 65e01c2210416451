"""Rules about how a structure set's parts refer to each other: ROI numbers, listed images, frames of reference."""

from collections import Counter
from collections.abc import Iterator, Sequence

from pydicom import Dataset
from pydicom.uid import UID, CTImageStorage

from daemon.lint_finding import Finding, error, note, warning
from daemon.lint_view import (
    ContourView,
    StructureSetView,
    integer,
    items,
    listed_images,
    referenced_series,
    referenced_studies,
    text,
)

NUMBER_TWICE = error(
    "roi-number-twice",
    "two ROIs have one ROI Number",
    "Give each ROI its own number.",
    "PS3.3 C.8.8.5; IHE-RO",
)
CONTOURS_OF_NONE = error(
    "contours-of-unknown-roi",
    "an ROI Contour item refers to no ROI",
    "Refer to a number in Structure Set ROI Sequence.",
    "PS3.3 C.8.8.6; IHE-RO",
)
CONTOURS_TWICE = error(
    "roi-contoured-twice",
    "two ROI Contour items refer to one ROI",
    "Put all contours of an ROI into one item: readers take the first or the last.",
    "PS3.3 C.8.8.6",
)
OBSERVATION_OF_NONE = error(
    "observation-of-unknown-roi",
    "an observation refers to no ROI",
    "Refer to a number in Structure Set ROI Sequence.",
    "PS3.3 C.8.8.8; IHE-RO",
)
OBSERVATION_NUMBER = error(
    "observation-number-twice",
    "two observations have one Observation Number",
    "Give each observation its own number.",
    "PS3.3 C.8.8.8",
)
OBSERVED_TWICE = note(
    "roi-observed-twice",
    "an ROI has several observations",
    "Nothing; readers may take the first.",
    "PS3.3 C.8.8.8",
)
UNOBSERVED = warning(
    "roi-without-observation",
    "an ROI has no observation, so no type",
    "Write one item in RT ROI Observations Sequence for each ROI.",
    "all commercial files",
)
ROI_FRAME = error(
    "roi-frame-unlisted",
    "an ROI lies in a frame of reference that the file does not list",
    "List it in Referenced Frame of Reference Sequence.",
    "PS3.3 C.8.8.5; rt-utils #29",
)
FRAMES = warning(
    "frames-of-reference",
    "there is not exactly one referenced frame of reference, study and series",
    "Refer to one frame of reference, study and series.",
    "IHE-RO BRTO",
)
FRAME = error(
    "frame-of-reference-differs",
    "Frame of Reference UID is not the referenced one",
    "Copy it from the images.",
    "PS3.3 C.7.4.1",
)
STUDY = warning(
    "study-differs",
    "the structure set lies in another study than its images",
    "Copy Study Instance UID from the images.",
    "IHE-RO BRTO",
)
NO_IMAGE = warning(
    "contour-image-missing",
    "a contour names no image",
    "Write one item in its Contour Image Sequence, or readers guess the slice.",
    "IHE-RO BRTO; pytrip #188, OHIF #2102",
)
IMAGES = warning(
    "contour-images-several", "a contour names several images", "Name the one it lies on.", "IHE-RO BRTO"
)
UNLISTED = error(
    "contour-image-unlisted",
    "a contour refers to an image that the referenced series does not list",
    "List every image of the series.",
    "IHE-RO BRTO",
)
LISTED_TWICE = error(
    "image-listed-twice", "a referenced series lists an image twice", "List each image once.", "IHE-RO BRTO"
)
NOT_CT = warning(
    "image-not-ct",
    "a referenced image is not of the class CT Image Storage",
    "Refer to CT images.",
    "IHE-RO BRTO",
)
FRAME_NUMBER = warning(
    "frame-number",
    "a reference has a Referenced Frame Number",
    "Leave it out for single-frame images.",
    "IHE-RO BRTO",
)

RULES = (
    NUMBER_TWICE,
    CONTOURS_OF_NONE,
    CONTOURS_TWICE,
    OBSERVATION_OF_NONE,
    OBSERVATION_NUMBER,
    OBSERVED_TWICE,
    UNOBSERVED,
    ROI_FRAME,
    FRAMES,
    FRAME,
    STUDY,
    NO_IMAGE,
    IMAGES,
    UNLISTED,
    LISTED_TWICE,
    NOT_CT,
    FRAME_NUMBER,
)


def check_numbers(view: StructureSetView) -> Iterator[Finding]:
    """The three sequences speak of the same ROIs."""
    first: dict[int | None, str] = {}
    for roi in view.rois:
        if roi.number is not None and roi.number in first:
            yield NUMBER_TWICE.at(
                roi.path, f"ROI Number {roi.number} is also that of {first[roi.number]}", roi.name
            )
        first.setdefault(roi.number, roi.path)
    yield from _backward(view, "ROIContourSequence")
    yield from _backward(view, "RTROIObservationsSequence")
    for roi in view.rois:
        if roi.observation is None:
            yield UNOBSERVED.at(roi.path, "no observation refers to it", roi.name)
    numbers: set[int] = set()
    for index, item in enumerate(items(view.dataset, "RTROIObservationsSequence"), start=1):
        number = integer(item, "ObservationNumber")
        if number in numbers:
            path = f"RTROIObservationsSequence[{index}]"
            yield OBSERVATION_NUMBER.at(path, f"Observation Number {number} is not the first of its kind")
        numbers |= {number} if number is not None else set()


def _backward(view: StructureSetView, keyword: str) -> Iterator[Finding]:
    of_contours = keyword == "ROIContourSequence"
    unknown, twice = (
        (CONTOURS_OF_NONE, CONTOURS_TWICE) if of_contours else (OBSERVATION_OF_NONE, OBSERVED_TWICE)
    )
    names = {roi.number: roi.name for roi in view.rois}
    seen: set[int] = set()
    for index, item in enumerate(items(view.dataset, keyword), start=1):
        number = integer(item, "ReferencedROINumber")
        path = f"{keyword}[{index}]"
        if number is None or number not in names:
            yield unknown.at(path, f"it refers to ROI {number}; there are {_some(sorted(map(str, names)))}")
        elif number in seen:
            yield twice.at(path, f"it refers to ROI {number}, as an item before it", names[number])
        else:
            seen.add(number)


def check_frames(view: StructureSetView) -> Iterator[Finding]:
    """One frame of reference, one study and one series, and they are the file's own."""
    dataset = view.dataset
    frames = items(dataset, "ReferencedFrameOfReferenceSequence")
    studies, series = list(referenced_studies(dataset)), list(referenced_series(dataset))
    counts = {"frames of reference": len(frames), "studies": len(studies), "series": len(series)}
    if set(counts.values()) != {1}:
        words = ", ".join(f"{count} {what}" for what, count in counts.items())
        yield FRAMES.at("ReferencedFrameOfReferenceSequence", f"it lists {words}")
    listed = [text(frame, "FrameOfReferenceUID") for frame in frames]
    own = text(dataset, "FrameOfReferenceUID")
    if own and listed and own not in listed:
        yield FRAME.at("FrameOfReferenceUID", f"it is {own}, referenced is {_some(listed)}")
    for roi in view.rois:
        uid = text(roi.item, "ReferencedFrameOfReferenceUID")
        if uid and uid not in listed:
            yield ROI_FRAME.at(f"{roi.path}.ReferencedFrameOfReferenceUID", f"it is {uid}", roi.name)
    for path, study in studies:
        uid = text(study, "ReferencedSOPInstanceUID")
        if uid and uid != text(dataset, "StudyInstanceUID"):
            yield STUDY.at(f"{path}.ReferencedSOPInstanceUID", f"it is {uid}, not the file's own study")


def check_listed_images(view: StructureSetView) -> Iterator[Finding]:
    """The referenced series lists each of its CT images once."""
    found = list(listed_images(view.dataset))
    counts = Counter(text(image, "ReferencedSOPInstanceUID") for _, _, image in found)
    for uid, count in counts.items():
        if count > 1:
            yield LISTED_TWICE.at(view.listed_images[uid], f"{uid} is listed {count} times")
    yield from _image_items([(path, image) for path, _, image in found], None)


def check_contour_images(view: StructureSetView) -> Iterator[Finding]:
    """Each contour names the one image it lies on, which is listed."""
    for contour in view.contours:
        path = f"{contour.path}.ContourImageSequence"
        found = items(contour.item, "ContourImageSequence")
        if not contour.image_uids:
            yield NO_IMAGE.at(path, "it names no image", contour.roi, contour.z_mm)
        elif len(contour.image_uids) > 1:
            yield IMAGES.at(path, f"it names {len(contour.image_uids)} images", contour.roi, contour.z_mm)
        for uid in contour.image_uids:
            if view.listed_images and uid not in view.listed_images:
                yield UNLISTED.at(path, f"image {uid} is not listed", contour.roi, contour.z_mm)
        yield from _image_items([(f"{path}[{n}]", item) for n, item in enumerate(found, 1)], contour)


def _image_items(found: Sequence[tuple[str, Dataset]], contour: ContourView | None) -> Iterator[Finding]:
    where = (contour.roi, contour.z_mm) if contour else (None, None)
    for path, item in found:
        sop_class = text(item, "ReferencedSOPClassUID")
        if sop_class and sop_class != CTImageStorage:
            yield NOT_CT.at(path, f"its class is {UID(sop_class).name}", *where)
        if "ReferencedFrameNumber" in item:
            yield FRAME_NUMBER.at(
                path, f"Referenced Frame Number is {text(item, 'ReferencedFrameNumber')}", *where
            )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"


CHECKS = (check_numbers, check_frames, check_listed_images, check_contour_images)
