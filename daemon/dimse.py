"""The words of the DICOM network protocol that our answers are made of, and our name in it."""

import re
from enum import Enum, IntEnum

IMPLEMENTATION_CLASS_UID = "2.25.267738399378094407600908573085674653612"
"""Who wrote a file or speaks on an association (PS3.7 section D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME = "OARLOCK"


# Leading zeros, which PS3.5 section 9.1 forbids, come from real scanners and hurt nobody.
_UID = re.compile(r"[012](\.[0-9]+)+")


def is_uid(value: str) -> bool:
    """Whether it can stand for an object, in a file's name and in the job table too."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


class StorageStatus(IntEnum):
    """Status of a C-STORE response (PS3.4 section B.2.3, PS3.7 section 9.1.1.1.9 and annex C)."""

    SUCCESS = 0x0000
    """The instance is safe on disk."""
    DUPLICATE_SOP_INSTANCE = 0x0111
    """Other bytes are stored under this SOP Instance UID (PS3.7 section C.5.8)."""
    INVALID_SOP_INSTANCE = 0x0117
    """The SOP Instance UID violates the rules for UIDs (PS3.7 section C.5.12)."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    """PS3.7 section C.5.21."""
    OUT_OF_RESOURCES = 0xA700
    """Our fault and passing: the sender should keep the instance and send it again."""
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    """The request and its data set contradict each other."""
    CANNOT_UNDERSTAND = 0xC000
    """The data set cannot be read, or lacks what identifies it."""


class Rejection(Enum):
    """Why an association is refused: result, source and reason of an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""

    APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
    CALLING_AE_TITLE_NOT_RECOGNISED = (1, 1, 3)
    CALLED_AE_TITLE_NOT_RECOGNISED = (1, 1, 7)
    TEMPORARY_CONGESTION = (2, 3, 1)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)
