"""What the objects of a job have in common: patient, study, series, equipment, dates, references to the CT."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from uuid import UUID, uuid5

from highdicom.base import SOPClass
from highdicom.base_content import ContributingEquipment
from pydicom import DataElement, Dataset, dcmwrite
from pydicom.errors import BytesLengthException
from pydicom.sr.codedict import codes
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DA, TM

from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from daemon.iod_rules import absences
from model.ct import CTVolume
from model.structures import Code

MANUFACTURER = "oarlock"
_UNKNOWN = "unknown"
"""For type 1 attributes of which the CT says nothing, or nothing that is ASCII."""

MAX_LO = 64
"""Characters of a Long String (PS3.5 6.2)."""

_SUSPICIOUS = "CHECK: {} - NEEDS REVIEW"

MAX_ST = 1024
"""Characters of a Short Text."""

_PLAIN = str.maketrans({"–": "-", "×": "x", "°": " deg", "³": "3", "\\": "/"})
_UNDECODABLE = (
    BytesLengthException, ValueError, TypeError, KeyError, OverflowError, NotImplementedError, OSError,
)  # fmt: skip
_NAMESPACE = UUID("0c2f5a92-6d0e-5b7f-9a41-3e8d7c6b1f24")


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


def encode(structure_set: Dataset) -> bytes:
    """Part 10 file in the data set's own transfer syntax: Implicit VR Little Endian for ours.

    Implicit VR, because there a value may be longer than 64 kB whatever its VR.
    """
    buffer = BytesIO()
    dcmwrite(buffer, structure_set, enforce_file_format=True)
    return buffer.getvalue()


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
    copy_patient_and_study(result, header)
    for what in ("InstanceCreation", "Series", "Content"):
        date, time = date_and_time(identity.created)
        setattr(result, f"{what}Date", date)
        setattr(result, f"{what}Time", time)
    result.ContributingEquipmentSequence = contributing_equipment(header, model)
    return result


def copy_patient_and_study(result: SOPClass, header: Dataset) -> None:
    """Patient and study as the CT has them, character set included, so that non-ASCII names survive.

    A sequence that lacks what the standard wants in its items stays behind: many scanners write such, and nobody
    needs them to know whose contours these are.
    """
    result.copy_patient_and_study_information(header)
    if "SpecificCharacterSet" in header:
        result.SpecificCharacterSet = header.SpecificCharacterSet
    incomplete = {each.where.partition("[")[0] for each in absences(result) if each.where}
    for keyword in incomplete:
        delattr(result, keyword)


def readable(header: Dataset) -> Dataset:
    """The attributes whose values can be decoded; a broken optional one must not cost the whole result."""
    decoded = Dataset()
    for tag in list(header.keys()):
        try:
            _decode(header[tag])
        except _UNDECODABLE:
            continue
        decoded.add(header[tag])
    return decoded


def unlike_identifiers(header: Dataset) -> list[str]:
    """A sentence where name or ID cannot be written as they came: planning systems match contours by them."""
    known = readable(header)
    names = {"PatientName": "Patient's Name", "PatientID": "Patient ID"}
    unlike = [name for key, name in names.items() if "\N{REPLACEMENT CHARACTER}" in str(known.get(key, ""))]
    if not unlike:
        return []
    return [
        f"{' and '.join(unlike)} not in the character set that the images name: contours have other bytes"
    ]


def _decode(element: DataElement) -> None:
    """Decode all that is in an element, items of sequences too; raises one of `_UNDECODABLE`."""
    if element.VR == "SQ":
        for item in element.value or ():
            for inner in item:
                _decode(inner)


def series_description(usual: str, doubts: Sequence[str]) -> str:
    """LO, at most 64 characters: doubts come first, as lists cut the end; names that have no room are counted."""
    if not doubts:
        return usual
    for shown in range(len(doubts), 0, -1):
        rest = f" +{len(doubts) - shown}" if shown < len(doubts) else ""
        words = _SUSPICIOUS.format(", ".join(doubts[:shown]) + rest)
        if len(words) <= MAX_LO:
            return words
    return _SUSPICIOUS.format(f"{len(doubts)} doubts")


def plain(text: str, limit: int) -> str:
    """ASCII of at most `limit` characters: encodable whatever the CT's character set."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_PLAIN))
    return decomposed.encode("ascii", "ignore").decode("ascii")[:limit].strip()


def date_and_time(moment: datetime) -> tuple[DA, TM]:
    """As a DICOM date and a time, to the second."""
    return DA(f"{moment:%Y%m%d}"), TM(f"{moment:%H%M%S}")


@cache
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


def referenced_slice(sop_instance_uid: str) -> Dataset:
    """Make an item that refers to one slice of the CT."""
    item = Dataset()
    item.ReferencedSOPClassUID = CTImageStorage
    item.ReferencedSOPInstanceUID = sop_instance_uid
    return item


def contributing_equipment(header: Dataset, model: ModelIdentity) -> list[ContributingEquipment]:
    """The scanner, and the model as equipment of its own beside the software that runs it."""
    scanner = ContributingEquipment(
        manufacturer=plain(str(header.get("Manufacturer") or ""), MAX_LO) or _UNKNOWN,
        purpose_of_reference=codes.DCM.AcquisitionEquipment,
        manufacturer_model_name=plain(str(header.get("ManufacturerModelName") or ""), MAX_LO) or _UNKNOWN,
    )
    network = ContributingEquipment(
        manufacturer=MANUFACTURER,
        purpose_of_reference=codes.DCM.ProcessingEquipment,
        manufacturer_model_name=plain(model.name, MAX_LO),
        software_versions=plain(model.version, MAX_LO),
        contribution_description=plain(f"Automatic contouring, weights sha256 {model.digest}", MAX_ST),
    )
    return [scanner, network]
