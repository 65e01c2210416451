"""Sequences of many like items as bytes: an object for each item and number would take longer than all else.

pydicom takes them as if just read from a file: it decodes them when asked, and writes them as they are when not.
"""

import struct
from collections.abc import Iterable

from pydicom import Dataset
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import CTImageStorage


def put(dataset: Dataset, keyword: str, items: Iterable[bytes]) -> None:
    """Set a sequence of encoded items; the data set is written in Implicit VR Little Endian."""
    tag, value = Tag(keyword), b"".join(map(item, items))
    # Without a VR, as files in Implicit VR are read: by "SQ" pydicom would decode every item when it writes.
    dataset[tag] = RawDataElement(tag, None, len(value), value, 0, is_implicit_VR=True, is_little_endian=True)
    dataset.set_original_encoding(True, True, default_encoding)  # noqa: FBT003 -- (implicit, little endian)


def encoded(dataset: Dataset) -> bytes:
    """Encode the elements of an item that stands in many places, whose text is ASCII."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR = buffer.is_little_endian = True
    write_dataset(buffer, dataset)
    return buffer.getvalue()


def item(elements: bytes) -> bytes:
    """Encode an item of known length (PS3.5 7.5.1)."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(elements)) + elements


def element(group: int, number: int, value: bytes, padding: bytes = b" ") -> bytes:
    """Encode a data element in Implicit VR Little Endian (PS3.5 7.1.3), its value padded to even length."""
    if len(value) % 2:
        value += padding
    return struct.pack("<HHI", group, number, len(value)) + value


def referenced_slice(sop_instance_uid: str) -> bytes:
    """Encode the elements that refer to one slice of the CT (PS3.3 table 10-11)."""
    return element(0x0008, 0x1150, CTImageStorage.encode(), b"\0") + element(
        0x0008, 0x1155, sop_instance_uid.encode(), b"\0"
    )
