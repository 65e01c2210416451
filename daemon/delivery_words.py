"""What a destination's answers mean, in words that say what to do (PS3.4 section B.2.3, PS3.7 annex C)."""

from enum import IntEnum

from pynetdicom.status import GENERAL_STATUS


class PeerStatus(IntEnum):
    """The statuses of a C-STORE response that are treated by name; the rest by their range."""

    SUCCESS = 0x0000
    ATTRIBUTE_LIST_ERROR = 0x0107
    DUPLICATE_SOP_INSTANCE = 0x0111
    ATTRIBUTE_VALUE_OUT_OF_RANGE = 0x0116
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORISED = 0x0124
    COERCION_OF_DATA_ELEMENTS = 0xB000
    ELEMENTS_DISCARDED = 0xB006
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING = 0xB007


WARNINGS = frozenset({0x0001, *range(0xB000, 0xC000)}) | {
    PeerStatus.ATTRIBUTE_LIST_ERROR,
    PeerStatus.ATTRIBUTE_VALUE_OUT_OF_RANGE,
    PeerStatus.DUPLICATE_SOP_INSTANCE,  # our UIDs are fixed per job, so a duplicate is this very object
}
"""Statuses that say: stored, but look."""

_WARNING_WORDS = {
    PeerStatus.DUPLICATE_SOP_INSTANCE: "it has this object already",
    PeerStatus.COERCION_OF_DATA_ELEMENTS: "stored, with some elements changed by the destination",
    PeerStatus.ELEMENTS_DISCARDED: "stored, with some elements left out by the destination",
    PeerStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS_WARNING: "stored, though it finds the object not to match "
    "its SOP class",
}
_FAILURE_WORDS = {
    PeerStatus.SOP_CLASS_NOT_SUPPORTED: "it does not store this SOP class; enable it there",
    PeerStatus.NOT_AUTHORISED: "this node may not store there; allow its AE title",
}
_FAILURE_RANGES = (
    (range(0xA700, 0xA800), "out of resources; make room there"),
    (range(0xA900, 0xAA00), "the object does not match its SOP class; see that node's log"),
    (range(0xC000, 0xD000), "it cannot understand the object; see that node's log"),
)
_WORDS_BY_REASON = {
    (1, 3): "allow the calling AE title {calling} at the destination",
    (1, 7): "the node there has another AE title than {called}; correct ae_title in [[destinations]]",
    (3, 1): "the destination is busy and is tried again",
    (3, 2): "the destination has too many associations and is tried again",
}


def is_stored(status: int) -> bool:
    """Whether a status promises that the destination has the object."""
    return status == PeerStatus.SUCCESS or status in WARNINGS


def shown(status: int | None) -> str | None:
    """Return a DIMSE status as the standard writes it."""
    return None if status is None else f"0x{status:04X}"


def status_words(status: int, comment: str) -> str:
    """Return the status with its meaning and the peer's own Error Comment (0000,0902); empty for success."""
    if status == PeerStatus.SUCCESS:
        return ""
    kind = "warning" if is_stored(status) else "failure"
    own = f'; its comment: "{comment}"' if comment else ""
    return f"{kind} 0x{status:04X}: {_meaning(status)}{own}"


def _meaning(status: int) -> str:
    by_code = {**_WARNING_WORDS, **_FAILURE_WORDS}
    if status in by_code:
        return by_code[PeerStatus(status)]
    if is_stored(status):
        return GENERAL_STATUS.get(status, ("", "stored, with a remark of the destination"))[1].lower()
    general = GENERAL_STATUS.get(status, ("", ""))[1].lower() or "a status the standard does not define"
    return next(
        (words for codes, words in _FAILURE_RANGES if status in codes), f"{general}; see that node's log"
    )


def association_advice(source: int, reason: int, calling: str, called: str) -> str:
    """Return what to do about an A-ASSOCIATE-RJ (PS3.8 table 9-21)."""
    words = _WORDS_BY_REASON.get((source, reason), "see the destination's log")
    return words.format(calling=calling, called=called)
