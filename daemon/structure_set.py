"""The RT Structure Set IOD (PS3.3 A.19), module by module, and its Part 10 encoding."""

from collections.abc import Sequence
from dataclasses import replace

from highdicom.base import SOPClass
from highdicom.content import AlgorithmIdentificationSequence
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage

from daemon.destination_profile import PROFILES, EmptyStructures, Profile
from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.raw_sequence import encoded, put, referenced_slice
from daemon.result_header import (
    MANUFACTURER,
    MAX_LO,
    MAX_ST,
    ModelIdentity,
    ResultIdentity,
    contributing_equipment,
    copy_patient_and_study,
    date_and_time,
    plain,
    readable,
    series_description,
    software_version,
)
from daemon.short_names import short_names, shortening_remarks
from daemon.structure_set_rois import observation_item, roi_contour_item, roi_item
from daemon.structure_template import ROI, left_out
from model.ct import CTVolume

STRUCTURE_SET_LABEL = "AUTO UNREVIEWED"
"""SH: longer than 16 characters and some planning systems refuse the whole object."""

SERIES_DESCRIPTION = "Automatic contours - NEEDS REVIEW"

SERIES_NUMBER = 900
"""Behind the series that scanners number, so that lists show the contours after their images."""


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
        doubts: Sequence[str],
    ) -> None:
        header = readable(volume.header)
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
            software_versions=software_version(),
            series_description=series_description(SERIES_DESCRIPTION, doubts),
            transfer_syntax_uid=ImplicitVRLittleEndian,
        )
        self.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
        self.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
        names = short_names([roi.name for roi in rois], profile)
        named = [_called(roi, names[roi.name]) for roi in written(rois, profile)]
        remarks = (*remarks, *remarks_about(rois, profile))

        copy_patient_and_study(self, header)
        # RT Series (C.8.8.1)
        self.OperatorsName = None
        self.SeriesDate, self.SeriesTime = date_and_time(identity.created)
        # Frame of Reference (C.7.4.1)
        self.FrameOfReferenceUID = header.FrameOfReferenceUID
        self.PositionReferenceIndicator = header.get("PositionReferenceIndicator")
        # SOP Common (C.12.1)
        self.InstanceCreationDate, self.InstanceCreationTime = date_and_time(identity.created)
        self.ContributingEquipmentSequence = contributing_equipment(header, model)
        # Structure Set (C.8.8.5)
        self.StructureSetLabel = STRUCTURE_SET_LABEL
        self.StructureSetName = plain(f"Automatic contours by {model.name} {model.version}", 64)
        self.StructureSetDescription = _description(model, remarks)
        self.StructureSetDate, self.StructureSetTime = date_and_time(identity.created)
        self.ReferencedFrameOfReferenceSequence = [_referenced_frame_of_reference(volume, header, profile)]
        algorithm = [encoded(each) for each in _algorithm(model)]
        self.StructureSetROISequence = [
            roi_item(each, header.FrameOfReferenceUID, f"{model.name} {model.version}", algorithm)
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
    doubts: Sequence[str] = (),
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
    doubts
        What is suspicious about the result, a name each, the gravest first; for lists of series.
    """
    return RTStructureSet(volume, rois, identity, model, remarks, profile, doubts)


def written(rois: Sequence[ROI], profile: Profile) -> list[ROI]:
    """Those that a structure set holds; a derived one whose sources are missing is never among them."""
    with_empty = profile.empty_structures is EmptyStructures.WRITE_EMPTY
    return [roi for roi in rois if roi.contours or (with_empty and not roi.missing)]


def remarks_about(rois: Sequence[ROI], profile: Profile) -> list[str]:
    """A sentence for each derived structure that could not be made, and each name that the profile cuts."""
    names = short_names([roi.name for roi in rois], profile)
    return [*left_out(rois), *shortening_remarks(names, profile)]


def _called(roi: ROI, name: str) -> ROI:
    """The structure by the name that it has at a destination; whoever looks at it sees its own beside."""
    if name == roi.name:
        return roi
    sentences = filter(None, (f"{roi.name} in the template", roi.remark))
    return replace(roi, name=name, remark=". ".join(sentences))


def _description(model: ModelIdentity, remarks: Sequence[str]) -> str:
    """ST, at most 1024 characters: sentences that have no room are counted."""
    about = (
        "Contoured automatically; not reviewed by a person",
        f"oarlock {software_version()}, model {model.name} {model.version}, weights sha256 {model.digest}",
    )
    for shown in range(len(remarks), -1, -1):
        rest = [f"{len(remarks) - shown} more remarks"] if shown < len(remarks) else []
        words = plain(". ".join((*about, *remarks[:shown], *rest)) + ".", MAX_ST + 1)
        if len(words) <= MAX_ST:
            return words
    return plain(". ".join(about) + ".", MAX_ST)


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
    put(series, "ContourImageSequence", map(referenced_slice, volume.sop_instance_uids))
    study = Dataset()
    study.ReferencedSOPClassUID = profile.study_sop_class_uid
    study.ReferencedSOPInstanceUID = header.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame_of_reference = Dataset()
    frame_of_reference.FrameOfReferenceUID = header.FrameOfReferenceUID
    frame_of_reference.RTReferencedStudySequence = [study]
    return frame_of_reference
