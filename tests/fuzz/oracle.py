"""What no input may do: raise what is not documented, take memory or time without bound, write elsewhere."""

import hashlib
import os
import resource
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from tests.fuzz.target import FuzzOne, Target
from tests.paths import REPOSITORY

MEMORY_BYTES = 400 * 2**20
"""What one input, 256 KB long at most, may add to the process's highest memory."""

ADDRESS_SPACE_BYTES = 3 * 2**30
"""What all inputs together may ask for at once; beyond it there is a MemoryError."""

PROCESSOR_SECONDS = 10
"""For one input; a whole CT of 200 slices takes about as long to read."""

LINGERING_SECONDS = 45
"""A thread may still wait for the answer of a peer that has left; this is longer than any such wait."""

_OURS = tuple(f"{REPOSITORY / name}{os.sep}" for name in ("daemon", "model", "training"))
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.rmdir",
    "os.truncate",
    "os.chmod",
}
_NEVER = {"os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class"}


class TooSlow(BaseException):
    """Raised within the reader; no `except Exception` takes it for a fault of the file."""


class Broken(Exception):  # noqa: N818 -- said as a sentence where it is raised
    """A promise was broken without an exception; says which."""


@dataclass(frozen=True)
class Finding:
    """What an input did that none may.

    Parameters
    ----------
    place
        What findings of one cause have in common.
    text
        All that is known, with the trace.
    """

    place: str
    text: str

    @property
    def name(self) -> str:
        """Short, the same for the same cause."""
        return hashlib.sha256(self.place.encode()).hexdigest()[:10]


def require_typed(error: BaseException) -> None:
    """Refuse a documented error that only hides that memory ran out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            raise Broken(f"{type(error).__name__} because memory ran out") from seen
        seen = seen.__cause__ or seen.__context__


class Oracle:
    """Watches a process that reads inputs; installed once, as what it hooks into cannot be unhooked.

    Parameters
    ----------
    folder, own
        Nothing may be written outside the first, but for what the fuzzer itself writes into the other.
    """

    def __init__(self, target: Target, folder: Path, own: Path) -> None:
        self._folder = f"{folder.resolve()}{os.sep}"
        self._allowed = (self._folder, f"{own.resolve()}{os.sep}", f"/proc/{os.getpid()}/", "/dev/null/")
        self._nameless_files_anywhere = target.nameless_files_anywhere
        self._noticed: list[str] = []

    def install(self) -> None:
        """Begin to watch."""
        sys.addaudithook(self._audit)
        signal.signal(signal.SIGPROF, _stop)
        sys.setrecursionlimit(1000)  # as it is in production
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_SPACE_BYTES, resource.RLIM_INFINITY))
        warnings.simplefilter("ignore")
        # Arithmetic that leaves its range gives numbers that look like numbers.
        warnings.filterwarnings("always", category=RuntimeWarning, module=r"(model|daemon|training)\.")
        warnings.showwarning = self._warned
        threading.excepthook = self._thread_died

    def judge(self, fuzz_one: FuzzOne, data: bytes) -> Finding | None:
        """Give one input and return what was wrong about it, if anything."""
        before = _highest_bytes()
        signal.setitimer(signal.ITIMER_PROF, PROCESSOR_SECONDS)
        try:
            fuzz_one(data)
        except (Exception, TooSlow) as error:  # noqa: BLE001 -- that is what is looked for
            return _of(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        grown = _highest_bytes() - before
        if grown > MEMORY_BYTES:
            Path("/proc/self/clear_refs").write_text("5")  # begin the high-water mark anew
            self._noticed.append(f"memory: {grown // 2**20} MB for an input of {len(data)} bytes")
        noticed, self._noticed = self._noticed, []
        return Finding(noticed[0].split(": ")[0], "\n".join(noticed)) if noticed else None

    def notice(self, place: str, text: str) -> None:
        """Add to what is wrong about the present input."""
        self._noticed.append(f"{place}: {text}")

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & _WRITES and not self._is_allowed_nameless(path):
                self._require_inside(event, path)
        elif event in _CHANGES:
            for path in arguments[:2]:  # of a renamed or linked file both names
                self._require_inside(event, path)
        elif event in _NEVER:
            self.notice(f"audit {event}", repr(arguments)[:500])

    def _is_allowed_nameless(self, path: object) -> bool:
        """Whether a folder is opened for writing, which makes a file without a name in it (O_TMPFILE)."""
        return self._nameless_files_anywhere and isinstance(path, str) and os.path.isdir(path)  # noqa: PTH112 -- quick

    def _require_inside(self, event: str, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            place = os.path.realpath(os.fsdecode(path))
            if not f"{place}{os.sep}".startswith(self._allowed):
                self.notice(f"audit {event}", f"{place} lies outside {self._folder}")

    def _warned(self, message: object, category: type, filename: str, lineno: int, *_: object) -> None:
        if category is RuntimeWarning:
            self.notice(f"RuntimeWarning at {filename}", f"{lineno}: {message}")

    def _thread_died(self, arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            finding = _of(arguments.exc_value)
            self.notice(f"a thread died, {finding.place}", finding.text)


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Raise Broken where files, sockets or threads stay more at the end than at the beginning."""
    files, threads = _open_files(), threading.active_count()
    yield
    deadline = time.monotonic() + LINGERING_SECONDS
    while (
        more := _open_files() > files + 2 or threading.active_count() > threads
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    if more:
        raise Broken(
            f"{files} files and {threads} threads at the beginning, {_open_files()} at the end and "
            f"{sorted(thread.name for thread in threading.enumerate())}"
        )


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- no list of Path


def _highest_bytes() -> int:
    """Most memory of this program so far; `getrusage` would count that of the program it was started by."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlow(f"more than {PROCESSOR_SECONDS} s of processor time")


def _of(error: BaseException) -> Finding:
    trace = traceback.extract_tb(_trace(error))
    frames = [(each.filename, each.lineno or 0) for each in trace if each.name != _stop.__name__]
    ours = [each for each in frames if each[0].startswith(_OURS)]
    # A processor limit strikes anywhere: only where we are makes one cause of many.
    is_anywhere = isinstance(error, TooSlow | RecursionError)
    places = ours[-1:] if is_anywhere and ours else [*ours[-1:], *frames[-1:]]
    where = ", ".join(f"{Path(name).name}:{line}" for name, line in places)
    return Finding(
        f"{type(error).__name__} at {where}", "".join(traceback.format_exception(error, limit=-40))
    )


def _trace(error: BaseException) -> TracebackType | None:
    cause = error.__cause__ if isinstance(error, Broken) else None
    return (cause and cause.__traceback__) or error.__traceback__
