"""A case of two organs, and a training configuration so small that a step takes milliseconds."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from training.config import AugmentConfig
from training.dataset import Case, Frame, bits, write_packs

STILL = AugmentConfig(
    rotation_degrees=0, scale=(1, 1), shear=0, mirror=0, elastic_sigma_mm=0, shift_hu=0, contrast=0,
    noise_hu=0, blur_mm=0, thick_slices=0, field_of_view=0, middle_sigma_mm=0,
)  # fmt: skip

CONFIG = """
name = "tiny"
version = "0"
patch = [8, 16, 16]
spacing_mm = [2.5, 4.0, 4.0]
threads = 1
seed = 3
[data]
packs = ["{pack}"]
validation_packs = ["{measured}"]
group_weights = {{ test = 1.0 }}
[network]
channels = [4, 8]
blocks = [1, 1]
planar = [true, false]
strides = [[2, 2, 2]]
[optimiser]
steps = {steps}
warmup = 2
"""


def a_case(name: str = "case", known: dict[str, tuple[float, float]] | None = None) -> Case:
    """A block of tissue with a bright left parotid and a brain above it; labels finer than the image."""
    image = np.full((20, 16, 24), -1000, np.int16)
    image[:, 4:12, 4:20] = 40
    labels = {organ: np.zeros((20, 32, 48), bool) for organ in ("Parotid_L", "Brain")}
    labels["Parotid_L"][4:10, 12:20, 28:36] = True
    labels["Brain"][14:19, 10:22, 12:36] = True
    image[4:10, 6:10, 14:18] = 200
    image[14:19, 5:11, 6:18] = 100
    if known is None:
        known = {"Parotid_L": (-np.inf, np.inf), "Brain": (-np.inf, np.inf)}
    return Case(
        name, "test", image, Frame((0, -0.5, -0.5), (2.5, 4, 4)),
        bits(labels), Frame((0, -1.5, -1.5), (2.5, 2, 2)), known,
    )  # fmt: skip


def a_clinical_case(name: str = "case", group: str = "openkbp") -> Case:
    """As packs of OpenKBP hold one: the clinics' parotid, which has a name of its own."""
    case, organ = a_case(name), "Parotid_L^Clin"
    labels = bits({organ: case.organ("Parotid_L")})
    return replace(case, group=group, labels=labels, known={organ: (-np.inf, np.inf)})


def a_config(tmp_path: Path, steps: int, more: str = "") -> Path:
    """A configuration file, with its packs of two cases each beside it; `more` goes into [optimiser] and after."""
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(steps=steps, **packs(tmp_path)) + more)
    return path


def packs(folder: Path) -> dict[str, Path]:
    """Packs for `CONFIG`, one to train on and one to measure: the same two cases under other names."""
    return {
        use: write_packs(
            [a_case(f"{use} a"), a_case(f"{use} parotid alone", {"Parotid_L": (-np.inf, np.inf)})],
            folder / use,
        )[0]
        for use in ("pack", "measured")
    }
