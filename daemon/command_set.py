"""DIMSE command sets (PS3.7 section 6.3.1): Implicit VR Little Endian, read strictly, written in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from struct import pack, unpack_from

MAX_COMMAND_BYTES = 16384
"""The longest one of a request that we answer has some 400."""

RESPONSE = 0x8000
"""Set in the Command Field of every response (PS3.7 table E.1-1)."""

NO_DATA_SET = 0x0101


class CommandField(IntEnum):
    """Command Field (0000,0100) of the messages that we know (PS3.7 table E.1-1)."""

    C_STORE_RQ = 0x0001
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130
    C_CANCEL_RQ = 0x0FFF
    N_EVENT_REPORT_RSP = 0x8100


class Element(IntEnum):
    """Elements of group 0000 (PS3.7 annex E)."""

    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ACTION_TYPE_ID = 0x1008


_NUMBERS = frozenset(
    {
        Element.COMMAND_FIELD,
        Element.MESSAGE_ID,
        Element.MESSAGE_ID_BEING_RESPONDED_TO,
        Element.COMMAND_DATA_SET_TYPE,
        Element.STATUS,
        Element.EVENT_TYPE_ID,
        Element.ACTION_TYPE_ID,
    }
)
_UIDS = frozenset(
    {
        Element.AFFECTED_SOP_CLASS_UID,
        Element.REQUESTED_SOP_CLASS_UID,
        Element.AFFECTED_SOP_INSTANCE_UID,
        Element.REQUESTED_SOP_INSTANCE_UID,
    }
)

_CLASSES = frozenset({Element.AFFECTED_SOP_CLASS_UID, Element.REQUESTED_SOP_CLASS_UID})


class CommandError(Exception):
    """The bytes are no command set; the message says what is wrong with them."""


@dataclass(frozen=True)
class CommandSet:
    """What we need of a command; SOP class and instance are the affected or the requested ones.

    `message_id` is that of the request, also in a response; a number that is absent is None, a UID empty.
    """

    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    action_type: int | None
    event_type: int | None
    status: int | None

    @property
    def is_response(self) -> bool:
        """Whether it answers a request of ours."""
        return bool(self.field & RESPONSE)


def decode_command(encoded: bytes) -> CommandSet:
    """Read an encoded command set; raises CommandError."""
    numbers: dict[int, int] = {}
    uids: dict[int, str] = {}
    for element, value in _elements(encoded).items():
        if element in _NUMBERS:
            if len(value) != 2:
                raise CommandError(f"(0000,{element:04X}) has {len(value)} bytes, not 2")
            numbers[element] = int.from_bytes(value, "little")
        elif element in _UIDS:
            uids[element] = value.decode("ascii", "replace").rstrip("\0 ")
            if element in _CLASSES and "\\" in uids[element]:
                raise CommandError(f"(0000,{element:04X}) names several SOP classes, not one")
    try:
        field = numbers[Element.COMMAND_FIELD]
        data_set_type = numbers[Element.COMMAND_DATA_SET_TYPE]
        # C-CANCEL, the only request without a Message ID of its own, names the one that it ends.
        is_own = not field & RESPONSE and field != CommandField.C_CANCEL_RQ
        message_id = numbers[Element.MESSAGE_ID if is_own else Element.MESSAGE_ID_BEING_RESPONDED_TO]
    except KeyError as missing:
        raise CommandError(f"(0000,{missing.args[0]:04X}) is missing") from missing
    return CommandSet(
        field,
        message_id,
        data_set_type != NO_DATA_SET,
        uids.get(Element.AFFECTED_SOP_CLASS_UID) or uids.get(Element.REQUESTED_SOP_CLASS_UID, ""),
        uids.get(Element.AFFECTED_SOP_INSTANCE_UID) or uids.get(Element.REQUESTED_SOP_INSTANCE_UID, ""),
        numbers.get(Element.ACTION_TYPE_ID),
        numbers.get(Element.EVENT_TYPE_ID),
        numbers.get(Element.STATUS),
    )


def encode_command(elements: Mapping[Element, int | str]) -> bytes:
    """Write a command set with its group length; None of the texts is shortened."""
    encoded = b"".join(_encoded(element, value) for element, value in sorted(elements.items()))
    return pack("<HHLL", 0x0000, 0x0000, 4, len(encoded)) + encoded


def _elements(encoded: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    place, last = 0, -1
    while place < len(encoded):
        if place + 8 > len(encoded):
            raise CommandError("the command set ends within an element")
        group, element, length = unpack_from("<HHL", encoded, place)
        place += 8
        if group != 0x0000:
            raise CommandError(f"({group:04X},{element:04X}) stands in a command set")
        if element <= last:
            raise CommandError(f"(0000,{element:04X}) stands behind (0000,{last:04X})")
        if place + length > len(encoded):
            raise CommandError(f"(0000,{element:04X}) ends beyond the command set")
        found[element] = encoded[place : place + length]
        place, last = place + length, element
    return found


def _encoded(element: Element, value: int | str) -> bytes:
    if isinstance(value, int):
        content = pack("<H", value)
    else:
        content = value.encode("ascii", "replace")
        if len(content) % 2:
            content += b"\0" if element in _UIDS else b" "
    return pack("<HHL", 0x0000, element, len(content)) + content
