"""Receivers of images, each a process that runs for a whole benchmark: ours, DCMTK, Orthanc, pynetdicom."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread

from benchmarks.bulk_sender import LONGEST_PDU
from tests.command import started, write_config
from tests.conditions import accepts_tcp, free_port, wait_until
from tests.peers import ended, orthanc, storescp

OURS, OUR_AE_TITLE = "oarlock", "OARLOCK"
STORESCP, STORESCP_SYNCED = "storescp", "storescp, then fsync"
ORTHANC, ORTHANC_SYNCED = "Orthanc without sync", "Orthanc with sync"
PYNETDICOM = "pynetdicom storescp"

_OF_ALL_JOBS = "*/images/*.dcm"

Stored = Mapping[str, bytes]
"""Pixel Data by SOP Instance UID."""


@dataclass(frozen=True)
class Receiver:
    """One that listens.

    Parameters
    ----------
    new
        What it has stored since it was last asked.
    finish
        What still belongs to its time after the last response.
    """

    port: int
    ae_title: str
    new: Callable[[], Stored]
    finish: Callable[[], None] = lambda: None


Start = Callable[[Path], AbstractContextManager[Receiver]]
"""Starts one, with its files in a new folder."""


@dataclass(frozen=True)
class Listener:
    """Our listener as a process of its own, with its files under `root`."""

    port: int
    process_id: int
    root: Path

    @property
    def images(self) -> int:
        """How many it has stored."""
        return sum(1 for _ in self.root.glob(f"jobs/{_OF_ALL_JOBS}"))


@contextmanager
def listener(root: Path, max_associations: int = 20) -> Iterator[Listener]:
    """The listener as it is installed, with its job table in SQLite; every series is let wait for more."""
    root.mkdir(parents=True)
    port = free_port()
    write_config(root, "\n[series]\nquiet_seconds = 600\n\n[[peers]]\nae_title = '*'\n")
    config = root / "oarlock.toml"
    node = f"port = {port}\nmax_associations = {max_associations}"
    config.write_text(config.read_text(encoding="utf-8").replace("port = 0", node), "utf-8")
    process = started("listen", "--config", config, log=root / "log")
    with ended(process):
        wait_until(lambda: process.poll() is not None or accepts_tcp(port), "the listener to listen")
        yield Listener(port, process.pid, root)


@contextmanager
def ours(root: Path) -> Iterator[Receiver]:
    """Our listener, to be compared with others."""
    with listener(root) as own:
        yield Receiver(own.port, OUR_AE_TITLE, _files(root / "jobs", _OF_ALL_JOBS))


@contextmanager
def dcmtk(root: Path, *, syncs: bool) -> Iterator[Receiver]:
    """DCMTK's storescp, a process for every association; it writes bytes as received and syncs nothing."""
    files = root / "files"
    with storescp(files, "--fork", "--max-pdu", str(LONGEST_PDU)) as peer:
        new = _files(files, "*")
        yield Receiver(peer.port, peer.ae_title, new, _syncs(files) if syncs else lambda: None)


@contextmanager
def orthanc_receiver(root: Path, *, syncs: bool) -> Iterator[Receiver]:
    """Orthanc as Debian configures it, with its index in SQLite."""
    with orthanc(root, SyncStorageArea=syncs, MaximumPduLength=LONGEST_PDU) as peer:
        seen: set[str] = set()

        def new() -> Stored:
            fresh = [each for each in peer.instances() if each not in seen]
            seen.update(fresh)
            return dict(_pixels(peer.instance_bytes(each)) for each in fresh)

        yield Receiver(peer.port, peer.ae_title, new)


@contextmanager
def pynetdicom(root: Path) -> Iterator[Receiver]:
    """The storescp that comes with pynetdicom; it syncs nothing."""
    root.mkdir()
    port = free_port()
    files = root / "files"
    options = ["-q", "-ba", "127.0.0.1", "-aet", "STORESCP", "-pdu", str(LONGEST_PDU), "-od", str(files)]
    process = subprocess.Popen([sys.executable, "-m", "pynetdicom", "storescp", str(port), *options])
    with ended(process):
        wait_until(lambda: process.poll() is not None or accepts_tcp(port), "pynetdicom to listen")
        yield Receiver(port, "STORESCP", _files(files, "*"))


def all_present() -> dict[str, Start]:
    """Every receiver that is installed, by name; ours is the first."""
    found: dict[str, Start] = {OURS: ours}
    if shutil.which("storescp"):
        found[STORESCP] = lambda root: dcmtk(root, syncs=False)
        found[STORESCP_SYNCED] = lambda root: dcmtk(root, syncs=True)
    if shutil.which("Orthanc"):
        found[ORTHANC] = lambda root: orthanc_receiver(root, syncs=False)
        found[ORTHANC_SYNCED] = lambda root: orthanc_receiver(root, syncs=True)
    return found | {PYNETDICOM: pynetdicom}


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _syncs(folder: Path) -> Callable[[], None]:
    """Sync every file that has come since the last time, one after the other, then the folder."""
    synced: set[str] = set()

    def sync() -> None:
        for entry in os.scandir(folder):
            if entry.name not in synced:
                synced.add(entry.name)
                descriptor = os.open(entry.path, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        sync_folder(folder)

    return sync


def _files(folder: Path, pattern: str) -> Callable[[], Stored]:
    seen: set[Path] = set()

    def new() -> Stored:
        fresh = [each for each in folder.glob(pattern) if each not in seen]
        seen.update(fresh)
        return dict(_pixels(each.read_bytes()) for each in fresh)

    return new


def _pixels(content: bytes) -> tuple[str, bytes]:
    dataset = dcmread(BytesIO(content))
    return str(dataset.SOPInstanceUID), bytes(dataset.PixelData)
