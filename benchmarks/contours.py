"""Masks to a structure set beside rt-utils, platipy and plastimatch: how much quicker, and what comes back.

What other readers make of the files stands in docs/contours.md, by `benchmarks.contour_readers`.
"""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom import dcmread

from benchmarks import peers, record
from benchmarks.contour_readers import IDENTITY, MODEL, contours_by_name, dice_of
from benchmarks.result import Goal, Limit, Report, ResultsDifferError, Row, Sample, Table, Unit
from benchmarks.timer import Timed, take_turns, timed
from daemon.result_header import encode
from daemon.structure_set import build_structure_set
from daemon.structure_set_check import check_structure_set
from daemon.structure_template import ROI, apply_template, template_of
from model.contours import fill, trace_all
from model.ct import CTVolume
from model.geometry import Mask, SliceGrid
from model.slice_header import slice_header
from model.suitability import MINIMUM_SLICES, stack_slices
from tests.anatomy import average_anatomy
from tests.phantom import write_ct

SLICES, QUICK_SLICES = 200, 16
ROUNDS = 5
PEER = Path(__file__).with_name("rt_utils_peer.py")
OURS, PEERS = "oarlock", ("rt-utils", "platipy", "plastimatch")
TRACING, WHOLE = "masks in memory to the bytes of the file", "series on disk and masks to file on disk"


@dataclass(frozen=True, eq=False)
class Case:
    """A CT series on disk and the masks of its organs, cropped as our program has them, and whole."""

    folder: Path
    volume: CTVolume
    full: Mapping[str, NDArray[np.bool_]]
    masks: Mapping[str, Mask]

    @property
    def size(self) -> str:
        """In words."""
        slices, rows, columns = self.volume.grid.shape
        return f"{len(self.masks)} organs on {columns} × {rows} × {slices}"

    @property
    def series(self) -> Path:
        """Where the CT is."""
        return self.folder / "ct"


def made_case(folder: Path, *, quick: bool) -> Case:
    """The average anatomy, with its slices as close as it takes for so many."""
    hu, grid, organs = average_anatomy()
    if quick:
        hu, grid = (
            hu[80 : 80 + QUICK_SLICES],
            replace(grid, positions_mm=grid.positions_mm[80 : 80 + QUICK_SLICES]),
        )
        full = {name: mask.full()[80 : 80 + QUICK_SLICES] for name, mask in organs.items()}
    else:
        chosen = np.linspace(0, len(hu) - 1, SLICES).round().astype(int)
        first, last = grid.positions_mm[0], grid.positions_mm[-1]
        positions = first + np.linspace(0, 1, SLICES)[:, None] * (last - first)
        hu, grid = hu[chosen], replace(grid, positions_mm=positions)
        full = {name: mask.full()[chosen] for name, mask in organs.items()}
    full = {name: mask for name, mask in full.items() if mask.any()}
    write_ct(folder / "ct", hu, grid)
    np.savez(folder / "masks.npz", **full)
    (folder / "images").mkdir()
    for name, mask in full.items():
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(grid.spacing_mm[::-1])
        image.SetOrigin(grid.positions_mm[0].tolist())
        sitk.WriteImage(image, str(folder / "images" / f"{name}.nrrd"))
    masks = {name: Mask.from_full(mask) for name, mask in full.items()}
    return Case(folder, _without_pixels(folder / "ct"), full, masks)


def _without_pixels(series: Path) -> CTVolume:
    stack = stack_slices([slice_header(path) for path in series.iterdir()], MINIMUM_SLICES)
    uids = tuple(each.sop_instance_uid for each in stack.headers)
    first = dcmread(stack.headers[0].path, stop_before_pixels=True)
    return CTVolume(np.zeros((0, 0, 0), np.int16), stack.grid, uids, first)


# Ours


def our_rois(case: Case, grid: SliceGrid) -> list[ROI]:
    """Smooth contours, as they are sent."""
    rois = apply_template(template_of(list(case.masks)), case.masks, grid)
    traced = trace_all([roi.mask for roi in rois], grid.pixel_spacing_mm)
    return [replace(roi, contours=contours) for roi, contours in zip(rois, traced, strict=True)]


def our_bytes(case: Case) -> bytes:
    """Trace, format and encode; the series' headers are there."""
    rois = our_rois(case, case.volume.grid)
    return encode(build_structure_set(case.volume, rois, IDENTITY, MODEL))


def our_file(case: Case, path: Path) -> None:
    """All of it: headers of every slice read and judged, contours, file."""
    volume = _without_pixels(case.series)
    rois = our_rois(case, volume.grid)
    path.write_bytes(encode(build_structure_set(volume, rois, IDENTITY, MODEL)))


# Peers: each gives the seconds of the whole, and of tracing and formatting where it can be taken apart.


@dataclass(eq=False)
class RTUtils:
    """rt-utils, or platipy, which hands masks to it; in an environment of its own."""

    name: str
    case: Case
    path: Path

    def __post_init__(self) -> None:
        self.apart: list[float] = []

    def __call__(self) -> float:
        """Seconds of the whole; those from masks to bytes are kept apart."""
        python = peers.python(self.name)
        assert python is not None
        said = peers.run(python, PEER, self.name, self.case.series, self.case.folder / "masks.npz", self.path)
        found = dict(re.findall(r"^(\w+) ([0-9.]+)$", said, re.MULTILINE))
        if "contours" in found:
            self.apart.append(float(found["contours"]))
        return float(found["whole"])


def plastimatch(case: Case, path: Path) -> float:
    """Seconds of the whole; its reading of masks is among them and cannot be taken apart."""
    out = path.with_suffix("")
    shutil.rmtree(out, ignore_errors=True)
    arguments = ("--input-prefix", case.folder / "images", "--referenced-ct", case.series)
    started = time.perf_counter()
    peers.run("plastimatch", "convert", *arguments, "--output-dicom", out)
    seconds = time.perf_counter() - started
    (made,) = (
        each for each in out.iterdir() if dcmread(each, stop_before_pixels=True).Modality == "RTSTRUCT"
    )
    shutil.move(made, path)
    return seconds


def run(*, quick: bool) -> Report:
    """Write the same masks with every program, and fill each file's contours again."""
    with tempfile.TemporaryDirectory() as folder:
        case = made_case(Path(folder), quick=quick)
        paths = {name: Path(folder) / f"{name}.dcm" for name in (OURS, *PEERS)}
        beside: dict[str, Timed] = {
            name: RTUtils(name, case, paths[name]) for name in PEERS[:2] if peers.python(name)
        }
        if "plastimatch" not in peers.missing_programs():
            beside["plastimatch"] = lambda: plastimatch(case, paths["plastimatch"])
        rois = our_rois(case, case.volume.grid)
        programs: dict[str, Timed] = {
            "crop": timed(lambda: [Mask.from_full(mask) for mask in case.full.values()]),
            "contours": timed(lambda: our_bytes(case)),
            OURS: timed(lambda: our_file(case, paths[OURS])),
            "check": timed(lambda: check_structure_set(paths[OURS], case.volume, rois, IDENTITY)),
            "least": timed(lambda: least_work(case, paths[OURS])),
        }
        rounds = 1 if quick else ROUNDS
        taken = take_turns({**programs, **beside}, rounds, "contours: writing", warm_up=not quick)
        apart = {
            name: Sample.of(peer.apart[-rounds:])
            for name, peer in beside.items()
            if isinstance(peer, RTUtils) and peer.apart
        }
        trips = {name: round_trip(case, paths[name]) for name in (OURS, *beside)}
    worst = min(trips[OURS].values())
    if any(worst < min(trip.values()) for trip in trips.values()):
        raise ResultsDifferError(f"a peer's round trip is better than ours: {trips}")
    return Report(
        title="Masks to a structure set",
        about=(
            "Contours of oarlock are smooth lines, as they are sent; those of peers follow the voxels.",
            f"*{TRACING}*: the series has been read.",
            f"*{WHOLE}*: headers of all slices too, and writing without syncing.",
            "rt-utils and platipy write once untimed in the same process before they are timed, as oarlock does.",
            "plastimatch is a program of its own and starts anew each time, as it does for its users.",
            "Peers get masks as whole volumes, oarlock cropped to their organs, as its segmenter gives them.",
            "What cropping would take has a row of its own.",
            "So has the check that reads the file again and compares it with the masks, as no peer has one.",
            "Every file was filled again, even-odd at voxel centres, and none came closer to its masks than ours.",
        ),
        rows=tuple(_rows(case, taken, apart, list(beside))),
        limits=(
            Limit(
                WHOLE,
                Unit.SECONDS,
                taken[OURS].median,
                taken["least"].median,
                "measured in the same rounds: the first 4 kB of every slice and every cropped mask read once, "
                "the bytes written",
            ),
        ),
        tables=(_round_trips(trips),),
        unmeasured=tuple(f"{name}: it is not installed." for name in PEERS if name not in beside),
        versions=(
            *peers.versions("rt-utils", "rt-utils", "pydicom", "opencv-python"),
            *peers.versions("platipy", "platipy"),
            *([peers.debian_version("plastimatch")] if "plastimatch" in beside else []),
        ),
    )


def _rows(
    case: Case, taken: Mapping[str, Sample], apart: Mapping[str, Sample], beside: list[str]
) -> Iterator[Row]:
    def row(what: str, ours: Sample, name: str = "", peer: Sample | None = None, **more: object) -> Row:
        return Row(what, case.size, Unit.SECONDS, ours, name, peer, **more)

    fastest = min(apart, key=lambda name: apart[name].median, default="")
    for name, sample in apart.items():
        goal = Goal(ratio=10) if name == fastest else None
        yield row(TRACING, taken["contours"], name, sample, goal=goal)
    if not apart:
        yield row(TRACING, taken["contours"])
    fastest = min(beside, key=lambda name: taken[name].median, default="")
    for name in beside:
        note = (
            "reading the masks from files is inside, and cannot be taken out" if name == "plastimatch" else ""
        )
        yield row(
            WHOLE, taken[OURS], name, taken[name], goal=Goal(ratio=4) if name == fastest else None, note=note
        )
    if not beside:
        yield row(WHOLE, taken[OURS])
    yield row("cropping whole masks to their organs", taken["crop"])
    yield row("reading the file again and checking it", taken["check"])


def least_work(case: Case, path: Path) -> None:
    """What no program can leave out: the beginning of every file, every mask, the bytes of the result."""
    for each in case.series.iterdir():
        with each.open("rb") as file:
            file.read(4096)
    for mask in case.masks.values():
        np.count_nonzero(mask.voxels)
    path.with_suffix(".copy").write_bytes(path.read_bytes())


def round_trip(case: Case, path: Path) -> dict[str, float]:
    """Dice coefficient of each mask and the file's contours, filled even-odd at voxel centres."""
    found = contours_by_name(dcmread(path), case.volume.grid)
    shape = case.volume.grid.shape
    return {name: dice_of(mask, fill(found.get(name, ()), shape)) for name, mask in case.masks.items()}


def _round_trips(trips: Mapping[str, Mapping[str, float]]) -> Table:
    rows = tuple(
        (name, f"{min(trip.values()):.4f}", f"{median(trip.values()):.4f}") for name, trip in trips.items()
    )
    return Table(
        "Round trip: Dice of the masks and of what the file's contours fill",
        ("file of", "worst organ", "median"),
        rows,
    )


if __name__ == "__main__":
    record.alone("contours", run)
