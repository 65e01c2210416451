"""Small and read-only file systems to run against, where this machine lets us mount them."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

PAGE = 4096


def _mount(*arguments: str | Path) -> bool:
    if not shutil.which("mount"):
        return False
    return subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True).returncode == 0


def can_mount() -> bool:
    """Whether this process may mount."""
    if os.geteuid() != 0:
        return False
    with TemporaryDirectory() as folder:
        is_mounted = _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        if is_mounted:
            subprocess.run(["umount", folder], check=True)
    return is_mounted


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs the right to mount a file system")


class SmallDisk:
    """A file system of a few megabytes that can be filled to the last page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def free_bytes(self) -> int:
        """What is left."""
        return shutil.disk_usage(self.path).free

    def leave(self, free_bytes: int) -> None:
        """Fill it but for so many bytes, or make room again."""
        self._ballast.unlink(missing_ok=True)
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, self.free_bytes() - free_bytes))

    def empty(self) -> None:
        """Make room."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int = 16) -> Iterator[SmallDisk]:
    """Mount a small file system for the time of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    assert _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a connection that is not yet collected may hold a file.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nothing be written in a folder for the time of the block, not even by root."""
    assert _mount("--bind", folder, folder)
    try:
        assert _mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
