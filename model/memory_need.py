"""How much memory a series will need, known before any pixels are read: what needs more than there is, is refused.

The figures per voxel were measured (`python -m tests.memory_of_series`, docs/reliability.md) and rounded up.
They hold for the worker's own memory; where that of a GPU does not suffice, the segmenter falls back.
"""

import math
import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from model.errors import ReasonCode, SeriesUnsuitable
from model.geometry import SliceGrid
from model.network_input import Preprocessing
from model.preprocess import extent_mm

PROCESS_BYTES = 1_400_000_000
"""Interpreter, libraries, the network's weights, and four tiles on their way through the network."""

VOLUME_BYTES = 2
"""Of each voxel of the CT, from reading to the end."""

RESAMPLING_BYTES = 15
"""Of each voxel of the evenly spaced CT beside the volume: its crop, and floating point through the smoothing."""

PLACING_BYTES = 1
"""Of each voxel of the CT while a structure is placed on its grid."""

FIELD_BYTES = 48
"""Of each voxel of the network's grid beside the probabilities: the image, its channels as they came, padded and
normalised, the weights of tiles, one structure's parts."""

PROBABILITY_BYTES = 2
"""Of each voxel of the network's grid and each structure."""


def memory_need(grid: SliceGrid, preprocessing: Preprocessing, structures: int) -> int:
    """Bytes that the process will have at its peak; an upper bound, as the body may fill the whole image."""
    voxels = math.prod(grid.shape)
    low, high = extent_mm(grid)
    lengths = (high - low)[::-1].tolist()  # (3,) z, y, x
    of_network: int = math.prod(
        math.ceil(length / step) + 1 for length, step in zip(lengths, preprocessing.spacing_mm, strict=True)
    )
    resampling = RESAMPLING_BYTES * _evenly_spaced_slices(grid) * grid.rows * grid.columns
    predicting = (FIELD_BYTES + PROBABILITY_BYTES * structures) * of_network + PLACING_BYTES * voxels
    return PROCESS_BYTES + VOLUME_BYTES * voxels + max(resampling, predicting)


def require_memory(
    grid: SliceGrid, preprocessing: Preprocessing, structures: int, allowed_bytes: int
) -> None:
    """Raise SeriesUnsuitable, with the numbers, where a series needs more than is allowed."""
    need = memory_need(grid, preprocessing, structures)
    if need > allowed_bytes:
        slices, rows, columns = grid.shape
        raise SeriesUnsuitable(
            ReasonCode.TOO_LARGE,
            f"{slices} slices of {rows} × {columns} need {need / 1e9:.1f} GB of memory, allowed are "
            f"{allowed_bytes / 1e9:.1f} GB; needed is a smaller series, or a larger [model] max_memory_bytes",
        )


def machine_memory_bytes() -> int:
    """What this process may take at most: the machine's memory, or less where a control group says so."""
    limits: list[int] = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(
        OSError, ValueError, IndexError
    ):  # no control groups of version 2, or no limit, which reads "max"
        group = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()[-1].split(":", 2)[2]
        limit = Path("/sys/fs/cgroup", group.lstrip("/"), "memory.max").read_text(encoding="ascii")
        limits.append(int(limit))
    return min(limits)


def _evenly_spaced_slices(grid: SliceGrid) -> int:
    """How many slices there are once uneven ones were interpolated at their finest gap."""
    if grid.is_uniform:
        return len(grid.positions_mm)
    gaps = np.diff(grid.offsets_mm)
    return round(float(gaps.sum() / gaps.min())) + 1
