"""What a fuzzing process is at, readable after it has died: how many inputs, and the present one."""

import mmap
import struct
from pathlib import Path

from tests.fuzz.target import MAX_INPUT_BYTES

_HEAD = struct.Struct("<QQ")


class Ledger:
    """A file that two processes share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_HEAD.size + MAX_INPUT_BYTES))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), 0)

    @property
    def executions(self) -> int:
        """Inputs given so far, the present one included."""
        return int(_HEAD.unpack_from(self._shared)[0])

    @property
    def current(self) -> bytes:
        """The present input."""
        length = int(_HEAD.unpack_from(self._shared)[1])
        return self._shared[_HEAD.size : _HEAD.size + length]

    def begin(self, data: bytes) -> None:
        """Note an input that is about to be given."""
        self._shared[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._shared, 0, self.executions + 1, len(data))
