"""What an encoded data set says about itself, read up to its pixel data and no further."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.uid import UID
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

from daemon.element_walk import UNDEFINED_LENGTH, Buffer, WalkError, walk

MAX_INFLATED_BYTES = 128 * 2**20
"""More than any CT slice; a small data set must not inflate without bound."""

MAX_HEADER_BYTES = 4 * 2**20
"""Of a deflated data set so much is kept in memory; Pixel Data must begin within it."""

_DEFLATED_AT_ONCE, _INFLATED_AT_ONCE = 2**16, 2**18
_LONGEST_VALUE = 65534
"""No value of a VR that we read may be longer where its VR is explicit (PS3.5 section 7.1.2)."""

_NO_PIXELS = "there is no Pixel Data (7FE0,0010)"
_LATE_PIXELS = f"Pixel Data (7FE0,0010) does not begin within {MAX_HEADER_BYTES // 2**20} MB"
_PIXEL_DATA = 0x7FE00010
_CODES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "StudyDate")
_TEXTS = ("PatientID", "PatientName", "AccessionNumber", "StudyDescription", "SeriesDescription")
_WANTED = {tag_for_keyword(keyword): keyword for keyword in ("SpecificCharacterSet", *_CODES, *_TEXTS)}


class HeaderUnreadable(Exception):  # noqa: N818 -- said as a sentence where it is raised
    """The sender must correct the data set: it cannot be read in its transfer syntax."""


@dataclass(frozen=True, kw_only=True)
class InstanceHeader:
    """Identity and description of one instance; an absent or empty element is an empty text."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    modality: str
    study_date: str
    patient_id: str
    patient_name: str
    accession_number: str
    study_description: str
    series_description: str


def read_header(dataset: Buffer, transfer_syntax_uid: str, byte_count: int | None = None) -> InstanceHeader:
    """Read an encoded data set (PS3.5 section 7) without its pixel data.

    Parameters
    ----------
    dataset
        The whole of it or its beginning; where it cannot be read, the whole is to be tried.
    byte_count
        Of the whole, where `dataset` is its beginning.

    Raises
    ------
    HeaderUnreadable
        It cannot be read in this transfer syntax, or its Pixel Data is missing or ends early.
    """
    implicit, deflated = _encoding(transfer_syntax_uid)
    readable, total = dataset, len(dataset) if byte_count is None else byte_count
    try:
        if deflated:
            readable, total = _inflated(dataset, total)
        values, pixel_problem = _values(readable, total, implicit=implicit)
        encodings = _character_encodings(values.get("SpecificCharacterSet", b""))
        codes = {keyword: _plain(values.get(keyword, b"")) for keyword in _CODES}
        texts = {keyword: _text(values.get(keyword, b""), keyword, encodings) for keyword in _TEXTS}
    except HeaderUnreadable:
        raise
    except WalkError as error:
        raise HeaderUnreadable(str(error) if len(readable) == total else _LATE_PIXELS) from error
    except Exception as error:
        raise HeaderUnreadable("the data set cannot be read in its transfer syntax") from error
    if pixel_problem:
        raise HeaderUnreadable(pixel_problem)
    return InstanceHeader(
        sop_class_uid=codes["SOPClassUID"],
        sop_instance_uid=codes["SOPInstanceUID"],
        study_instance_uid=codes["StudyInstanceUID"],
        series_instance_uid=codes["SeriesInstanceUID"],
        modality=codes["Modality"],
        study_date=codes["StudyDate"],
        patient_id=texts["PatientID"],
        patient_name=texts["PatientName"],
        accession_number=texts["AccessionNumber"],
        study_description=texts["StudyDescription"],
        series_description=texts["SeriesDescription"],
    )


@lru_cache(maxsize=64)
def _encoding(transfer_syntax_uid: str) -> tuple[bool, bool]:
    """Whether VRs are implicit, and whether all of it is deflated."""
    syntax = UID(transfer_syntax_uid)
    return syntax.is_implicit_VR, syntax.is_deflated


@lru_cache(maxsize=64)
def _character_encodings(specific_character_set: bytes) -> tuple[str, ...]:
    """Python's names for them (PS3.3 section C.12.1.1.2)."""
    return tuple(convert_encodings(_plain(specific_character_set).split("\\")))


def _values(readable: Buffer, total: int, *, implicit: bool) -> tuple[Mapping[str, bytes], str]:
    """Return the raw values by keyword, and what is wrong with the Pixel Data (empty: nothing).

    pydicom's readers are not used because they guess where a stream contradicts its transfer syntax, quote values
    in what they remark, and take three times as long.
    """
    values: dict[str, bytes] = {}
    for tag, start, length in walk(readable, implicit=implicit):
        if tag >= _PIXEL_DATA:
            return values, _pixel_problem(length, total - start) if tag == _PIXEL_DATA else _NO_PIXELS
        keyword = _WANTED.get(tag)
        if keyword is None:
            continue
        if length > _LONGEST_VALUE:
            raise HeaderUnreadable(f"{keyword} has {length} bytes; {_LONGEST_VALUE} are read")
        values[keyword] = bytes(readable[start : start + length])
    return values, _NO_PIXELS if len(readable) == total else _LATE_PIXELS


def _pixel_problem(length: int, there: int) -> str:
    if length == 0 or there == 0:
        return "Pixel Data (7FE0,0010) is empty"
    if length != UNDEFINED_LENGTH and there < length:
        return f"Pixel Data ends after {there} of {length} bytes"
    return ""


def _inflated(dataset: Buffer, byte_count: int) -> tuple[bytes, int]:
    """Undo Deflated Explicit VR Little Endian (PS3.5 section A.5); its first part, and how long the whole is."""
    if len(dataset) < byte_count:
        raise HeaderUnreadable("how long it inflates does not stand in its beginning")
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    head, total = bytearray(), 0
    for start in range(0, len(dataset), _DEFLATED_AT_ONCE):
        pending = bytes(dataset[start : start + _DEFLATED_AT_ONCE])
        while pending and not inflater.eof:
            inflated = inflater.decompress(pending, _INFLATED_AT_ONCE)
            pending = inflater.unconsumed_tail
            total += len(inflated)
            head += inflated[: MAX_HEADER_BYTES - len(head)]
            if total > MAX_INFLATED_BYTES:
                raise HeaderUnreadable(f"inflates to more than {MAX_INFLATED_BYTES // 2**20} MB")
    return bytes(head), total


def _plain(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _text(value: bytes, keyword: str, encodings: tuple[str, ...]) -> str:
    """Decode text (PS3.5 section 6.1.2); what is not printable could steer an administrator's terminal."""
    if b"\x1b" in value:
        text = decode_bytes(value, list(encodings), PN_DELIMS if keyword == "PatientName" else TEXT_VR_DELIMS)
    else:
        text = value.decode(encodings[0], "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()
