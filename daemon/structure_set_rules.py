"""What must hold in a structure set outside its contours: identifiers, references, names."""

from collections.abc import Callable, Iterator
from itertools import pairwise

from pydicom import Dataset
from pydicom.uid import CTImageStorage, ImplicitVRLittleEndian, RTStructureSetStorage

from daemon.iod_rules import missing_attributes
from daemon.result_header import ResultIdentity
from daemon.structure_template import InterpretedType
from model.ct import CTVolume

MAX_ROI_NAME = 64
MAX_LABEL = 16


def broken_rules(dataset: Dataset, volume: CTVolume, identity: ResultIdentity) -> list[str]:
    """Everything that is wrong with a structure set's attributes, compared with its CT and its job.

    A sentence for each; a rule that cannot even be applied is one too.
    """
    findings: list[str] = []
    for rule in RULES:
        try:
            findings.extend(rule(dataset, volume, identity))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            findings.append(f"{rule.__name__.strip('_').replace('_', ' ')} cannot be checked: {error}")
    return findings


def _mandatory_attributes(dataset: Dataset, _volume: CTVolume, _identity: ResultIdentity) -> Iterator[str]:
    return missing_attributes(dataset)


def _identifiers(dataset: Dataset, volume: CTVolume, identity: ResultIdentity) -> Iterator[str]:
    """UIDs are the job's; patient, study and frame of reference the CT's."""
    header, meta = volume.header, dataset.file_meta
    expected = {
        "SOPClassUID": RTStructureSetStorage,
        "SOPInstanceUID": identity.sop_instance_uid,
        "SeriesInstanceUID": identity.series_instance_uid,
        "StudyInstanceUID": header.StudyInstanceUID,
        "FrameOfReferenceUID": header.FrameOfReferenceUID,
        "Modality": "RTSTRUCT",
        "ApprovalStatus": "UNAPPROVED",
    }
    for keyword, value in expected.items():
        if dataset.get(keyword) != value:
            yield f"{keyword} is {dataset.get(keyword)}, needed is {value}"
    if (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) != (
        RTStructureSetStorage,
        identity.sop_instance_uid,
    ):
        yield "the file meta information names another SOP instance"
    if meta.TransferSyntaxUID != ImplicitVRLittleEndian:
        yield f"the transfer syntax is {meta.TransferSyntaxUID.name}, needed is Implicit VR Little Endian"
    for keyword in ("PatientID", "PatientName"):
        # Not quoted: findings are logged.
        if (dataset.get(keyword) or "") != (header.get(keyword) or ""):
            yield f"{keyword} is not the CT's"


def _frame_of_reference(dataset: Dataset, volume: CTVolume, _identity: ResultIdentity) -> Iterator[str]:
    """One frame of reference, study and series, the CT's, with every slice listed once (IHE-RO BRTO)."""
    header = volume.header
    (frame_of_reference,) = dataset.ReferencedFrameOfReferenceSequence
    (study,) = frame_of_reference.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    if frame_of_reference.FrameOfReferenceUID != header.FrameOfReferenceUID:
        yield f"the referenced frame of reference is {frame_of_reference.FrameOfReferenceUID}, not the CT's"
    if study.ReferencedSOPInstanceUID != header.StudyInstanceUID:
        yield f"the referenced study is {study.ReferencedSOPInstanceUID}, not the CT's"
    if series.SeriesInstanceUID != header.SeriesInstanceUID:
        yield f"the referenced series is {series.SeriesInstanceUID}, not the CT's"
    listed = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    slices = volume.sop_instance_uids
    if sorted(listed) != sorted(slices):
        known = len(set(listed) & set(slices))
        yield f"{len(listed)} images are listed; {known} of the CT's {len(slices)} slices are among them"
    if any(item.ReferencedSOPClassUID != CTImageStorage for item in series.ContourImageSequence):
        yield "a listed image is not of the class CT Image Storage"


def _names(dataset: Dataset, _volume: CTVolume, _identity: ResultIdentity) -> Iterator[str]:
    """Names that no planning system cuts, refuses or takes for one another."""
    label = dataset.StructureSetLabel
    if len(label) > MAX_LABEL:
        yield f"Structure Set Label {label!r} has {len(label)} characters, allowed are {MAX_LABEL}"
    names = [str(roi.ROIName) for roi in dataset.StructureSetROISequence]
    if not names:
        yield "there is no ROI"
    for name in names:
        if not 0 < len(name) <= MAX_ROI_NAME:
            yield f"ROI name {name!r} has {len(name)} characters, allowed are 1 to {MAX_ROI_NAME}"
    folded = sorted(name.casefold() for name in names)
    yield from (f"ROI name {one!r} occurs twice" for one, other in pairwise(folded) if one == other)


def _cross_references(dataset: Dataset, volume: CTVolume, _identity: ResultIdentity) -> Iterator[str]:
    """The three sequences speak of the same ROIs, in the CT's frame of reference, as automatic organs."""
    rois = dataset.StructureSetROISequence
    numbers = sorted(roi.ROINumber for roi in rois)
    if len(set(numbers)) != len(numbers):
        yield f"ROI Numbers are not unique: {numbers}"
    for keyword in ("ROIContourSequence", "RTROIObservationsSequence"):
        referenced = sorted(item.ReferencedROINumber for item in dataset[keyword].value)
        if referenced != numbers:
            yield f"{keyword} refers to ROIs {referenced}, there are {numbers}"
    for roi in rois:
        if roi.ReferencedFrameOfReferenceUID != volume.header.FrameOfReferenceUID:
            yield f"ROI {roi.ROIName!r} lies in another frame of reference"
        if roi.ROIGenerationAlgorithm != "AUTOMATIC":
            yield f"ROI {roi.ROIName!r} was generated {roi.ROIGenerationAlgorithm!r}, needed is AUTOMATIC"
    for item in dataset.RTROIObservationsSequence:
        if item.RTROIInterpretedType not in set(InterpretedType):
            yield f"ROI number {item.ReferencedROINumber} is of type {item.RTROIInterpretedType!r}, not ORGAN"


RULES: tuple[Callable[[Dataset, CTVolume, ResultIdentity], Iterator[str]], ...] = (
    _mandatory_attributes,
    _identifiers,
    _frame_of_reference,
    _names,
    _cross_references,
)
