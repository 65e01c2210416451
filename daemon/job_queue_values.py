"""What callers hand to the job queue and what it answers: frozen values, no rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class IncomingInstance:
    """One image as its sender describes it; text is empty where the header has none."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    sha256: str
    byte_count: int
    calling_ae_title: str
    called_ae_title: str
    patient_id: str = ""
    patient_name: str = ""
    accession_number: str = ""
    study_date: str = ""
    study_description: str = ""
    series_description: str = ""


@dataclass(frozen=True)
class KnownInstance:
    """Where an image already is, and what its bytes were."""

    job_id: int
    sha256: str


@dataclass(frozen=True)
class StructureResult:
    """One organ of a structure set; all counts are 0 where it was not found."""

    name: str
    volume_cm3: float
    contours: int
    slices: int
    found: bool = True


@dataclass(frozen=True, kw_only=True)
class SegmentedResult:
    """A structure set that is on disk and checked, and where it must go."""

    sha256: str
    model_name: str
    model_version: str
    model_digest: str
    destinations: Sequence[str]
    structures: Sequence[StructureResult] = ()
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    remarks: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not self.destinations:
            raise ValueError("a structure set without a destination could never be delivered")
