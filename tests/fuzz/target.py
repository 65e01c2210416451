"""What is fuzzed: where its inputs come from, how they are changed, and what is done with one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random

MAX_INPUT_BYTES = 256 * 1024
"""Longer inputs are cut: what matters is in headers, lengths and codes, not in pixels."""

Change = Callable[[bytes], bytes]
"""Changes bytes of which nothing is known."""

FuzzOne = Callable[[bytes], None]
"""Handles one input: returns where it was read or refused as documented, raises where it was not."""


@dataclass(frozen=True)
class Target:
    """One reader of foreign bytes.

    Parameters
    ----------
    modules
        What is judged, and whose lines can be counted.
    seeds
        Good inputs, made by the project's own phantoms.
    mutate
        Changes an input where it hurts, so that it gets past the first check; uses the change for bytes
        about which nothing is known.
    opened
        In a folder, a `FuzzOne` and what it needs; nothing may be written outside this folder.
    nameless_files_anywhere
        Whether the reader proves that folders are writable, by files that never get a name.
    """

    modules: tuple[str, ...]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random, Change], bytes]
    opened: Callable[[Path], AbstractContextManager[FuzzOne]]
    nameless_files_anywhere: bool = False
