"""Which DICOM objects a job makes: what each destination wants, under which UIDs, in which files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from uuid import UUID, uuid5

from daemon.config import Destination
from daemon.result_header import ResultIdentity

_NAMESPACE = UUID("6f2a3c1e-94b7-5d0a-8f5e-2b7c1d9e4a60")
_EVERYBODY = ""


class ResultKind(StrEnum):
    """In the order in which a destination gets them: what plans are made from comes first."""

    STRUCTURE_SET = "rtstruct"
    SEGMENTATION = "seg"
    SECONDARY_CAPTURE = "secondary-capture"
    PDF = "pdf"


_FILE_STEMS = {
    ResultKind.STRUCTURE_SET: "structure_set",
    ResultKind.SEGMENTATION: "segmentation",
    ResultKind.SECONDARY_CAPTURE: "qa_sheet_picture",
    ResultKind.PDF: "qa_sheet",
}


@dataclass(frozen=True)
class WantedObject:
    """One object to make.

    Parameters
    ----------
    profile
        For which kind of destination it is written; empty where that makes no difference.
    destinations
        Names of those that are to have it.
    """

    kind: ResultKind
    profile: str
    destinations: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """In the job's folder."""
        suffix = f"-{self.profile}" if self.profile not in {_EVERYBODY, "generic"} else ""
        return f"{_FILE_STEMS[self.kind]}{suffix}.dcm"

    def identity(self, job: ResultIdentity) -> ResultIdentity:
        """UIDs of this object, always the same ones for a job.

        A generic structure set has the job's own; the others' are derived from it (UUID version 5), so that no
        two objects share a UID, however the configuration changes between two tries.
        """
        own = self.kind is ResultKind.STRUCTURE_SET
        if own and self.file_name == f"{_FILE_STEMS[self.kind]}.dcm":
            return job
        series = job.series_instance_uid
        return replace(
            job,
            sop_instance_uid=_derived(job.sop_instance_uid, self.file_name),
            series_instance_uid=series if own else _derived(series, self.kind),
        )


STRUCTURE_SET = WantedObject(ResultKind.STRUCTURE_SET, "generic", ())
"""What is made where no destination says what it wants."""


def wanted_objects(destinations: Mapping[str, Destination | None]) -> list[WantedObject]:
    """Return each object once, with all destinations of a route that want it.

    Of a destination that is configured no longer nobody knows what it wants; it may come back and gets a
    structure set.
    """
    receivers: dict[tuple[ResultKind, str], list[str]] = {}
    for kind in ResultKind:
        for name, destination in destinations.items():
            objects = destination.objects if destination else (STRUCTURE_SET.kind,)
            if kind in objects:
                profile = destination.profile if destination else STRUCTURE_SET.profile
                for_all = kind is not ResultKind.STRUCTURE_SET
                receivers.setdefault((kind, _EVERYBODY if for_all else profile), []).append(name)
    return [WantedObject(kind, profile, tuple(names)) for (kind, profile), names in receivers.items()]


def _derived(uid: str, name: str) -> str:
    return f"2.25.{uuid5(_NAMESPACE, f'{uid} {name}').int}"
