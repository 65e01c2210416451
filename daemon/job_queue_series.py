"""Images of a series in the job table: their jobs, set aside, and which of them each revision needs."""

from collections.abc import Callable, Collection
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from daemon.job_queue_rows import Instance, Job, SetAside
from daemon.job_queue_state import get, move, open_job, remark
from daemon.job_queue_values import IncomingInstance
from daemon.jobs import SETTLED, JobState

_WITHOUT_IMAGES = (JobState.CANCELLED, JobState.PURGED)
"""An image of such a job counts as never received: sent again, it opens a new job."""

TAKES_IMAGES = or_(Job.state == JobState.RECEIVING, Job.discarding == true())
"""Of a job that is discarded while its images arrive, the rest must not become a series of its own."""


def receiving_now(session: Session, incoming: IncomingInstance) -> int | None:
    """Newest job that is receiving an image's series."""
    return _newest(session, incoming, Job.state == JobState.RECEIVING)


def open_for(session: Session, incoming: IncomingInstance) -> int | None:
    """Job that takes an image's series in now, to be segmented or, where an operator discards it, to be left.

    An image that a discarded job has already is sent again, so it is wanted again and opens a new job.
    """
    has_it = exists().where(Instance.job_id == Job.id, Instance.sop_instance_uid == incoming.sop_instance_uid)
    takes_it = or_(Job.state == JobState.RECEIVING, and_(Job.discarding, ~has_it))
    return _newest(session, incoming, takes_it)


def receive_again(
    session: Session, now: datetime, incoming: IncomingInstance, detail: str = "another image arrived"
) -> int | None:
    """Return a job that is still queued to receiving; None where none is.

    Not one that has a later revision, as of a job that waits for another try: the image would be in neither
    structure set with all the others.
    """
    queued = _newest(session, incoming, and_(Job.state == JobState.QUEUED, ~is_needed(_WITHOUT_IMAGES)))
    if queued is not None:
        which = Job.id == queued
        move(session, now, which, JobState.QUEUED, JobState.RECEIVING, detail=detail, last_instance_at=now)
    return queued


def wait_on(session: Session, now: datetime, incoming: IncomingInstance) -> None:
    """Let a job of an image's series count its silence anew: the image is known, but its series is being sent."""
    receiving = receiving_now(session, incoming)
    if receiving is None:
        receive_again(session, now, incoming, "an image was sent again")
    else:
        get(session, receiving).last_instance_at = now


def open_revision(
    session: Session, now: datetime, incoming: IncomingInstance, new_uid: Callable[[], str]
) -> int:
    """Open the next revision of an image's series."""
    last = session.scalar(select(func.max(Job.revision)).where(_series_of(incoming))) or 0
    job = Job(
        state=JobState.RECEIVING,
        revision=last + 1,
        calling_ae_title=incoming.calling_ae_title,
        called_ae_title=incoming.called_ae_title,
        study_instance_uid=incoming.study_instance_uid,
        series_instance_uid=incoming.series_instance_uid,
        patient_id=incoming.patient_id,
        patient_name=incoming.patient_name,
        accession_number=incoming.accession_number,
        study_date=incoming.study_date,
        study_description=incoming.study_description,
        series_description=incoming.series_description,
        created_at=now,
        last_instance_at=now,
        state_since=now,
        result_sop_instance_uid=new_uid(),
        result_series_instance_uid=new_uid(),
    )
    return open_job(session, job, f"first image of revision {last + 1} from {incoming.calling_ae_title}")


def set_aside(
    session: Session, now: datetime, job_id: int, incoming: IncomingInstance, file_name: str
) -> None:
    """Write down an image with a known UID and other bytes, once per content."""
    if session.scalar(select(SetAside.id).where(SetAside.job_id == job_id, SetAside.file_name == file_name)):
        return
    session.add(
        SetAside(
            job_id=job_id,
            sop_instance_uid=incoming.sop_instance_uid,
            sha256=incoming.sha256,
            calling_ae_title=incoming.calling_ae_title,
            file_name=file_name,
            at=now,
        )
    )
    remark(session, now, job_id, "image refused: its UID is known with other content; set aside")


def images(session: Session, job_id: int) -> list[Instance]:
    """Images a job is segmented from: its own and those of the series' earlier revisions, each once.

    A late image opens a revision that holds this image alone; what came before stays where it is.
    """
    job = get(session, job_id)
    own_or_earlier = (Job.id == job.id) | and_(Job.revision < job.revision, Job.state.not_in(_WITHOUT_IMAGES))
    rows = session.scalars(
        select(Instance).join(Job).where(_series_of(job), own_or_earlier).order_by(Job.revision, Instance.id)
    )
    return list({row.sop_instance_uid: row for row in rows}.values())


def purgeable(session: Session, before: datetime, states: Collection[JobState]) -> list[Job]:
    """Jobs in some states since before a time whose images no later revision needs, oldest first."""
    return list(
        session.scalars(
            select(Job)
            .where(Job.state.in_(states), Job.state_since < before, ~is_needed())
            .order_by(Job.state_since)
        )
    )


def is_needed(settled: Collection[JobState] = SETTLED) -> ColumnElement[bool]:
    """Whether a later revision of a job's series needs its images; not one in a state of `settled`."""
    later = aliased(Job)
    return exists().where(
        later.series_instance_uid == Job.series_instance_uid,
        later.calling_ae_title == Job.calling_ae_title,
        later.called_ae_title == Job.called_ae_title,
        later.revision > Job.revision,
        later.state.not_in(settled),
    )


def _newest(session: Session, incoming: IncomingInstance, which: ColumnElement[bool]) -> int | None:
    """Job of an image's series with the highest revision among those that match."""
    matching = select(Job.id).where(_series_of(incoming), which)
    return session.scalar(matching.order_by(Job.revision.desc()).limit(1))


def _series_of(image: IncomingInstance | Job) -> ColumnElement[bool]:
    return _same_series(image.series_instance_uid, image.calling_ae_title, image.called_ae_title)


def _same_series(series_uid: str, calling: str, called: str) -> ColumnElement[bool]:
    return and_(
        Job.series_instance_uid == series_uid,
        Job.calling_ae_title == calling,
        Job.called_ae_title == called,
    )
