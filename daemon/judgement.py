"""Whether results may go to their destinations unseen: everything noticed about them, and a route's policy."""

from collections.abc import Mapping, Sequence
from typing import Literal

from model.ct import CTVolume
from model.findings import Finding, Severity
from model.geometry import Mask
from model.image_gate import examine_anatomy, examine_image
from model.plausibility import check_plausibility
from model.reference_ranges import ReferenceRanges

Policy = Literal["send", "warn", "hold"]
"""What a route does with doubtful results; see `daemon.config.Route`."""

_HELD_BACK: Mapping[Policy, frozenset[Severity]] = {
    "send": frozenset(),
    "warn": frozenset({Severity.HOLD}),
    "hold": frozenset({Severity.HOLD, Severity.WARNING}),
}
_SHOWN = 3


def judge(
    volume: CTVolume,
    masks: Mapping[str, Mask],
    ranges: ReferenceRanges | None,
    confidence: Mapping[str, float],
    left_out: Mapping[str, float],
) -> tuple[Finding, ...]:
    """Return what is doubtful about the image by itself, the masks in it, and the masks by themselves."""
    return (
        *examine_image(volume),
        *examine_anatomy(volume, masks),
        *check_plausibility(masks, volume.grid, ranges, confidence, left_out),
    )


def hold_reason(findings: Sequence[Finding], policy: Policy) -> str:
    """Why results must wait for a person; empty where they need not."""
    grave = [finding for finding in findings if finding.severity in _HELD_BACK[policy]]
    return _sentence(grave)


def doubts(findings: Sequence[Finding], policy: Policy) -> tuple[str, ...]:
    """What is doubtful, the gravest first; nothing where there is nothing, or where the route wants silence."""
    if policy == "send":
        return ()
    doubtful = [finding for finding in findings if finding.severity is not Severity.NOTE]
    doubtful.sort(key=lambda finding: finding.severity is not Severity.HOLD)
    return tuple(dict.fromkeys(finding.structure or "image" for finding in doubtful))


def _sentence(findings: Sequence[Finding]) -> str:
    words = [f"{finding.structure or 'image'}: {finding.text}" for finding in findings[:_SHOWN]]
    if len(findings) > _SHOWN:
        words.append(f"and {len(findings) - _SHOWN} more findings")
    return "; ".join(words)
