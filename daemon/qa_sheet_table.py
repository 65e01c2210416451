"""The QA sheet's table: every structure's volume beside what is usual."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daemon.structure_template import ROI
from model.findings import Finding
from model.geometry import Mask, SliceGrid


@dataclass(frozen=True)
class Row:
    """One structure's line.

    Parameters
    ----------
    name, colour_rgb
        As the structure set has them.
    is_organ
        Whether it is drawn; a derived structure is only listed.
    volume_cm3
        None where it was not found.
    usual_cm3
        (low, high), None where nothing is known.
    is_cut
        Whether the image's first or last slice cuts the organ, so that its volume says little.
    notes
        Numbers of the findings about it, as on the sheet.
    """

    name: str
    colour_rgb: tuple[int, int, int]
    is_organ: bool
    volume_cm3: float | None
    usual_cm3: tuple[float, float] | None
    is_cut: bool
    notes: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """How the volume compares: not found, cut off, low, high, usual, or empty where nothing is known."""
        if self.volume_cm3 is None:
            return "not found"
        if self.is_cut:
            return "cut off"
        if self.usual_cm3 is None:
            return ""
        low, high = self.usual_cm3
        return "low" if self.volume_cm3 < low else "high" if self.volume_cm3 > high else "usual"


def rows_of(
    rois: Sequence[ROI],
    grid: SliceGrid,
    ranges: Mapping[str, tuple[float, float]] | None,
    findings: Sequence[Finding],
) -> list[Row]:
    """A row per structure, in their order; findings are numbered from 1 in theirs."""
    return [
        Row(
            name=roi.name,
            colour_rgb=roi.colour_rgb,
            is_organ=roi.organ is not None,
            volume_cm3=roi.mask.volume_cm3(grid) if roi.is_found else None,
            usual_cm3=(ranges or {}).get(roi.organ or ""),
            is_cut=_is_cut(roi.mask),
            notes=tuple(
                n for n, finding in enumerate(findings, start=1) if finding.concerns({roi.organ or ""})
            ),
        )
        for roi in rois
    ]


def _is_cut(mask: Mask) -> bool:
    """Whether it reaches the first or the last slice; what lies beyond nobody knows."""
    first = mask.corner[0]
    return not mask.is_empty and (first == 0 or first + len(mask.voxels) == mask.shape[0])
