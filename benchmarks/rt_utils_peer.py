"""Masks to a structure set by rt-utils, and back: a program of its own, as it needs an environment of its own.

    python benchmarks/rt_utils_peer.py write CT_FOLDER MASKS.npz RTSTRUCT.dcm
    python benchmarks/rt_utils_peer.py read CT_FOLDER RTSTRUCT.dcm MASKS.npz

Masks are (slices, rows, columns), in the order of the slices. `write` prints the seconds from masks in memory to
the file on disk, the series already read.
"""

import sys
import time
import warnings

import numpy as np
from rt_utils import RTStructBuilder


def write(series: str, masks: str, structure_set: str) -> None:
    """Write all masks as ROIs with rt-utils' own settings."""
    with np.load(masks) as stored:
        rois = {name: np.moveaxis(stored[name], 0, -1) for name in stored}
    made = RTStructBuilder.create_new(dicom_series_path=series)
    started = time.perf_counter()
    for name, mask in rois.items():
        made.add_roi(mask=mask, name=name)
    made.save(structure_set)
    print(f"seconds {time.perf_counter() - started:.3f}")  # noqa: T201 -- heard by the benchmark


def read(series: str, structure_set: str, masks: str) -> None:
    """Fill every ROI by rt-utils' own reader, which fills with OpenCV."""
    found = RTStructBuilder.create_from(dicom_series_path=series, rt_struct_path=structure_set)
    rois = {name: np.moveaxis(found.get_roi_mask_by_name(name), -1, 0) for name in found.get_roi_names()}
    np.savez_compressed(masks, **rois)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
