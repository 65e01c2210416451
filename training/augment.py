"""Random patches: one dense field of positions, through which image and organs are interpolated once.

As the library behind the paper composes it (PAPER: multidim-image-augmentation): rotation, scale, shear, mirror
and an elastic field from a control grid in mm become one field; the image is interpolated linearly through it,
and so are the organs, one channel each.
Works on any device; everything random comes from the generator that is passed in.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.network_input import lateral_mm
from model.structures import structure
from training.config import ORGANS, AugmentConfig
from training.dataset import Case, Frame
from training.degrade import AIR_HU, degrade, field_of_view

#: Channel that takes each organ's place when left and right change sides.
MIRRORED = [ORGANS.index(structure(name).mirror) for name in ORGANS]


@dataclass(frozen=True, eq=False)
class Sample:
    """A patch: image (1, 2, D, H, W), HU and lateral mm; organs and weights (1, organs, D, H, W) in [0, 1]."""

    image: Tensor
    organs: Tensor
    weights: Tensor


class DeviceCase:
    """A case held on the device, ready to be sampled at any points of the patient's space."""

    def __init__(self, case: Case, device: torch.device) -> None:
        self.image = torch.from_numpy(case.image).to(device, torch.float32)
        self.frame = case.image_frame
        self.middle_mm = case.image_frame.origin_mm[2] - float(
            lateral_mm(case.image, case.image_frame.spacing_mm[2])[0]
        )
        self.device = device
        self.first, self.last = case.image_frame.extent(case.image.shape)
        low, high = np.full(len(ORGANS), np.inf, np.float32), np.full(len(ORGANS), -np.inf, np.float32)
        self.boxes: dict[int, tuple[Tensor, Frame]] = {}  # organ: its mask (d, h, w) cropped, where that lies
        self.centres: dict[int, np.ndarray] = {}  # organ: some of its points (n, 3) in mm
        for index, name in enumerate(ORGANS):
            if name not in case.known:
                continue
            low[index], high[index] = case.known[name]
            mask, frame = _boxed(case.organ(name), case.label_frame)
            if mask.any():
                self.boxes[index] = torch.from_numpy(mask).to(device), frame
                voxels = np.argwhere(mask)
                voxels = voxels[:: max(1, len(voxels) // 500)]
                self.centres[index] = frame.origin_mm + voxels * frame.spacing_mm
        self.low, self.high = torch.from_numpy(low).to(device), torch.from_numpy(high).to(device)

    def random_centre(self, size_mm: np.ndarray, foreground: float, rng: np.random.Generator) -> np.ndarray:
        """Where to look (head, back, left in mm): about a random organ, or with 1 - `foreground` anywhere.

        A patch of `size_mm` is kept over what there is to see: it reaches past the box around the known
        organs, or past the image, by a small part of its size at most.
        """
        if self.centres and rng.random() < foreground:
            organ = self.centres[rng.choice(list(self.centres))]
            centre = organ[rng.integers(len(organ))]
            points = np.concatenate(list(self.centres.values()))
            low, high, reach = points.min(0), points.max(0), 0.3 * size_mm
        else:
            low, high, reach = self.first, self.last, 0.4 * size_mm
            centre = rng.uniform(low, high)
        centre = centre + rng.uniform(-0.15, 0.15, 3) * size_mm
        clipped = np.clip(centre, low + reach, high - reach)
        return np.asarray(np.where(high - low > 2 * reach, clipped, (low + high) / 2))

    def sample(self, points: Tensor, *, swapped: bool = False) -> Sample:
        """Interpolate image and organs at points.

        Parameters
        ----------
        points
            (D, H, W, 3), mm in the order head, back, left.
        swapped
            Left organs take the places of right ones, as in a mirror.
        """
        grid = _normalised(points, self.frame, self.image.shape)
        shifted = (self.image - AIR_HU)[None, None]  # zero padding is air
        image = F.grid_sample(shifted, grid[None], align_corners=True) + AIR_HU
        inside = (grid.abs() <= 1).all(-1)  # (D, H, W)
        channels = MIRRORED if swapped else list(range(len(ORGANS)))
        organs = self._sample_organs(points, channels)
        height = points[..., 0]
        low, high = (bound[channels].view(-1, 1, 1, 1) for bound in (self.low, self.high))
        weights = (height >= low) & (height <= high) & inside
        lateral = (points[..., 2] - self.middle_mm)[None, None]
        return Sample(torch.cat([image, lateral], dim=1), organs[None], weights[None].float())

    def _sample_organs(self, points: Tensor, channels: Sequence[int]) -> Tensor:
        """(organs, D, H, W), organ i in `channels[i]`; interpolated only at the points within the organ's box."""
        organs = torch.zeros(len(ORGANS), points[..., 0].numel(), device=self.device)
        flat = points.reshape(-1, 3)
        axes = flat.T.contiguous()  # comparing one axis at a time is what makes this fast
        for index, (mask, frame) in self.boxes.items():
            low, high = frame.extent(mask.shape)
            near = torch.ones_like(axes[0], dtype=torch.bool)
            for axis, first, last in zip(axes, low, high, strict=True):
                near &= (axis >= first) & (axis <= last)
            chosen = near.nonzero()[:, 0]
            if len(chosen):
                grid = _normalised(flat[chosen], frame, mask.shape)[None, None, None]
                organs[channels[index], chosen] = F.grid_sample(
                    mask.float()[None, None], grid, align_corners=True
                ).flatten()
        return organs.view(-1, *points.shape[:3])


def _boxed(mask: np.ndarray, frame: Frame) -> tuple[np.ndarray, Frame]:
    """Crop a mask to its box with an empty voxel around, so that interpolation falls to zero inside it."""
    corner = []
    for axis in range(3):  # one axis after the other, each in what the ones before left
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = (filled[0], filled[-1] + 1) if len(filled) else (0, 0)
        mask = mask[(slice(None),) * axis + (slice(first, last),)]
        corner.append(first - 1)
    z, y, x = (o + index * s for o, index, s in zip(frame.origin_mm, corner, frame.spacing_mm, strict=True))
    return np.pad(mask, 1), Frame((float(z), float(y), float(x)), frame.spacing_mm)


def _normalised(points: Tensor, frame: Frame, shape: tuple[int, ...]) -> Tensor:
    """Points as `grid_sample` wants them: last axis (x, y, z), from -1 to 1 between first and last voxel."""
    origin = points.new_tensor(frame.origin_mm)
    length = points.new_tensor([max(n - 1, 1) * s for n, s in zip(shape, frame.spacing_mm, strict=True)])
    return ((points - origin) / length * 2 - 1).flip(-1)


def patch_points(
    centre_mm: np.ndarray,
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    config: AugmentConfig | None,
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[Tensor, bool]:
    """Positions (D, H, W, 3) in mm of a randomly moved patch about a centre, and whether it is mirrored."""
    axes = [
        (torch.arange(n, device=device) - (n - 1) / 2) * s for n, s in zip(patch, spacing_mm, strict=True)
    ]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).float()
    mirrored = False
    if config is not None:
        mirrored = bool(rng.random() < config.mirror)
        matrix = torch.from_numpy(random_affine(config, rng, mirrored=mirrored)).to(device)
        points = points @ matrix.T + elastic(patch, spacing_mm, config, rng, device)
    return points + torch.from_numpy(np.asarray(centre_mm, np.float32)).to(device), mirrored


def random_affine(config: AugmentConfig, rng: np.random.Generator, *, mirrored: bool) -> np.ndarray:
    """(3, 3) float32: rotation about each axis, scale, in-plane shear, mirror of left and right."""
    matrix = np.eye(3)
    for first, second in ((1, 2), (0, 1), (0, 2)):
        angle = math.radians(rng.uniform(-config.rotation_degrees, config.rotation_degrees))
        rotation = np.eye(3)
        rotation[first, first] = rotation[second, second] = math.cos(angle)
        rotation[first, second], rotation[second, first] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ rotation
    shear = np.eye(3)
    shear[1, 2], shear[2, 1] = rng.uniform(-config.shear, config.shear, 2)
    matrix = matrix @ shear * rng.uniform(*config.scale)
    if mirrored:
        matrix = matrix @ np.diag([1.0, 1.0, -1.0])
    return matrix.astype(np.float32)


def elastic(
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    config: AugmentConfig,
    rng: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Displacements (D, H, W, 3) in mm: a control grid of normal displacements, a cubic B-spline between."""
    bases = []
    for n, spacing in zip(patch, spacing_mm, strict=True):
        position = np.arange(n) * spacing / config.elastic_grid_mm
        controls = math.ceil(position[-1]) + 4
        distance = np.abs(position[:, None] - (np.arange(controls)[None] - 1))
        inner = 2 / 3 - distance**2 + distance**3 / 2
        outer = np.clip(2 - distance, 0, None) ** 3 / 6
        bases.append(torch.from_numpy(np.where(distance < 1, inner, outer).astype(np.float32)).to(device))
    shape = (*(basis.shape[1] for basis in bases), 3)
    control = rng.normal(0, config.elastic_sigma_mm, shape).astype(np.float32)
    field = torch.from_numpy(control).to(device)  # (k, l, m, 3), one axis made dense at a time
    field = torch.einsum("dk,klmc->dlmc", bases[0], field)
    field = torch.einsum("hl,dlmc->dhmc", bases[1], field)
    return torch.einsum("wm,dhmc->dhwc", bases[2], field)


def random_sample(
    case: DeviceCase,
    patch: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    config: AugmentConfig | None,
    rng: np.random.Generator,
    foreground: float = 0.75,
) -> Sample:
    """One augmented patch of a case."""
    centre = case.random_centre(np.array(patch) * np.array(spacing_mm), foreground, rng)
    points, mirrored = patch_points(centre, patch, spacing_mm, config, rng, case.device)
    if config is None:
        return case.sample(points)
    sample = case.sample(points, swapped=mirrored and config.mirror_swap)
    image, lateral = degrade(sample.image[:, :1], spacing_mm, config, rng), sample.image[:, 1:]
    organs = sample.organs
    if mirrored:
        lateral = -lateral
    if rng.random() < config.field_of_view:
        # What is cut away is air, and of an organ only what is left in the image is there.
        seen = field_of_view(image, rng)
        image, organs = torch.where(seen, image, AIR_HU), organs * seen
    # The middle of a body whose arms or couch are missing is not the middle of another.
    lateral = lateral + rng.normal(0, config.middle_sigma_mm)
    return Sample(torch.cat([image, lateral], dim=1), organs, sample.weights)
