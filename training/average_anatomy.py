"""Compute the average anatomy of the training cases, from which the demonstration's CT is made.

Run as `python -m training.average_anatomy ../shared/data tests/anatomy.npz`: half an hour on two busy cores.
No validation case is read.
What is stored is a mean of patients: a CT of thirty, and organs of five to twenty-seven.
CTs and clinical contours: OpenKBP (Babier et al., Medical Physics 48, 2021; MIT licence; images from TCIA).
The 21 organs: Nikolov et al., arXiv 1809.04430, deepmind/tcia-ct-scan-dataset, CC BY 4.0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import typer
from scipy import ndimage

from training.average_ct import (
    ORIGIN_MM,
    SIZE,
    SPACING_MM,
    Bits,
    Case,
    Image,
    Points,
    Seen,
    Volume,
    average_cases,
    axes_mm,
    grid,
    on_grid,
    read,
    tissue_and_air,
    training_cases,
)
from training.failures import failures_in_words

HU_LEVELS = np.concatenate([np.arange(-1024, -200, 40), np.arange(-200, 200, 4), np.arange(200, 1800, 40)])
REACH_MM = 6.35  # signed distances are stored up to here, in steps of 0.05 mm
LONG = ("SpinalCanal", "SpinalCord", "Lung")
FINE = (
    "Cochlea",
    "Lacrimal",
    "Lens",
    "OpticNrv",
    "Eye",
    "Submand",
    "Parotid",
    "Mandible",
    "Brainstem",
    "Spinal",
)


@dataclass(frozen=True)
class Shape:
    """An average organ: signed distance (mm, negative inside) in a box of the average's coordinates."""

    distance: Volume
    origin_mm: tuple[float, float, float]  # LPS
    spacing_mm: tuple[float, float, float]  # columns, rows, slices


def signed_distance(mask: Bits, like: Image) -> Image:
    """Return millimetres to a mask's surface, negative inside, on a box just around it."""
    at = np.argwhere(mask)
    margin = np.ceil((REACH_MM + 2) / np.array(like.GetSpacing()[::-1])).astype(int)
    first, last = at.min(axis=0), at.max(axis=0) + 1
    inner = mask[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    padded = np.pad(inner, [(m, m) for m in margin])
    sampling = like.GetSpacing()[::-1]
    outside = ndimage.distance_transform_edt(~padded, sampling=sampling)
    inside = ndimage.distance_transform_edt(padded, sampling=sampling)
    half = 0.5 * like.GetSpacing()[0]
    image = SimpleITK.GetImageFromArray(np.where(padded, half - inside, outside - half).astype(np.float32))
    image.SetSpacing(like.GetSpacing())
    image.SetOrigin(
        like.TransformContinuousIndexToPhysicalPoint((first - margin)[::-1].astype(float).tolist())
    )
    return image


def box_around(centre: Points, half: Points, *, fine: bool) -> Image:
    """Return an empty image that holds an organ."""
    spacing = np.array((1.0, 1.0, 2.5) if fine else SPACING_MM)
    size = np.ceil(2 * half / spacing).astype(int)
    image = Image(size.tolist(), SimpleITK.sitkFloat32)
    image.SetSpacing(spacing.tolist())
    origin = centre - half
    origin[2] = ORIGIN_MM[2] + SPACING_MM[2] * np.round((origin[2] - ORIGIN_MM[2]) / SPACING_MM[2])
    image.SetOrigin(origin.tolist())
    return image


def bitmask(path: Path, bits: Mapping[str, int]) -> tuple[Image, dict[str, Bits]]:
    """Return the frame and the organs of a bitmask; organs that were not contoured are left out."""
    image = read(path)
    voxels = SimpleITK.GetArrayFromImage(image)
    masks = {name: (voxels >> bit & 1).astype(bool) for name, bit in bits.items()}
    return image, {name: mask for name, mask in masks.items() if mask.any()}


def centre_mm(mask: Bits, frame: Image) -> Points:
    """Return the middle of a mask in LPS mm."""
    index = np.argwhere(mask).mean(axis=0)[::-1]
    return np.asarray(np.array(frame.GetOrigin()) + index * np.array(frame.GetSpacing()))


@dataclass(frozen=True)
class Placed:
    """An organ of a patient, and where it lies in the average."""

    distance: Image
    transform: SimpleITK.Transform  # from the average to the patient
    first_slice_mm: float  # the scan's end at the feet
    scale: float = 1.0  # of the average against the patient

    def on(self, box: Image) -> Volume:
        """Return signed distances in the average's coordinates; not a number below the scan's first slice."""
        sampled = SimpleITK.Resample(self.distance, box, self.transform, SimpleITK.sitkLinear, REACH_MM)
        values = SimpleITK.GetArrayFromImage(sampled) * self.scale
        columns, rows, slices = box.GetSize()
        middles = [box.TransformIndexToPhysicalPoint((columns // 2, rows // 2, k)) for k in range(slices)]
        below = [self.transform.TransformPoint(m)[2] < self.first_slice_mm + 3 for m in middles]
        values[np.array(below)] = np.nan
        return np.asarray(values, np.float32)

    def centre(self) -> Points:
        """Return where its middle lies in the average (mm), also of an organ smaller than the grid's voxels."""
        distance = self.on(grid())
        return centre_mm(distance <= max(0.0, float(np.nanmin(distance)) + 1), grid())


def organs_seen(
    case: Case, seen: Seen, bits: Mapping[str, int], covered: Mapping[str, float]
) -> dict[str, Placed]:
    """Return a case's organs with the map from the average; only those wholly in its CT, and the long ones."""
    assert case.organs is not None
    frame, masks = bitmask(case.organs, bits)
    way, first = seen.transform(), frame.GetOrigin()[2]
    return {
        name: Placed(signed_distance(mask, frame), way, first)
        for name, mask in masks.items()
        if covered.get(name, 0) > (0.1 if name.startswith(LONG) else 0.97)
    }


def affine_fit(source: Mapping[str, Points], target: Mapping[str, Points]) -> tuple[Points, Points]:
    """Return the affine map that brings named points closest to their namesakes."""
    names = sorted(set(source) & set(target))
    ones = np.array([[*source[n], 1.0] for n in names])
    solution = np.linalg.lstsq(ones, np.array([target[n] for n in names]), rcond=None)[0]
    return solution[:3].T, solution[3]


def vertex(inside: Bits, spacing_mm: Sequence[float]) -> Points:
    """Return the (column, row, slice) index at which the inside of the skull narrows to 5 cm² at the top."""
    area = inside.sum(axis=(1, 2)) * spacing_mm[0] * spacing_mm[1]
    top = int(np.flatnonzero(area > 500)[-1])
    row, column = np.argwhere(inside[top]).mean(axis=0)
    return np.array([column, row, top])


def vertex_of_ct(seen: Sequence[Seen]) -> Points:
    """Return the vertex in the average CT, mm: the largest soft region within bone, above the brainstem."""
    share, tissue, _ = tissue_and_air(seen)
    soft = ndimage.binary_opening((share > 0.5) & (tissue < 250), np.ones((1, 3, 3), bool), iterations=2)
    soft[axes_mm()[0].ravel() < 40] = False
    regions, count = ndimage.label(soft)
    sizes = ndimage.sum_labels(soft, regions, np.arange(1, count + 1))
    index = vertex(regions == 1 + int(np.argmax(sizes)), SPACING_MM)
    return np.asarray(np.array(ORIGIN_MM) + index * np.array(SPACING_MM))


def organs_fitted(
    path: Path, bits: Mapping[str, int], centres: Mapping[str, Points], sizes: dict[str, list[Points]]
) -> dict[str, Placed]:
    """Return the organs of a scan that has shapes but no CT: an affine fit of the head, then each to its place."""
    frame, masks = bitmask(path, bits)
    own = {n: centre_mm(m, frame) for n, m in masks.items()}
    top = np.array(frame.GetOrigin()) + vertex(masks["Brain"], frame.GetSpacing()) * np.array(
        frame.GetSpacing()
    )
    head = {n: p for n, p in centres.items() if not n.startswith(LONG)}
    matrix, offset = affine_fit(head, own | {"vertex": top})
    found = {}
    for name, mask in masks.items():
        target = centres.get(name, np.linalg.solve(matrix, own[name] - offset))
        way = SimpleITK.AffineTransform(3)
        way.SetMatrix(matrix.ravel())
        way.SetTranslation(own[name] - matrix @ target)
        scale = float(np.cbrt(1 / np.linalg.det(matrix)))
        found[name] = Placed(signed_distance(mask, frame), way, frame.GetOrigin()[2], scale)
        at = np.argwhere(mask)[:, ::-1] * np.array(frame.GetSpacing())
        sizes.setdefault(name, []).append(np.ptp(at, axis=0) / 2 + REACH_MM)
    return found


def average_shape(placed: Sequence[Placed], box: Image) -> Shape:
    """Average signed distances, then move the surface so that the volume is the mean of the volumes.

    A mean of distances alone shrinks what is thin and never quite in the same place, as an optic nerve.
    """
    each = [p.on(box) for p in placed]
    seen = np.isfinite(each)
    mean = np.where(seen, each, 0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    mean[seen.sum(axis=0) < 0.25 * len(each)] = REACH_MM
    volume = int(
        sum((np.nan_to_num(e, nan=1.0) < 0).sum(axis=(1, 2)) for e in each)
        @ (1 / np.maximum(seen.any(axis=(2, 3)).sum(axis=0), 1))
    )
    level = np.partition(mean.ravel(), volume)[volume]
    return Shape((mean - level).astype(np.float32), box.GetOrigin(), box.GetSpacing())


def training_scans(data: Path) -> list[Path]:
    """Return the oncologist's organs of all scans but those of validation patients."""
    records = json.loads((data / "tcia21/cases.json").read_text()).values()
    kept_apart = {record["source_scan"] for record in records if record["openkbp_split"] != "train"}
    paths = sorted((data / "tcia-shapes").glob("*_oncologist.nii.gz"))
    return [path for path in paths if path.name.removesuffix("_oncologist.nii.gz") not in kept_apart]


def average_organs(data: Path, cases: Sequence[Case], seen: Sequence[Seen]) -> dict[str, Shape]:
    """Return the 21 organs: from the aligned CTs where at least six show one whole, else from shapes."""
    bits = json.loads((data / "tcia-shapes/organs.json").read_text())["bits"]
    records = json.loads((data / "tcia21/cases.json").read_text())
    on_ct: dict[str, list[Placed]] = {}
    for case, view in zip(cases, seen, strict=True):
        if case.organs is not None:
            record = records[case.organs.name.removesuffix("_oncologist.nii.gz")]["oncologist"][
                "field_coverage"
            ]
            covered = {n: c["in_ct"] for n, c in record.items()}
            for name, placed in organs_seen(case, view, bits, covered).items():
                on_ct.setdefault(name, []).append(placed)
    centres = {
        name: np.mean([p.centre() for p in placed], axis=0)
        for name, placed in on_ct.items()
        if not name.startswith(LONG)
    }
    centres["vertex"] = vertex_of_ct(seen)
    of_shape: dict[str, list[Placed]] = {}
    sizes: dict[str, list[Points]] = {}
    for path in training_scans(data):
        for name, placed in organs_fitted(path, bits, centres, sizes).items():
            of_shape.setdefault(name, []).append(placed)
    shapes = {}
    for name, from_shapes in of_shape.items():
        enough = len(on_ct.get(name, [])) >= (4 if name.startswith(LONG) else 6)
        used = on_ct[name] if enough else from_shapes
        fine = any(word in name for word in FINE)
        centre = centres.get(name)
        if centre is None:
            centre = np.median([p.centre() for p in used], axis=0)
        shapes[name] = average_shape(
            used, box_around(centre, 1.2 * np.median(sizes[name], axis=0), fine=fine)
        )
        print(f"{name}: {len(used)} {'CTs' if enough else 'shapes'}")
    return shapes


def crowned(share: Volume, tissue: Volume, seen: Sequence[Seen], brain: Shape) -> tuple[Volume, Volume]:
    """Close the top of the head, which few of the CTs reach, with skull and scalp around the average brain."""
    box = on_grid(np.zeros(SIZE[::-1], np.float32))
    inside = SimpleITK.GetImageFromArray((brain.distance < 0).astype(np.float32))
    inside.SetOrigin(brain.origin_mm)
    inside.SetSpacing(brain.spacing_mm)
    mask = SimpleITK.GetArrayFromImage(SimpleITK.Resample(inside, box, SimpleITK.Transform())) > 0.5
    spacing = SPACING_MM[::-1]
    distance = ndimage.distance_transform_edt(~mask, sampling=spacing)
    imaged = np.mean([s.imaged for s in seen], axis=0)
    z, _, _ = axes_mm()
    missing = np.clip((0.75 - imaged) / 0.2, 0, 1) * (z > 50)
    missing = np.asarray(ndimage.gaussian_filter(missing, 1.5), np.float32)
    skull = np.where(distance < 1, 30, np.where(distance < 8, 900, 10))
    skin = np.clip((14 - distance) / 4 + 0.5, 0, 1)
    return (
        np.asarray(share + missing * (skin - share), np.float32),
        np.asarray(tissue + missing * (skull - tissue), np.float32),
    )


def write(path: Path, seen: Sequence[Seen], shapes: Mapping[str, Shape]) -> None:
    """Store the average in whole bytes: HU in steps that are fine for soft tissue, distances in 0.05 mm."""
    share, tissue, air = tissue_and_air(seen)
    share, tissue = crowned(share, tissue, seen, shapes["Brain"])
    tissue[share < 0.03] = 0
    arrays: dict[str, Any] = {
        "hu_levels": HU_LEVELS.astype(np.int16),
        "tissue_share": np.rint(share * 50).astype(np.uint8),
        "tissue_hu": np.searchsorted(HU_LEVELS, tissue).clip(0, len(HU_LEVELS) - 1).astype(np.uint8),
        "air_hu": np.searchsorted(HU_LEVELS, air).clip(0, len(HU_LEVELS) - 1).astype(np.uint8),
        "origin_mm": np.array(ORIGIN_MM),
        "spacing_mm": np.array(SPACING_MM),
    }
    for name, shape in shapes.items():
        arrays[f"{name}.distance"] = np.rint(shape.distance.clip(-REACH_MM, REACH_MM) / 0.05).astype(np.int8)
        arrays[f"{name}.origin_mm"] = np.array(shape.origin_mm)
        arrays[f"{name}.spacing_mm"] = np.array(shape.spacing_mm)
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main(
    data: Path = typer.Argument(..., help="Folder of the public data sets."),  # noqa: B008
    output: Path = typer.Argument(..., help="File for the average anatomy, .npz."),  # noqa: B008
) -> None:
    """Compute and store the average anatomy."""
    cases = training_cases(data)
    print(f"{len(cases)} training CTs")
    seen = average_cases(cases)
    write(output, seen, average_organs(data, cases, seen))


if __name__ == "__main__":
    with failures_in_words():
        typer.run(main)
