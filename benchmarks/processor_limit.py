"""What the processor could do at most, by precision, and what a network asks of it."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SIDE = 4096
CHANNELS, EDGE = 128, 32
TRIES = 4
MEASURED_BY = (
    f"products of matrices of {SIDE} × {SIDE} and convolutions of {CHANNELS} channels "
    f"on {EDGE} × {EDGE} × {EDGE}, best of {TRIES} of each"
)


def peak_flops(dtype: torch.dtype) -> float:
    """Floating point operations a second of what a library does best: either of two is badly tuned on some."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    image = torch.randn(1, CHANNELS, EDGE, EDGE, EDGE).to(dtype=dtype, memory_format=torch.channels_last_3d)
    weight = torch.randn(CHANNELS, CHANNELS, 3, 3, 3).to(dtype=dtype, memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        return max(
            2 * SIDE**3 / _least_seconds(lambda: a @ b),
            2 * weight.numel() * EDGE**3 / _least_seconds(lambda: torch.conv3d(image, weight, padding=1)),
        )


def _least_seconds(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


_FORWARDS = (torch.ops.aten.conv3d.default, torch.ops.aten.mkldnn_convolution.default)
_TRANSPOSED = torch.ops.aten.conv_transpose3d.input
_PRODUCTS = (torch.ops.aten.mm.default, torch.ops.aten.mm.out)
"""As inference mode calls them."""
_WORK = ("conv", "mm", "matmul", "dot")


class _Operations(TorchDispatchMode):
    """Counts those of all convolutions and products of matrices that are called in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Tensor],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        result = func(*args, **(kwargs or {}))
        if func in (*_FORWARDS, _TRANSPOSED):
            image, weight = args[:2]
            places: Tensor = image if func is _TRANSPOSED else result
            self.count[image.dtype] += 2 * weight.numel() * len(places) * math.prod(places.shape[2:])
        elif func in _PRODUCTS:
            self.count[result.dtype] += 2 * math.prod(args[0].shape) * result.shape[1]
        elif any(word in str(func) for word in _WORK):
            raise NotImplementedError(f"nobody counts the operations of {func}")
        return result


def operations_by_precision(work: Callable[[], object]) -> Mapping[torch.dtype, int]:
    """Of the convolutions and products of matrices, in which there is almost all work."""
    with torch.inference_mode(), _Operations() as counter:
        work()
    return counter.count


def limit_seconds(operations: Mapping[torch.dtype, int], peaks: Mapping[torch.dtype, float]) -> float:
    """How long they take where each precision reaches its peak."""
    return sum(count / peaks[dtype] for dtype, count in operations.items())
