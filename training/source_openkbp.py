"""OpenKBP as nnU-Net raw data with a table of its cases: clinical contours of up to 7 organs.

What the clinics draw otherwise than the 21 organs' protocol is taught as an organ of its own (`model.structures`).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from training.dataset import CLINICAL_NAMES, Case, bits, openkbp_mark
from training.packing import SPLITS, Choices, PreparedCase
from training.packing_report import Report
from training.volumes import LENGTH_ORGANS, WHOLE, read_image


def openkbp_cases(root: Path, _choices: Choices, report: Report) -> Iterator[PreparedCase]:
    """Cases in the splits of the source; not every organ was drawn in every case."""
    numbers = json.loads((root / "dataset.json").read_text())["labels"]
    for name, about in json.loads((root / "cases.json").read_text()).items():
        split = about["source_split"]
        if split not in SPLITS:
            report.left_out(name, f"its split is {split}")
            continue
        image, frame = read_image(root / "imagesTr" / f"{name}_0000.nii.gz")
        labels, label_frame = read_image(root / "labelsTr" / f"{name}.nii.gz")
        known: dict[str, tuple[float, float]] = {}
        label_of = {CLINICAL_NAMES.get(label, label): label for label in about["present_labels"]}
        for organ, label in label_of.items():
            known[organ] = WHOLE
            if organ in LENGTH_ORGANS:
                first, last = about["label_slices"][label]
                z, step = label_frame.origin_mm[0], label_frame.spacing_mm[0]
                known[organ] = (z + (first - 0.5) * step, z + (last + 0.5) * step)
        for organ, reason in about["dropped_labels"].items():
            report.left_out(name, str(reason), organ)
        if not known:
            report.left_out(name, "no organ was contoured")
            continue
        masks = {organ: labels == numbers[label] for organ, label in label_of.items()}
        case = Case(
            name, "openkbp", image.astype(np.int16), frame, bits(masks), label_frame, known,
            patient=openkbp_mark(about["source_patient"]),
        )  # fmt: skip
        yield split, case
