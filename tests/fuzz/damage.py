"""Damage to bytes of which nothing is known: what every mutator falls back on."""

from collections.abc import Sequence
from random import Random

NUMBERS = (0, 1, 2, 7, 8, 15, 16, 17, 127, 128, 255, 256, 4095, 32767, 32768, 65534, 65535, 2**31 - 1, 2**31)
LENGTHS = (*NUMBERS, 2**32 - 2, 2**32 - 1)

TEXTS: Sequence[bytes] = (
    b"",
    b" ",
    b"\\",
    b"\\\\" * 500,
    b"..",
    b"../../../../tmp/out",
    b"/tmp/out\0",
    b"1.2.3\0\0",
    b"1.2.3/../..",
    b"1." * 60 + b"1",
    b"0.00.1",
    b"NaN",
    b"inf\\-inf",
    b"1e308",
    b"1e400",
    b"-0",
    b"1_000",
    b"9" * 5000,
    b"0.1\\0.2\\0.3",
    b"1\\0\\0\\0\\1\\0",
    b"\x1b$B;3ED\x1b(B^\x1b$B",
    b"\xff\xfe\x00",
    b"\xd9\xa3\xd9\xa4",
    b"ISO_IR 192",
    b"\\ISO 2022 IR 87\\ISO 2022 IR 149",
    b"GB18030",
    b"no such character set",
    b"LOCALIZER",
    b"A" * 3000,
    b"\0" * 64,
    b"%s%n{0}\r\n\t",
)
"""UIDs that are paths, numbers that are none, character sets that lie, and far too much of everything."""


def damaged(data: bytes, rng: Random) -> bytes:
    """Change one thing."""
    if not data:
        return rng.randbytes(rng.randrange(1, 9))
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 1, 2, 4, 8, 64, 1024)))
    piece = data[start:end]
    kind = rng.randrange(8)
    if kind == 0:
        piece = bytes([piece[0] ^ (1 << rng.randrange(8))]) + piece[1:]
    elif kind == 1:
        piece = rng.randbytes(len(piece))
    elif kind == 2:
        piece = b""
    elif kind == 3:
        piece = piece * rng.choice((2, 3, 50))
    elif kind == 4:
        piece = piece + rng.randbytes(rng.randrange(1, 9))
    elif kind == 5:
        piece = a_number(rng, rng.choice((1, 2, 4, 8))) + piece
    elif kind == 6:
        piece = rng.choice(TEXTS)
    else:
        return data[:start]
    return data[:start] + piece + data[end:]


def a_number(rng: Random, size: int, order: str = "little") -> bytes:
    """A number from the edges of its range."""
    number = rng.choice(LENGTHS) % 256**size
    return number.to_bytes(size, "big" if order == "big" else "little")
