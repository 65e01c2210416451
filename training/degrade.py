"""The image as another scanner, another day or another mouth might have made it; organs stay where they are.

Everything runs on the image's device; everything random comes from the generator that is passed in, and what is
switched off draws nothing from it.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.config import AugmentConfig

AIR_HU = -1000.0
SKIN_HU = -400.0
METAL_HU = 3000.0
TEETH_HU = 700.0
GAMMA_RANGE_HU = 2500.0
"""From air to dense bone: what a power leaves where it is at both ends."""


def degrade(
    image: Tensor, spacing_mm: tuple[float, float, float], config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """The image (1, 1, D, H, W) in HU, changed in random ways; nothing becomes thinner than air."""
    if config.couch and rng.random() < config.couch:
        image = with_couch(image, spacing_mm, rng)
    if config.metal and rng.random() < config.metal:
        image = with_metal(image, spacing_mm, rng)
    if config.gamma:
        image = with_gamma(image, config.gamma, rng)
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    image = image * contrast + rng.uniform(-config.shift_hu, config.shift_hu)
    if rng.random() < config.thick_slices:
        image = F.avg_pool3d(F.pad(image, (0, 0, 0, 0, 1, 1), mode="replicate"), (3, 1, 1), 1)
    if config.low_resolution and rng.random() < config.low_resolution:
        image = coarsened(image, rng)
    if rng.random() < 0.3:
        image = _blur(image, rng.uniform(0, config.blur_mm) / spacing_mm[1])
    if rng.random() < 0.5:
        image = image + _noise(image, rng.uniform(0, config.noise_hu), rng)
    return image.clamp_min(AIR_HU)


def with_metal(image: Tensor, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> Tensor:
    """One to three fillings where the patch is densest, and streaks in their slices; air stays air.

    Streaks run out from the metal, bright and dark by turns, and fade with distance, as beam hardening and
    photon starvation draw them; most are dark along the line between two fillings, which is left out.
    """
    before, patient = image, image > SKIN_HU
    for _ in range(rng.integers(1, 4)):
        centre = _dense_voxel(before, rng)
        d, h, w = (
            (torch.arange(n, device=image.device) - middle) * step
            for n, middle, step in zip(image.shape[2:], centre, spacing_mm, strict=True)
        )
        radius = torch.sqrt(h[:, None] ** 2 + w[None] ** 2)
        angle = torch.atan2(h[:, None], w[None].expand(len(h), -1))
        waves = sum(
            math.sin(phase) * torch.cos(count * angle + phase)
            for count, phase in zip(rng.integers(3, 14, 4), rng.uniform(0, 2 * math.pi, 4), strict=True)
        )
        strength = rng.uniform(100, 700)
        streaks = strength * waves / (1 + radius / rng.uniform(10, 40))  # (H, W)
        slices = torch.exp(-0.5 * (d / rng.uniform(2, 5)) ** 2)[:, None, None]
        image = torch.where(patient, image + slices * streaks, image)
        filling = (d[:, None, None] ** 2 + radius**2) < rng.uniform(2, 5) ** 2
        image = torch.where(filling & patient, METAL_HU, image)
    return image.clamp(AIR_HU, METAL_HU)


def _dense_voxel(image: Tensor, rng: np.random.Generator) -> list[int]:
    """Indices (d, h, w) of a random voxel as dense as teeth, or of the densest there is."""
    dense = (image[0, 0] > TEETH_HU).nonzero()
    share = rng.random()
    if len(dense):
        return [int(index) for index in dense[int(share * len(dense))]]
    return [int(index) for index in np.unravel_index(int(image.argmax()), image.shape[2:])]


def with_couch(image: Tensor, spacing_mm: tuple[float, float, float], rng: np.random.Generator) -> Tensor:
    """A table top of two shells with foam between, up to 20 mm behind the patient; only air is replaced.

    The patch may end before a table would begin; then nothing changes.
    """
    patient = image[0, 0] > SKIN_HU
    rows = patient.any(2).any(0).nonzero()
    gap, thickness, shell = rng.uniform(0, 20), rng.uniform(30, 60), rng.uniform(2, 5)
    shell_hu, foam_hu, sag = rng.uniform(-400, 100), rng.uniform(-980, -850), rng.uniform(0, 8e-4)
    if not len(rows):
        return image
    _, _, _, H, W = image.shape
    column = (torch.arange(W, device=image.device) - (W - 1) / 2) * spacing_mm[2]
    top = (int(rows.max()) + 1) * spacing_mm[1] + gap - sag * column**2
    depth = torch.arange(H, device=image.device)[:, None] * spacing_mm[1] - top  # (H, W) mm below the top
    inside = (depth >= 0) & (depth <= thickness)
    foam = inside & (depth > shell) & (depth < thickness - shell)
    table = torch.where(foam, foam_hu, shell_hu)
    return torch.where(inside & (image <= SKIN_HU - 300), table.to(image.dtype), image)


def with_gamma(image: Tensor, gamma: float, rng: np.random.Generator) -> Tensor:
    """HU raised to a power between air and dense bone, which stay; tissue in between grows or fades."""
    limit = math.log(1 + gamma)
    share = (image - AIR_HU) / GAMMA_RANGE_HU
    raised = share.clamp(0, 1) ** math.exp(rng.uniform(-limit, limit))
    return torch.where(share < 1, raised * GAMMA_RANGE_HU + AIR_HU, image)


def coarsened(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Sampled up to twice as coarsely within the slices, and interpolated back."""
    size = image.shape[2:]
    factor = rng.uniform(1, 2)
    coarse = (size[0], *(max(2, round(side / factor)) for side in size[1:]))
    small = F.interpolate(image, coarse, mode="trilinear", align_corners=False)
    return F.interpolate(small, size, mode="trilinear", align_corners=False)


def field_of_view(image: Tensor, rng: np.random.Generator) -> Tensor:
    """(H, W) what a circular field of view shows that ends within the patient."""
    _, _, _, H, W = image.shape
    rows = torch.linspace(-1, 1, H, device=image.device)[:, None] - rng.uniform(-0.5, 0.5)
    columns = torch.linspace(-1, 1, W, device=image.device)[None] - rng.uniform(-0.5, 0.5)
    return rows**2 + columns**2 <= rng.uniform(0.9, 1.6) ** 2


def _blur(image: Tensor, sigma: float) -> Tensor:
    radius = max(1, math.ceil(2 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 0.1)) ** 2)
    kernel = kernel / kernel.sum()
    for axis, padding in ((3, (0, 0, radius, radius)), (4, (radius, radius))):
        shape = [1, 1, 1, 1, 1]
        shape[axis] = len(kernel)
        padded = F.pad(image, (*padding, *(0,) * (6 - len(padding))), mode="replicate")
        image = F.conv3d(padded, kernel.view(shape))
    return image


def _noise(image: Tensor, sigma_hu: float, rng: np.random.Generator) -> Tensor:
    """Normal noise, smooth over about two voxels in the plane as reconstructed CT is."""
    generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
    white = torch.randn(image.shape, generator=generator, device=image.device)
    return F.avg_pool3d(white, (1, 3, 3), 1, (0, 1, 1)) * (3 * sigma_hu)
