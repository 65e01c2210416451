"""Files that survive a power cut or are not there at all: written, synced, named, and their folders synced too."""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from daemon.errors import StorageFull
from daemon.writeback import begin_writing

Content = bytes | Iterable[bytes]

WRITEBACK_BYTES = 2**20
"""So much of an arriving file the disk is given at once; no page reaches across a multiple of it, to go twice."""


class Arrival:
    """A file that is still arriving and belongs to no job yet; one thread writes it.

    Whoever ends it without `Spool.store_arrival` or `Spool.set_aside_arrival` must `discard` it; after those two
    that changes nothing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._byte_count = self._begun = 0  # written; and of these, on their way to the disk
        with told_as_storage_full(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            os.fchmod(self._descriptor, 0o600)

    def write(self, chunk: bytes | memoryview) -> None:
        """Append; the disk begins with what is there while the rest arrives; raises StorageFull."""
        try:
            written = os.write(self._descriptor, chunk)
            while written < len(chunk):
                written += os.write(self._descriptor, chunk[written:])
        except OSError as error:
            raise _storage_full(self.path, error) from error
        self._byte_count += written
        if self._byte_count - self._begun >= WRITEBACK_BYTES:
            self._begin(self._byte_count // WRITEBACK_BYTES * WRITEBACK_BYTES)

    def begin_sync(self) -> None:
        """Let the disk begin with the rest, so that `sync` waits less; promises nothing; raises StorageFull."""
        if self._byte_count > self._begun:
            self._begin(self._byte_count)

    def _begin(self, end: int) -> None:
        with told_as_storage_full(self.path):
            begin_writing(self._descriptor, self._begun, end - self._begun)
        self._begun = end

    @contextmanager
    def content(self) -> Iterator[memoryview]:
        """Everything written so far, without taking memory for it; there must be something."""
        with mmap.mmap(self._descriptor, 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
            yield view

    def sync(self) -> None:
        """Make what was written survive a power cut; raises StorageFull."""
        with told_as_storage_full(self.path):
            os.fsync(self._descriptor)

    def discard(self) -> None:
        """Forget it; repeatable."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            with suppress(OSError):  # tidied up at the next start
                self.path.unlink(missing_ok=True)


@contextmanager
def told_as_storage_full(path: Path) -> Iterator[None]:
    """Tell a fault of the file system as StorageFull."""
    try:
        yield
    except OSError as error:
        raise _storage_full(path, error) from error


def _storage_full(path: Path, error: OSError) -> StorageFull:
    return StorageFull(f"cannot write {path}: {error.strerror or error}")


def make_folder(folder: Path) -> None:
    """Create a folder durably with mode 0700; an existing one keeps its mode."""
    try:
        folder.mkdir()
        folder.chmod(0o700)
    except FileExistsError:
        pass  # whoever created it may have failed to sync it
    sync_folder(folder.parent)


def write_new(path: Path, content: Content) -> str:
    """Write and sync a new file; returns its SHA-256."""
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)
        for chunk in (content,) if isinstance(content, bytes) else content:
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(descriptor)
    return digest.hexdigest()


def publish(part: Path, path: Path) -> bool:
    """Give a complete file its name; False where it is taken: nothing is overwritten. Either way it is durable."""
    try:
        path.hardlink_to(part)
        is_new = True
    except FileExistsError:
        is_new = False
    sync_folder(path.parent)  # a name that is taken too: whoever gave it may have failed here
    return is_new


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two files have the same content."""
    with one.open("rb") as first, other.open("rb") as second:
        return hashlib.file_digest(first, "sha256").digest() == hashlib.file_digest(second, "sha256").digest()
