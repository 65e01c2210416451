"""Convolutions of a network that only predicts: oneDNN called directly, and half the products where that is exact.

A convolution of 3 x 3 x 3 is done after Winograd (Lavin and Gray 2015, arXiv 1509.09308) along the slices and
directly within them: of six slices that come out, sums of the eight that go in are convolved, eight times
3 x 3 instead of eighteen times, and the results are summed again. In float32 that is as exact as is needed: its
error is about three times that of the direct way. torch only.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.unet import Triple

OUT = 6
"""Slices that are computed together; more would save little and round worse."""
TAPS = 3
"""Slices that a kernel reaches over."""
IN = OUT + TAPS - 1
"""Slices from which they are computed, and places at which polynomials are evaluated."""
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Those places, but for infinity."""


def for_prediction(conv: nn.Conv3d | nn.ConvTranspose3d, dtype: torch.dtype) -> nn.Module:
    """The same function, (1, C, D, H, W) to (1, C', D', H', W') in `dtype`, in the way that is fastest."""
    is_slicewise = (
        isinstance(conv, nn.Conv3d)
        and conv.kernel_size == (TAPS, TAPS, TAPS)
        and conv.padding == (1, 1, 1)
        and conv.stride == (1, 1, 1)
        and conv.bias is None
    )
    if is_slicewise and dtype == torch.float32 and _on_onednn(conv.weight):
        return _Winograd(conv.weight.detach())
    return _Convolution(conv, dtype)


class _Convolution(nn.Module):
    """A convolution, transposed or not, that brings what it gets to its own precision."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d, dtype: torch.dtype) -> None:
        super().__init__()
        weight = conv.weight.detach().to(dtype=dtype, memory_format=torch.channels_last_3d)
        self.weight = nn.Parameter(weight, requires_grad=False)
        bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().to(dtype), requires_grad=False)
        self.bias = bias
        self._stride, self._padding = conv.stride, cast("Triple", conv.padding)  # never words, in our network
        self._is_transposed = isinstance(conv, nn.ConvTranspose3d)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, D, H, W) to (1, C', D', H', W')."""
        x = x.to(self.weight.dtype)
        if self._is_transposed:
            return F.conv_transpose3d(x, self.weight, self.bias, self._stride)
        if x.dtype == torch.float32 and _on_onednn(x):
            # torch itself calls oneDNN only where it thinks a layer large, and otherwise takes twice as long.
            return torch.mkldnn_convolution(
                x, self.weight, self.bias, self._padding, self._stride, (1, 1, 1), 1
            )
        return F.conv3d(x, self.weight, self.bias, self._stride, self._padding)


class ChannelByChannel(nn.Module):
    """A convolution of 1 x 1 x 1 whose channels come out one after the other, for who wants them singly."""

    def __init__(self, conv: nn.Conv3d, channels: int, dtype: torch.dtype) -> None:
        """The first `channels` of what `conv` computes."""
        super().__init__()
        weight = conv.weight.detach()[:channels].flatten(1).to(dtype)
        bias = torch.zeros(channels) if conv.bias is None else conv.bias.detach()[:channels]
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias.to(weight)[:, None], requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, D, H, W) to (1, C', D, H, W), contiguous."""
        C, *shape = x.shape[1:]
        voxels = x[0].to(self.weight.dtype).permute(1, 2, 3, 0).reshape(-1, C)
        channels = torch.mm(self.weight, voxels.T).add_(self.bias)  # addmm copies the bias first
        return channels.view(1, -1, *shape)


class _Winograd(nn.Module):
    """A convolution of 3 x 3 x 3 with a border of zeros, in float32 on a CPU."""

    def __init__(self, weight: Tensor) -> None:
        """Of `weight` (C', C, 3, 3, 3)."""
        super().__init__()
        self._into, of_kernel, self._back = _transforms()
        at_points = torch.einsum("pd,ocdhw->pochw", of_kernel, weight.double()).float()
        self._kernels = [kernel.contiguous(memory_format=torch.channels_last) for kernel in at_points]

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, D, H, W) to (1, C', D, H, W), channels of a voxel beside each other."""
        C, D, H, W = x.shape[1:]
        groups = -(-D // OUT)
        slices = x[0].float().permute(1, 2, 3, 0).reshape(D, H * W * C)
        padded = F.pad(slices, (0, 0, 1, groups * OUT + 1 - D))
        sums = padded.new_empty(IN, groups, H, W, C)
        for group, into in enumerate(sums.flatten(2).unbind(1)):
            torch.mm(self._into, padded[group * OUT :][:IN], out=into)
        products = torch.stack(
            [
                torch.mkldnn_convolution(each, kernel, None, (1, 1), (1, 1), (1, 1), 1).permute(0, 2, 3, 1)
                for each, kernel in zip(sums.permute(0, 1, 4, 2, 3), self._kernels, strict=True)
            ]
        ).flatten(2)
        result = products.new_empty(groups, OUT, products.shape[2])
        for product, back in zip(products.unbind(1), result, strict=True):
            torch.mm(self._back, product, out=back)
        return result.view(groups * OUT, H, W, -1)[:D].permute(3, 0, 1, 2)[None]


def _on_onednn(x: Tensor) -> bool:
    return x.device.type == "cpu" and torch.backends.mkldnn.is_available()


def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Of slices that go in (8, 8), of the kernel (8, 3) in double precision, and of what comes out (6, 8).

    Two polynomials are multiplied by evaluating both at points, multiplying, and interpolating (Toom and Cook);
    a convolution is the transpose of that in one of its factors.
    """
    points = torch.tensor(POINTS, dtype=torch.float64)

    def evaluated(terms: int) -> Tensor:
        at_infinity = torch.zeros(1, terms, dtype=torch.float64)
        at_infinity[0, -1] = 1
        return torch.cat([points[:, None] ** torch.arange(terms), at_infinity])

    of_kernel = evaluated(TAPS)
    scale = of_kernel.abs().sum(1, keepdim=True)  # so that no point's kernel is far larger than another's
    into = torch.linalg.inv(evaluated(IN)).T * scale
    return into.float(), of_kernel / scale, evaluated(OUT).T.float()
