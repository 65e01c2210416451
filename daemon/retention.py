"""What may be purged and forgotten, and when: finished jobs after their days, earlier if room is short."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import structlog
from pydicom.errors import InvalidDicomError

from daemon.errors import IllegalTransition, StorageFull
from daemon.instance_header import HeaderUnreadable, read_header
from daemon.job_queue import JobQueue
from daemon.job_queue_rows import Job
from daemon.job_records import JobRecord
from daemon.jobs import DECIDED, FINISHED, JobState
from daemon.part10 import read_part10
from daemon.spool import Spool

_log = structlog.get_logger(__name__)


def purge_old(
    queue: JobQueue,
    spool: Spool,
    now: datetime,
    retention_days: float,
    failed_days: float = 0,
    may_go_on: Callable[[], bool] = lambda: True,
) -> int:
    """Purge what is due, as long as this may go on, and return how many jobs that were.

    Delivered, rejected and cancelled jobs go after `retention_days` in that state.
    A failed one was to be delivered and was not: it stays until somebody retries or cancels it, or for
    `failed_days` where that is not 0.
    Below the disk watermark delivered ones go earlier, oldest first, until there is room again:
    a listener that must refuse images harms more than a copy that is missing, since the images are in the
    archive that sent them and the structure set is at its destinations.
    """
    _finish_purging(queue, spool, may_go_on)
    aged = queue.purgeable(now - timedelta(days=retention_days), DECIDED)
    if failed_days:
        aged += queue.purgeable(now - timedelta(days=failed_days), {JobState.FAILED})
    purged = sum(_purge(queue, spool, job) for job in takewhile(lambda _: may_go_on(), aged))
    if not spool.has_room():
        purged += _make_room(queue, spool, now, may_go_on)
    return purged


def forget_old(queue: JobQueue, now: datetime, identifiers_days: float) -> int:
    """Take the patients out of rows that are old enough and have no files; returns how many those were."""
    if forgotten := queue.forget_patients(now - timedelta(days=identifiers_days)):
        _log.info("patients_forgotten", jobs=forgotten)
    return forgotten


def jobs_of_patient(queue: JobQueue, spool: Spool, patient_id: str) -> list[JobRecord]:
    """Jobs whose row or files name a Patient ID, oldest first.

    A row names the patient of the first image alone; of a series that may have several the files are searched.
    """
    named = {job.id: job for job in queue.jobs_of_patient(patient_id)}
    for job in queue.jobs_of_several():
        paths = spool.instance_paths(job.id) + spool.set_aside_paths(job.id)
        if job.id not in named and any(_names(path, patient_id) for path in paths):
            named[job.id] = job
    return [named[number] for number in sorted(named)]


def _names(path: Path, patient_id: str) -> bool:
    try:
        meta, dataset_bytes = read_part10(path)
        return read_header(dataset_bytes, str(meta.TransferSyntaxUID)).patient_id == patient_id
    except (OSError, InvalidDicomError, AttributeError, HeaderUnreadable):
        return False


def erase(queue: JobQueue, spool: Spool, job_id: int, detail: str) -> None:
    """Remove a job's files and all that identifies its patient now, as a patient may ask for.

    The row is purged first, so that nothing that comes meanwhile stands on files that go, and names the patient
    until they are gone: whoever looks for what is left finds it.

    Raises
    ------
    IllegalTransition
        It is not finished, or a later revision is neither delivered nor erased, whose retry needs its images.
    """
    job = queue.job(job_id)
    is_free = job.state is JobState.PURGED or (
        job.state in FINISHED and queue.purged(job, "files removed to erase the patient")
    )
    if not is_free:
        raise IllegalTransition(
            f"job {job_id} is {job.state}, or a later revision of its series is not delivered; "
            "cancel what is unfinished first, and erase later revisions before earlier ones"
        )
    spool.purge(job_id)
    queue.forget_patient(job_id, detail)
    _log.info("job_erased", job=job_id, was=str(job.state))


def _make_room(queue: JobQueue, spool: Spool, now: datetime, may_go_on: Callable[[], bool]) -> int:
    purged = 0
    for job in queue.purgeable(now, {JobState.DELIVERED}):
        if not may_go_on():
            return purged
        purged += _purge(queue, spool, job, "files removed to make room")
        if spool.has_room():
            return purged
    _log.warning("below_watermark", free_bytes=spool.free_bytes(), purged=purged)
    return purged


def _purge(
    queue: JobQueue, spool: Spool, job: Job, detail: str = "files removed at the end of retention"
) -> bool:
    """Row first, files second: nobody can retry a job whose files are going."""
    if not queue.purged(job, detail):
        return False
    spool.purge(job.id)
    _log.info("job_purged", job=job.id, series=job.series_instance_uid, was=str(job.state))
    return True


def _finish_purging(queue: JobQueue, spool: Spool, may_go_on: Callable[[], bool]) -> None:
    """Remove the files of jobs that are purged in the table, of which a crash or a full disk left some."""
    for job_id in takewhile(lambda _: may_go_on(), spool.job_numbers()):
        if not queue.is_purged(job_id):
            continue
        try:
            spool.purge(job_id)
            _log.warning("purge_finished", job=job_id)
        except StorageFull as error:  # the other jobs' files must not wait for somebody to mend this one's
            _log.error("purge_unfinished", job=job_id, cause=str(error))
