"""Masks to a structure set by rt-utils or platipy, and back: a program for environments of their own.

    python benchmarks/rt_utils_peer.py rt-utils CT_FOLDER MASKS.npz RTSTRUCT.dcm
    python benchmarks/rt_utils_peer.py platipy CT_FOLDER MASKS.npz RTSTRUCT.dcm
    python benchmarks/rt_utils_peer.py read CT_FOLDER RTSTRUCT.dcm MASKS.npz

Masks are (slices, rows, columns), in the order of the slices. The first two write twice and print the seconds of
the second time, from masks in memory and series on disk to the file on disk, `whole`, and `contours`, those after
the series has been read.
"""

import sys
import time
import warnings

import numpy as np
from rt_utils import RTStructBuilder

TURNS = 2
"""The first warms up and is not told; the file that stays is that of the last."""


def write_rt_utils(series: str, masks: str, structure_set: str) -> None:
    """Write all masks as ROIs with rt-utils' own settings."""
    with np.load(masks) as stored:
        rois = {name: np.moveaxis(stored[name], 0, -1) for name in stored}
    for _ in range(TURNS):
        started = time.perf_counter()
        made = RTStructBuilder.create_new(dicom_series_path=series)
        read = time.perf_counter()
        for name, mask in rois.items():
            made.add_roi(mask=mask, name=name)
        made.save(structure_set)
    _say(contours=time.perf_counter() - read, whole=time.perf_counter() - started)


def write_platipy(series: str, masks: str, structure_set: str) -> None:
    """Convert all masks, as images in memory, with platipy's own function."""
    import SimpleITK as sitk
    from platipy.dicom.io.nifti_to_rtstruct import convert_nifti

    with np.load(masks) as stored:
        images = {name: sitk.GetImageFromArray(stored[name].astype(np.uint8)) for name in stored}
    for _ in range(TURNS):
        started = time.perf_counter()
        convert_nifti(series, images, structure_set)
    _say(whole=time.perf_counter() - started)


def _say(**seconds: float) -> None:
    for name, value in seconds.items():
        print(f"{name} {value:.4f}")  # noqa: T201 -- heard by the benchmark


def read(series: str, structure_set: str, masks: str) -> None:
    """Fill every ROI by rt-utils' own reader, which fills with OpenCV."""
    found = RTStructBuilder.create_from(dicom_series_path=series, rt_struct_path=structure_set)
    rois = {name: np.moveaxis(found.get_roi_mask_by_name(name), -1, 0) for name in found.get_roi_names()}
    np.savez_compressed(masks, **rois)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    {"rt-utils": write_rt_utils, "platipy": write_platipy, "read": read}[sys.argv[1]](*sys.argv[2:])
