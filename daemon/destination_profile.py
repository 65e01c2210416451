"""For which planning system a structure set is written: what differs between them, and on whose word."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum

from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage

DETACHED_STUDY_MANAGEMENT = UID("1.2.840.10008.3.1.2.3.1")
STUDY_COMPONENT_MANAGEMENT = UID("1.2.840.10008.3.1.2.3.2")

UNCONFIRMED = "unconfirmed"


class HoleStyle(StrEnum):
    """How a hole in an organ is written."""

    NESTED = "nested"
    """A contour of its own inside the outer one; inside an odd number of contours is inside."""
    KEYHOLE = "keyhole"
    """Joined to the outer contour by a channel without width (PS3.3 C.8.8.6.3)."""
    FILLED = "filled"
    """Not at all: the organ is written without its holes."""


class EmptyStructures(StrEnum):
    """What becomes of a structure that was looked for and not found."""

    LEAVE_OUT = "leave out"
    WRITE_EMPTY = "write empty"
    """As an ROI without Contour Sequence, for somebody to contour."""


class CodeScheme(StrEnum):
    """Which code stands in RT ROI Identification Code Sequence; the other one is written beside it."""

    SNOMED_CT = "SCT"
    FMA = "FMA"


@dataclass(frozen=True)
class Evidence:
    """Why a value of a profile is what it is.

    Parameters
    ----------
    source
        The public text or file it rests on.
    confirmed
        Whether somebody has seen on a real system of this kind that its import needs the value. What a system's
        own files look like shows what it writes, and is no such proof.
    """

    source: str
    confirmed: bool = False


@dataclass(frozen=True)
class Profile:
    """What a kind of destination wants of a structure set.

    Parameters
    ----------
    name
        As in the configuration.
    system
        What it is for, in words.
    max_name_length
        Of an ROI Name, in characters.
    names_ignore_case
        Whether two names that differ only in case count as one.
    decimals
        Of the coordinates in Contour Data, in mm: 2 is 0.01 mm.
    max_points
        Of one contour.
    holes, empty_structures, code_scheme
        See their types.
    transfer_syntaxes
        Offered in this order.
    study_sop_class_uid
        Referenced SOP Class UID in RT Referenced Study Sequence: type 1, and no storage class fits a study.
    evidence
        For each of the above by its name.
    """

    name: str
    system: str
    max_name_length: int
    names_ignore_case: bool
    decimals: int
    max_points: int
    holes: HoleStyle
    transfer_syntaxes: tuple[UID, ...]
    empty_structures: EmptyStructures
    study_sop_class_uid: UID
    code_scheme: CodeScheme
    evidence: Mapping[str, Evidence]

    def rows(self) -> list[tuple[str, str, Evidence]]:
        """Every value that a destination would notice: what it is, the value in words, and its evidence."""
        return [
            (words, _words(getattr(self, field.name)), self.evidence[field.name])
            for field in fields(self)
            if (words := _TITLES.get(field.name))
        ]


_TITLES = {
    "max_name_length": "ROI Name, characters",
    "names_ignore_case": "names differ by more than case",
    "decimals": "decimals of a coordinate",
    "max_points": "points of a contour",
    "holes": "holes",
    "transfer_syntaxes": "transfer syntaxes",
    "empty_structures": "structures not found",
    "study_sop_class_uid": "class of the referenced study",
    "code_scheme": "identification code",
}


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", then ".join(uid.name for uid in value)
    return value.name if isinstance(value, UID) else str(value)


_BOTH = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_MOST_POINTS = 2600
"""Three coordinates of up to 7 characters and a backslash each stay under 65534 bytes."""

_GENERIC = Profile(
    name="generic",
    system="any receiver: the standard, and what most vendors have in common",
    max_name_length=16,
    names_ignore_case=True,
    decimals=2,
    max_points=_MOST_POINTS,
    holes=HoleStyle.NESTED,
    transfer_syntaxes=_BOTH,
    empty_structures=EmptyStructures.LEAVE_OUT,
    study_sop_class_uid=DETACHED_STUDY_MANAGEMENT,
    code_scheme=CodeScheme.SNOMED_CT,
    evidence={
        "max_name_length": Evidence("AAPM TG-263: names of at most 16 characters fit every system"),
        "names_ignore_case": Evidence("AAPM TG-263: names must be unique whatever their case"),
        "decimals": Evidence("ARIA's own files; PS3.5 6.2: a DS value has at most 16 characters"),
        "max_points": Evidence("PS3.5 7.1.2: more does not fit explicit VR; pydicom PR #903, dcmjs PR #450"),
        "holes": Evidence("files of ARIA 11 to 16 and RayStation 8 and 9 nest"),
        "transfer_syntaxes": Evidence("PS3.5 10.1: implicit VR little endian is every node's default"),
        "empty_structures": Evidence("mwgeurts/dicom_tools #18, OHIF #1897: readers stumble over empty ROIs"),
        "study_sop_class_uid": Evidence("files of RayStation and MIM"),
        "code_scheme": Evidence("PS3.16: the context groups of anatomy hold SNOMED CT"),
    },
)


def _differing(name: str, system: str, evidence: Mapping[str, Evidence], **values: object) -> Profile:
    """The generic profile but for some values; for the others it has the generic profile's evidence."""
    merged = {field.name: getattr(_GENERIC, field.name) for field in fields(Profile)}
    as_generic = {key: Evidence(f"as generic: {each.source}") for key, each in _GENERIC.evidence.items()}
    merged |= values | {"name": name, "system": system, "evidence": as_generic | dict(evidence)}
    return Profile(**merged)


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        _GENERIC,
        _differing(
            "eclipse",
            "Varian Eclipse and ARIA",
            study_sop_class_uid=RTStructureSetStorage,
            code_scheme=CodeScheme.FMA,
            evidence={
                "max_name_length": Evidence("DRAW allows 16 (models.py); dicompyler #56 asks"),
                "decimals": Evidence(
                    "GSTT TotalSegmentator-AIDE #11: Eclipse's log refuses DS over 16 characters",
                    confirmed=True,
                ),
                "holes": Evidence("files of ARIA 11 to 16 nest"),
                "transfer_syntaxes": Evidence("files of ARIA 11 to 15.5 are implicit VR, of ARIA 16.1 both"),
                "empty_structures": Evidence("as generic, although ARIA 16.1 itself writes empty ROIs"),
                "study_sop_class_uid": Evidence(
                    "files of ARIA 15.5 and 16.1 name the structure set's own class"
                ),
                "code_scheme": Evidence("files of ARIA 16.1: FMA 12514 for the right eyeball"),
            },
        ),
        _differing(
            "raystation",
            "RaySearch RayStation",
            max_name_length=64,
            evidence={
                "max_name_length": Evidence("the limit of VR LO (PS3.5 6.2); no other was found in public"),
                "holes": Evidence("files of RayStation 7.99 and 9.0 nest"),
                "transfer_syntaxes": Evidence("files of RayStation 7.99 and 9.0 are implicit VR"),
                "study_sop_class_uid": Evidence("files of RayStation 7.99 and 9.0"),
            },
        ),
        _differing(
            "monaco",
            "Elekta Monaco",
            holes=HoleStyle.KEYHOLE,
            evidence={
                "holes": Evidence("nothing public was found; PS3.3 C.8.8.6.3 describes it"),
            },
        ),
        _differing(
            "pinnacle",
            "Philips Pinnacle3",
            holes=HoleStyle.KEYHOLE,
            study_sop_class_uid=STUDY_COMPONENT_MANAGEMENT,
            evidence={
                "holes": Evidence("no file with holes was at hand; PS3.3 C.8.8.6.3 describes it"),
                "transfer_syntaxes": Evidence("files of Pinnacle 9.6 are implicit VR"),
                "study_sop_class_uid": Evidence("files of Pinnacle 9.6"),
            },
        ),
        _differing(
            "mim",
            "MIM Software",
            max_name_length=64,
            decimals=3,
            max_points=2400,
            holes=HoleStyle.KEYHOLE,
            evidence={
                "max_name_length": Evidence("the limit of VR LO (PS3.5 6.2); no other was found in public"),
                "decimals": Evidence("files of MIM 6.3 to 7.0 have 3"),
                "max_points": Evidence("as generic, with coordinates of 8 characters"),
                "holes": Evidence("files of MIM 6.3 to 7.0 have keyholes"),
                "transfer_syntaxes": Evidence("files of MIM 6.3 to 7.0 are implicit VR"),
                "study_sop_class_uid": Evidence("files of MIM 6.3 to 7.0"),
            },
        ),
    )
}
"""By name. Nothing here was tried on the systems themselves by this project."""


def as_markdown() -> str:
    """The profiles as the tables of docs/profiles.md."""
    parts = []
    for profile in PROFILES.values():
        rows = [
            f"| {what} | {value} | {evidence.source} | {standing(evidence)} |"
            for what, value, evidence in profile.rows()
        ]
        parts.append(
            "\n".join(
                (f"## {profile.name}: {profile.system}", "", "| | | evidence | |", "|---|---|---|---|", *rows)
            )
        )
    return "\n\n".join(parts) + "\n"


def standing(evidence: Evidence) -> str:
    """`confirmed` or `unconfirmed`."""
    return "confirmed" if evidence.confirmed else UNCONFIRMED
