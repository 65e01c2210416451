"""Images synthesised around the true shapes of the 21 organs of scans whose CT is not at hand."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.blur import blurred
from model.network_input import smoothing_sigma_mm
from training.config import ORGANS
from training.dataset import NETWORK_RESOLUTION_MM, Case, Frame
from training.packing import TRAIN, Choices, PreparedCase
from training.packing_report import Report
from training.synthesis import synthesise, with_room
from training.volumes import WHOLE, crop, read_image, reordered


def shape_cases(root: Path, _choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """Training cases only; scans that are measured on elsewhere are left out."""
    bit_of = json.loads((root / "organs.json").read_text())["bits"]
    measured = _validation_scans(root)
    for index, path in enumerate(sorted(root.glob("*_oncologist.nii.gz"))):
        scan = path.name.removesuffix("_oncologist.nii.gz")
        if scan in measured:
            report.left_out(scan, "the patient belongs to the validation split")
            continue
        labels, frame = read_image(path)
        labels = reordered(labels.astype(np.uint32), bit_of)
        masks = {organ: (labels >> np.uint32(ORGANS.index(organ))) & np.uint32(1) > 0 for organ in bit_of}
        try:
            case = _synthetic(scan, masks, labels, frame, np.random.default_rng(index))
        except ValueError as error:
            report.left_out(scan, str(error))
            continue
        yield TRAIN, case


def _validation_scans(root: Path) -> set[str]:
    cases = json.loads((root.parent / "tcia21" / "cases.json").read_text())
    return {about["source_scan"] for about in cases.values() if about["openkbp_split"] == "validation"}


def _synthetic(
    scan: str,
    masks: dict[str, NDArray[np.bool_]],
    labels: NDArray[np.uint32],
    frame: Frame,
    rng: np.random.Generator,
) -> Case:
    """The image at half the in-plane resolution of the labels, and as blurred as planning CTs at hand are."""
    before = next(iter(masks.values())).shape
    coarse = {name: mask[:, ::2, ::2] for name, mask in masks.items()}
    dz, dy, dx = frame.spacing_mm
    spacing = (dz, 2 * dy, 2 * dx)
    roomy = with_room(coarse, spacing)
    image = synthesise(roomy, spacing, rng).astype(np.float32)
    # The padding at the front and at the right moves the origin.
    side = (image.shape[2] - (before[2] + 1) // 2) // 2
    front = round(25 / spacing[1])
    z, y, x = frame.origin_mm
    origin = (z, y - front * spacing[1], x - side * spacing[2])
    sigma = smoothing_sigma_mm(spacing[1], NETWORK_RESOLUTION_MM) / spacing[1]
    smooth = blurred(image, [sigma**2, sigma**2, 0.0])
    known = dict.fromkeys(masks, WHOLE)
    cropped, label_frame = crop(labels, frame)
    return Case(
        scan, "shapes", smooth.astype(np.int16), Frame(origin, spacing), cropped, label_frame, known,
        smoothed_to_mm=NETWORK_RESOLUTION_MM,
    )  # fmt: skip
