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
class Place:
    """Where an image belongs: where it already is, and the job that receives its series."""

    known: KnownInstance | None
    receiving: int | None


@dataclass(frozen=True)
class StructureResult:
    """One organ of a structure set; all counts are 0 where it was not found."""

    name: str
    volume_cm3: float
    contours: int
    slices: int
    found: bool = True


@dataclass(frozen=True)
class StoredObject:
    """A DICOM object that is on disk and checked, and the destinations that are to have it."""

    kind: str
    profile: str
    sop_instance_uid: str
    sha256: str
    file_name: str
    destinations: Sequence[str]


@dataclass(frozen=True)
class RecoveredJob:
    """A job as its folder in the spool shows it: images and results, but no history.

    `doubt` says why it must not be contoured before somebody has decided; empty where nothing is against it.
    """

    job_id: int
    instances: tuple[IncomingInstance, ...]
    results: tuple[StoredObject, ...]
    doubt: str = ""


@dataclass(frozen=True)
class FindingResult:
    """Something doubtful about the image (no structure) or about a structure."""

    code: str
    severity: str
    structure: str | None
    text: str


@dataclass(frozen=True, kw_only=True)
class SegmentedResult:
    """What was made of a series, where it must go, and why it must not go there without a person's word.

    Parameters
    ----------
    destinations
        In the order of the route.
    objects
        In the order in which a destination gets them.
    held
        The reason to keep it back; empty to send it.
    """

    model_name: str
    model_version: str
    model_digest: str
    destinations: Sequence[str]
    objects: Sequence[StoredObject]
    structures: Sequence[StructureResult] = ()
    findings: Sequence[FindingResult] = ()
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    held: str = ""

    def __post_init__(self) -> None:
        """Refuse what could never be delivered."""
        sent = {name for each in self.objects for name in each.destinations}
        if not self.destinations or sent != set(self.destinations):
            raise ValueError(
                f"objects for {sorted(sent)}, destinations {list(self.destinations)}: each needs the other"
            )
