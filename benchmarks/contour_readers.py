"""Our contours beside those of rt-utils and plastimatch: the same masks, the same readers.

    python -m benchmarks.contour_readers --peers PEERS/bin/python

PEERS is a virtual environment with rt-utils; `python -m benchmarks.peers` makes one, runs/peers/rt-utils.
platipy writes structure sets through rt-utils (its `convert_nifti` says so) and would be a copy of its row.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk
import typer
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from rich.console import Console
from rich.progress import track

from daemon.contour_data import decode_points
from daemon.lint import lint_file
from daemon.lint_finding import Severity
from daemon.lint_images import read_images
from daemon.result_header import ModelIdentity, ResultIdentity, encode
from daemon.structure_set import build_structure_set
from daemon.structure_template import ROI, apply_template, template_of
from model.contours import Contour, fill, trace
from model.ct import CTVolume, read_series
from model.geometry import Mask, SliceGrid
from model.keyhole import with_holes
from tests.anatomy import average_anatomy
from tests.phantom import write_ct

ROUNDS = 3
SCANS = 2
SMALL_CM3 = 1.0
UID_ROOT = "1.2.826.0.1.3680043.10.1.3"
IDENTITY = ResultIdentity(f"{UID_ROOT}.9", f"{UID_ROOT}.8", datetime(2024, 2, 29, tzinfo=UTC))
MODEL = ModelIdentity("benchmark", "1", "0" * 64)
PEER = Path(__file__).with_name("rt_utils_peer.py")

Masks = Mapping[str, Mask]


@dataclass(frozen=True, eq=False)
class Case:
    """One patient's masks and the CT series on disk that they belong to."""

    name: str
    volume: CTVolume
    series: Path
    masks: Masks


@dataclass(eq=False)
class Written:
    """What one writer made of one case."""

    path: Path
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Judged:
    """What is to be said of one file.

    Parameters
    ----------
    dice
        By reader, then by organ.
    volume_error
        By organ: volume within the polygons over that of the mask, less 1.
    """

    writer: str
    case: Case
    seconds: list[float]
    size: int
    points: list[int]
    dciodvfy: int
    lint_errors: int
    lint_warnings: int
    dice: Mapping[str, Mapping[str, float]]
    volume_error: Mapping[str, float]


# Cases


def cases(folder: Path, data: Path, scans: int) -> Iterator[Case]:
    """The average anatomy at 512 × 512, and scans of other patients' true shapes."""
    hu, grid, organs = average_anatomy()
    yield _case("average anatomy", folder / "anatomy", hu, grid, organs)
    shapes = data / "tcia-shapes"
    for path in sorted(shapes.glob("*_oncologist.nii.gz"))[:scans]:
        grid, organs = _shapes(path, json.loads((shapes / "organs.json").read_text())["bits"])
        # What the CT shows does not matter, only that it is one.
        body = np.any([mask.full() for mask in organs.values()], axis=0)
        name = path.name.removesuffix("_oncologist.nii.gz")
        yield _case(name, folder / name, np.where(body, 40, -1000), grid, organs)


def _shapes(path: Path, bits: Mapping[str, int]) -> tuple[SliceGrid, Masks]:
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")
    bitmask = sitk.GetArrayFromImage(image)
    # Square, as slices of CTs are: rt-utils' reader exchanges rows and columns.
    side = max(bitmask.shape[1:])
    bitmask = np.pad(bitmask, ((0, 0), *((0, side - n) for n in bitmask.shape[1:])))
    columns_mm, rows_mm, slices_mm = image.GetSpacing()
    positions = np.array(image.GetOrigin()) + np.arange(len(bitmask))[:, None] * (0, 0, slices_mm)
    grid = SliceGrid(
        positions, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (rows_mm, columns_mm), *bitmask.shape[1:]
    )
    organs = {name: Mask.from_full(bitmask >> bit & 1) for name, bit in bits.items()}
    return grid, {name: mask for name, mask in organs.items() if not mask.is_empty}


def _case(name: str, folder: Path, hu: NDArray[np.integer], grid: SliceGrid, masks: Masks) -> Case:
    series = folder / "ct"
    volume = read_series(write_ct(series, hu, grid))
    np.savez(folder / "masks.npz", **{organ: mask.full() for organ, mask in masks.items()})
    (folder / "images").mkdir()
    for organ, mask in masks.items():
        image = sitk.GetImageFromArray(mask.full().astype(np.uint8))
        image.SetSpacing(volume.grid.spacing_mm[::-1])
        image.SetOrigin(volume.grid.positions_mm[0].tolist())
        sitk.WriteImage(image, str(folder / "images" / f"{organ}.nrrd"))
    return Case(name, volume, series, masks)


# Writers


def ours(style: str, pixel_mm: bool = True) -> Callable[[Case, Path], float]:  # noqa: FBT001, FBT002 -- of this script
    """Our writer with one style of holes; along the voxel edges without `pixel_mm`."""

    def write(case: Case, path: Path) -> float:
        started = time.perf_counter()
        grid = case.volume.grid
        spacing = grid.pixel_spacing_mm if pixel_mm else None
        rois: list[ROI] = [
            replace(roi, contours=with_holes(trace(roi.mask, spacing), style))
            for roi in apply_template(template_of(list(case.masks)), case.masks, grid)
        ]
        path.write_bytes(encode(build_structure_set(case.volume, rois, IDENTITY, MODEL)))
        return time.perf_counter() - started

    return write


def rt_utils(python: Path) -> Callable[[Case, Path], float]:
    """The writer of rt-utils, in its own environment."""

    def write(case: Case, path: Path) -> float:
        said = _run(python, PEER, "rt-utils", case.series, case.series.parent / "masks.npz", path)
        (seconds,) = re.findall(r"^contours ([0-9.]+)$", said, re.MULTILINE)
        return float(seconds)

    return write


def plastimatch(case: Case, path: Path) -> float:
    """Write with plastimatch; it cannot be timed without its reading of CT and masks."""
    out = path.with_suffix("")
    arguments = ("--input-prefix", case.series.parent / "images", "--referenced-ct", case.series)
    started = time.perf_counter()
    _run("plastimatch", "convert", *arguments, "--output-dicom", out)
    seconds = time.perf_counter() - started
    (made,) = (
        each for each in out.iterdir() if dcmread(each, stop_before_pixels=True).Modality == "RTSTRUCT"
    )
    shutil.move(made, path)
    return seconds


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: {done.stderr[-2000:]}")
    return done.stdout


# Readers


def judge(writer: str, case: Case, written: Written, python: Path) -> Judged:
    """Read a file with every reader and both validators."""
    contours = contours_by_name(dcmread(written.path), case.volume.grid)
    found = lint_file(written.path, read_images(case.series))
    complaints = subprocess.run(["dciodvfy", written.path], capture_output=True, text=True, check=False)
    readers = {
        "even-odd": {name: fill(each, case.volume.grid.shape) for name, each in contours.items()},
        "plastimatch": _by_plastimatch(case, written.path),
        "rt-utils": _by_rt_utils(case, written.path, python),
    }
    dice = {
        reader: {name: dice_of(case.masks[name], seen.get(name)) for name in case.masks}
        for reader, seen in readers.items()
    }
    error = {name: _area(contours.get(name, [])) / mask.count - 1 for name, mask in case.masks.items()}
    return Judged(
        writer,
        case,
        written.seconds,
        written.path.stat().st_size,
        [len(contour.points) for each in contours.values() for contour in each],
        (complaints.stdout + complaints.stderr).count("Error"),
        sum(finding.severity is Severity.ERROR for finding in found),
        sum(finding.severity is Severity.WARNING for finding in found),
        dice,
        error,
    )


def contours_by_name(dataset: Dataset, grid: SliceGrid) -> dict[str, list[Contour]]:
    """Every contour of a structure set, on the slice nearest to it."""
    names = {roi.ROINumber: str(roi.ROIName) for roi in dataset.StructureSetROISequence}
    found = {}
    for item in dataset.ROIContourSequence:
        listed = []
        for contour in item.get("ContourSequence", ()):
            points = _points(contour)
            index = int(np.abs(grid.offsets_mm - points[0] @ grid.normal).argmin())
            if len(points) >= 3:  # rt-utils writes lines of two
                listed.append(Contour(index, grid.to_pixel(index, points)))
        found[names[item.ReferencedROINumber]] = listed
    return found


def _points(contour: Dataset) -> NDArray[np.float64]:
    """By our decoder, or where that refuses what a peer wrote, leniently."""
    raw = contour.get_item("ContourData").value
    try:
        return decode_points(raw)
    except ValueError:
        return np.array([float(each) for each in raw.split(b"\\")]).reshape(-1, 3)


def _by_plastimatch(case: Case, path: Path) -> dict[str, Mask]:
    out = path.with_suffix(".read")
    arguments = ("--input", path, "--referenced-ct", case.series, "--output-prefix", out)
    _run("plastimatch", "convert", *arguments, "--prefix-format", "nrrd", "--xor-contours")
    return {
        each.stem: Mask.from_full(sitk.GetArrayFromImage(sitk.ReadImage(str(each))))
        for each in out.glob("*.nrrd")
    }


def _by_rt_utils(case: Case, path: Path, python: Path) -> dict[str, Mask]:
    masks = path.with_suffix(".npz")
    _run(python, PEER, "read", case.series, path, masks)
    with np.load(masks) as stored:
        return {name: Mask.from_full(stored[name]) for name in stored}


def dice_of(truth: Mask, seen: Mask | None) -> float:
    """Dice coefficient; 0 where nothing was seen."""
    if seen is None or seen.is_empty:
        return 0.0
    a, b = truth.full(), seen.full()
    return 2 * int(np.count_nonzero(a & b)) / (truth.count + seen.count)


def _area(contours: list[Contour]) -> float:
    """In pixels, holes less: by slice, what lies inside an odd number of contours."""
    total = 0.0
    for contour in contours:
        points = contour.points
        following = np.roll(points, -1, axis=0)
        own = float((points[:, 0] * following[:, 1] - points[:, 1] * following[:, 0]).sum()) / 2
        others = [
            each for each in contours if each is not contour and each.slice_index == contour.slice_index
        ]
        depth = sum(_contains(each.points, points[0]) for each in others)
        total += abs(own) if depth % 2 == 0 else -abs(own)
    return total


def _contains(polygon: NDArray[np.float64], point: NDArray[np.float64]) -> bool:
    start, end = polygon, np.roll(polygon, -1, axis=0)
    spans = (start[:, 0] <= point[0]) != (end[:, 0] <= point[0])
    start, end = start[spans], end[spans]
    at = start[:, 1] + (point[0] - start[:, 0]) / (end[:, 0] - start[:, 0]) * (end[:, 1] - start[:, 1])
    return bool(np.count_nonzero(at > point[1]) % 2)


# The page

INTRODUCTION = """# Contours beside those of peers

Written by `python -m benchmarks.contour_readers`.
The same masks, written as structure sets by our writer and by others,
then read by three readers: even-odd at voxel centres, plastimatch (`--xor-contours`), and rt-utils' own reader,
which fills with OpenCV. Dice is between the mask and what the reader sees, over all organs of all cases.

- **smooth** is what is sent; **keyhole** the same with holes joined to their outer contours; **edges** follows the
  voxel edges step by step.
- Every contour of ours runs between the voxel centres inside and those outside, so that a reader that asks for
  voxel centres gets the mask back voxel by voxel, and encloses the area of its voxels.
- rt-utils' writer draws through the centres of the outermost voxels, and its reader counts those as inside: the
  two undo each other, but a reader of polygons sees its organs too small, by half a pixel all round.
  It rounds the vertices of other writers to whole pixels: of a smooth line, whose vertices lie on either side of
  the voxel edge, it makes an organ up to a pixel too large here and there. That is the price of smooth lines in
  readers of this kind; planning systems read polygons.
- Volume error is what the polygons enclose against the voxels: least, median and greatest over organs.
- Seconds are from masks in memory to the file on disk; of plastimatch with its reading of CT and masks, which
  cannot be taken apart. Writers took turns.
- platipy is not listed: its `convert_nifti` hands masks to rt-utils.
"""


def page(judged: list[Judged], versions: str) -> str:
    """The whole of docs/contours.md."""
    named = list(dict.fromkeys(each.case.name for each in judged))
    grids = [next(each.case for each in judged if each.case.name == name) for name in named]
    lines = [
        INTRODUCTION,
        "## Cases",
        "",
        "| case | slices × rows × columns | mm | organs |",
        "|---|---|---|---|",
    ]
    for case in grids:
        size = " × ".join(map(str, case.volume.grid.shape))
        spacing = " × ".join(f"{mm:.2f}" for mm in case.volume.grid.spacing_mm)
        lines.append(f"| {case.name} | {size} | {spacing} | {len(case.masks)} |")
    writers = list(dict.fromkeys(each.writer for each in judged))
    by_writer = {writer: [each for each in judged if each.writer == writer] for writer in writers}
    lines += ["", "## What readers get back", ""]
    for title, is_small in (("Organs over 1 cm³", False), ("Organs up to 1 cm³", True)):
        lines += [
            f"### {title}: Dice, worst / median",
            "",
            "| writer | even-odd | plastimatch | rt-utils |",
            "|---|---|---|---|",
        ]
        for writer, own in by_writer.items():
            cells = [_worst_and_median(own, reader, is_small=is_small) for reader in own[0].dice]
            lines.append(f"| {writer} | {' | '.join(cells)} |")
        lines.append("")
    lines += [
        "## The files",
        "",
        "Sums over the cases, of seconds the median over rounds; errors of `dciodvfy`, and errors and warnings of",
        "`oarlock lint`.",
        "",
        "| writer | dciodvfy | lint errors, warnings | volume error | contours | points (most) | MB | seconds |",
        "|---|---|---|---|---|---|---|---|",
        *(_file_row(writer, own) for writer, own in by_writer.items()),
        "",
        versions,
        "",
    ]
    return "\n".join(lines)


def _worst_and_median(judged: list[Judged], reader: str, *, is_small: bool) -> str:
    values = [
        dice
        for each in judged
        for name, dice in each.dice[reader].items()
        if (each.case.masks[name].volume_cm3(each.case.volume.grid) <= SMALL_CM3) is is_small
    ]
    return f"{min(values):.3f} / {median(values):.3f}"


def _file_row(writer: str, judged: list[Judged]) -> str:
    errors = sorted(error for each in judged for error in each.volume_error.values())
    points = [count for each in judged for count in each.points]
    cells = (
        writer,
        str(sum(each.dciodvfy for each in judged)),
        f"{sum(each.lint_errors for each in judged)}, {sum(each.lint_warnings for each in judged)}",
        f"{errors[0]:+.1%} / {median(errors):+.1%} / {errors[-1]:+.1%}",
        str(len(points)),
        f"{sum(points)} ({max(points)})",
        f"{sum(each.size for each in judged) / 1e6:.1f}",
        f"{sum(median(each.seconds) for each in judged):.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _versions(python: Path) -> str:
    code = "from importlib.metadata import version as v; print(v('rt-utils'), v('opencv-python'))"
    peer, opencv = _run(python, "-c", code).split()
    said = _run("plastimatch", "--version").strip()
    return f"rt-utils {peer} with OpenCV {opencv}, {said}; one shared core, {ROUNDS} rounds."


def main(
    peers: Path = typer.Option(..., help="Python of the environment with rt-utils."),  # noqa: B008
    data: Path = typer.Option(Path("../shared/data"), help="Folder with tcia-shapes."),  # noqa: B008
    scans: int = typer.Option(SCANS, help="How many of its scans."),
    out: Path = typer.Option(Path("docs/contours.md"), help="File to write."),  # noqa: B008
) -> None:
    """Write docs/contours.md."""
    os.environ["OMP_NUM_THREADS"] = "1"
    console = Console()
    writers = {
        "oarlock, smooth": ours("nested"),
        "oarlock, keyhole": ours("keyhole"),
        "oarlock, edges": ours("nested", pixel_mm=False),
        "rt-utils": rt_utils(peers),
        "plastimatch": plastimatch,
    }
    judged = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder), data, scans):
            written = {
                name: Written(case.series.parent / f"{index}.dcm") for index, name in enumerate(writers)
            }
            for _ in track(range(ROUNDS), f"{case.name}: writing", console=console):
                for name, write in writers.items():
                    shutil.rmtree(written[name].path.with_suffix(""), ignore_errors=True)
                    written[name].seconds.append(write(case, written[name].path))
            reading = track(writers, f"{case.name}: reading", console=console)
            judged += [judge(name, case, written[name], peers) for name in reading]
    out.write_text(page(judged, _versions(peers)))
    console.print(f"written: {out}")


if __name__ == "__main__":
    typer.run(main)
