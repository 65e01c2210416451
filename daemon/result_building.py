"""One wanted object after another: built, stored, read again from disk and compared, each in its own way."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import Dataset

from daemon.destination_profile import PROFILES
from daemon.encapsulated_pdf import build_encapsulated_pdf
from daemon.result_header import ModelIdentity, ResultIdentity, encode
from daemon.result_objects import ResultKind, WantedObject
from daemon.secondary_capture import build_secondary_capture, rgb_of_png
from daemon.segmentation_object import build_segmentation
from daemon.structure_set import build_structure_set
from daemon.structure_set_check import StructureSummary, check_structure_set
from daemon.structure_template import ROI, left_out
from model.ct import CTVolume
from model.errors import ReasonCode, SeriesUnsuitable
from model.findings import Finding
from model.keyhole import with_holes

if TYPE_CHECKING:
    from daemon.qa_sheet import QASheet

Store = Callable[[str, bytes], Path]
"""Stores a Part 10 file under a name and returns its path."""


@dataclass(frozen=True, eq=False)
class Contoured:
    """Everything that objects are made from.

    Parameters
    ----------
    rois
        Of the template, in its order, with nested contours.
    identity
        The job's; each object has its own, see `WantedObject.identity`.
    usual_cm3
        Usual volumes, (low, high) by TG-263 name; None where the bundle knows none.
    doubts
        For the Series Description: what is doubtful, the gravest first.
    """

    volume: CTVolume
    rois: Sequence[ROI]
    findings: Sequence[Finding]
    remarks: Sequence[str]
    model: ModelIdentity
    identity: ResultIdentity
    usual_cm3: Mapping[str, tuple[float, float]] | None = None
    doubts: Sequence[str] = ()

    @cached_property
    def qa_sheet(self) -> "QASheet":
        """Drawn once, however many objects show it; it names the patient, in whose study it stays."""
        from daemon.qa_sheet import build_qa_sheet  # and with it matplotlib, which most workers never need

        return build_qa_sheet(
            self.volume,
            self.rois,
            self.identity,
            self.model,
            identify=True,
            ranges=self.usual_cm3,
            findings=self.findings,
        )


@dataclass(frozen=True)
class StoredFile:
    """One of the wanted objects, on disk and checked.

    Parameters
    ----------
    summaries
        What a structure set's check found, one for each ROI; empty for other objects.
    """

    wanted: WantedObject
    sop_instance_uid: str
    path: Path
    sha256: str
    summaries: tuple[StructureSummary, ...] = ()


def can_be_made(wanted: Sequence[WantedObject], rois: Sequence[ROI]) -> list[WantedObject]:
    """Return the objects for which there is something to write; a segmentation holds organs alone.

    Raises
    ------
    SeriesUnsuitable
        There is none.
    """
    has_organ = any(roi.organ and roi.is_found for roi in rois)
    due = [each for each in wanted if has_organ or each.kind is not ResultKind.SEGMENTATION]
    if not due or not any(roi.is_found for roi in rois):
        reasons = [
            *(f"{roi.name} was not found" for roi in rois if roi.organ and not roi.is_found),
            *left_out(rois),
        ]
        raise SeriesUnsuitable(
            ReasonCode.NOTHING_TO_WRITE,
            f"there is nothing to write: {'; '.join(reasons)}; needed is a CT that shows what is asked for",
        )
    return due


def not_made(wanted: Sequence[WantedObject], due: Sequence[WantedObject]) -> list[str]:
    """Say what is wanted and cannot be made."""
    if len(due) == len(wanted):
        return []
    return ["no segmentation is made: none of the template's organs was found"]


def build(
    wanted: WantedObject,
    contoured: Contoured,
    store: Store,
    enter: Callable[[str, float], None],
) -> StoredFile:
    """Make one object and store it.

    Parameters
    ----------
    enter
        Hears the stage, as in `daemon.segmentation.STAGES`.

    Raises
    ------
    OutputRejected
        What lies on disk is not what was made; it must not be sent.
    """
    identity = wanted.identity(contoured.identity)
    is_structure_set = wanted.kind is ResultKind.STRUCTURE_SET
    enter("structure-set" if is_structure_set else "objects", 0.0)
    rois = _for_profile(wanted, contoured.rois)
    content = encode(_BUILDERS[wanted.kind](wanted, contoured, rois, identity))
    if is_structure_set:
        enter("write", 0.0)
    path = store(wanted.file_name, content)
    summaries: Sequence[StructureSummary] = ()
    if is_structure_set:
        enter("check", 0.0)
        summaries = check_structure_set(path, contoured.volume, rois, identity, PROFILES[wanted.profile])
    digest = hashlib.sha256(content).hexdigest()
    return StoredFile(wanted, identity.sop_instance_uid, path, digest, tuple(summaries))


def _for_profile(wanted: WantedObject, rois: Sequence[ROI]) -> list[ROI]:
    """The structures with holes as the wanted object's destinations take them."""
    profile = PROFILES.get(wanted.profile)
    if profile is None:
        return list(rois)
    return [replace(roi, contours=with_holes(roi.contours, profile.holes.value)) for roi in rois]


def _structure_set(
    wanted: WantedObject, contoured: Contoured, rois: Sequence[ROI], identity: ResultIdentity
) -> Dataset:
    return build_structure_set(
        contoured.volume,
        rois,
        identity,
        contoured.model,
        contoured.remarks,
        PROFILES[wanted.profile],
        doubts=contoured.doubts,
    )


def _segmentation(
    _wanted: WantedObject, contoured: Contoured, rois: Sequence[ROI], identity: ResultIdentity
) -> Dataset:
    masks = {roi.organ: roi.mask for roi in rois if roi.organ and roi.is_found}
    return build_segmentation(contoured.volume, masks, identity, contoured.model, contoured.doubts)


def _secondary_capture(
    _wanted: WantedObject, contoured: Contoured, _rois: Sequence[ROI], identity: ResultIdentity
) -> Dataset:
    rgb = rgb_of_png(contoured.qa_sheet.png)
    return build_secondary_capture(
        rgb, contoured.volume, identity, contoured.model, identifies=True, doubts=contoured.doubts
    )


def _pdf(
    _wanted: WantedObject, contoured: Contoured, _rois: Sequence[ROI], identity: ResultIdentity
) -> Dataset:
    pdf = contoured.qa_sheet.pdf
    return build_encapsulated_pdf(
        pdf, contoured.volume, identity, contoured.model, identifies=True, doubts=contoured.doubts
    )


_BUILDERS: Mapping[
    ResultKind, Callable[[WantedObject, Contoured, Sequence[ROI], ResultIdentity], Dataset]
] = {
    ResultKind.STRUCTURE_SET: _structure_set,
    ResultKind.SEGMENTATION: _segmentation,
    ResultKind.SECONDARY_CAPTURE: _secondary_capture,
    ResultKind.PDF: _pdf,
}
