"""What the job table says about a job, for whoever looks at it: one frozen value per row."""

from dataclasses import dataclass
from datetime import datetime

from daemon.jobs import DeliveryState, JobState


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One revision of one series from one sender to one called AE title."""

    id: int
    state: JobState
    revision: int
    calling_ae_title: str
    called_ae_title: str
    study_instance_uid: str
    series_instance_uid: str
    patient_id: str
    patient_name: str | None
    accession_number: str
    study_date: str
    study_description: str
    series_description: str
    instance_count: int
    byte_count: int
    created_at: datetime
    last_instance_at: datetime
    state_since: datetime
    attempts: int
    not_before: datetime | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    progress_stage: str | None
    progress_fraction: float | None
    reason_code: str | None
    reason: str | None
    awaits: str | None
    discarding: bool
    result_sop_instance_uid: str
    result_series_instance_uid: str
    model_name: str | None
    model_version: str | None
    model_digest: str | None


@dataclass(frozen=True, kw_only=True)
class SetAsideRecord:
    """An image refused because the job already holds other bytes under its SOP Instance UID."""

    id: int
    job_id: int
    sop_instance_uid: str
    sha256: str
    calling_ae_title: str
    file_name: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """One change of a job's state, or a remark (then both states are equal)."""

    id: int
    job_id: int
    at: datetime
    from_state: JobState | None
    to_state: JobState
    reason_code: str | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class ResultRecord:
    """One DICOM object made of a job."""

    id: int
    job_id: int
    kind: str
    profile: str
    sop_instance_uid: str
    sha256: str
    file_name: str


@dataclass(frozen=True, kw_only=True)
class FindingRecord:
    """Something doubtful about a job's image or contours."""

    id: int
    job_id: int
    code: str
    severity: str
    structure: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class DeliveryRecord:
    """The results of one job on their way to one destination."""

    id: int
    job_id: int
    destination: str
    state: DeliveryState
    attempts: int
    not_before: datetime | None
    lease_owner: str | None
    lease_expires_at: datetime | None
    failure_kind: str | None
    last_status: int | None
    detail: str | None
    created_at: datetime
    sent_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StructureRecord:
    """One organ of a job's structure set, or the remark that it was not found."""

    id: int
    job_id: int
    name: str
    volume_cm3: float
    contours: int
    slices: int
    found: bool


@dataclass(frozen=True, kw_only=True)
class StageTimeRecord:
    """How long one stage of the segmentation took."""

    id: int
    job_id: int
    stage: str
    seconds: float
