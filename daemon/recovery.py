"""Rebuild a lost or damaged job table from the spool: every image on disk gets its row again."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info

from daemon.config import Config
from daemon.instance_header import HeaderUnreadable, InstanceHeader, read_header
from daemon.job_queue import IncomingInstance, JobQueue, RecoveredJob, StoredObject
from daemon.jobs import JobState
from daemon.part10 import read_part10
from daemon.result_objects import wanted_objects
from daemon.spool import Spool

_UNREADABLE = (OSError, InvalidDicomError, HeaderUnreadable, AttributeError, ValueError)


@dataclass(frozen=True)
class Recovery:
    """What came of it: jobs by number, how many are in which state, and files that no row could be made of."""

    jobs: tuple[RecoveredJob, ...]
    states: Counter[JobState]
    left_out: tuple[tuple[Path, str], ...]
    """With the reason."""


def recover(
    queue: JobQueue, spool: Spool, config: Config, progress: Callable[[int, int], None] = lambda *_: None
) -> Recovery:
    """Fill an empty job table from the spool.

    A job without results is receiving again, and is queued after the quiet period; of several revisions of a
    series the last one, which needs the images of the others too.
    One of which images cannot be read, or whose results did not pass, are damaged or wanted nowhere today, is
    rejected: a retry contours it with what is there.
    One with results is held: whether they reached their destinations nobody can tell any more. A release sends
    them with the same UIDs and bytes, which a destination that has them recognises.

    Parameters
    ----------
    progress
        Called with how many folders are done, and of how many.

    Raises
    ------
    IllegalTransition
        The table already has a job of the same number.
    """
    folders = spool.job_folders()
    jobs: list[RecoveredJob] = []
    left_out: list[tuple[Path, str]] = []
    for done, (job_id, images) in enumerate(folders.items()):
        progress(done, len(folders))
        instances = []
        for path in images:
            try:
                instances.append(_instance(path))
            except _UNREADABLE as error:
                left_out.append((path, str(error)))
        if not instances:
            continue
        checked = spool.checked(job_id)
        results = tuple(_results(spool, config, job_id, instances[0], checked, left_out))
        has_some = bool(checked) or spool.result_path(job_id).exists()
        doubt = "" if results else _doubt(len(images) - len(instances), has_some=has_some)
        job = RecoveredJob(job_id, tuple(instances), results, doubt)
        queue.recover(job)
        jobs.append(job)
    progress(len(folders), len(folders))
    # A later revision ends an earlier one, so that states are counted when all are entered.
    states = Counter(queue.job(job.job_id).state for job in jobs)
    return Recovery(tuple(jobs), states, tuple(left_out))


def _doubt(unreadable: int, *, has_some: bool) -> str:
    """Why a job without results that can be sent must not be contoured unasked."""
    if unreadable:
        return f"recovered from the spool; {unreadable} images cannot be read: contours would be of a part"
    if has_some:
        return (
            "recovered from the spool; its results did not pass, are damaged, or no destination of its route "
            "wants them, and whether they were delivered is not known: a retry contours the series anew"
        )
    return ""


def _instance(path: Path) -> IncomingInstance:
    """Describe an image as reception did when it came."""
    meta, dataset_bytes = read_part10(path)
    syntax = str(meta.TransferSyntaxUID)
    header: InstanceHeader = read_header(dataset_bytes, syntax)
    return IncomingInstance(
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        sop_instance_uid=header.sop_instance_uid,
        transfer_syntax_uid=syntax,
        sha256=hashlib.sha256(dataset_bytes).hexdigest(),
        byte_count=len(dataset_bytes),
        calling_ae_title=str(meta.get("SourceApplicationEntityTitle", "")),
        called_ae_title=str(meta.get("ReceivingApplicationEntityTitle", "")),
        patient_id=header.patient_id,
        patient_name=header.patient_name,
        accession_number=header.accession_number,
        study_date=header.study_date,
        study_description=header.study_description,
        series_description=header.series_description,
    )


def _results(
    spool: Spool,
    config: Config,
    job_id: int,
    image: IncomingInstance,
    checked: Mapping[str, str],
    left_out: list[tuple[Path, str]],
) -> Iterator[StoredObject]:
    """Results that passed their check (`Spool.checked`) and that the destinations of today's route want.

    Those that are not what was checked any more are appended to `left_out`.
    """
    route = config.route_for(image.calling_ae_title, image.called_ae_title or config.node.ae_title)
    if route is None:
        return
    for wanted in wanted_objects({name: config.destination(name) for name in route.destinations}):
        if wanted.file_name not in checked:
            continue
        path = spool.result_path(job_id, wanted.file_name)
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != checked[wanted.file_name]:
                raise ValueError("was altered after its check")
            uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
        except _UNREADABLE as error:
            left_out.append((path, str(error)))
        else:
            yield StoredObject(
                wanted.kind, wanted.profile, uid, digest, wanted.file_name, wanted.destinations
            )
