"""What an encoded data set says about itself, read up to its pixel data and no further."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import data_element_generator
from pydicom.uid import UID
from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

MAX_INFLATED_BYTES = 128 * 2**20
"""More than any CT slice; a small data set must not inflate without bound."""

_UNDEFINED_LENGTH = 0xFFFFFFFF
_PIXEL_DATA = 0x7FE00010
_CODES = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "StudyDate")
_TEXTS = ("PatientID", "PatientName", "AccessionNumber", "StudyDescription", "SeriesDescription")


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


def read_header(dataset_bytes: bytes, transfer_syntax_uid: str) -> InstanceHeader:
    """Read an encoded data set (PS3.5 section 7) without its pixel data.

    Raises
    ------
    HeaderUnreadable
        It cannot be read in this transfer syntax, or its Pixel Data is missing or ends early.
    """
    syntax = UID(transfer_syntax_uid)
    try:
        readable = _inflated(dataset_bytes) if syntax.is_deflated else dataset_bytes
        values, pixel_problem = _values(readable, syntax)
        encodings = convert_encodings(_plain(values.get("SpecificCharacterSet", b"")).split("\\"))
        codes = {keyword: _plain(values.get(keyword, b"")) for keyword in _CODES}
        texts = {keyword: _text(values.get(keyword, b""), keyword, encodings) for keyword in _TEXTS}
    except HeaderUnreadable:
        raise
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


def _values(readable: bytes, syntax: UID) -> tuple[Mapping[str, bytes], str]:
    """Return the raw values by keyword, and what is wrong with the Pixel Data (empty: nothing).

    `dcmread` is not used because it guesses where a stream contradicts its transfer syntax, and what it
    remarks quotes values.
    """
    stream = BytesIO(readable)
    pixels: list[tuple[int, int]] = []

    def is_pixel_data(tag: int, _vr: str | None, length: int) -> bool:
        if tag == _PIXEL_DATA:
            pixels.append((stream.tell(), length))
        return tag >= _PIXEL_DATA

    wanted = {tag_for_keyword(keyword): keyword for keyword in ("SpecificCharacterSet", *_CODES, *_TEXTS)}
    elements = data_element_generator(
        stream,
        syntax.is_implicit_VR,
        syntax.is_little_endian,
        stop_when=is_pixel_data,
        specific_tags=[tag for tag in wanted if tag is not None],
    )
    values = {wanted[int(element.tag)]: element.value for element in elements if int(element.tag) in wanted}
    return {keyword: value or b"" for keyword, value in values.items()}, _pixel_problem(pixels, len(readable))


def _pixel_problem(pixels: list[tuple[int, int]], total: int) -> str:
    if not pixels:
        return "there is no Pixel Data (7FE0,0010)"
    start, length = pixels[0]
    there = total - start
    if length == 0 or there == 0:
        return "Pixel Data (7FE0,0010) is empty"
    if length != _UNDEFINED_LENGTH and there < length:
        return f"Pixel Data ends after {there} of {length} bytes"
    return ""


def _inflated(dataset_bytes: bytes) -> bytes:
    """Undo Deflated Explicit VR Little Endian (PS3.5 section A.5), within bounds."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    readable = inflater.decompress(dataset_bytes, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise HeaderUnreadable(f"inflates to more than {MAX_INFLATED_BYTES // 2**20} MB")
    return readable


def _plain(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _text(value: bytes, keyword: str, encodings: list[str]) -> str:
    """Decode text (PS3.5 section 6.1.2); what is not printable could steer an administrator's terminal."""
    if b"\x1b" in value:
        text = decode_bytes(value, encodings, PN_DELIMS if keyword == "PatientName" else TEXT_VR_DELIMS)
    else:
        text = value.decode(encodings[0], "replace")
    return "".join(character if character.isprintable() else " " for character in text).strip()
