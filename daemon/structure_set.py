"""The RT Structure Set IOD (PS3.3 A.19), module by module, and its Part 10 encoding."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from model.contours import Contour
from model.ct import CTVolume
from model.structures import EXTRA_STRUCTURES, ORGAN_CATEGORY, STRUCTURES, Code, Structure, structure

MANUFACTURER = "oarlock"
STRUCTURE_SET_LABEL = "AUTO UNREVIEWED"
"""SH: longer than 16 characters and some planning systems refuse the whole object."""

SERIES_DESCRIPTION = "Automatic contours - NEEDS REVIEW"
SERIES_NUMBER = 900
"""Behind the series that scanners number, so that lists show the contours after their images."""

DETACHED_STUDY_MANAGEMENT = UID("1.2.840.10008.3.1.2.3.1")
"""SOP class by which the RT Referenced Study Sequence names a study, which is no SOP instance.

The attribute is type 1 and no storage class fits. This retired class is what RayStation and MIM write and
what import filters look for; the structure set's own class, as in recent ARIA files, has no better claim.
"""

_UNDECODABLE = (BytesLengthException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError)
_ROI_NUMBERS = {each.name: number for number, each in enumerate(STRUCTURES + EXTRA_STRUCTURES, start=1)}
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
    """RT Structure Set with one ROI per organ that has contours.

    An organ without contours is left out altogether: of an ROI without Contour Sequence some planning systems
    make an empty structure and others refuse the import.
    An organ's ROI Number is the same in every structure set.
    """

    def __init__(
        self,
        volume: CTVolume,
        contours: Mapping[str, Sequence[Contour]],
        identity: ResultIdentity,
        model: ModelIdentity,
        remarks: Sequence[str],
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
            series_description=SERIES_DESCRIPTION,
            transfer_syntax_uid=ImplicitVRLittleEndian,
        )
        self.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        self.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        found = [structure(name) for name in sorted(contours, key=_roi_number) if contours[name]]

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
        self.ReferencedFrameOfReferenceSequence = [_referenced_frame_of_reference(volume, header)]
        self.StructureSetROISequence = [_roi(each, header.FrameOfReferenceUID, model) for each in found]
        # ROI Contour (C.8.8.6)
        self.ROIContourSequence = [_roi_contour(each, contours[each.name], volume) for each in found]
        # RT ROI Observations (C.8.8.8)
        self.RTROIObservationsSequence = [_observation(each) for each in found]
        # Approval (C.8.8.16)
        self.ApprovalStatus = "UNAPPROVED"


def build_structure_set(
    volume: CTVolume,
    contours: Mapping[str, Sequence[Contour]],
    identity: ResultIdentity,
    model: ModelIdentity,
    remarks: Sequence[str] = (),
) -> RTStructureSet:
    """Make the structure set of one volume; the same arguments make the same bytes.

    Parameters
    ----------
    volume
        The CT; its header gives patient, study and frame of reference.
    contours
        By TG-263 name; a name without contours counts as not found and is left out.
    remarks
        Sentences for the reader, such as what was unusual about the series.

    Raises
    ------
    ValueError
        A name that is no structure's.
    """
    return RTStructureSet(volume, contours, identity, model, remarks)


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


def _referenced_frame_of_reference(volume: CTVolume, header: Dataset) -> Dataset:
    """Every slice of the CT, also those without contours, as all planning systems write it."""
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [_referenced_slice(uid) for uid in volume.sop_instance_uids]
    study = Dataset()
    study.ReferencedSOPClassUID = DETACHED_STUDY_MANAGEMENT
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


def _roi_number(name: str) -> int:
    return _ROI_NUMBERS[structure(name).name]


def _roi(organ: Structure, frame_of_reference_uid: str, model: ModelIdentity) -> Dataset:
    item = Dataset()
    item.ROINumber = _roi_number(organ.name)
    item.ReferencedFrameOfReferenceUID = frame_of_reference_uid
    item.ROIName = organ.name
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = _plain(f"{model.name} {model.version}, not reviewed", 64)
    item.ROIDerivationAlgorithmIdentificationSequence = AlgorithmIdentificationSequence(
        name=_plain(model.name, 64),
        family=codes.cid7162.ArtificialIntelligence,
        version=_plain(model.version, 64),
        source=MANUFACTURER,
        parameters={"weights sha256": model.digest},
    )
    return item


def _observation(organ: Structure) -> Dataset:
    identification = _code(organ.code)
    if organ.laterality:
        identification.SegmentedPropertyTypeModifierCodeSequence = [_code(organ.laterality)]
    item = Dataset()
    item.ObservationNumber = _roi_number(organ.name)
    item.ReferencedROINumber = _roi_number(organ.name)
    item.SegmentedPropertyCategoryCodeSequence = [_code(ORGAN_CATEGORY)]
    item.RTROIIdentificationCodeSequence = [identification]
    item.RTROIInterpretedType = "ORGAN"
    item.ROIInterpreter = None
    return item


def _roi_contour(organ: Structure, contours: Sequence[Contour], volume: CTVolume) -> Dataset:
    item = Dataset()
    item.ReferencedROINumber = _roi_number(organ.name)
    item.ROIDisplayColor = list(organ.colour_rgb)
    item.ContourSequence = [_contour(each, volume) for each in contours]
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
