"""CT files to one volume in Hounsfield units, or the reason why they do not make one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from model.geometry import SliceGrid


@dataclass(frozen=True, eq=False)
class CTVolume:
    """A CT series as one volume.

    Parameters
    ----------
    hu
        (slices, rows, columns) int16 Hounsfield units, never below -1024; padding is -1024.
    grid
        Where the voxels are.
    sop_instance_uids
        SOP Instance UID of each slice, in the order of `hu`.
    header
        The first slice's attributes, without pixel data.
    remarks
        What is worth telling a reader about how the volume came about.
    """

    hu: NDArray[np.int16]
    grid: SliceGrid
    sop_instance_uids: tuple[str, ...]
    header: Dataset
    remarks: tuple[str, ...] = ()


def find_series(folder: Path) -> dict[str, list[Path]]:
    """Series Instance UID to files, for every CT image under a folder."""
    raise NotImplementedError(folder)


def read_series(paths: Sequence[Path], progress: Callable[[float], None] | None = None) -> CTVolume:
    """Read one series."""
    raise NotImplementedError(paths, progress)
