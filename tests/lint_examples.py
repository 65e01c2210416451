"""For each rule about structure sets a way to break a good file so that the rule must speak."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, MRImageStorage

from daemon.destination_profile import PROFILES, HoleStyle, Profile
from daemon.lint_images import CTImages

GENERIC = PROFILES["generic"]
Breakage = Callable[[Dataset], object]
ImageBreakage = Callable[[Dataset, CTImages], object]


# What the breakages reach for


def roi(dataset: Dataset, index: int = 0) -> Dataset:
    return dataset.StructureSetROISequence[index]


def drawn(dataset: Dataset, index: int = 0) -> Dataset:
    return dataset.ROIContourSequence[index]


def observed(dataset: Dataset, index: int = 0) -> Dataset:
    return dataset.RTROIObservationsSequence[index]


def named(dataset: Dataset, name: str) -> int:
    """Index of an ROI in each of the three sequences."""
    return next(n for n, item in enumerate(dataset.StructureSetROISequence) if item.ROIName == name)


def contour(dataset: Dataset, name: str = "Parotid_L", index: int = 0) -> Dataset:
    return drawn(dataset, named(dataset, name)).ContourSequence[index]


def frame(dataset: Dataset) -> Dataset:
    return dataset.ReferencedFrameOfReferenceSequence[0]


def study(dataset: Dataset) -> Dataset:
    return frame(dataset).RTReferencedStudySequence[0]


def series(dataset: Dataset) -> Dataset:
    return study(dataset).RTReferencedSeriesSequence[0]


def raw(
    dataset: Dataset, keyword: str, value: bytes, vr: str | None = None, length: int | None = None
) -> None:
    """Put an element in as if it had just been read."""
    tag = Tag(keyword)
    if tag in dataset:
        del dataset[tag]
    size = len(value) if length is None else length
    dataset[tag] = RawDataElement(tag, vr, size, value, 0, is_implicit_VR=vr is None, is_little_endian=True)


def points_of(item: Dataset) -> np.ndarray:
    return np.array(item.ContourData, dtype=float).reshape(-1, 3)


def draw(item: Dataset, points: object) -> None:
    """Make points the contour's data, to 0.01 mm."""
    values = np.asarray(points, dtype=float).reshape(-1, 3)
    encode_data(item, "\\".join(f"{value:.2f}" for value in values.ravel()), len(values))


def encode_data(item: Dataset, text: str, count: int | None = None, vr: str | None = None) -> None:
    raw(item, "ContourData", (text + " " * (len(text) % 2)).encode(), vr)
    if count is not None:
        item.NumberOfContourPoints = count


def change_points(item: Dataset, change: Callable[[np.ndarray], object]) -> None:
    draw(item, change(points_of(item)))


def first_number(item: Dataset, text: str) -> None:
    encode_data(item, "\\".join([text, *(str(value) for value in item.ContourData[1:])]))


def change_roi(dataset: Dataset, name: str, change: Callable[[np.ndarray], object]) -> None:
    for item in drawn(dataset, named(dataset, name)).ContourSequence:
        change_points(item, change)


def change_all(dataset: Dataset, change: Callable[[np.ndarray], object]) -> None:
    for item in dataset.StructureSetROISequence:
        change_roi(dataset, item.ROIName, change)


def copy_of(item: Dataset, **attributes: object) -> Dataset:
    """A new item; contour data stay as they are encoded."""
    copied = Dataset()
    for tag in list(item.keys()):
        copied[tag] = item.get_item(tag)
    for keyword, value in attributes.items():
        setattr(copied, keyword, value)
    return copied


def rename(dataset: Dataset, name: str, other: str = "Brain") -> None:
    roi(dataset, named(dataset, other)).ROIName = name


def swap_names(dataset: Dataset, one: str, other: str) -> None:
    first, second = named(dataset, one), named(dataset, other)
    roi(dataset, first).ROIName, roi(dataset, second).ROIName = other, one


def empty(dataset: Dataset, index: int = 0) -> None:
    del drawn(dataset, index).ContourSequence


def private_creator(dataset: Dataset) -> None:
    dataset.private_block(0x3271, "A VENDOR", create=True).add_new(1, "LO", "secret")


def orphan(dataset: Dataset) -> None:
    private_creator(dataset)
    del dataset[0x32710010]


def bow_tie(points: np.ndarray) -> object:
    z = points[0, 2]
    return [(40, 0, z), (60, 20, z), (60, 0, z), (40, 20, z)]


def skip_slice(dataset: Dataset) -> None:
    del drawn(dataset, named(dataset, "SpinalCord")).ContourSequence[4]


def only(dataset: Dataset, name: str) -> None:
    """Leave one ROI."""
    index = named(dataset, name)
    for keyword in ("StructureSetROISequence", "ROIContourSequence", "RTROIObservationsSequence"):
        setattr(dataset, keyword, [dataset[keyword].value[index]])


def far_part(dataset: Dataset) -> None:
    contours = drawn(dataset, named(dataset, "SpinalCord")).ContourSequence
    change_points(contours[0], lambda points: points + np.array([60, 0, 0]))
    for item in contours[1:4]:
        contours.remove(item)


def same_points(dataset: Dataset) -> None:
    first, second = named(dataset, "Parotid_L"), named(dataset, "Parotid_R")
    drawn(dataset, second).ContourSequence = [copy_of(each) for each in drawn(dataset, first).ContourSequence]


def reviewed(dataset: Dataset) -> None:
    dataset.ApprovalStatus = "APPROVED"


def uncoded(dataset: Dataset) -> None:
    del observed(dataset).RTROIIdentificationCodeSequence[0].CodingSchemeDesignator


def point_at(dataset: Dataset, count: int) -> None:
    contour(dataset).ContourGeometricType = "POINT"
    change_points(contour(dataset), lambda points: points[:count])


def refer(item: Dataset, uid: str) -> None:
    item.ContourImageSequence[0].ReferencedSOPInstanceUID = uid


ALONE: dict[str, Breakage] = {
    # modules and file
    "attribute-missing": lambda d: d.pop("OperatorsName"),
    "attribute-empty": lambda d: setattr(d, "StructureSetLabel", ""),
    "no-rois": lambda d: setattr(d, "StructureSetROISequence", []),
    "not-a-structure-set": lambda d: setattr(d, "Modality", "RTPLAN"),
    "code-incomplete": uncoded,
    "approval-missing": lambda d: d.pop("ApprovalStatus"),
    "approval-invalid": lambda d: setattr(d, "ApprovalStatus", "SIGNED"),
    "review-incomplete": reviewed,
    "structure-set-undated": lambda d: setattr(d, "StructureSetDate", ""),
    "uid-used-twice": lambda d: setattr(d, "SOPInstanceUID", d.SeriesInstanceUID),
    "file-meta-missing": lambda d: d.file_meta.pop("ImplementationClassUID"),
    "file-meta-differs": lambda d: setattr(d.file_meta, "MediaStorageSOPInstanceUID", "1.2.3"),
    "preamble-missing": lambda d: setattr(d, "preamble", None),
    "transfer-syntax-unfit": lambda d: setattr(d.file_meta, "TransferSyntaxUID", JPEG2000Lossless),
    "transfer-syntax-deflated": lambda d: setattr(
        d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian
    ),
    "value-cut-short": lambda d: raw(d, "ApprovalStatus", b"UNAPPR", length=10),
    # values
    "value-too-long": lambda d: raw(d, "StructureSetLabel", b"AUTO NOT REVIEWED "),
    "value-malformed": lambda d: raw(d, "StructureSetDate", b"20240231"),
    "value-odd-length": lambda d: raw(d, "StructureSetLabel", b"ABC"),
    "vr-differs": lambda d: raw(d, "StructureSetLabel", b"ABCD", vr="LO"),
    "text-beyond-character-set": lambda d: raw(d, "StructureSetName", "Pläne".encode()),
    "character-set-unknown": lambda d: setattr(d, "SpecificCharacterSet", "UTF-8"),
    "control-character": lambda d: setattr(roi(d), "ROIName", "Brain\tstem"),
    "sequence-undecodable": lambda d: raw(d, "ROIContourSequence", b"no items at all "),
    "private-attributes": private_creator,
    "private-without-creator": orphan,
    "attribute-retired": lambda d: setattr(observed(d), "ROIObservationLabel", "Brain"),
    # references
    "roi-number-twice": lambda d: setattr(roi(d), "ROINumber", roi(d, 1).ROINumber),
    "contours-of-unknown-roi": lambda d: setattr(drawn(d), "ReferencedROINumber", 99),
    "roi-contoured-twice": lambda d: setattr(
        drawn(d), "ReferencedROINumber", drawn(d, 1).ReferencedROINumber
    ),
    "observation-of-unknown-roi": lambda d: setattr(observed(d), "ReferencedROINumber", 99),
    "observation-number-twice": lambda d: setattr(
        observed(d), "ObservationNumber", observed(d, 1).ObservationNumber
    ),
    "roi-observed-twice": lambda d: d.RTROIObservationsSequence.append(
        copy_of(observed(d), ObservationNumber=99)
    ),
    "roi-without-observation": lambda d: d.RTROIObservationsSequence.pop(),
    "roi-empty": empty,
    "algorithm-missing": lambda d: setattr(roi(d), "ROIGenerationAlgorithm", ""),
    "algorithm-unknown": lambda d: setattr(roi(d), "ROIGenerationAlgorithm", "MACHINE"),
    "type-missing": lambda d: setattr(observed(d), "RTROIInterpretedType", ""),
    "type-unfit": lambda d: setattr(observed(d), "RTROIInterpretedType", "ISOCENTER"),
    "colour-invalid": lambda d: setattr(drawn(d), "ROIDisplayColor", [0, 128, 256]),
    "colour-missing": lambda d: drawn(d).pop("ROIDisplayColor"),
    "colour-twice": lambda d: setattr(drawn(d), "ROIDisplayColor", drawn(d, 1).ROIDisplayColor),
    "roi-frame-unlisted": lambda d: setattr(roi(d), "ReferencedFrameOfReferenceUID", "1.2.3"),
    "frames-of-reference": lambda d: frame(d).pop("RTReferencedStudySequence"),
    "frame-of-reference-differs": lambda d: setattr(d, "FrameOfReferenceUID", "1.2.3"),
    "study-differs": lambda d: setattr(d, "StudyInstanceUID", "1.2.3"),
    "contour-image-missing": lambda d: contour(d).pop("ContourImageSequence"),
    "contour-images-several": lambda d: contour(d).ContourImageSequence.append(
        copy_of(contour(d, index=1).ContourImageSequence[0])
    ),
    "contour-image-unlisted": lambda d: refer(contour(d), "1.2.3"),
    "image-listed-twice": lambda d: series(d).ContourImageSequence.append(
        copy_of(series(d).ContourImageSequence[0])
    ),
    "image-not-ct": lambda d: setattr(
        series(d).ContourImageSequence[0], "ReferencedSOPClassUID", MRImageStorage
    ),
    "frame-number": lambda d: setattr(contour(d).ContourImageSequence[0], "ReferencedFrameNumber", 1),
    # names
    "name-empty": lambda d: setattr(roi(d), "ROIName", ""),
    "name-twice": lambda d: rename(d, "PAROTID_L"),
    "name-over-16": lambda d: rename(d, "Brain_without_brainstem"),
    "name-cut-alike": lambda d: (
        rename(d, "Brain_whole_planning_1"),
        rename(d, "Brain_whole_planning_2", "Lens_L"),
    ),
    "name-characters": lambda d: rename(d, "Brain/stem"),
    "name-not-ascii": lambda d: (setattr(d, "SpecificCharacterSet", "ISO_IR 100"), rename(d, "Gehörgang")),
    "name-spaces": lambda d: rename(d, " Brain"),
    # contours
    "contour-without-data": lambda d: contour(d).pop("ContourData"),
    "contour-data-malformed": lambda d: first_number(contour(d), "nan"),
    "contour-data-digits": lambda d: first_number(contour(d), "51.123456789012345"),
    "contour-data-not-triples": lambda d: encode_data(
        contour(d), "\\".join(str(value) for value in contour(d).ContourData[:-1])
    ),
    "contour-points-differ": lambda d: setattr(contour(d), "NumberOfContourPoints", 7),
    "contour-data-over-64k": lambda d: change_points(
        contour(d), lambda points: np.repeat(points, 500, axis=0)
    ),
    "contour-data-unknown-vr": lambda d: encode_data(
        contour(d), "\\".join(str(value) for value in contour(d).ContourData), vr="UN"
    ),
    "contour-type-unknown": lambda d: setattr(contour(d), "ContourGeometricType", "CLOSED"),
    "contour-type-open": lambda d: setattr(contour(d), "ContourGeometricType", "OPEN_PLANAR"),
    "point-of-many": lambda d: point_at(d, 2),
    "contour-too-few-points": lambda d: change_points(contour(d), lambda points: points[:2]),
    "contour-without-area": lambda d: change_points(contour(d), lambda points: points[[0, 1, 0]]),
    "contour-closed-twice": lambda d: change_points(
        contour(d), lambda points: np.vstack([points, points[:1]])
    ),
    "point-repeated": lambda d: change_points(contour(d), lambda points: np.vstack([points[:1], points])),
    "contour-crosses-itself": lambda d: change_points(contour(d), bow_tie),
    "contour-not-planar": lambda d: change_points(
        contour(d), lambda points: points + np.outer(np.arange(len(points)) % 2, (0, 0, 1.0))
    ),
    "contour-twice": lambda d: drawn(d, named(d, "Parotid_L")).ContourSequence.append(copy_of(contour(d))),
    # extent
    "extent-too-large": lambda d: change_roi(d, "Brain", lambda points: points * (20, 1, 1)),
    "extent-too-small": lambda d: change_all(d, lambda points: points / 1000),
    "slices-skipped": skip_slice,
    "parts-apart": far_part,
    "roi-twice": same_points,
    # orientation
    "sides-swapped": lambda d: swap_names(d, "Parotid_L", "Parotid_R"),
    "side-doubtful": lambda d: rename(d, "Lens_R", "Lens_L"),
    "contour-side-doubtful": lambda d: draw(contour(d), points_of(contour(d)) * (-1, 1, 1)),
    "order-upside-down": lambda d: change_all(d, lambda points: points * (1, 1, -1)),
    "order-back-to-front": lambda d: change_all(d, lambda points: points * (1, -1, 1)),
}
"""By code; the good structure set is changed, the images are not given."""


def each(images: CTImages, change: Callable[[Dataset], object]) -> None:
    for header in images.headers:
        change(header)


def point(item: Dataset, points: np.ndarray) -> None:
    item.ContourGeometricType = "POINT"
    draw(item, points)


def couch(dataset: Dataset) -> None:
    """The left parotid as a support that is wider than the image."""
    observed(dataset, named(dataset, "Parotid_L")).RTROIInterpretedType = "SUPPORT"
    change_points(contour(dataset), lambda points: points * np.array([50, 1, 1]))


def slice_before(dataset: Dataset) -> str:
    """UID of the slice under that of the left parotid's second contour."""
    return contour(dataset).ContourImageSequence[0].ReferencedSOPInstanceUID


WITH_IMAGES: dict[str, ImageBreakage] = {
    "ct-patient-differs": lambda d, _: setattr(d, "PatientID", "P2"),
    "ct-study-differs": lambda d, _: setattr(study(d), "ReferencedSOPInstanceUID", "1.2.3"),
    "ct-study-attributes-differ": lambda _, ct: each(ct, lambda header: setattr(header, "StudyID", "17")),
    "ct-series-absent": lambda d, _: setattr(series(d), "SeriesInstanceUID", "1.2.3"),
    "ct-frame-of-reference-differs": lambda d, _: setattr(frame(d), "FrameOfReferenceUID", "1.2.3"),
    "ct-listed-image-absent": lambda d, _: setattr(
        series(d).ContourImageSequence[0], "ReferencedSOPInstanceUID", "1.2.3"
    ),
    "ct-image-unlisted": lambda d, _: series(d).ContourImageSequence.pop(),
    "ct-contour-image-absent": lambda d, _: refer(contour(d), "1.2.3"),
    "ct-contour-on-other-slice": lambda d, _: refer(contour(d, index=1), slice_before(d)),
    "ct-contour-between-slices": lambda d, _: change_points(
        contour(d), lambda points: points + np.array([0, 0, 0.5])
    ),
    "ct-point-between-slices": lambda d, _: point(contour(d), np.array([[0, 0, 1.7]])),
    "ct-contour-beyond-slices": lambda d, _: change_points(
        contour(d), lambda points: points + np.array([0, 0, 900])
    ),
    "ct-contour-outside-image": lambda d, _: change_points(
        contour(d), lambda points: points + np.array([500, 0, 0])
    ),
    "ct-support-outside-image": lambda d, _: couch(d),
    "ct-not-axial": lambda _, ct: each(ct, lambda header: setattr(header, "PixelSpacing", [2, 3])),
}
"""By code; the structure set or the headers of its images are changed."""

WITH_PROFILE: dict[str, tuple[Profile, Breakage]] = {
    "profile-name-too-long": (GENERIC, lambda d: rename(d, "Brain_without_brainstem")),
    "profile-decimals": (replace(GENERIC, decimals=2), lambda d: first_number(contour(d), "51.1234")),
    "profile-points": (replace(GENERIC, max_points=10), lambda _: None),
    "profile-transfer-syntax": (
        GENERIC,
        lambda d: setattr(d.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian),
    ),
    "profile-empty-structure": (GENERIC, empty),
    "profile-holes": (replace(GENERIC, holes=HoleStyle.KEYHOLE), lambda _: None),
    "profile-study-class": (replace(GENERIC, study_sop_class_uid=MRImageStorage), lambda _: None),
}
"""By code; with a profile, the structure set is changed or the profile alone is."""
