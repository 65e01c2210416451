"""The 21 organs by an oncologist, laid onto OpenKBP's CTs at four times their in-plane resolution."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.dataset import Case, openkbp_mark
from training.packing import SPLITS, Choices, PreparedCase
from training.packing_report import Report
from training.volumes import WHOLE, crop, read_image, reordered

OUTSIDE_SHARE = 0.05
"""An organ of which more than this lies where there is no image, in slices that have one, is left out."""


def tcia21_cases(root: Path, _choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """Cases in the splits of the CTs they lie on."""
    bit_of = json.loads((root / "dataset.json").read_text())["bit_of_label"]
    for name, about in json.loads((root / "cases.json").read_text()).items():
        split = about["openkbp_split"]
        if split not in SPLITS:
            report.left_out(name, f"its split is {split}")
            continue
        image, frame = read_image(root / "imagesTr" / f"{name}_0000.nii.gz")
        labels, label_frame = read_image(root / "native" / f"{name}_oncologist.nii.gz")
        known = {}
        for organ in bit_of:
            cover = about["oncologist"]["field_coverage"].get(organ)
            if cover and cover["in_slices"] - cover["in_ct"] > OUTSIDE_SHARE:
                report.left_out(name, f"only {cover['in_ct']:.0%} lies where there is an image", organ)
                continue
            known[organ] = WHOLE
        cropped, label_frame = crop(reordered(labels.astype(np.uint32), bit_of), label_frame)
        yield split, Case(
            name, "tcia21", image.astype(np.int16), frame, cropped, label_frame, known,
            patient=openkbp_mark(about["openkbp_patient"]),
        )  # fmt: skip
