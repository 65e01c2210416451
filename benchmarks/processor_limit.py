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
TRIES = 4


def peak_flops(dtype: torch.dtype) -> float:
    """Floating point operations a second of a large product of matrices, the best of some."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(TRIES):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / min(seconds)


_FORWARDS = (torch.ops.aten.conv3d.default, torch.ops.aten.mkldnn_convolution.default)
_TRANSPOSED = torch.ops.aten.conv_transpose3d.input
"""As inference mode calls them."""


class _Convolutions(TorchDispatchMode):
    """Counts operations of all convolutions that are called in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(
        self,
        func: Callable[..., Tensor],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        result = func(*args, **(kwargs or {}))
        if "conv" in str(func):
            if func not in (*_FORWARDS, _TRANSPOSED):
                raise NotImplementedError(f"{func} is a convolution whose operations nobody counts")
            image, weight = args[:2]
            places: Tensor = image if func is _TRANSPOSED else result
            self.operations[image.dtype] += 2 * weight.numel() * math.prod(places.shape[2:])
        return result


def operations_by_precision(work: Callable[[], object]) -> Mapping[torch.dtype, int]:
    """Of the convolutions, in which there is almost all work; of a batch of one."""
    with torch.inference_mode(), _Convolutions() as counter:
        work()
    return counter.operations


def limit_seconds(operations: Mapping[torch.dtype, int], peaks: Mapping[torch.dtype, float]) -> float:
    """How long they take where each precision reaches its peak."""
    return sum(count / peaks[dtype] for dtype, count in operations.items())
