"""Render a plausible head-and-neck CT from a map of organs, for organs that too few real CTs show."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.invented_anatomy import invent_anatomy
from training.scene import Region, Scene, Volume, stretch

WORKING_MM = 2.0

# Mean HU, spread of the mean between patients, texture within the organ; in the order of painting.
_ORGAN_HU: Mapping[str, tuple[float, float, float]] = {
    "Brain": (36, 4, 4),
    "Brainstem": (32, 4, 3),
    "Lung": (-810, 40, 60),
    "Parotid": (-5, 28, 25),
    "Glnd_Submand": (45, 15, 8),
    "SpinalCanal": (12, 6, 4),
    "SpinalCord": (38, 5, 3),
    "Bone_Mandible": (350, 120, 120),
    "Eye": (14, 4, 2),
    "Lens": (85, 15, 3),
    "OpticNrv": (35, 6, 4),
    "Glnd_Lacrimal": (35, 10, 6),
    "Cochlea": (550, 150, 60),
}
_NEEDED = ("Brain", "Brainstem", "Bone_Mandible", "SpinalCanal", "Eye_L", "Eye_R", "Cochlea_L", "Cochlea_R")


def with_room(
    organs: Mapping[str, Region], spacing_mm: tuple[float, float, float], width_mm: float = 500.0
) -> dict[str, Region]:
    """Pad maps that were cropped to the organs, so that skull, skin, shoulders and couch fit around them.

    Adds 20 mm above, 25 mm in front, 60 mm behind, and both sides up to `width_mm`; nothing at the feet,
    where the scan's end is the real one.
    """
    _, _, columns = next(iter(organs.values())).shape
    slice_mm, row_mm, column_mm = spacing_mm
    side = max(round(20 / column_mm), round((width_mm / column_mm - columns) / 2))
    pad = ((0, round(20 / slice_mm)), (round(25 / row_mm), round(60 / row_mm)), (side, side))
    return {name: np.pad(mask, pad) for name, mask in organs.items()}


def synthesise(
    organs: Mapping[str, Region], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.int16]:
    """Return a HU volume in which the given organs lie among invented bone, air, muscle, fat and skin.

    Parameters
    ----------
    organs
        TG-263 name -> bool (slices, rows, columns): slices from feet to head, rows from front to back,
        columns from the patient's right to left. They must leave room around the head: see `with_room`.
    spacing_mm
        Between slices, rows, columns.
    rng
        Decides every thickness, HU, texture and the noise; the organs stay where they are.

    Raises
    ------
    ValueError
        An organ is missing from which the rest is placed.
    """
    missing = [name for name in _NEEDED if name not in organs or not organs[name].any()]
    if missing:
        raise ValueError(f"cannot place the anatomy without {', '.join(missing)}")
    step = max(1, round(WORKING_MM / spacing_mm[2]))
    coarse = {name: _thinned(mask, step) for name, mask in organs.items() if mask.any()}
    scene = Scene.around(coarse, (spacing_mm[0], spacing_mm[1] * step, spacing_mm[2] * step), rng)
    invent_anatomy(scene)
    shape = next(iter(organs.values())).shape
    hu = _finer(scene.hu, step, shape)
    _paint_organs(hu, organs, _finer(scene.texture(3.0), step, shape), rng)
    blur_mm = rng.uniform(0.5, 1.1)
    hu = ndimage.gaussian_filter(
        hu, [0.25 * blur_mm / s if i == 0 else blur_mm / s for i, s in enumerate(spacing_mm)]
    )
    return _scanned(hu, spacing_mm, rng)


def _thinned(mask: Region, step: int) -> Region:
    """Every `step`-th row and column; an organ that would fall between them is widened instead."""
    thin = mask[:, ::step, ::step]
    if thin.any():
        return thin
    return ndimage.maximum_filter(mask, size=(1, step, step))[:, ::step, ::step]


def _finer(values: Volume, step: int, shape: tuple[int, ...]) -> Volume:
    return values if step == 1 else stretch(stretch(values, 1, step, shape[1]), 2, step, shape[2])


def _paint_organs(
    hu: Volume, organs: Mapping[str, Region], texture: Volume, rng: np.random.Generator
) -> None:
    """Write every organ's HU into its own voxels; both sides of a pair are alike."""
    for kind, (mean, spread, grain) in _ORGAN_HU.items():
        level = rng.normal(mean, spread)
        for name, mask in organs.items():
            if name == kind or name in (f"{kind}_L", f"{kind}_R"):
                hu[mask] = level + grain * texture[mask]
                if kind == "Bone_Mandible":
                    cortex = mask & ~ndimage.binary_erosion(mask, iterations=2)
                    hu[cortex] = rng.uniform(800, 1200)


def _scanned(
    hu: Volume, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.int16]:
    """Add the scanner's correlated noise and clip to its range."""
    noise = rng.standard_normal(hu.shape, np.float32)
    grain = rng.uniform(0.6, 1.2)
    noise = ndimage.gaussian_filter(noise, [0, grain / spacing_mm[1], grain / spacing_mm[2]])
    noise *= rng.uniform(4, 18) / noise.std()
    return np.asarray(np.clip(np.rint(hu + noise + rng.normal(0, 4)), -1024, 3071), np.int16)
