"""The RT Structure Set IOD (PS3.3 A.19), module by module, and its Part 10 encoding."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO

from highdicom.base import SOPClass
from highdicom.base_content import ContributingEquipment
from highdicom.content import AlgorithmIdentificationSequence
from pydicom import Dataset, dcmwrite
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.errors import BytesLengthException
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import UID, CTImageStorage, ImplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import DA, TM

from daemon.contour_data import count_points, encode_contour
from daemon.destination_profile import PROFILES, CodeScheme, EmptyStructures, Profile
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.short_names import short_names, shortening_remarks
from daemon.structure_template import ROI, Codes
from model.contours import Contour
from model.ct import CTVolume
from model.structures import ORGAN_CATEGORY, Code

MANUFACTURER = "oarlock"
STRUCTURE_SET_LABEL = "AUTO UNREVIEWED"
"""SH: longer than 16 characters and some planning systems refuse the whole object."""

SERIES_DESCRIPTION = "Automatic contours - NEEDS REVIEW"
_SUSPICIOUS = "CHECK: {} - NEEDS REVIEW"
_MAX_LO = 64

SERIES_NUMBER = 900
"""Behind the series that scanners number, so that lists show the contours after their images."""

_UNDECODABLE = (BytesLengthException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError)
_CONTOUR_DATA = Tag("ContourData")
_PLAIN = str.maketrans({"–": "-", "×": "x", "°": " deg", "³": "3", "\\": "/"})


@dataclass(frozen=True)
class ResultIdentity:
    """What makes a job's result the same object however often it is built.

    Parameters
    ----------
    sop_instance_uid, series_instance_uid
        Fixed when the job is opened.
    created
        Local time with its zone; planning systems show it as the structure set's date and time.
    """

    sop_instance_uid: str
    series_instance_uid: str
    created: datetime


@dataclass(frozen=True)
class ModelIdentity:
    """Which weights contoured: name and version of the bundle, SHA-256 of the weights in hexadecimal."""

    name: str
    version: str
    digest: str


class RTStructureSet(SOPClass):
    """RT Structure Set as one kind of destination wants it.

    A structure that was not found is left out altogether, unless the profile asks for it: of an ROI without
    Contour Sequence some planning systems make an empty structure and others refuse the import.
    """

    def __init__(
        self,
        volume: CTVolume,
        rois: Sequence[ROI],
        identity: ResultIdentity,
        model: ModelIdentity,
        remarks: Sequence[str],
        profile: Profile,
        warning: str | None,
    ) -> None:
        header = _readable(volume.header)
        super().__init__(
            study_instance_uid=header.StudyInstanceUID,
            series_instance_uid=identity.series_instance_uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=identity.sop_instance_uid,
            sop_class_uid=RTStructureSetStorage,
            instance_number=1,
            modality="RTSTRUCT",
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=_software_version(),
            series_description=_series_description(warning),
            transfer_syntax_uid=ImplicitVRLittleEndian,
        )
        self.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        self.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        names = short_names([roi.name for roi in rois], profile)
        named = [replace(roi, name=names[roi.name]) for roi in written(rois, profile)]
        remarks = (*remarks, *shortening_remarks(names, profile))

        # Patient and study as the CT has them, character set included, so that non-ASCII names survive.
        self.copy_patient_and_study_information(header)
        if "SpecificCharacterSet" in header:
            self.SpecificCharacterSet = header.SpecificCharacterSet
        # RT Series (C.8.8.1)
        self.OperatorsName = None
        self.SeriesDate, self.SeriesTime = _date_and_time(identity.created)
        # Frame of Reference (C.7.4.1)
        self.FrameOfReferenceUID = header.FrameOfReferenceUID
        self.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
        # SOP Common (C.12.1)
        self.InstanceCreationDate, self.InstanceCreationTime = _date_and_time(identity.created)
        self.ContributingEquipmentSequence = _contributing_equipment(header, model)
        # Structure Set (C.8.8.5)
        self.StructureSetLabel = STRUCTURE_SET_LABEL
        self.StructureSetName = _plain(f"Automatic contours by {model.name} {model.version}", 64)
        self.StructureSetDescription = _description(model, remarks)
        self.StructureSetDate, self.StructureSetTime = _date_and_time(identity.created)
        self.ReferencedFrameOfReferenceSequence = [_referenced_frame_of_reference(volume, header, profile)]
        self.StructureSetROISequence = [_roi(each, header.FrameOfReferenceUID, model) for each in named]
        # ROI Contour (C.8.8.6)
        self.ROIContourSequence = [_roi_contour(each, volume) for each in named]
        # RT ROI Observations (C.8.8.8)
        self.RTROIObservationsSequence = [_observation(each, profile.code_scheme) for each in named]
        # Approval (C.8.8.16)
        self.ApprovalStatus = "UNAPPROVED"


def build_structure_set(
    volume: CTVolume,
    rois: Sequence[ROI],
    identity: ResultIdentity,
    model: ModelIdentity,
    remarks: Sequence[str] = (),
    profile: Profile = PROFILES["generic"],
    *,
    warning: str | None = None,
) -> RTStructureSet:
    """Make the structure set of one volume; the same arguments make the same bytes.

    Parameters
    ----------
    volume
        The CT; its header gives patient, study and frame of reference.
    rois
        In the order in which they are written; `ROI.contours` has the profile's style of holes.
        One without contours counts as not found.
    remarks
        Sentences for the reader, such as what was unusual about the series.
        A name that the profile cuts short adds one.
    warning
        What is suspicious about the result, in a few words for lists of series; None where nothing is.
    """
    return RTStructureSet(volume, rois, identity, model, remarks, profile, warning)


def written(rois: Sequence[ROI], profile: Profile) -> list[ROI]:
    """Those that a structure set holds; a derived one whose sources are missing is never among them."""
    with_empty = profile.empty_structures is EmptyStructures.WRITE_EMPTY
    return [roi for roi in rois if roi.contours or (with_empty and not roi.missing)]


def encode(structure_set: Dataset) -> bytes:
    """Part 10 file in the data set's own transfer syntax: Implicit VR Little Endian for ours.

    Implicit VR, because there a value may be longer than 64 kB whatever its VR.
    """
    buffer = BytesIO()
    dcmwrite(buffer, structure_set, enforce_file_format=True)
    return buffer.getvalue()


def _readable(header: Dataset) -> Dataset:
    """The attributes whose values can be decoded; a broken optional one must not cost the whole result."""
    readable = Dataset()
    for tag in list(header.keys()):
        try:
            readable.add(header[tag])
        except _UNDECODABLE:
            continue
    return readable


def _date_and_time(moment: datetime) -> tuple[DA, TM]:
    return DA(f"{moment:%Y%m%d}"), TM(f"{moment:%H%M%S}")


def _software_version() -> str:
    try:
        return version("oarlock")
    except PackageNotFoundError:
        return "dev"


def _plain(text: str, limit: int) -> str:
    """ASCII of at most `limit` characters: encodable whatever the CT's character set."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return decomposed.encode("ascii", "ignore").decode("ascii")[:limit].strip()


def _series_description(warning: str | None) -> str:
    """LO, at most 64 characters: what a warning says comes first, as lists cut the end."""
    if not warning:
        return SERIES_DESCRIPTION
    return _SUSPICIOUS.format(_plain(warning, _MAX_LO - len(_SUSPICIOUS.format(""))))


def _description(model: ModelIdentity, remarks: Sequence[str]) -> str:
    sentences = (
        "Contoured automatically; not reviewed by a person",
        f"oarlock {_software_version()}, model {model.name} {model.version}, weights sha256 {model.digest}",
        *remarks,
    )
    return _plain(". ".join(sentences) + ".", 1024)


def _contributing_equipment(header: Dataset, model: ModelIdentity) -> list[ContributingEquipment]:
    """The scanner, and the model as equipment of its own beside the software that runs it."""
    scanner = ContributingEquipment(
        manufacturer=_plain(str(header.get("Manufacturer") or "unknown"), 64),
        purpose_of_reference=codes.DCM.AcquisitionEquipment,
        manufacturer_model_name=_plain(str(header.get("ManufacturerModelName") or "unknown"), 64),
    )
    network = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=_plain(model.name, 64),
        software_versions=_plain(model.version, 64),
        contribution_description=_plain(f"Automatic contouring, weights sha256 {model.digest}", 1024),
    )
    return [scanner, network]


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    return item


def _referenced_frame_of_reference(volume: CTVolume, header: Dataset, profile: Profile) -> Dataset:
    """Every slice of the CT, also those without contours, as all planning systems write it."""
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [_referenced_slice(uid) for uid in volume.sop_instance_uids]
    study = Dataset()
    study.ReferencedSOPClassUID = profile.study_sop_class_uid
    study.ReferencedSOPInstanceUID = header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference


def _referenced_slice(sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def _roi(roi: ROI, frame_of_reference_uid: str, model: ModelIdentity) -> Dataset:
    item = Dataset()
    item.ROINumber = roi.number
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    item.ROIName = roi.name
    if description := _sentences(roi.generation, roi.remark):
        item.ROIDescription = _plain(description, 1024)
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = _plain(
        ", ".join(filter(None, (roi.generation, f"{model.name} {model.version}", "not reviewed"))), _MAX_LO
    )
    item.ROIDerivationAlgorithmIdentificationSequence = AlgorithmIdentificationSequence(
        name=_plain(model.name, _MAX_LO),
        family=codes.cid7162.ArtificialIntelligence,
        version=_plain(model.version, _MAX_LO),
        source=MANUFACTURER,
        parameters={"weights sha256": model.digest},
    )
    return item


def _sentences(generation: str, remark: str) -> str:
    return ". ".join(filter(None, (f"Made from {generation}" if generation else "", remark)))


def _observation(roi: ROI, scheme: CodeScheme) -> Dataset:
    item = Dataset()
    item.ObservationNumber = roi.number
    item.ReferencedROINumber = roi.number
    _identify(item, roi.codes, scheme)
    item.RTROIInterpretedType = roi.interpreted_type.value
    item.ROIInterpreter = None
    return item


def _identify(item: Dataset, own: Codes, scheme: CodeScheme) -> None:
    """Write an organ's codes: one identifies, and the others stand beside it (PS3.3 C.8.8.8, 10.5).

    The SNOMED CT concept has its side as a modifier, the FMA's includes it; so the FMA's may be equivalent to
    SNOMED CT's with its modifier, but never the other way round.
    """
    identifying = own.site or (own.fma if scheme is CodeScheme.FMA else own.snomed)
    if identifying is None:
        return
    identification = _code(identifying)
    if own.snomed:
        item.SegmentedPropertyCategoryCodeSequence = [_code(ORGAN_CATEGORY)]
        if identifying is own.snomed:
            if own.laterality:
                identification.SegmentedPropertyTypeModifierCodeSequence = [_code(own.laterality)]
        else:
            anatomy = _code(own.snomed)
            if own.laterality:
                anatomy.PrimaryAnatomicStructureModifierSequence = [_code(own.laterality)]
            item.PrimaryAnatomicStructureSequence = [anatomy]
    if own.fma and identifying is not own.fma:
        identification.EquivalentCodeSequence = [_code(own.fma)]
    item.RTROIIdentificationCodeSequence = [identification]


def _roi_contour(roi: ROI, volume: CTVolume) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = roi.number
    item.ROIDisplayColor = list(roi.colour_rgb)
    if roi.contours:
        item.ContourSequence = [_contour(each, volume) for each in roi.contours]
    return item


def _contour(contour: Contour, volume: CTVolume) -> Dataset:
    value = encode_contour(contour, volume.grid)
    item = Dataset()
    item.ContourImageSequence = [_referenced_slice(volume.sop_instance_uids[contour.slice_index])]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = count_points(value)
    # As if just read from a file: pydicom decodes it when asked, and writes it as it is when not.
    # A DS object per number would cost seconds for 21 organs.
    item[_CONTOUR_DATA] = RawDataElement(
        _CONTOUR_DATA, "DS", len(value), value, 0, is_implicit_VR=True, is_little_endian=True
    )
    item.set_original_encoding(True, True, default_encoding)  # noqa: FBT003 -- (implicit, little endian)
    return item
