"""A patient to be invented: the working volume, its landmarks, and shapes to draw with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Volume = NDArray[np.float32]
Region = NDArray[np.bool_]

AIR, FAT, WATER = -1000.0, -100.0, 8.0


@dataclass
class Scene:
    """The working volume, its millimetre axes, and the landmarks that everything is placed by."""

    organs: Mapping[str, Region]
    spacing: tuple[float, float, float]
    rng: np.random.Generator
    hu: Volume
    z: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    cord_y: NDArray[np.float64]
    cord_x: NDArray[np.float64]
    midline: NDArray[np.float64]
    grain: Volume = field(init=False)
    brain_distance: Volume = field(init=False)
    depth: Volume = field(init=False)

    @classmethod
    def around(
        cls, organs: Mapping[str, Region], spacing: tuple[float, float, float], rng: np.random.Generator
    ) -> "Scene":
        """Find the landmarks of a patient; nothing is drawn yet."""
        shape = organs["Brain"].shape
        z, y, x = (
            (np.arange(n) * mm).reshape([-1 if i == axis else 1 for i in range(3)])
            for axis, (n, mm) in enumerate(zip(shape, spacing, strict=True))
        )
        canal = organs["SpinalCanal"] | organs["Brainstem"]
        levels = np.flatnonzero(canal.any(axis=(1, 2)))
        centres = np.array([ndimage.center_of_mass(canal[k]) for k in levels]) * spacing[1:]
        curve = [
            ndimage.gaussian_filter1d(
                np.interp(np.arange(shape[0]), levels, centres[:, i]), 8 / spacing[0]
            ).reshape(-1, 1, 1)
            for i in range(2)
        ]
        scene = cls(
            organs, spacing, rng, np.full(shape, AIR, np.float32), z, y, x, curve[0], curve[1], curve[1]
        )
        eyes = (scene.centre("Eye_L") + scene.centre("Eye_R")) / 2
        rise = np.clip((z - scene.low("Bone_Mandible")) / (eyes[0] - scene.low("Bone_Mandible")), 0, 1)
        scene.midline = curve[1] + rise * (eyes[2] - curve[1])
        scene.grain = scene.texture(2.5)
        brain = organs["Brain"] | organs["Brainstem"]
        closed = scene.distance(scene.distance(brain, 10) > 4, 10) > 4
        scene.brain_distance = scene.distance(brain | closed, 60)
        return scene

    def centre(self, name: str) -> NDArray[np.float64]:
        """Return the middle of an organ, mm."""
        return np.array(ndimage.center_of_mass(self.organs[name])) * self.spacing

    def extent(self, name: str, axis: int) -> tuple[float, float]:
        """First and last millimetre of an organ along an axis, without its outermost per cent."""
        counts = np.cumsum(self.organs[name].sum(axis=tuple(i for i in range(3) if i != axis)))
        first, last = np.searchsorted(counts, [0.01 * counts[-1], 0.99 * counts[-1]])
        return first * self.spacing[axis], last * self.spacing[axis]

    def low(self, name: str) -> float:
        """Return the height of an organ's lower end, mm."""
        return self.extent(name, 0)[0]

    @property
    def apex(self) -> float:
        """Height of the lungs' tips; 130 mm below the chin where the scan ends above them."""
        lungs = [self.extent(name, 0)[1] for name in ("Lung_L", "Lung_R") if name in self.organs]
        return max(lungs, default=self.low("Bone_Mandible") - 130)

    def distance(self, region: Region, reach: float) -> Volume:
        """Millimetres to a region, exact up to `reach` and no more beyond."""
        result = np.full(region.shape, reach, np.float32)
        found = ndimage.find_objects(region.astype(np.uint8))
        if not found:
            return result
        box = tuple(
            slice(max(0, s.start - int(reach / mm) - 1), s.stop + int(reach / mm) + 1)
            for s, mm in zip(found[0], self.spacing, strict=True)
        )
        result[box] = np.minimum(ndimage.distance_transform_edt(~region[box], sampling=self.spacing), reach)
        return result

    def texture(self, scale_mm: float, along: float = 1.0) -> Volume:
        """Smooth noise of unit variance: grains of `scale_mm`, `along` times as long from head to feet."""
        sigma = [scale_mm * along / self.spacing[0], scale_mm / self.spacing[1], scale_mm / self.spacing[2]]
        shrink = [max(1, int(s)) for s in sigma]
        small = self.rng.standard_normal(
            [-(-n // k) + 2 for n, k in zip(self.hu.shape, shrink, strict=True)], np.float32
        )
        small = ndimage.gaussian_filter(
            small, [s / k for s, k in zip(sigma, shrink, strict=True)], mode="wrap"
        )
        for axis, k in enumerate(shrink):
            small = stretch(small, axis, k, self.hu.shape[axis])
        return np.asarray(small / small.std(), np.float32)

    def ellipsoid(self, centre: NDArray[np.float64], radii: tuple[float, float, float]) -> Volume:
        """1 at the surface of an ellipsoid, less within."""
        axes = zip((self.z, self.y, self.x), centre, radii, strict=True)
        return np.asarray(np.sqrt(sum(((axis - middle) / radius) ** 2 for axis, middle, radius in axes)))

    def rod(self, ends: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Volume:
        """Millimetres to the straight line between two points."""
        start, end = ends
        along = end - start
        offset = (self.z - start[0], self.y - start[1], self.x - start[2])
        t = np.clip(sum(o * a for o, a in zip(offset, along, strict=True)) / (along @ along), 0, 1)
        return np.asarray(np.sqrt(sum((o - t * a) ** 2 for o, a in zip(offset, along, strict=True))))

    def bone(self, depth: Volume | NDArray[np.float64], cortex_mm: float = 2.0) -> None:
        """Paint bone where `depth` (mm below its surface) is positive: dense outside, marrow within."""
        inside = depth > 0
        values = np.where(depth < cortex_mm, self.rng.uniform(650, 1000), self.rng.uniform(180, 380))
        self.hu[inside] = np.broadcast_to(values, self.hu.shape)[inside] + 60 * self.grain[inside]


def shifted(point: NDArray[np.float64], up: float, back: float, left: float) -> NDArray[np.float64]:
    """Return a point moved by millimetres towards head, back and the patient's left."""
    return np.asarray(point + np.array([up, back, left]))


def superellipse(u: NDArray[np.float64], v: NDArray[np.float64], power: float) -> NDArray[np.float64]:
    """Return 1 on an ellipse, less within; the higher the power, the more it is a rectangle."""
    return np.asarray((np.abs(u) ** power + np.abs(v) ** power) ** (1 / power))


def ramp(value: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """0 before `start`, 1 after `end`, smooth between; `start` may lie above `end`."""
    t = np.clip((value - start) / (end - start), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def stretch(values: Volume, axis: int, factor: int, size: int) -> Volume:
    """Linear interpolation between samples `factor` apart, along one axis, cut or held at `size`."""
    at = np.minimum(np.arange(size) / factor, values.shape[axis] - 1)
    lower = np.floor(at).astype(int)
    upper = np.minimum(lower + 1, values.shape[axis] - 1)
    weight = (at - lower).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(values.ndim)])
    return np.asarray(values.take(lower, axis) * (1 - weight) + values.take(upper, axis) * weight, np.float32)
