"""Which lines of the modules that are judged were reached by a number of inputs, and how many they have."""

import importlib
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import Target


def reached_lines(target: Target, inputs: Iterable[bytes]) -> dict[str, tuple[int, int]]:
    """Module to lines that were reached within its functions, and all that there are."""
    files = {str(importlib.import_module(name).__file__): name for name in target.modules}
    seen: dict[str, set[int]] = defaultdict(set)

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        file = frame.f_code.co_filename
        if file not in files:
            return None
        if event == "line":
            seen[file].add(frame.f_lineno)
        return trace

    with TemporaryDirectory(prefix="oarlock-fuzz-") as folder:
        threading.settrace(trace)
        sys.settrace(trace)
        try:
            with target.opened(Path(folder)) as fuzz_one:
                for data in inputs:
                    with suppress(Exception):  # a finding here is one of the run before
                        fuzz_one(data)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
    return {name: _share(file, seen[file]) for file, name in files.items()}


def _share(file: str, seen: set[int]) -> tuple[int, int]:
    functions = _functions(compile(Path(file).read_text(encoding="utf-8"), file, "exec"))
    lines = set(chain.from_iterable(_lines(code) for code in functions))
    return len(seen & lines), len(lines)


def _functions(code: CodeType) -> Iterator[CodeType]:
    """Whatever runs only when it is called; the body of a class runs at import."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            if inner.co_flags & 0x2:  # CO_NEWLOCALS: a function, no class
                yield inner
            yield from _functions(inner)


def _lines(code: CodeType) -> set[int]:
    return {line for _, _, line in code.co_lines() if line and line != code.co_firstlineno}
