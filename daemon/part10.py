"""The DICOM files (PS3.10 section 7.1) of reception: meta information, and behind it the bytes as received."""

from pathlib import Path
from struct import pack

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_file_meta_info

from daemon.dimse import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_BEFORE_META = 128 + len("DICM") + 12  # preamble, prefix, and the element that holds the group's length


def read_part10(path: Path) -> tuple[FileMetaDataset, bytes]:
    """Return the meta information and the encoded data set behind it.

    Raises
    ------
    OSError, InvalidDicomError, AttributeError
        The file cannot be read, or was not written by us.
    """
    meta = read_file_meta_info(path)
    return meta, path.read_bytes()[_BEFORE_META + int(meta.FileMetaInformationGroupLength) :]


def part10_head(
    sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, calling: str, called: str
) -> bytes:
    """Encode preamble and File Meta Information.

    It says from whom and to whom the image came: with these the job table can be rebuilt from the spool.
    """
    group = b"".join(
        (
            pack("<HH2sxxL2s", 0x0002, 0x0001, b"OB", 2, b"\0\1"),
            _element(0x0002, b"UI", sop_class_uid),
            _element(0x0003, b"UI", sop_instance_uid),
            _element(0x0010, b"UI", transfer_syntax_uid),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _element(0x0016, b"AE", calling),
            _element(0x0018, b"AE", called),
        )
    )
    return bytes(128) + b"DICM" + pack("<HH2sHL", 0x0002, 0x0000, b"UL", 4, len(group)) + group


def _element(number: int, vr: bytes, text: str) -> bytes:
    """One element of group 0002, Explicit VR Little Endian, padded to an even length (PS3.5 section 6.2)."""
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return pack("<HH2sH", 0x0002, number, vr, len(value)) + value
