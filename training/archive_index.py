"""Which CT series and structure sets are in a folder of DICOM files, read from their headers."""

import filecmp
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, CTImageStorage, RTStructureSetStorage
from rich.console import Console
from rich.progress import track

from training.folders import files_under
from training.packing_report import Report

_ATTRIBUTES = [
    "SOPClassUID", "SOPInstanceUID", "PatientID", "PatientBirthDate", "StudyInstanceUID", "SeriesInstanceUID",
    "FrameOfReferenceUID",
]  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """Who it is; empty where the file does not say."""

    id: str
    birth_date: str

    def differs(self, other: "Patient") -> bool:
        """Whether two files cannot be of one patient: another id, or another birth date where both have one."""
        born = {self.birth_date, other.birth_date} - {""}
        return self.id != other.id or len(born) > 1


@dataclass(frozen=True)
class Header:
    """Identity of one DICOM file; empty where the file does not say."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    patient: Patient
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str


@dataclass
class ArchiveIndex:
    """CT series by Series Instance UID, structure sets, and to which series each CT image belongs."""

    root: Path
    series: dict[str, list[Header]] = field(default_factory=lambda: defaultdict(list))
    structure_sets: list[Header] = field(default_factory=list)
    series_of_image: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def name(self, path: Path) -> str:
        """A path as reports write it: relative to the folder."""
        return str(path.relative_to(self.root))

    @property
    def patients(self) -> set[str]:
        """Patient IDs of all CT series."""
        return {header.patient.id for headers in self.series.values() for header in headers}


def index_archive(root: Path, report: Report, console: Console) -> ArchiveIndex:
    """Read every header under a folder; file names, extensions and folders do not matter.

    A file that cannot be read is named in the report, and costs nothing but itself.
    """
    index = ArchiveIndex(root)
    others: Counter[str] = Counter()
    for path in track(files_under(root), "reading headers", console=console, transient=True):
        header = _header(path, index.name(path), report)
        if header is None:
            continue
        if header.sop_class_uid == CTImageStorage:
            index.series[header.series_instance_uid].append(header)
            index.series_of_image[header.sop_instance_uid].add(header.series_instance_uid)
        elif header.sop_class_uid == RTStructureSetStorage:
            index.structure_sets.append(header)
        else:
            others[UID(header.sop_class_uid).name or "unclassified object"] += 1
    for kind, count in sorted(others.items()):
        report.remark(str(root), f"{count} × {kind} passed over")
    index.structure_sets = _without_copies(index, report)
    return index


def _header(path: Path, name: str, report: Report) -> Header | None:
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(_ATTRIBUTES))
        texts = [_text(dataset, keyword) for keyword in _ATTRIBUTES]
    except InvalidDicomError:
        report.left_out(name, "no DICOM file")
        return None
    except Exception as error:  # noqa: BLE001 - a corrupt file can raise anything, and must not cost the others
        report.left_out(
            name, f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        )
        return None
    sop_class, instance, patient, born, study, series, frame = texts
    return Header(path, sop_class, instance, Patient(patient, born), study, series, frame)


def _text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip()


def _without_copies(index: ArchiveIndex, report: Report) -> list[Header]:
    """Structure sets without byte for byte copies; two that differ under one UID are both left out."""
    by_uid: dict[str, list[Header]] = defaultdict(list)
    for header in index.structure_sets:
        by_uid[header.sop_instance_uid].append(header)
    kept = []
    for headers in by_uid.values():
        names = ", ".join(index.name(header.path) for header in headers)
        if _all_equal(header.path for header in headers):
            kept.append(headers[0])
            if len(headers) > 1:
                report.remark(names, "copies of one structure set, read once")
        else:
            report.left_out(names, "differ, but share one SOP Instance UID")
    return kept


def _all_equal(paths: Iterable[Path]) -> bool:
    first, *others = paths
    return all(filecmp.cmp(first, other, shallow=False) for other in others)
