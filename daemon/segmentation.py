"""Files of one CT series to a checked structure set: the whole path without database, network or settings."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from daemon.errors import ImagesUnread
from daemon.judgement import Policy, doubts, judge
from daemon.result_building import Contoured, Store, StoredFile, build, can_be_made, not_made
from daemon.result_header import ModelIdentity, ResultIdentity, unlike_identifiers
from daemon.result_objects import WantedObject
from daemon.structure_set_check import StructureSummary
from daemon.structure_template import ROI, Template, apply_template, left_out, unreached_slices
from model.contours import trace_all
from model.ct import CTVolume, read_series
from model.errors import ReasonCode, SeriesUnsuitable
from model.findings import Finding, Severity
from model.geometry import Mask, SliceGrid
from model.reference_ranges import ReferenceRanges

Progress = Callable[[str, float], None]
"""Hears the stage and the share of it that is done, 0 to 1; may raise to break the work off."""

STAGES = ("load", "resample", "network", "grid", "judge", "contours", "structure-set", "write", "check")
"""In this order; the segmenter reports resample, network and grid. What is made beside structure sets adds one."""


class BundleInfo(Protocol):
    """What the result says of a network's weights; `model.bundle.Bundle` has it."""

    @property
    def name(self) -> str:
        """Of the bundle."""

    @property
    def version(self) -> str:
        """Of the bundle."""

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, hexadecimal."""

    @property
    def structure_names(self) -> tuple[str, ...]:
        """What the weights can find."""

    @property
    def reference_ranges(self) -> ReferenceRanges | None:
        """By which results are judged."""


class Found(Protocol):
    """What a segmenter returns; `model.segmenter.Segmentation` is one."""

    @property
    def masks(self) -> Mapping[str, Mask]:
        """By TG-263 name; a structure that is absent or empty was not found."""

    @property
    def left_out(self) -> Mapping[str, float]:
        """Share of what was found of each structure that lay apart and is not in its mask."""

    @property
    def confidence(self) -> Mapping[str, float]:
        """Mean probability within each structure that was found."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know about how it was done."""


class SegmentsVolumes(Protocol):
    """Finds organs in a volume: `model.segmenter.Segmenter`, or a threshold in tests."""

    @property
    def bundle(self) -> BundleInfo:
        """The weights."""

    def require_memory(self, grid: SliceGrid) -> None:
        """Raise SeriesUnsuitable where a CT on this grid is too large."""

    def segment(self, volume: CTVolume, progress: Progress | None = None) -> Found:
        """Find what the weights know."""


@dataclass(frozen=True, eq=False)
class ContouredSeries:
    """Objects on disk that passed their checks, and what is worth knowing about them.

    Parameters
    ----------
    masks
        The requested structures that were found, by TG-263 name.
    summaries
        One for each requested structure, found or not, in the order of the request.
    findings
        What is doubtful about the image and the masks.
    remarks
        Sentences about the series and how it was segmented.
    stage_seconds
        Duration of each stage, in the order of `STAGES`.
    contoured
        What the objects were made from; has the QA sheet.
    """

    files: tuple[StoredFile, ...]
    volume: CTVolume
    masks: Mapping[str, Mask]
    summaries: tuple[StructureSummary, ...]
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    stage_seconds: Mapping[str, float]
    model: ModelIdentity
    contoured: Contoured


def contour_series(
    paths: Sequence[Path],
    segmenter: SegmentsVolumes,
    identity: ResultIdentity,
    template: Template,
    wanted: Sequence[WantedObject],
    store: Store,
    progress: Progress | None = None,
    policy: Policy = "warn",
) -> ContouredSeries:
    """Contour a series.

    The same files, segmentation and arguments give the same bytes.

    Parameters
    ----------
    paths
        The series' files, in any order.
    template
        Which structures, and how they are written; nothing else gets into a structure set.
    wanted
        What to make of it, structure sets before all else.
    store
        Stores a Part 10 file under a name and returns its path; the check reads it again from there.
    policy
        Whether a structure set says that it is doubtful.

    Raises
    ------
    SeriesUnsuitable
        The files make no volume or one that is too large, or nothing that could be written was found in it.
    ImagesUnread
        A file is gone or cannot be read.
    OutputRejected
        The structure set failed its check; it is on disk and must not be sent.
    """
    enter = _StageClock(progress)
    enter("load", 0.0)
    try:
        volume = read_series(paths, partial(enter, "load"), before_pixels=segmenter.require_memory)
    except OSError as error:
        raise ImagesUnread(error) from error
    found = segmenter.segment(volume, enter)
    organs = template.organs
    masks = _requested(found.masks, organs, volume)
    weights = segmenter.bundle
    enter("judge", 0.0)
    judged = judge(volume, found.masks, weights.reference_ranges, found.confidence, found.left_out)
    findings = tuple(each for each in judged if each.structure is None or each.concerns(organs))
    enter("contours", 0.0)
    wished = apply_template(template, masks, volume.grid)
    due = can_be_made(wanted, wished)
    traced = trace_all([roi.mask for roi in wished], volume.grid.pixel_spacing_mm)
    rois = [
        replace(roi, contours=contours, remark=_about(roi, template, findings))
        for roi, contours in zip(wished, traced, strict=True)
    ]
    contoured = Contoured(
        volume,
        rois,
        findings,
        (
            *_said_of_the_image(findings, policy),
            *_not_found(masks, weights),
            *volume.remarks,
            *unlike_identifiers(volume.header),
            *found.remarks,
            *_never_learned(organs, weights),
            *unreached_slices(template, volume.grid),
        ),
        ModelIdentity(weights.name, weights.version, weights.digest),
        identity,
        _usual_cm3(weights.reference_ranges, organs),
        doubts(findings, policy),
    )
    files = tuple(build(each, contoured, store, enter) for each in due)
    enter("check", 1.0)
    return ContouredSeries(
        files,
        volume,
        {name: mask for name, mask in masks.items() if not mask.is_empty},
        next((file.summaries for file in files if file.summaries), ()),
        findings,
        (*contoured.remarks, *left_out(rois), *not_made(wanted, due)),
        enter.seconds(),
        contoured.model,
        contoured,
    )


def _usual_cm3(
    ranges: ReferenceRanges | None, organs: Sequence[str]
) -> Mapping[str, tuple[float, float]] | None:
    if ranges is None:
        return None
    usual = {name: ranges.volume_cm3.get(name) for name in organs}
    return {name: (found.low, found.high) for name, found in usual.items() if found}


def _about(roi: ROI, template: Template, findings: Sequence[Finding]) -> str:
    """What is doubtful about a structure, about one that it is made from, or in comparison with it."""
    organs = template.organs_of(roi.name)
    return "; ".join(
        each.text if each.structure == roi.organ else f"{each.structure}: {each.text}"
        for each in findings
        if each.concerns(organs)
    )


def _said_of_the_image(findings: Sequence[Finding], policy: Policy) -> list[str]:
    """Doubts that concern no single structure, which has a description of its own."""
    if policy == "send":
        return []
    return [each.text for each in findings if each.structure is None and each.severity is not Severity.NOTE]


def _not_found(masks: Mapping[str, Mask], weights: BundleInfo) -> list[str]:
    missing = [name for name, mask in masks.items() if mask.is_empty and name in weights.structure_names]
    return [f"not found: {', '.join(missing)}"] if missing else []


def _requested(found: Mapping[str, Mask], structures: Sequence[str], volume: CTVolume) -> dict[str, Mask]:
    """Return a mask for every requested structure, an empty one where it was not found; some must be."""
    nothing = Mask(np.zeros((0, 0, 0), dtype=bool), (0, 0, 0), volume.grid.shape)
    masks = {name: found.get(name, nothing) for name in structures}
    if all(mask.is_empty for mask in masks.values()):
        slices, rows, columns = volume.grid.shape
        offsets = volume.grid.offsets_mm
        others = [name for name, mask in found.items() if not mask.is_empty and name not in masks]
        beside = f"; found, but not asked for: {', '.join(others)}" if others else ""
        raise SeriesUnsuitable(
            ReasonCode.NOT_HEAD_AND_NECK,
            f"none of {len(masks)} structures found in {slices} slices of {rows} × {columns} over "
            f"{offsets[-1] - offsets[0]:.0f} mm{beside}; needed is a CT of the head and neck",
        )
    return masks


def _never_learned(structures: Sequence[str], weights: BundleInfo) -> list[str]:
    missing = [name for name in structures if name not in weights.structure_names]
    return [f"bundle {weights.name} {weights.version} does not know {', '.join(missing)}"] if missing else []


class _StageClock:
    """Passes progress on and measures how long each stage takes."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._seconds: dict[str, float] = {}
        self._stage, self._since = "", time.monotonic()

    def __call__(self, stage: str, share: float) -> None:
        self._count()
        self._stage = stage
        self._seconds.setdefault(stage, 0.0)
        if self._progress:
            self._progress(stage, share)

    def seconds(self) -> dict[str, float]:
        """Duration of each stage in the order in which they were first entered, the last one until now."""
        self._count()
        return dict(self._seconds)

    def _count(self) -> None:
        """Charge the time since the last report to the stage under way."""
        now = time.monotonic()
        if self._stage:
            self._seconds[self._stage] += now - self._since
        self._since = now
