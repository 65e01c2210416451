"""Whether an image is what its header says: head and neck, the right way round, in Hounsfield units, whole.

Judged from the voxels alone. How often each judgement is right is measured in docs/gates.md; which limits
come from training cases is said there.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.body_sections import CoarseVolume, Sections
from model.ct import LOWEST_HU, CTVolume
from model.findings import Finding, Severity
from model.geometry import Mask, SliceGrid
from model.section_atlas import AS_GIVEN, MIRRORED, WAYS, Match, average_sections

LEAST_SIMILARITY = 0.78
"""To the average head and neck; 164 training images have 0.83 to 0.97, other things 0.4 to 0.7."""

CLEAR_MARGIN = 0.02
"""By which one way round must fit better than another to be believed; training images have 0.01 to 0.12."""

MIRROR_MARGIN = 0.003
"""By which the mirrored image must fit better to be believed; no training image does, the worst has 0.0026."""

MIRROR_BELOW_MM = -180.0
"""Only an image that reaches the aortic arch, this far from the brainstem's lower end, shows its side."""

FEWEST_SECTIONS = 6
"""48 mm of body; less is not judged."""

LEAST_TOP_MM = -110.0
"""An image that ends below this, from the brainstem's lower end, shows shoulders and chest only."""

REGIONS: tuple[tuple[str, float, float], ...] = (
    ("head above the brainstem's lower end", 0.0, np.inf),
    ("jaws and throat", -80.0, 0.0),
    ("neck", -150.0, -80.0),
    ("chest", -np.inf, -150.0),
)
"""Name, lower and upper end in mm from the brainstem's lower end; patients differ by some 20 mm."""

SOFT_HU = 200
LEAST_SOFT_SHARE = 0.6
"""Share of the body within 200 HU of water; training images have 0.71 to 0.90."""
LEAST_AROUND = 0.005
MOST_AIR_HU = -850
"""Of what surrounds the body, padding included: it stands for air and has its value or less."""
PEAK_SEARCH_HU = (-45, 160)
PEAK_USUAL_HU = (25, 75)
PEAK_WARNING_HU = (5, 85)
PEAK_BIN_HU = 10

METAL_HU = 2800
METAL_NOTE_CM3, METAL_WARNING_CM3 = 0.1, 4.0

CORE = ("Brainstem", "Bone_Mandible", "Parotid_L", "Parotid_R", "SpinalCanal", "SpinalCord")
"""Organs of which every head-and-neck image that can be contoured shows some."""
LEVEL_TOLERANCE_MM = 45.0
AIR_BELOW_HU = -400
MOST_AIR = 0.3

MOST_PADDING_INSIDE = 0.1
"""Share of the inscribed circle; where more has padding's value, air cannot be told from padding."""


LEAST_STEP = 0.9
"""Change over two slices in changes over one. It grows with distance in any body, and noise alone has 1;
195 images of patients have 1.6 to 1.9. Every second slice moved by 4 mm, the average anatomy has 0.87."""
FEWEST_STEPS = 8
LEAST_STEP_HU = 0.5
STEP_HU = (-1000, 300)
"""Metal and dense bone would outweigh all else."""
STEP_PIXELS = 8
"""Side of the squares that are averaged, so that noise counts little."""


def examine_image(volume: CTVolume) -> tuple[Finding, ...]:
    """Judge an image before any network has seen it; takes a fraction of a second.

    Left and right are judged only where the image reaches the chest: head and neck are too symmetrical.
    """
    coarse = volume.coarse
    if coarse is None:
        return (_hold("no-body", "nothing denser than -400 HU was found; expected is a patient"),)
    return (
        *_hounsfield(coarse),
        *_metal(volume),
        *_alternating(volume),
        *_field_of_view(coarse),
        *_anatomy(volume.sections),
    )


def examine_anatomy(volume: CTVolume, masks: Mapping[str, Mask]) -> tuple[Finding, ...]:
    """Judge an image by the organs that were found in it.

    Parameters
    ----------
    masks
        Structure name to mask on the grid of `volume`.
    """
    core = [name for name in CORE if name in masks and not masks[name].is_empty]
    if not core:
        expected = ", ".join(CORE)
        return (_hold("not-head-and-neck", f"none of these organs was found: {expected}; expected are some"),)
    return (*_levels_disagree(volume, masks), *_organs_in_air(volume, masks))


# Anatomy


def _anatomy(sections: Sections | None) -> list[Finding]:
    count = 0 if sections is None else len(sections.hu)
    if sections is None or count < FEWEST_SECTIONS:
        text = f"{count * 8} mm of a body; {FEWEST_SECTIONS * 8} mm are needed to tell what it shows"
        return [Finding("too-short-to-judge", Severity.WARNING, None, text)]
    atlas = average_sections()
    matches = {way: atlas.match(sections, way) for way in WAYS}
    given = matches[AS_GIVEN]
    other = max((way for way in WAYS if way != AS_GIVEN), key=lambda way: matches[way].similarity)
    margin = given.similarity - matches[other].similarity
    likeness = f"as the header has it {given.similarity:.2f}, with {other} {matches[other].similarity:.2f}"
    if max(given.similarity, matches[other].similarity) < LEAST_SIMILARITY:
        text = f"similarity to the average head and neck: {likeness}; expected is {LEAST_SIMILARITY} at least"
        return [_hold("not-head-and-neck", text)]
    if margin < -CLEAR_MARGIN:
        text = f"the image fits head and neck better with {other} than the header says: similarity {likeness}"
        return [_hold("turned-image", text)]
    if given.top_mm < LEAST_TOP_MM:
        text = f"the image shows {_covered(given)}; expected is some of the head"
        return [_hold("not-head-and-neck", text)]
    findings = [Finding("image-coverage", Severity.NOTE, None, f"the image shows {_covered(given)}")]
    if margin < CLEAR_MARGIN:
        text = (
            f"which way round the patient lies cannot be told: similarity {likeness}; check the orientation"
        )
        findings.append(Finding("orientation-unclear", Severity.WARNING, None, text))
    return findings + _mirrored(sections, given)


def _mirrored(sections: Sections, given: Match) -> list[Finding]:
    if given.bottom_mm > MIRROR_BELOW_MM:
        return []
    mirrored = average_sections().match(sections, MIRRORED).similarity
    if mirrored - given.similarity < MIRROR_MARGIN:
        return []
    text = (
        f"the chest fits the average better with left and right exchanged: similarity {mirrored:.4f} against "
        f"{given.similarity:.4f}; expected is less. A patient with organs on the other side looks the same"
    )
    return [_hold("mirrored-image", text)]


def _covered(match: Match) -> str:
    shown = [name for name, low, high in REGIONS if match.bottom_mm < high and match.top_mm > low]
    ends = f"from {match.bottom_mm:+.0f} to {match.top_mm:+.0f} mm"
    return f"{', '.join(shown)}: {ends} about the brainstem's lower end"


def _levels_disagree(volume: CTVolume, masks: Mapping[str, Mask]) -> list[Finding]:
    """The brainstem's lower end, as found and as the image's likeness to the average places it."""
    brainstem = masks.get("Brainstem")
    sections = volume.sections
    if brainstem is None or brainstem.is_empty or sections is None or len(sections.hu) < FEWEST_SECTIONS:
        return []
    off = _lower_end_mm(brainstem, volume.grid) - average_sections().match(sections).zero_mm
    if abs(off) <= LEVEL_TOLERANCE_MM:
        return []
    text = (
        f"its lower end was found {off:+.0f} mm (positive to the head) from where the image as a whole has it; "
        f"expected is within {LEVEL_TOLERANCE_MM:.0f} mm"
    )
    return [Finding("wrong-level", Severity.WARNING, "Brainstem", text)]


def _lower_end_mm(mask: Mask, grid: SliceGrid) -> float:
    """How high a structure's lowest voxel lies; in a tilted slice that is not where the slice begins."""
    slices, rows, columns = (
        index + first for index, first in zip(np.nonzero(mask.voxels), mask.corner, strict=True)
    )
    return float(grid.to_patient(slices, np.stack([rows, columns], axis=1))[:, 2].min())


def _organs_in_air(volume: CTVolume, masks: Mapping[str, Mask]) -> list[Finding]:
    findings = []
    for name, mask in masks.items():
        if mask.is_empty or name.startswith("Lung"):
            continue
        box = tuple(slice(c, c + n) for c, n in zip(mask.corner, mask.voxels.shape, strict=True))
        air = float((volume.hu[box][mask.voxels] < AIR_BELOW_HU).mean())
        if air > MOST_AIR:
            text = f"{air:.0%} of it is air (below {AIR_BELOW_HU} HU); expected is at most {MOST_AIR:.0%}"
            findings.append(Finding("organ-in-air", Severity.WARNING, name, text))
    return findings


def _alternating(volume: CTVolume) -> list[Finding]:
    """Slices of two acquisitions in turn, between which the patient moved: each is most like the next but one."""
    step = step_ratio(volume.hu)
    if step is None or step >= LEAST_STEP:
        return []
    text = (
        f"the next slice but one differs {step:.2f} times as much as the next; expected is {LEAST_STEP} at least. "
        "Two acquisitions seem to lie between each other: send them as series of their own"
    )
    return [_hold("slices-alternate", text)]


def step_ratio(hu: NDArray[np.int16]) -> float | None:
    """Change over two slices in changes over one, the median of all; None where too little is there to tell.

    Parameters
    ----------
    hu
        (slices, rows, columns) Hounsfield units.
    """
    slices, rows, columns = hu.shape
    if min(rows, columns) < STEP_PIXELS:
        return None
    rows, columns = (count // STEP_PIXELS * STEP_PIXELS for count in (rows, columns))
    whole = hu[:, :rows:2, :columns:2].clip(*STEP_HU)
    half = STEP_PIXELS // 2
    squares = whole.reshape(slices, -1, half, whole.shape[2] // half, half).mean((2, 4), dtype=np.float32)
    one = np.abs(np.diff(squares, axis=0)).mean((1, 2))
    two = np.abs(squares[2:] - squares[:-2]).mean((1, 2))
    around = (one[1:] + one[:-1]) / 2
    differs = around > LEAST_STEP_HU
    return float(np.median(two[differs] / around[differs])) if differs.sum() >= FEWEST_STEPS else None


# Hounsfield units


def _hounsfield(coarse: CoarseVolume) -> list[Finding]:
    body, around = coarse.hu[coarse.body], coarse.hu[~coarse.body]
    if len(around) < LEAST_AROUND * coarse.hu.size:
        text = (
            f"{len(body) / coarse.hu.size:.1%} of the image are denser than -400 HU or enclosed by what is; "
            f"expected is air around a body, {LEAST_AROUND:.1%} of the image at least"
        )
        return [_hold("implausible-hu", text)]
    soft = float((np.abs(body) < SOFT_HU).mean())
    air = float(np.median(around))
    if soft < LEAST_SOFT_SHARE or air > MOST_AIR_HU:
        text = (
            f"{soft:.0%} of the body lies within {SOFT_HU} HU of water and the air around it at {air:.0f} HU; "
            f"expected are {LEAST_SOFT_SHARE:.0%} at least and about -1000 HU"
        )
        return [_hold("implausible-hu", text)]
    peak = tissue_peak_hu(body)
    if PEAK_USUAL_HU[0] <= peak <= PEAK_USUAL_HU[1]:
        return []
    is_far = not PEAK_WARNING_HU[0] <= peak <= PEAK_WARNING_HU[1]
    text = (
        f"soft tissue has its peak at {peak:.0f} HU; expected is {PEAK_USUAL_HU[0]} to {PEAK_USUAL_HU[1]} HU. "
        "Check the rescale intercept and the scanner's calibration"
    )
    return [Finding("hu-offset", Severity.WARNING if is_far else Severity.NOTE, None, text)]


def tissue_peak_hu(body: NDArray[np.int16]) -> float:
    """The most frequent value of a body's soft tissue other than fat, by bins of 10 HU."""
    low, high = PEAK_SEARCH_HU
    edges = np.arange(low - 10 * PEAK_BIN_HU, high + 10 * PEAK_BIN_HU, PEAK_BIN_HU)
    counts = ndimage.gaussian_filter1d(np.histogram(body, edges)[0].astype(float), 1.0)
    middles = (edges[1:] + edges[:-1]) / 2
    counts[(middles < low) | (middles > high)] = -1
    return float(middles[counts.argmax()])


def _metal(volume: CTVolume) -> list[Finding]:
    """Values that only metal has; on the usual scale, that ends at 3071 HU, they are cut off there."""
    in_slices = np.count_nonzero(volume.hu > METAL_HU, axis=(1, 2))
    cm3 = float(in_slices.sum() * np.prod(volume.grid.spacing_mm) / 1000)
    if cm3 < METAL_NOTE_CM3:
        return []
    severity = Severity.WARNING if cm3 >= METAL_WARNING_CM3 else Severity.NOTE
    text = (
        f"{cm3:.1f} cm³ of metal (above {METAL_HU} HU) in {np.count_nonzero(in_slices)} slices; "
        "contours in those slices may follow its streaks"
    )
    return [Finding("metal", severity, None, text)]


# Field of view


def _field_of_view(coarse: CoarseVolume) -> list[Finding]:
    """Whether the body reaches the edge of the slices, or of the circle in which the scanner reconstructs."""
    edge = ndimage.binary_dilation(_outside_circle(coarse.hu), border_value=True)
    count = int((coarse.body & edge).any(axis=(1, 2)).sum())
    if not count:
        return []
    length = count * coarse.spacing_mm[0]
    text = (
        f"the body reaches the edge of the field of view over {length:.0f} mm of its length; "
        "organs there may be cut off, and the external contour is incomplete"
    )
    return [Finding("body-cut-off", Severity.WARNING, None, text)]


def _outside_circle(hu: NDArray[np.int16]) -> NDArray[np.bool_]:
    """(rows, columns) beyond the inscribed circle if only that is padding; nothing where air looks the same."""
    rows, columns = hu.shape[1:]
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    beyond = np.asarray(x**2 + y**2 > 1.0)
    padding = (hu == LOWEST_HU).all(axis=0)
    is_circle = padding[beyond].all() and padding[~beyond].mean() < MOST_PADDING_INSIDE
    return beyond if is_circle else np.zeros_like(beyond)


def _hold(code: str, text: str) -> Finding:
    return Finding(code, Severity.HOLD, None, text)
