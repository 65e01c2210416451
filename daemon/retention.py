"""What may be purged, and when: finished jobs after their days, delivered ones earlier if room is short."""

from datetime import datetime, timedelta

import structlog

from daemon.job_queue import JobQueue
from daemon.jobs import Job, JobState
from daemon.spool import Spool

_log = structlog.get_logger(__name__)


def purge_old(queue: JobQueue, spool: Spool, now: datetime, retention_days: float) -> int:
    """Purge what is due and return how many jobs that were.

    Delivered, failed, rejected and cancelled jobs go after `retention_days` in that state.
    Below the disk watermark delivered ones go earlier, oldest first, until there is room again:
    a listener that must refuse images harms more than a copy that is missing, since the images are in the
    archive that sent them and the structure set is at its destinations.
    """
    aged = queue.purgeable(now - timedelta(days=retention_days))
    purged = sum(_purge(queue, spool, job) for job in aged)
    if not spool.has_room():
        purged += _make_room(queue, spool, now)
    return purged


def _make_room(queue: JobQueue, spool: Spool, now: datetime) -> int:
    purged = 0
    for job in queue.purgeable(now):
        if job.state is JobState.DELIVERED:
            purged += _purge(queue, spool, job)
            if spool.has_room():
                break
    return purged


def _purge(queue: JobQueue, spool: Spool, job: Job) -> bool:
    """Files first, row second: a crash between the two leaves a job that is purged again."""
    # An operator may have retried it while others were being purged.
    if queue.job(job.id).state_since != job.state_since:
        return False
    spool.purge(job.id)
    queue.purged(job.id)
    _log.info("job_purged", job=job.id, series=job.series_instance_uid, was=str(job.state))
    return True
