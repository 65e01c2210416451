"""The network: a 3-D U-Net with residual blocks and one sigmoid per organ. torch only.

After Nikolov et al. 2018 (arXiv 1809.04430): planar (2-D) convolutions where voxels are fine, 3-D ones below,
residual blocks with ReLU pre-activation, and an independent probability for every organ, because organs overlap
(the lens lies inside the eye, the cord inside the canal).
Different from the paper: every slice of the patch is predicted and not only the central one, the bottom is
convolutional and so accepts any size, instance normalisation is added, and the finest level may be folded into
channels (`fold`) so that two CPU cores suffice.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Triple = tuple[int, int, int]

LATERAL_SCALE_MM = 100.0
"""Half a body's width or so: brings millimetres into the range of the normalised image."""


@dataclass(frozen=True)
class UNetConfig:
    """Everything that decides the shape of the network; levels are counted from the finest."""

    outputs: int
    hu_windows: tuple[tuple[float, float], ...] = (
        (-1000.0, 1500.0),
        (-160.0, 240.0),
    )  # one input channel each
    fold: Triple = (1, 2, 2)  # voxels (d, h, w) folded into channels at the stem, unfolded by the head
    channels: tuple[int, ...] = (24, 48, 96, 160)
    blocks: tuple[int, ...] = (1, 2, 2, 2)  # residual blocks per level on the way down; one on the way up
    planar: tuple[bool, ...] = (True, False, False, False)  # 2-D convolutions at this level
    strides: tuple[Triple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))  # between a level and the next coarser

    def __post_init__(self) -> None:
        """Refuse lengths that do not agree, and sizes that are none."""
        levels = len(self.channels)
        if not len(self.blocks) == len(self.planar) == levels == len(self.strides) + 1:
            raise ValueError(
                f"channels, blocks and planar need one entry per level and strides one fewer, "
                f"not {levels}, {len(self.blocks)}, {len(self.planar)} and {len(self.strides)}"
            )
        sizes = [
            self.outputs,
            *self.fold,
            *self.channels,
            *(side for stride in self.strides for side in stride),
        ]
        if min(sizes) < 1:
            raise ValueError(f"outputs, fold, channels and strides are at least 1, not {min(sizes)}")

    @property
    def multiple(self) -> Triple:
        """What each side (d, h, w) of an input must be a multiple of."""
        sides = list(self.fold)
        for stride in self.strides:
            sides = [side * step for side, step in zip(sides, stride, strict=True)]
        return sides[0], sides[1], sides[2]


class InstanceNorm(nn.InstanceNorm3d):
    """Instance normalisation that keeps to the layout it gets.

    PyTorch's own brings what is channels-last into the other layout, which takes longer than normalising, and its
    gradient is wrong where the one that comes back is channels-last. Batch normalisation of one instance is the
    same, and has neither fault.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same."""
        if x.is_contiguous():
            return super().forward(x)
        instances = [
            F.batch_norm(each, None, None, self.weight, self.bias, training=True, eps=self.eps)
            for each in x.split(1)
        ]
        return torch.cat(instances) if len(x) > 1 else instances[0]


class ResidualBlock(nn.Module):
    """Two convolutions with pre-activation added to the (projected) input."""

    def __init__(self, channels_in: int, channels_out: int, *, planar: bool) -> None:
        super().__init__()
        kernel, padding = ((1, 3, 3), (0, 1, 1)) if planar else ((3, 3, 3), (1, 1, 1))
        self.norm1 = InstanceNorm(channels_in, affine=True)
        self.conv1 = nn.Conv3d(channels_in, channels_out, kernel, padding=padding, bias=False)
        self.norm2 = InstanceNorm(channels_out, affine=True)
        self.conv2 = nn.Conv3d(channels_out, channels_out, kernel, padding=padding, bias=False)
        self.project = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Conv3d(channels_in, channels_out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C', D, H, W)."""
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        y = self.conv2(F.relu(self.norm2(y), inplace=True))
        added: Tensor = y + self.project(x)
        return added


class UNet3D(nn.Module):
    """Hounsfield units in, one logit per organ and voxel out, on the same grid."""

    windows: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        # Constants of the normalisation travel with the weights: training and inference cannot differ.
        self.register_buffer("windows", torch.tensor(config.hu_windows, dtype=torch.float32))
        folded = config.fold[0] * config.fold[1] * config.fold[2]
        channels = config.channels
        self.stem = nn.Conv3d(
            (len(config.hu_windows) + 1) * folded, channels[0], (1, 3, 3), padding=(0, 1, 1)
        )
        self.down = nn.ModuleList()
        self.pool = nn.ModuleList()
        for level, width in enumerate(channels):
            self.down.append(
                nn.Sequential(
                    *(
                        ResidualBlock(width, width, planar=config.planar[level])
                        for _ in range(config.blocks[level])
                    )
                )
            )
            if level < len(config.strides):
                stride = config.strides[level]
                self.pool.append(nn.Conv3d(width, channels[level + 1], stride, stride=stride, bias=False))
        self.unpool = nn.ModuleList()
        self.up = nn.ModuleList()
        for level in reversed(range(len(config.strides))):
            stride = config.strides[level]
            self.unpool.append(
                nn.ConvTranspose3d(channels[level + 1], channels[level], stride, stride=stride, bias=False)
            )
            self.up.append(ResidualBlock(2 * channels[level], channels[level], planar=config.planar[level]))
        self.head = nn.Conv3d(channels[0], config.outputs * folded, 1)
        # Organs are rare: start from a probability of about one per cent so that the first steps are calm.
        nn.init.constant_(self.head.bias, -4.6)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Logits of every organ.

        Parameters
        ----------
        image
            (B, 2, D, H, W): Hounsfield units, and millimetres to the left of the body's middle, a weak hint:
            normalisation takes most of it away, and sides are told by anatomy. Slices feet to head, rows front
            to back, columns right to left of the patient; sides multiples of `config.multiple`.

        Returns
        -------
        Tensor
            (B, outputs, D, H, W); the sigmoid gives probabilities.
        """
        folded = fold(self.normalised(image), self.config.fold)
        return unfold(self.folded_logits(folded), self.config.fold)

    def normalised(self, image: Tensor) -> Tensor:
        """What the layers see, voxel by voxel: (B, 2, D, H, W) to (B, windows + 1, D, H, W)."""
        low, high = self.windows[:, 0], self.windows[:, 1]
        low, high = (bound.view(1, -1, 1, 1, 1) for bound in (low, high))
        x = ((image[:, :1] - low) / (high - low)).clamp(0, 1) * 2 - 1  # (B, windows, D, H, W)
        return torch.cat([x, image[:, 1:] / LATERAL_SCALE_MM], dim=1)

    def folded_logits(self, x: Tensor) -> Tensor:
        """All layers: a normalised and folded image to logits that are still folded."""
        x = self.stem(x)
        skips = []
        for level, blocks in enumerate(self.down):
            x = blocks(x)
            if level < len(self.pool):
                skips.append(x)
                x = self.pool[level](x)
        for unpool, up in zip(self.unpool, self.up, strict=True):
            x = up(torch.cat([unpool(x), skips.pop()], dim=1))
        logits: Tensor = self.head(x)
        return logits


def fold(x: Tensor, factors: Triple) -> Tensor:
    """Move blocks of voxels into channels: (B, C, D·d, H·h, W·w) to (B, C·d·h·w, D, H, W)."""
    B, C, D, H, W = x.shape
    d, h, w = factors
    x = x.view(B, C, D // d, d, H // h, h, W // w, w).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(B, C * d * h * w, D // d, H // h, W // w)


def unfold(x: Tensor, factors: Triple) -> Tensor:
    """Move channels back into voxels, the inverse of `fold`: (B, C·d·h·w, D, H, W) to (B, C, D·d, H·h, W·w)."""
    B, C, D, H, W = x.shape
    d, h, w = factors
    x = x.view(B, C // (d * h * w), d, h, w, D, H, W).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(B, C // (d * h * w), D * d, H * h, W * w)
