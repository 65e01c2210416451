"""Pack data sets of CT and contours for training, and report what was left out and why.

    python -m training.prepare openkbp DATA/openkbp tcia21 DATA/tcia21 shapes DATA/tcia-shapes --out runs/packs

Cases of a source's validation split go into packs of their own and are never trained on.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from model.preprocess import smoothing_sigma_mm
from training.config import ORGANS
from training.dataset import Case, Frame, bits, write_packs
from training.synthesis import synthesise, with_room

WHOLE = (-np.inf, np.inf)
RESOLUTION_MM = 4.0


@dataclass
class Report:
    """What was packed and what was left out, with reasons."""

    packed: list[tuple[str, int]] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def show(self, console: Console) -> None:
        """Print both as a table."""
        table = Table("left out", "reason", title=f"{len(self.packed)} cases packed")
        for name, reason in self.left_out:
            table.add_row(name, reason)
        console.print(table)


def read_image(path: Path) -> tuple[NDArray[Any], Frame]:
    """A NIfTI file as an array (slices, rows, columns) ascending to head, back and left, and its frame."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    x, y, z = image.GetOrigin()
    dx, dy, dz = image.GetSpacing()
    return sitk.GetArrayFromImage(image), Frame((z, y, x), (dz, dy, dx))


def crop(labels: NDArray[np.uint32], frame: Frame) -> tuple[NDArray[np.uint32], Frame]:
    """Cut labels down to the box around all organs, with one voxel to spare."""
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(labels.any(axis=others))
        box.append(slice(max(0, filled[0] - 1), filled[-1] + 2))
    z, y, x = (o + side.start * s for o, side, s in zip(frame.origin_mm, box, frame.spacing_mm, strict=True))
    return labels[tuple(box)].copy(), Frame((z, y, x), frame.spacing_mm)


def _reordered(labels: NDArray[np.uint32], bit_of: dict[str, int]) -> NDArray[np.uint32]:
    """Bits as the data set numbers them to bits as `ORGANS` does."""
    ordered = np.zeros_like(labels)
    for name, bit in bit_of.items():
        ordered |= ((labels >> np.uint32(bit)) & np.uint32(1)) << np.uint32(ORGANS.index(name))
    return ordered


def openkbp_cases(root: Path, split: str, report: Report) -> Iterator[Case]:
    """OpenKBP in nnU-Net raw layout: clinical contours, of which not every organ was drawn in every case."""
    numbers = json.loads((root / "dataset.json").read_text())["labels"]
    for name, about in json.loads((root / "cases.json").read_text()).items():
        if about["source_split"] != split:
            continue
        image, frame = read_image(root / "imagesTr" / f"{name}_0000.nii.gz")
        labels, label_frame = read_image(root / "labelsTr" / f"{name}.nii.gz")
        known: dict[str, tuple[float, float]] = {}
        for organ in about["present_labels"]:
            known[organ] = WHOLE
            if organ in {"SpinalCord", "Esophagus"}:  # drawn over a part of their length only
                first, last = about["label_slices"][organ]
                z, step = label_frame.origin_mm[0], label_frame.spacing_mm[0]
                known[organ] = (z + (first - 0.5) * step, z + (last + 0.5) * step)
        for organ, reason in about["dropped_labels"].items():
            report.left_out.append((f"{name} {organ}", str(reason)))
        if not known:
            report.left_out.append((name, "no organ was contoured"))
            continue
        masks = {organ: labels == numbers[organ] for organ in known}
        yield Case(name, "openkbp", image.astype(np.int16), frame, bits(masks), label_frame, known)


def tcia21_cases(root: Path, split: str, report: Report) -> Iterator[Case]:
    """The 21 organs by an oncologist, at four times the in-plane resolution of the CT they lie on."""
    bit_of = json.loads((root / "dataset.json").read_text())["bit_of_label"]
    for name, about in json.loads((root / "cases.json").read_text()).items():
        if about["openkbp_split"] != split:
            continue
        image, frame = read_image(root / "imagesTr" / f"{name}_0000.nii.gz")
        labels, label_frame = read_image(root / "native" / f"{name}_oncologist.nii.gz")
        known = {}
        for organ in bit_of:
            cover = about["oncologist"]["field_coverage"].get(organ)
            if cover and cover["in_slices"] - cover["in_ct"] > 0.05:
                report.left_out.append(
                    (f"{name} {organ}", f"only {cover['in_ct']:.0%} lies where there is an image")
                )
                continue
            known[organ] = WHOLE
        cropped, label_frame = crop(_reordered(labels.astype(np.uint32), bit_of), label_frame)
        yield Case(name, "tcia21", image.astype(np.int16), frame, cropped, label_frame, known)


def shape_cases(root: Path, split: str, report: Report) -> Iterator[Case]:
    """Images synthesised around the true shapes of scans whose CT is not at hand."""
    if split != "train":
        return
    bit_of = json.loads((root / "organs.json").read_text())["bits"]
    measured = _validation_scans(root)
    for index, path in enumerate(sorted(root.glob("*_oncologist.nii.gz"))):
        scan = path.name.removesuffix("_oncologist.nii.gz")
        if scan in measured:
            report.left_out.append((scan, "the patient belongs to the validation split"))
            continue
        labels, frame = read_image(path)
        labels = _reordered(labels.astype(np.uint32), bit_of)
        masks = {organ: (labels >> np.uint32(ORGANS.index(organ))) & np.uint32(1) > 0 for organ in bit_of}
        try:
            case = _synthetic(scan, masks, labels, frame, np.random.default_rng(index))
        except ValueError as error:
            report.left_out.append((scan, str(error)))
            continue
        yield case


def _validation_scans(root: Path) -> set[str]:
    cases = json.loads((root.parent / "tcia21" / "cases.json").read_text())
    return {about["source_scan"] for about in cases.values() if about["openkbp_split"] == "validation"}


def _synthetic(
    scan: str,
    masks: dict[str, NDArray[np.bool_]],
    labels: NDArray[np.uint32],
    frame: Frame,
    rng: np.random.Generator,
) -> Case:
    """The image at half the in-plane resolution of the labels, and as blurred as planning CTs at hand are."""
    before = next(iter(masks.values())).shape
    coarse = {name: mask[:, ::2, ::2] for name, mask in masks.items()}
    dz, dy, dx = frame.spacing_mm
    spacing = (dz, 2 * dy, 2 * dx)
    roomy = with_room(coarse, spacing)
    image = synthesise(roomy, spacing, rng).astype(np.float32)
    # The padding at the front and at the right moves the origin.
    side = (image.shape[2] - (before[2] + 1) // 2) // 2
    front = round(25 / spacing[1])
    z, y, x = frame.origin_mm
    origin = (z, y - front * spacing[1], x - side * spacing[2])
    sigma = smoothing_sigma_mm(spacing[1], RESOLUTION_MM) / spacing[1]
    smooth = sitk.GetArrayFromImage(
        sitk.DiscreteGaussian(sitk.GetImageFromArray(image), [sigma**2, sigma**2, 0.0], useImageSpacing=False)
    )
    known = dict.fromkeys(masks, WHOLE)
    cropped, label_frame = crop(labels, frame)
    return Case(scan, "shapes", smooth.astype(np.int16), Frame(origin, spacing), cropped, label_frame, known)


SOURCES: dict[str, Callable[[Path, str, Report], Iterator[Case]]] = {
    "openkbp": openkbp_cases,
    "tcia21": tcia21_cases,
    "shapes": shape_cases,
}


def main(
    sources: list[str] = typer.Argument(..., help="Pairs: openkbp|tcia21|shapes FOLDER …"),  # noqa: B008
    out: Path = typer.Option(Path("runs/packs"), help="Folder for the packs."),  # noqa: B008
) -> None:
    """Pack every named data set: train and validation cases apart."""
    console = Console()
    if len(sources) % 2 or any(name not in SOURCES for name in sources[::2]):
        raise typer.BadParameter(f"name pairs of {', '.join(SOURCES)} and a folder")
    for name, folder in zip(sources[::2], sources[1::2], strict=True):
        for split in ("train", "validation"):
            report = Report()
            cases = track(SOURCES[name](Path(folder), split, report), f"{name} {split}", console=console)
            paths = write_packs(_counted(cases, report), out / f"{name}-{split}")
            report.show(console)
            for path in paths:
                console.print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _counted(cases: Any, report: Report) -> Iterator[Case]:  # noqa: ANN401 - rich's iterator is untyped
    for case in cases:
        report.packed.append((case.name, len(case.known)))
        yield case


if __name__ == "__main__":
    typer.run(main)
