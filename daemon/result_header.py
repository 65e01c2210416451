"""What the objects of a job have in common: patient, study, series, equipment, dates, references to the CT."""

from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from uuid import UUID, uuid5

from highdicom.base import SOPClass
from highdicom.base_content import ContributingEquipment
from pydicom import Dataset
from pydicom.errors import BytesLengthException
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.structure_set import MANUFACTURER, ModelIdentity, ResultIdentity
from daemon.structure_set_rois import MAX_LO, MAX_ST, plain, referenced_slice
from model.ct import CTVolume
from model.structures import Code

_UNDECODABLE = (BytesLengthException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError)
_NAMESPACE = UUID("0c2f5a92-6d0e-5b7f-9a41-3e8d7c6b1f24")


def new_result(
    sop_class_uid: str,
    volume: CTVolume,
    identity: ResultIdentity,
    model: ModelIdentity,
    *,
    modality: str,
    series_number: int,
    series_description: str,
) -> SOPClass:
    """Begin a SOP instance in the CT's study: everything but the modules of its own kind.

    The same arguments make the same data set: every date is the identity's.

    Parameters
    ----------
    series_description
        Plain ASCII, at most 64 characters.
    """
    header = readable(volume.header)
    result = SOPClass(
        study_instance_uid=header.StudyInstanceUID,
        series_instance_uid=identity.series_instance_uid,
        series_number=series_number,
        sop_instance_uid=identity.sop_instance_uid,
        sop_class_uid=sop_class_uid,
        instance_number=1,
        modality=modality,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        device_serial_number=plain(model.digest, MAX_LO),  # what tells two of its kind apart are the weights
        software_versions=software_version(),
        series_description=series_description,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    result.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    result.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    # Patient and study as the CT has them, character set included, so that non-ASCII names survive.
    result.copy_patient_and_study_information(header)
    if "SpecificCharacterSet" in header:
        result.SpecificCharacterSet = header.SpecificCharacterSet
    for what in ("InstanceCreation", "Series", "Content"):
        date, time = date_and_time(identity.created)
        setattr(result, f"{what}Date", date)
        setattr(result, f"{what}Time", time)
    result.ContributingEquipmentSequence = _contributing_equipment(header, model)
    return result


def readable(header: Dataset) -> Dataset:
    """The attributes whose values can be decoded; a broken optional one must not cost the whole result."""
    decoded = Dataset()
    for tag in list(header.keys()):
        try:
            decoded.add(header[tag])
        except _UNDECODABLE:
            continue
    return decoded


def date_and_time(moment: datetime) -> tuple[DA, TM]:
    """As a DICOM date and a time, to the second."""
    return DA(f"{moment:%Y%m%d}"), TM(f"{moment:%H%M%S}")


def software_version() -> str:
    """Return the version of the installed program, "dev" where it is not installed."""
    try:
        return version("oarlock")
    except PackageNotFoundError:
        return "dev"


def derived_uid(identity: ResultIdentity, purpose: str) -> str:
    """UID of something inside an object, the same one whenever that object is built (UUID version 5)."""
    return f"2.25.{uuid5(_NAMESPACE, f'{identity.sop_instance_uid} {purpose}').int}"


def code_item(code: Code) -> Dataset:
    """Make an item of a code sequence (PS3.3 table 8.8-1)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    return item


def referenced_slices(sop_instance_uids: Iterable[str]) -> list[Dataset]:
    """Items that refer to slices of the CT (PS3.3 table 10-11)."""
    return [referenced_slice(uid) for uid in sop_instance_uids]


def _contributing_equipment(header: Dataset, model: ModelIdentity) -> list[ContributingEquipment]:
    """The scanner, and the model as equipment of its own beside the software that runs it."""
    scanner = ContributingEquipment(
        manufacturer=plain(str(header.get("Manufacturer") or "unknown"), MAX_LO),
        purpose_of_reference=codes.DCM.AcquisitionEquipment,
        manufacturer_model_name=plain(str(header.get("ManufacturerModelName") or "unknown"), MAX_LO),
    )
    network = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=plain(model.name, MAX_LO),
        software_versions=plain(model.version, MAX_LO),
        contribution_description=plain(f"Automatic contouring, weights sha256 {model.digest}", MAX_ST),
    )
    return [scanner, network]
