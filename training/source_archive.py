"""Clinical archives: folders of CT series and RT structure sets of any vendor, for any number of patients."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from model.ct import CTVolume, read_series
from model.errors import SeriesUnsuitable
from model.geometry import Mask
from model.structures import typical_cm3
from training.archive_index import ArchiveIndex, Header, index_archive
from training.dataset import Case, patient_mark
from training.organ_contours import RoiUnusableError, organ_mask
from training.packing import CONTRADICTION, Choices, PreparedCase
from training.packing_report import Report
from training.roi_names import RoiNames
from training.sides import on_their_side
from training.structure_set_match import NoMatchError, match
from training.structure_sets import Roi, StructureSet, StructureSetUnreadableError, read_structure_set
from training.volumes import LENGTH_ORGANS, known_ranges, upright

GROUP = "archive"

OWN = "oarlock"
"""Manufacturer of the structure sets that the daemon writes."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A structure set that was drawn on a CT series."""

    header: Header
    structure_set: StructureSet


class Absent(NamedTuple):
    """Organs that a patient was declared to lack, and those that are contoured on any CT of the patient."""

    declared: frozenset[str]
    drawn: frozenset[str]


def archive_cases(root: Path, choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """One case for each CT series with a structure set; patients go into a split as a whole.

    Raises
    ------
    PackingError
        A table of the operator names patients who are not in the folder.
    """
    index = index_archive(root, report, Console(stderr=True))
    choices.require_known(index.patients, report)
    _remark_on_shared_uids(index, report)
    drawn_on = _match_all(index, report)
    taken: dict[str, tuple[str, Candidate]] = {}
    for uid, headers in sorted(index.series.items(), key=lambda item: item[1][0].path):
        subject = f"{case_name(uid)} ({index.name(headers[0].path.parent)})"
        chosen = _chosen(drawn_on.get(uid, []), index, report, subject)
        patient = _one_patient(headers, report, subject) if chosen else ""
        if chosen and patient:
            taken[uid] = patient, chosen
    drawn: dict[str, set[str]] = defaultdict(set)
    for patient, chosen in taken.values():
        drawn[patient] |= _drawn(chosen.structure_set, choices.names)
    for uid, (patient, chosen) in taken.items():
        absent = Absent(choices.absent.get(patient, frozenset()), frozenset(drawn[patient]))
        case = _case(uid, chosen, absent, choices.names, index, report)
        if case is not None:
            yield choices.split(patient), replace(case, patient=patient_mark(patient))


def _drawn(structure_set: StructureSet, names: RoiNames) -> set[str]:
    """Organs of which there are contours, usable or not."""
    mapped = {names.map(roi.name).organ for roi in structure_set.rois if roi.contours}
    return {organ for organ in mapped if organ}


def _remark_on_shared_uids(index: ArchiveIndex, report: Report) -> None:
    """One patient under two ids could be in both splits; a study and a Frame of Reference are of one patient."""
    ids: dict[str, set[str]] = defaultdict(set)
    for headers in index.series.values():
        for header in headers:
            for kind, uid in (
                ("Frame of Reference", header.frame_of_reference_uid),
                ("Study", header.study_instance_uid),
            ):
                if uid:
                    ids[f"{kind} {uid}"].add(header.patient.id)
    for shared, patients in ids.items():
        if len(patients) > 1:
            report.remark(
                shared,
                f"{len(patients)} Patient IDs share it: if they are one patient, list all of them for one split",
            )


def case_name(series_instance_uid: str) -> str:
    """A name for packs and model cards that says nothing of the patient, the same in every run."""
    return f"CT-{hashlib.sha256(series_instance_uid.encode()).hexdigest()[:10]}"


def _match_all(index: ArchiveIndex, report: Report) -> dict[str, list[Candidate]]:
    """Series Instance UID to the structure sets drawn on that series."""
    drawn_on: dict[str, list[Candidate]] = {}
    for header in index.structure_sets:
        name = index.name(header.path)
        try:
            structure_set = read_structure_set(header.path)
            found = match(structure_set, header, index)
        except (StructureSetUnreadableError, NoMatchError) as error:
            report.left_out(name, str(error))
            continue
        for remark in found.remarks:
            report.remark(name, remark)
        drawn_on.setdefault(found.series_instance_uid, []).append(Candidate(header, structure_set))
    return drawn_on


def _chosen(
    candidates: list[Candidate], index: ArchiveIndex, report: Report, subject: str
) -> Candidate | None:
    """The structure set to learn from, the first by `_rank`; none where that does not decide."""
    usable = []
    for each in candidates:
        if why := _why_not(each.structure_set):
            report.left_out(index.name(each.header.path), why)
        else:
            usable.append(each)
    if not usable:
        report.left_out(subject, "no structure set to learn from was drawn on it")
        return None
    *_, best = sorted(usable, key=lambda each: _rank(each.structure_set))
    alike = [each for each in usable if _rank(each.structure_set) == _rank(best.structure_set)]
    if len(alike) > 1:
        names = ", ".join(index.name(each.header.path) for each in alike)
        report.left_out(
            subject, f"{len(alike)} structure sets, none approved alone or later than the others: {names}"
        )
        return None
    for each in usable:
        if each is not best:
            better = _better(best.structure_set, each.structure_set)
            report.left_out(index.name(each.header.path), f"{better} structure set of the same CT was taken")
    if best.structure_set.is_automatic:
        report.remark(
            index.name(best.header.path), "a program drew all of it (ROI Generation Algorithm): look at it"
        )
    return best


def _why_not(structure_set: StructureSet) -> str:
    """Why nothing is to be learned from a structure set; empty if it is not so."""
    if structure_set.approval == "REJECTED":
        return "it was rejected (Approval Status)"
    if structure_set.manufacturer == OWN and structure_set.approval != "APPROVED":
        return "oarlock wrote it itself, and nobody approved it (Manufacturer, Approval Status)"
    return ""


def _rank(structure_set: StructureSet) -> tuple[bool, bool, str]:
    """Approved ones sort last, before them those that people drew, and the later behind the earlier."""
    return structure_set.approval == "APPROVED", not structure_set.is_automatic, structure_set.written


def _better(taken: StructureSet, other: StructureSet) -> str:
    """What a structure set is that was taken before another."""
    (approved, drawn, _), (other_approved, other_drawn, _) = _rank(taken), _rank(other)
    if approved and not other_approved:
        return "an approved"
    return "a hand-drawn" if drawn and not other_drawn else "a later"


def _one_patient(headers: list[Header], report: Report, subject: str) -> str:
    """Patient ID of a series; empty, and said so, where the series is of several or of nobody."""
    if any(header.patient.differs(headers[0].patient) for header in headers):
        report.left_out(subject, "images of several patients share one Series Instance UID")
        return ""
    if not headers[0].patient.id:
        report.left_out(subject, "no Patient ID: it cannot be kept out of both splits at once")
    return headers[0].patient.id


def _case(
    uid: str, chosen: Candidate, absent: Absent, names: RoiNames, index: ArchiveIndex, report: Report
) -> Case | None:
    name = case_name(uid)
    try:
        volume = read_series([header.path for header in index.series[uid]])
    except (SeriesUnsuitable, OSError) as error:
        what = error.code if isinstance(error, SeriesUnsuitable) else "cannot be read"
        report.left_out(f"{name} ({index.name(index.series[uid][0].path.parent)})", f"{what}: {error}")
        return None
    for remark in volume.remarks:
        report.remark(name, remark)
    report.origin(name, f"{index.name(index.series[uid][0].path.parent)}, {index.name(chosen.header.path)}")
    masks = _organ_masks(name, chosen.structure_set, volume, absent.declared, names, report)
    straight = upright(volume, masks)
    for organ in sorted(absent.declared & absent.drawn - _drawn(chosen.structure_set, names)):
        report.left_out(name, "declared absent, but contoured on another CT of the patient", organ)
    contoured = on_their_side(name, straight, masks, report)
    known = known_ranges(straight, contoured, absent.declared - absent.drawn)
    if not known:
        report.left_out(name, "no organ could be used")
        return None
    return straight.case(name, GROUP, known)


def _organ_masks(
    subject: str,
    structure_set: StructureSet,
    volume: CTVolume,
    absent: frozenset[str],
    names: RoiNames,
    report: Report,
) -> dict[str, Mask]:
    """Organ to mask, of every organ that exactly one ROI draws and that is not said to be absent."""
    frame = str(volume.header.FrameOfReferenceUID)
    masks = {}
    for organ, rois in _rois_by_organ(subject, structure_set, names, report).items():
        written = ", ".join(repr(roi.name) for roi in rois)
        try:
            filled = organ_mask(_usable(rois, frame, is_absent=organ in absent), volume)
        except RoiUnusableError as error:
            report.left_out(subject, f"{written}: {error}", organ)
            continue
        for remark in (*filled.remarks, *_odd_size(organ, filled.mask, volume)):
            report.remark(subject, f"{written}: {remark}", organ)
        masks[organ] = filled.mask
    return masks


def _rois_by_organ(
    subject: str, structure_set: StructureSet, names: RoiNames, report: Report
) -> dict[str, list[Roi]]:
    found: dict[str, list[Roi]] = {}
    for roi in structure_set.rois:
        mapped = names.map(roi.name)
        if mapped.organ is None:
            report.left_out(subject, mapped.reason, f"ROI {roi.name!r}")
        else:
            found.setdefault(mapped.organ, []).append(roi)
    return found


def _usable(rois: list[Roi], frame_of_reference_uid: str, *, is_absent: bool) -> Roi:
    """The one ROI that draws an organ; ROIs without contours do not compete."""
    drawn = [roi for roi in rois if roi.contours] or rois[:1]
    if len(drawn) > 1:
        raise RoiUnusableError(f"{len(drawn)} ROIs draw this organ: which of them is meant is not known")
    if is_absent and drawn[0].contours:
        raise RoiUnusableError(CONTRADICTION)
    if drawn[0].frame_of_reference_uid not in {"", frame_of_reference_uid}:
        raise RoiUnusableError("its Frame of Reference is not that of the CT")
    return drawn[0]


def _odd_size(organ: str, mask: Mask, volume: CTVolume) -> tuple[str, ...]:
    """A remark on an organ far from its usual size that the CT does not cut."""
    typical = typical_cm3(organ)
    cut = mask.corner[0] == 0 or mask.corner[0] + len(mask.voxels) == len(volume.hu)
    if cut or organ in LENGTH_ORGANS:
        return ()
    size = mask.volume_cm3(volume.grid)
    is_odd = not typical / 4 < size < typical * 4
    return (f"{size:.1f} cm³, where {typical:g} cm³ are usual: look at it",) if is_odd else ()
