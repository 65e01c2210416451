"""The rows of the job table as SQLAlchemy maps them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    TypeDecorator,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from daemon.jobs import DeliveryState, JobState


class UtcDateTime(TypeDecorator[datetime]):
    """A point in time, stored as UTC; a naive datetime is refused."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- fixed by SQLAlchemy
        """Turn an aware time into the naive UTC that SQLite stores."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without zone ({value}) cannot be stored; pass an aware datetime")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 -- fixed by SQLAlchemy
        """Give the stored UTC back as an aware time."""
        return None if value is None else value.replace(tzinfo=UTC)


def _stored(states: type[StrEnum], constraint: str) -> Enum:
    """Text column with a CHECK, so that the database itself refuses a state that does not exist."""
    return Enum(
        states,
        values_callable=lambda members: [member.value for member in members],
        native_enum=False,
        create_constraint=True,
        validate_strings=True,
        length=16,
        name=constraint,
    )


Uid = Annotated[str, mapped_column(String(64))]
AeTitle = Annotated[str, mapped_column(String(16))]
JobId = Annotated[int, mapped_column(ForeignKey("jobs.id"))]


class Base(DeclarativeBase):
    """Names every constraint, so that a later migration can find it."""

    metadata = MetaData(
        naming_convention={
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime}  # noqa: RUF012 -- the form SQLAlchemy asks for


class Job(Base):
    """One revision of one series from one sender to one called AE title, and its structure set."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("(state = 'segmenting') = (lease_owner IS NOT NULL)", name="lease_while_segmenting"),
        CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease_whole"),
        CheckConstraint("state NOT IN ('failed', 'rejected') OR reason IS NOT NULL", name="reason_given"),
        CheckConstraint("progress_fraction BETWEEN 0 AND 1", name="progress_is_fraction"),
        UniqueConstraint("series_instance_uid", "calling_ae_title", "called_ae_title", "revision"),
        Index(
            "uq_jobs_one_receiving",
            "series_instance_uid",
            "calling_ae_title",
            "called_ae_title",
            unique=True,
            sqlite_where=text("state = 'receiving'"),
        ),
        Index(None, "state", "id"),
        Index(None, "state", "state_since"),
        Index(None, "discarding", sqlite_where=text("discarding = 1")),
        Index(None, "patient_id"),
        Index(None, "accession_number"),
        # Folders carry the job's number: no number may ever be used again.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[JobState] = mapped_column(_stored(JobState, "state"))
    revision: Mapped[int]
    calling_ae_title: Mapped[AeTitle]
    called_ae_title: Mapped[AeTitle]
    study_instance_uid: Mapped[Uid]
    series_instance_uid: Mapped[Uid]
    patient_id: Mapped[str]
    patient_name: Mapped[str | None]
    accession_number: Mapped[str]
    study_date: Mapped[str]
    study_description: Mapped[str]
    series_description: Mapped[str]
    instance_count: Mapped[int] = mapped_column(default=0)
    byte_count: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    last_instance_at: Mapped[datetime]
    state_since: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    progress_stage: Mapped[str | None]
    progress_fraction: Mapped[float | None]
    reason_code: Mapped[str | None]
    reason: Mapped[str | None]
    awaits: Mapped[str | None]
    """While receiving: what its evidence says is still missing."""
    discarding: Mapped[bool] = mapped_column(default=False, server_default=text("0"))
    """Cancelled while its images were arriving: those that still come belong to it until the sender pauses."""
    result_sop_instance_uid: Mapped[Uid]
    result_series_instance_uid: Mapped[Uid]
    model_name: Mapped[str | None]
    model_version: Mapped[str | None]
    model_digest: Mapped[str | None]


class Instance(Base):
    """One image of a job, on disk before its row exists."""

    __tablename__ = "instances"
    __table_args__ = (UniqueConstraint("job_id", "sop_instance_uid"), Index(None, "sop_instance_uid"))

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    sop_instance_uid: Mapped[Uid]
    sha256: Mapped[str] = mapped_column(String(64))
    byte_count: Mapped[int]
    transfer_syntax_uid: Mapped[Uid]
    received_at: Mapped[datetime]


class SetAside(Base):
    """An image refused because the job already holds other bytes under its SOP Instance UID."""

    __tablename__ = "set_asides"
    __table_args__ = (UniqueConstraint("job_id", "file_name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    sop_instance_uid: Mapped[Uid]
    sha256: Mapped[str] = mapped_column(String(64))
    calling_ae_title: Mapped[AeTitle]
    file_name: Mapped[str]
    at: Mapped[datetime]


class JobEvent(Base):
    """One change of a job's state, or a remark (then both states are equal)."""

    __tablename__ = "job_events"
    __table_args__ = (Index(None, "job_id", "to_state", "from_state", "at"), Index(None, "at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    at: Mapped[datetime]
    from_state: Mapped[JobState | None] = mapped_column(_stored(JobState, "from_state"))
    to_state: Mapped[JobState] = mapped_column(_stored(JobState, "to_state"))
    reason_code: Mapped[str | None]
    detail: Mapped[str]


class Result(Base):
    """One DICOM object made of a job: on disk and checked before its row exists."""

    __tablename__ = "results"
    __table_args__ = (UniqueConstraint("job_id", "file_name"), UniqueConstraint("sop_instance_uid"))

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    kind: Mapped[str]
    profile: Mapped[str]
    """Of the destinations it was written for; empty for a kind that is the same for all."""
    sop_instance_uid: Mapped[Uid]
    sha256: Mapped[str] = mapped_column(String(64))
    file_name: Mapped[str]


class Finding(Base):
    """Something doubtful about a job's image or contours."""

    __tablename__ = "findings"
    __table_args__ = (Index(None, "job_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    code: Mapped[str]
    severity: Mapped[str]
    structure: Mapped[str | None]
    """TG-263 name; none where it concerns the image."""
    text: Mapped[str]


class Delivery(Base):
    """The results of one job on their way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("job_id", "destination"),
        CheckConstraint("(lease_owner IS NULL) = (lease_expires_at IS NULL)", name="lease_whole"),
        CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="sent_has_time"),
        CheckConstraint("state <> 'failed' OR failure_kind IS NOT NULL", name="failure_told"),
        Index("ix_deliveries_due", "state", text("coalesce(not_before, created_at)"), "id"),
        Index(
            "ix_deliveries_under_way",
            "destination",
            "lease_expires_at",
            sqlite_where=text("lease_expires_at IS NOT NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    destination: Mapped[str]
    state: Mapped[DeliveryState] = mapped_column(_stored(DeliveryState, "state"))
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    failure_kind: Mapped[str | None]
    last_status: Mapped[int | None]
    detail: Mapped[str | None]
    created_at: Mapped[datetime]
    """When the delivery was last asked for: its age counts from here, also after an operator's retry."""
    sent_at: Mapped[datetime | None]


class DeliveryItem(Base):
    """One result that belongs to a delivery, and whether the destination has stored it."""

    __tablename__ = "delivery_items"
    __table_args__ = (UniqueConstraint("delivery_id", "result_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"))
    result_id: Mapped[int] = mapped_column(ForeignKey("results.id"))
    sent_at: Mapped[datetime | None]
    committed_at: Mapped[datetime | None]
    """When the destination took responsibility for it, where that was asked for."""


class CommitmentRequest(Base):
    """A storage commitment that we asked for: written down before the request leaves."""

    __tablename__ = "commitment_requests"
    __table_args__ = (UniqueConstraint("transaction_uid"), Index(None, "delivery_id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    delivery_id: Mapped[int] = mapped_column(ForeignKey("deliveries.id"))
    transaction_uid: Mapped[Uid]
    requested_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    detail: Mapped[str | None]


class StructureRow(Base):
    """One organ of a job's structure set, or the remark that it was not found."""

    __tablename__ = "structures"
    __table_args__ = (UniqueConstraint("job_id", "name"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    name: Mapped[str]
    volume_cm3: Mapped[float]
    contours: Mapped[int]
    slices: Mapped[int]
    found: Mapped[bool]


class Commitment(Base):
    """A storage commitment that a peer asked us for, and whether it has been answered."""

    __tablename__ = "commitments"
    __table_args__ = (
        UniqueConstraint("transaction_uid", "calling_ae_title"),
        Index(None, "answered_at", "not_before"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[Uid]
    calling_ae_title: Mapped[AeTitle]
    called_ae_title: Mapped[AeTitle]
    address: Mapped[str]
    instance_references: Mapped[str]
    """One line each: SOP class and instance."""
    requested_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    detail: Mapped[str | None]


class StageTime(Base):
    """How long one stage of the segmentation took."""

    __tablename__ = "stage_times"
    __table_args__ = (UniqueConstraint("job_id", "stage"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[JobId]
    stage: Mapped[str]
    seconds: Mapped[float]
