"""The RT Structure Set IOD (PS3.3 A.19), module by module, and its Part 10 encoding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO

from highdicom.base import SOPClass
from highdicom.base_content import ContributingEquipment
from highdicom.content import AlgorithmIdentificationSequence
from pydicom import Dataset, dcmwrite
from pydicom.errors import BytesLengthException
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage
from pydicom.valuerep import DA, TM

from daemon.destination_profile import PROFILES, EmptyStructures, Profile
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.short_names import short_names, shortening_remarks
from daemon.structure_set_rois import (
    MAX_LO,
    MAX_ST,
    observation_item,
    plain,
    referenced_slice,
    roi_contour_item,
    roi_item,
)
from daemon.structure_template import ROI, left_out
from model.ct import CTVolume

MANUFACTURER = "oarlock"
STRUCTURE_SET_LABEL = "AUTO UNREVIEWED"
"""SH: longer than 16 characters and some planning systems refuse the whole object."""

SERIES_DESCRIPTION = "Automatic contours - NEEDS REVIEW"
_SUSPICIOUS = "CHECK: {} - NEEDS REVIEW"

SERIES_NUMBER = 900
"""Behind the series that scanners number, so that lists show the contours after their images."""

_UNDECODABLE = (BytesLengthException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError)


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
        remarks = (*remarks, *remarks_about(rois, profile))

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
        self.StructureSetName = plain(f"Automatic contours by {model.name} {model.version}", 64)
        self.StructureSetDescription = _description(model, remarks)
        self.StructureSetDate, self.StructureSetTime = _date_and_time(identity.created)
        self.ReferencedFrameOfReferenceSequence = [_referenced_frame_of_reference(volume, header, profile)]
        self.StructureSetROISequence = [
            roi_item(each, header.FrameOfReferenceUID, f"{model.name} {model.version}", _algorithm(model))
            for each in named
        ]
        # ROI Contour (C.8.8.6)
        self.ROIContourSequence = [roi_contour_item(each, volume, profile) for each in named]
        # RT ROI Observations (C.8.8.8)
        self.RTROIObservationsSequence = [observation_item(each, profile.code_scheme) for each in named]
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
        `remarks_about` adds its own.
    warning
        What is suspicious about the result, in a few words for lists of series; None where nothing is.
    """
    return RTStructureSet(volume, rois, identity, model, remarks, profile, warning)


def written(rois: Sequence[ROI], profile: Profile) -> list[ROI]:
    """Those that a structure set holds; a derived one whose sources are missing is never among them."""
    with_empty = profile.empty_structures is EmptyStructures.WRITE_EMPTY
    return [roi for roi in rois if roi.contours or (with_empty and not roi.missing)]


def remarks_about(rois: Sequence[ROI], profile: Profile) -> list[str]:
    """A sentence for each derived structure that could not be made, and each name that the profile cuts."""
    names = short_names([roi.name for roi in rois], profile)
    return [*left_out(rois), *shortening_remarks(names, profile)]


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


def _series_description(warning: str | None) -> str:
    """LO, at most 64 characters: what a warning says comes first, as lists cut the end."""
    if not warning:
        return SERIES_DESCRIPTION
    return _SUSPICIOUS.format(plain(warning, MAX_LO - len(_SUSPICIOUS.format(""))))


def _description(model: ModelIdentity, remarks: Sequence[str]) -> str:
    sentences = (
        "Contoured automatically; not reviewed by a person",
        f"oarlock {_software_version()}, model {model.name} {model.version}, weights sha256 {model.digest}",
        *remarks,
    )
    return plain(". ".join(sentences) + ".", MAX_ST)


def _contributing_equipment(header: Dataset, model: ModelIdentity) -> list[ContributingEquipment]:
    """The scanner, and the model as equipment of its own beside the software that runs it."""
    scanner = ContributingEquipment(
        manufacturer=plain(str(header.get("Manufacturer") or "unknown"), 64),
        purpose_of_reference=codes.DCM.AcquisitionEquipment,
        manufacturer_model_name=plain(str(header.get("ManufacturerModelName") or "unknown"), 64),
    )
    network = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=plain(model.name, 64),
        software_versions=plain(model.version, 64),
        contribution_description=plain(f"Automatic contouring, weights sha256 {model.digest}", 1024),
    )
    return [scanner, network]


def _algorithm(model: ModelIdentity) -> AlgorithmIdentificationSequence:
    return AlgorithmIdentificationSequence(
        name=plain(model.name, MAX_LO),
        family=codes.cid7162.ArtificialIntelligence,
        version=plain(model.version, MAX_LO),
        source=MANUFACTURER,
        parameters={"weights sha256": model.digest},
    )


def _referenced_frame_of_reference(volume: CTVolume, header: Dataset, profile: Profile) -> Dataset:
    """Every slice of the CT, also those without contours, as all planning systems write it."""
    series = Dataset()
    series.SeriesInstanceUID = header.SeriesInstanceUID
    series.ContourImageSequence = [referenced_slice(uid) for uid in volume.sop_instance_uids]
    study = Dataset()
    study.ReferencedSOPClassUID = profile.study_sop_class_uid
    study.ReferencedSOPInstanceUID = header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference
