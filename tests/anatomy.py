"""A head-and-neck CT of nobody: the average of many patients, made crisp, with the organs drawn in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from model.geometry import Mask, SliceGrid
from tests.phantom import write_ct

Volume = NDArray[np.float32]

AVERAGE = Path(__file__).with_name("anatomy.npz")
SIZE = 512
PIXEL_MM = 500 / SIZE
LOWEST_MM, HIGHEST_MM = -245.0, 145.0  # from the middle of the brainstem

# Mean HU and texture; in the order of painting. What is not named keeps the average's own HU.
ORGAN_HU: Mapping[str, tuple[float, float]] = {
    "Brain": (36, 3),
    "Brainstem": (33, 3),
    "Parotid": (-8, 22),
    "Glnd_Submand": (42, 10),
    "SpinalCanal": (14, 3),
    "SpinalCord": (38, 3),
    "Eye": (14, 2),
    "Lens": (85, 3),
    "OpticNrv": (38, 3),
    "Glnd_Lacrimal": (38, 5),
    "Cochlea": (600, 60),
}


@dataclass(frozen=True)
class Box:
    """Values on a regular grid of the average's own coordinates: LPS mm from the middle of the brainstem."""

    values: Volume
    origin_mm: NDArray[np.float64]  # (x, y, z)
    spacing_mm: NDArray[np.float64]

    def on(self, grid: SliceGrid) -> tuple[Volume, tuple[slice, slice, slice]]:
        """Resample to the part of a grid that the box covers; returns that part too.

        Both grids are upright, so one interpolation matrix per axis does it.
        """
        first = grid.positions_mm[0]
        steps = grid.spacing_mm[0], *grid.pixel_spacing_mm
        values, part = self.values, []
        for axis, (n, start, step) in enumerate(zip(grid.shape, first[::-1], steps, strict=True)):
            low, scale = self.origin_mm[2 - axis], self.spacing_mm[2 - axis]
            at = (start + step * np.arange(n) - low) / scale
            inside = np.flatnonzero((at >= 0) & (at <= values.shape[axis] - 1))
            part.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0))
            matrix = _cubic(at[inside], values.shape[axis])
            values = np.moveaxis(np.tensordot(matrix, values, axes=(1, axis)), 0, axis)
        return np.ascontiguousarray(values), (part[0], part[1], part[2])


def _cubic(at: NDArray[np.float64], size: int) -> Volume:
    """(len(at), size) matrix that interpolates samples 0, 1, … at fractional places (Catmull-Rom)."""
    matrix = np.zeros((len(at), size), np.float32)
    base = np.floor(at).astype(int)
    t = at - base
    weights = (
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    )
    for shift, weight in zip((-1, 0, 1, 2), weights, strict=True):
        np.add.at(matrix, (np.arange(len(at)), np.clip(base + shift, 0, size - 1)), weight)
    return matrix


def average_anatomy(seed: int = 0) -> tuple[NDArray[np.int16], SliceGrid, dict[str, Mask]]:
    """Return a CT of 512 × 512 pixels, its grid and the organs that were drawn into it.

    Parameters
    ----------
    seed
        Decides noise and texture; the anatomy is the same.
    """
    rng = np.random.default_rng(seed)
    offsets = np.arange(LOWEST_MM, HIGHEST_MM, 2.5)
    corner = np.array([-(SIZE - 1) / 2 * PIXEL_MM, -(SIZE - 1) / 2 * PIXEL_MM - 10, 0.0])
    positions = corner + offsets[:, None] * (0, 0, 1)
    grid = SliceGrid(
        positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (PIXEL_MM, PIXEL_MM), SIZE, SIZE
    )
    with np.load(AVERAGE) as stored:
        average = dict(stored)
    texture = _noise(grid.shape, rng, 1.5)
    hu = _body(average, grid, texture)
    organs = _paint_organs(hu, average, grid, texture)
    _lay_on_couch(hu)
    return _scanned(hu, rng), grid, organs


def _body(average: Mapping[str, NDArray[np.generic]], grid: SliceGrid, texture: Volume) -> Volume:
    """Sharp boundaries between tissue and air, bone whitened; the rest as averaged, with texture."""
    origin, spacing = average["origin_mm"], average["spacing_mm"]
    share, tissue, air = (
        Box(np.asarray(values, np.float32), origin, spacing)
        for values in (
            average["tissue_share"] / 50.0,
            _sharpened(average["hu_levels"][average["tissue_hu"]].astype(np.float32)),
            average["hu_levels"][average["air_hu"]].astype(np.float32),
        )
    )
    inside, part = share.on(grid)
    inside = np.clip((inside - 0.5) * 4 + 0.5, 0, 1)
    solid, _ = tissue.on(grid)
    empty, _ = air.on(grid)
    solid += 12 * texture[part]
    hu = np.full(grid.shape, -1000, np.float32)
    hu[part] = empty + inside * (solid - empty)
    return hu


def _sharpened(tissue: Volume) -> Volume:
    """Undo some of the blur that averaging leaves; above all, narrow the grey slopes beside bone."""
    sharp = tissue + 1.0 * (tissue - ndimage.gaussian_filter(tissue, 1.2))
    to_bone = np.clip((sharp - 120) / 280, 0, 1)
    return np.where(sharp > 70, 70 + to_bone * to_bone * (3 - 2 * to_bone) * (sharp - 70), sharp)


def _noise(shape: tuple[int, ...], rng: np.random.Generator, grain_pixels: float) -> Volume:
    """Return noise of unit variance that neighbours within a slice share."""
    noise = rng.standard_normal(shape, np.float32)
    for axis in (1, 2):
        ndimage.gaussian_filter1d(noise, grain_pixels, axis, output=noise, truncate=3)
    noise /= noise[::8].std()
    return noise


def _paint_organs(
    hu: Volume, average: Mapping[str, NDArray[np.generic]], grid: SliceGrid, texture: Volume
) -> dict[str, Mask]:
    """Draw every organ with a soft edge of a pixel, and return where it was drawn."""
    names = [key.removesuffix(".distance") for key in average if key.endswith(".distance")]
    organs = {}
    for name in sorted(names, key=_painting_order):
        box = Box(
            average[f"{name}.distance"].astype(np.float32) * 0.05,
            average[f"{name}.origin_mm"],
            average[f"{name}.spacing_mm"],
        )
        distance, part = box.on(grid)
        whole = np.zeros(hu.shape, bool)
        whole[part] = distance < 0
        organs[name] = Mask.from_full(whole)
        kind = name.removesuffix("_L").removesuffix("_R")
        if kind in ORGAN_HU:
            mean, spread = ORGAN_HU[kind]
            cover = np.clip(0.5 - distance, 0, 1)
            hu[part] += cover * (mean + spread * texture[part] - hu[part])
        elif kind == "Bone_Mandible":
            cover = np.clip(0.5 - distance, 0, 1)
            bone = np.where(distance > -2.2, 1050, 380) + 60 * texture[part]
            hu[part] += cover * (bone - hu[part])
    return organs


def _painting_order(name: str) -> int:
    kinds = list(ORGAN_HU)
    kind = name.removesuffix("_L").removesuffix("_R")
    return kinds.index(kind) if kind in kinds else -1


def _lay_on_couch(hu: Volume) -> None:
    """A flat couch top of carbon fibre over foam, below everything."""
    back = int(np.flatnonzero((hu > -300).any(axis=(0, 2)))[-1]) + 4
    thick = round(20 / PIXEL_MM)
    sides = slice(round(0.06 * SIZE), round(0.94 * SIZE))
    hu[:, back : back + thick, sides] = -930
    hu[:, back : back + 2, sides] = -250
    hu[:, back + thick - 2 : back + thick, sides] = -250


def _scanned(hu: Volume, rng: np.random.Generator) -> NDArray[np.int16]:
    """Blur by the scanner's aperture, add its noise, and keep to its range."""
    for axis in (1, 2):
        ndimage.gaussian_filter1d(hu, 0.6, axis, output=hu, truncate=3)
    hu += 9 * _noise(hu.shape, rng, 0.8)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def write_demo_series(folder: Path, seed: int = 0) -> list[Path]:
    """Write the average anatomy as a CT series of a patient who is plainly invented."""
    hu, grid, _ = average_anatomy(seed)
    return write_ct(
        folder,
        hu,
        grid,
        seed=seed,
        PatientName="Phantom^Anatomy",
        PatientID="OARLOCK-DEMO",
        StudyDescription="Demonstration",
        SeriesDescription="Average anatomy",
        Manufacturer="oarlock",
        ManufacturerModelName="Average anatomy",
    )


def write_average_series(folder: Path, slices: int, height_share: float = 1.0, seed: int = 0) -> list[Path]:
    """Write the average anatomy, or its upper part, cut into so many slices."""
    hu, grid, _ = average_anatomy(seed)
    low = round((1 - height_share) * (len(hu) - 1))
    chosen = np.linspace(low, len(hu) - 1, slices).round().astype(int)
    steps = np.linspace(0, 1, slices)[:, None]
    first, last = grid.positions_mm[low], grid.positions_mm[-1]
    positions = first + steps * (last - first)
    return write_ct(folder, hu[chosen], replace(grid, positions_mm=positions), seed=seed)
