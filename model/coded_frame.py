"""What a compressed frame says of its own size, read before a decoder may act on it.

Decoders trust their stream: one that claims 60,000 × 60,000 pixels makes them ask for as much memory, and GDCM
ends the whole process where a frame is smaller than the header says.
"""

import struct
from dataclasses import dataclass

_SIZE_JPEG = struct.Struct(">BHHB")
_SIZE_JPEG_2000 = struct.Struct(">IIII")
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Start of frame: ITU-T T.81 table B.1 without its three exceptions, and T.87 (JPEG-LS)."""

_CODESTREAM = b"\xff\x4f\xff\x51"
"""Start of codestream and image size (ITU-T T.800 annex A.5.1); some writers put file boxes before it."""


@dataclass(frozen=True)
class FrameSize:
    """Rows, columns, samples of a pixel, and bits of a sample."""

    rows: int
    columns: int
    samples: int
    bits: int


def frame_size(frame: bytes) -> FrameSize:
    """Find the size in a frame of JPEG, JPEG-LS or JPEG 2000.

    Raises
    ------
    ValueError
        It says none.
    """
    try:
        return _jpeg(frame) if frame.startswith(b"\xff\xd8") else _jpeg_2000(frame)
    except (struct.error, IndexError) as error:
        raise ValueError("the compressed pixels end before they say their size") from error


def _jpeg(frame: bytes) -> FrameSize:
    at = 2
    while frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAME_MARKERS:
            bits, rows, columns, samples = _SIZE_JPEG.unpack_from(frame, at + 4)
            return FrameSize(rows, columns, samples, bits)
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise ValueError("the compressed pixels do not say their size")


def _jpeg_2000(frame: bytes) -> FrameSize:
    start = frame.find(_CODESTREAM)
    if start < 0:
        raise ValueError("the compressed pixels are neither JPEG nor JPEG 2000")
    right, bottom, left, top = _SIZE_JPEG_2000.unpack_from(frame, start + 8)
    (samples,) = struct.unpack_from(">H", frame, start + 40)
    return FrameSize(bottom - top, right - left, samples, (frame[start + 42] & 0x7F) + 1)
