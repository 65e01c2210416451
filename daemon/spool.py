"""Every file operation of the program: one folder per job number, durable or not there at all.

```
<root>/jobs/00000017/images/<hash of the SOP Instance UID>.dcm    as received
                     set_aside/<hash of the bytes>.dcm            same UID, other bytes
                     structure_set.dcm, segmentation.dcm, …       the results
                     results.sha256                               those that passed their check, written last
<root>/arriving/<number of our own>.part                          while a sender sends it; gone at the next start
<root>/unclaimed/                                                 folders and images that no row knows
```

No string from a peer becomes part of a path.
Folders are 0700 and files 0600 whatever the umask, because images carry the patient's name.
"""

import hashlib
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from pydicom.errors import InvalidDicomError

from daemon.errors import InstanceConflict
from daemon.part10 import read_part10
from daemon.spool_files import (
    Arrival,
    Content,
    make_folder,
    publish,
    same_bytes,
    sync_folder,
    told_as_storage_full,
    write_new,
)

STRUCTURE_SET = "structure_set.dcm"
"""What every job makes; the names of all results stand in `daemon.result_objects`."""

CHECKED = "results.sha256"
"""In the words of sha256sum; without it nothing tells a result that passed from one that must not be sent."""

_FOLDERS_REMEMBERED = 1000
"""Of those under way most; a folder that was forgotten is only looked at again."""


class Spool:
    """Files of all jobs under one root.

    Parameters
    ----------
    root
        Folder of the installation; must lie on one local file system.
    min_free_bytes
        Watermark: below this nothing new should be accepted.
    """

    def __init__(self, root: Path, min_free_bytes: int) -> None:
        self._root = root
        self._jobs = root / "jobs"
        self._arriving = root / "arriving"
        self._unclaimed = root / "unclaimed"
        self._min_free_bytes = min_free_bytes
        self._new_folder = threading.Lock()
        self._durable_folders: set[Path] = set()

    def prepare(self) -> None:
        """Create the folders and prove that a file can be written, linked and removed; raises StorageFull."""
        with told_as_storage_full(self._root):
            self._root.parent.mkdir(parents=True, exist_ok=True)
            make_folder(self._root)
            make_folder(self._jobs)
            make_folder(self._arriving)
            probe = self._jobs / f"probe-{uuid4().hex}"
            try:
                write_new(probe, b"oarlock")
                publish(probe, probe.with_suffix(".linked"))
            finally:
                probe.unlink(missing_ok=True)
                probe.with_suffix(".linked").unlink(missing_ok=True)

    def free_bytes(self) -> int:
        """Bytes the file system still has for us."""
        return shutil.disk_usage(self._root).free

    def has_room(self) -> bool:
        """Whether the free space is above the watermark."""
        return self.free_bytes() >= self._min_free_bytes

    def arrive(self) -> Arrival:
        """Begin a file whose job is not known yet; raises StorageFull."""
        return Arrival(self._arriving / f"{uuid4().hex}.part")

    def store_arrival(self, job_id: int, sop_uid: str, arrival: Arrival) -> Path:
        """Make an image of what has arrived, so that it survives a power cut; the same bytes again change nothing.

        Raises
        ------
        StorageFull
            No room, or a fault of the file system.
        InstanceConflict
            Other bytes lie there under this UID.
        """
        path = self.instance_path(job_id, sop_uid)
        with told_as_storage_full(path):
            self._folder(job_id, "images")
            arrival.sync()
            if publish(arrival.path, path) or same_bytes(arrival.path, path):
                arrival.discard()
                return path
        raise InstanceConflict(f"job {job_id} holds other bytes under {sop_uid}")

    def restore(self, job_id: int, sop_uid: str, arrival: Arrival) -> None:
        """Put what has arrived in the place of an image that is gone or damaged; raises StorageFull."""
        path = self.instance_path(job_id, sop_uid)
        with told_as_storage_full(path):
            self._folder(job_id, "images")
            arrival.sync()
            arrival.path.replace(path)
            sync_folder(path.parent)
        arrival.discard()

    def digest(self, job_id: int, sop_uid: str) -> str:
        """SHA-256 of an image's data set as it lies on the disk; empty where it cannot be read."""
        try:
            _, dataset_bytes = read_part10(self.instance_path(job_id, sop_uid))
        except (OSError, InvalidDicomError, AttributeError):
            return ""
        return hashlib.sha256(dataset_bytes).hexdigest()

    def remove_instance(self, job_id: int, sop_uid: str) -> None:
        """Remove an image that no row knows; repeatable."""
        path = self.instance_path(job_id, sop_uid)
        with told_as_storage_full(path):
            path.unlink(missing_ok=True)

    def instance_path(self, job_id: int, sop_uid: str) -> Path:
        """Place of one image of a job."""
        return self._jobs.joinpath(f"{job_id:08d}", "images", _instance_name(sop_uid))

    def instance_paths(self, job_id: int) -> list[Path]:
        """Images in a job's own folder, sorted by name; see `JobQueue.images` for all that it needs."""
        return sorted(self._images(job_id).glob("*.dcm"))

    def set_aside_paths(self, job_id: int) -> list[Path]:
        """Images that came under a known UID with other bytes, sorted by name."""
        return sorted(self._job(job_id).glob("set_aside/*.dcm"))

    def job_numbers(self) -> list[int]:
        """Every job that has a folder; none where nothing was ever received."""
        return sorted(int(folder.name) for folder in self._jobs.glob("*") if folder.name.isdecimal())

    def job_folders(self) -> dict[int, list[Path]]:
        """Every job that has a folder, by number, with the images in it."""
        return {number: self.instance_paths(number) for number in self.job_numbers()}

    def move_instance(self, sop_uid: str, from_job: int, to_job: int) -> Path:
        """Take an image to the job that received it in the end; repeatable; raises as `store_arrival`."""
        source, target = self.instance_path(from_job, sop_uid), self.instance_path(to_job, sop_uid)
        with told_as_storage_full(target):
            self._folder(to_job, "images")
            if not source.exists() and target.exists():
                return target
            if not publish(source, target) and not same_bytes(source, target):
                raise InstanceConflict(f"job {to_job} holds other bytes under {sop_uid}")
            source.unlink()
            sync_folder(source.parent)
            return target

    def set_aside_arrival(self, job_id: int, arrival: Arrival) -> str:
        """Keep what has arrived and contradicts an image of a job; returns the file's name, one per content."""
        with told_as_storage_full(self._job(job_id) / "set_aside"):
            self._folder(job_id, "set_aside")
            arrival.sync()
            with arrival.content() as content:
                name = f"{hashlib.sha256(content).hexdigest()[:32]}.dcm"
            publish(arrival.path, self._job(job_id) / "set_aside" / name)
            arrival.discard()
        return name

    def result_path(self, job_id: int, file_name: str = STRUCTURE_SET) -> Path:
        """Place of one of a job's results."""
        return self._job(job_id) / file_name

    def store_result(self, job_id: int, content: Content, file_name: str = STRUCTURE_SET) -> tuple[Path, str]:
        """Write a result durably, in place of an earlier one; returns its path and SHA-256.

        Raises
        ------
        StorageFull
            No room, or a fault of the file system; an earlier result is untouched.
        """
        path = self.result_path(job_id, file_name)
        with told_as_storage_full(path):
            self._folder(job_id)
            part = _part_of(path)
            try:
                digest = write_new(part, content)
                part.replace(path)
                sync_folder(path.parent)
            finally:
                part.unlink(missing_ok=True)
        return path, digest

    def mark_checked(self, job_id: int, digests: Mapping[str, str]) -> None:
        """Write down which results passed, by file name with their SHA-256; raises StorageFull."""
        lines = "".join(f"{sha256}  {name}\n" for name, sha256 in digests.items())
        self.store_result(job_id, lines.encode(), CHECKED)

    def begin_results(self, job_id: int) -> None:
        """Forget earlier results before new ones are written, and remove what a crash cut off.

        Raises
        ------
        StorageFull
            The folder cannot be written.
        """
        path = self.result_path(job_id, CHECKED)
        with told_as_storage_full(path):
            path.unlink(missing_ok=True)
            for part in path.parent.glob("*.part"):
                part.unlink(missing_ok=True)

    def checked(self, job_id: int) -> dict[str, str]:
        """Results that passed, by file name with their SHA-256; none where that is not known."""
        path = self.result_path(job_id, CHECKED)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return {}
        return {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}

    def purge(self, job_id: int) -> None:
        """Remove every file of a job; repeatable."""
        folder = self._job(job_id)
        with told_as_storage_full(folder):
            if folder.exists():
                shutil.rmtree(folder)
                sync_folder(self._jobs)

    def reconcile(self, known: Callable[[int], Collection[str] | None]) -> list[Path]:
        """Tidy up before the first association: nothing may lie where a job looks for its images but its images.

        Half-written images are removed. Whatever else no row knows is taken to `unclaimed`: a crash leaves an
        image whose sender was never told 0x0000 and sends it again, but where an older copy of the database was
        put back, images and whole jobs that were acknowledged lie there too, and nothing tells them apart.

        Parameters
        ----------
        known
            `JobQueue.instance_uids`: SOP Instance UIDs of a job's own rows, None where there is no such job.

        Returns
        -------
        list of Path
            What was removed or taken away.
        """
        tidied: list[Path] = []
        with told_as_storage_full(self._jobs):
            for part in self._arriving.glob("*.part"):
                part.unlink()
                tidied.append(part)
            for folder in sorted(self._jobs.iterdir()):
                if folder.name.isdecimal():
                    with suppress(FileNotFoundError):  # the worker purges meanwhile
                        tidied += self._tidy(folder, known(int(folder.name)))
        return tidied

    def _tidy(self, folder: Path, sop_uids: Collection[str] | None) -> list[Path]:
        """Remove what is half-written in a job's folder, and take away what no row knows, or all of it."""
        sync_folder(folder)
        if sop_uids is None:
            return [self._take_away(folder, folder.name)]
        parts = [*folder.glob("images/*.part"), *folder.glob("set_aside/*.part")]
        for part in parts:
            part.unlink(missing_ok=True)
        known = {_instance_name(uid) for uid in sop_uids}
        strangers = [path for path in folder.glob("images/*.dcm") if path.name not in known]
        return parts + [self._take_away(path, f"{folder.name}-{path.stem}") for path in strangers]

    def has_unclaimed(self) -> bool:
        """Whether something lies in `unclaimed`, of which nobody knows whose it is."""
        return any(self._unclaimed.iterdir()) if self._unclaimed.exists() else False

    def _take_away(self, path: Path, name: str) -> Path:
        make_folder(self._unclaimed)
        path.rename(self._unclaimed / f"{name}-{uuid4().hex[:8]}{path.suffix}")
        sync_folder(self._unclaimed)
        sync_folder(path.parent)
        return path

    def _folder(self, job_id: int, *inside: str) -> None:
        """Make a job's folder durable with one in it; the way to a folder made once is short."""
        wanted = self._job(job_id).joinpath(*inside)
        if wanted in self._durable_folders and wanted.is_dir():
            return
        # A second association must not promise an image in a folder that the first has not synced yet.
        with self._new_folder:
            folder = self._job(job_id)
            make_folder(folder)
            for name in inside:
                folder /= name
                make_folder(folder)
            if len(self._durable_folders) >= _FOLDERS_REMEMBERED:
                self._durable_folders.clear()
            self._durable_folders.add(wanted)

    def _job(self, job_id: int) -> Path:
        return self._jobs / f"{job_id:08d}"

    def _images(self, job_id: int) -> Path:
        return self._jobs.joinpath(f"{job_id:08d}", "images")


def write_private(path: Path, content: bytes) -> None:
    """Write a file outside of any spool for its owner alone, in place of one that is there: it names a patient."""
    path.unlink(missing_ok=True)
    write_new(path, content)


def _instance_name(sop_uid: str) -> str:
    return f"{hashlib.sha256(sop_uid.encode()).hexdigest()[:32]}.dcm"


def _part_of(path: Path) -> Path:
    # Its own for every writer: two associations may bring the same image at the same moment.
    return path.with_name(f"{path.stem}-{uuid4().hex}.part")
