"""Surface distances against google-deepmind/surface-distance: how much quicker, and whether all is the same.

    pip install --no-deps --target runs/peers/surface-distance surface-distance
    python -m benchmarks.metrics --peer runs/peers/surface-distance

Masks are made: organs with rough surfaces in 160 × 512 × 512 voxels of 2.5 × 0.98 × 0.98 mm, each drawn twice.
The two programs take turns; of each, the median of processor time over all rounds counts.
"""

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import ndimage

from training.metrics import average_distances_mm, hausdorff_mm, overlap_at, surface_dice, surface_dice_at
from training.surface_distance import surface_distances

SHAPE, SPACING_MM = (160, 512, 512), (2.5, 0.98, 0.98)
EQUAL = 1e-6

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks to compare at a tolerance."""

    name: str
    gt: Mask
    pred: Mask
    tolerance_mm: float


def organ(radii_mm: tuple[float, float, float], rough_mm: float, seed: int, right_mm: float = 0.0) -> Mask:
    """An ellipsoid in the middle, or so far to the side, with bumps of about `rough_mm`."""
    spacing = np.array(SPACING_MM)
    mask = np.zeros(SHAPE, dtype=bool)
    half = np.ceil((np.array(radii_mm) + 4 * rough_mm + 3) / spacing).astype(int)
    z, y, x = (np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True))
    noise = ndimage.gaussian_filter(
        np.random.default_rng(seed).standard_normal((len(z), len(y), len(x))), 8 / spacing
    )
    a, b, c = radii_mm
    radius = np.sqrt((z[:, None, None] / a) ** 2 + (y[:, None] / b) ** 2 + (x / c) ** 2)
    inside = (radius - 1) * float(np.mean(radii_mm)) < rough_mm * noise / noise.std()
    start = np.array(SHAPE) // 2 - half + np.array([0, 0, round(right_mm / spacing[2])])
    mask[tuple(slice(s, s + n) for s, n in zip(start, inside.shape, strict=True))] = inside
    return mask


def pairs() -> list[Pair]:
    """From agreement to disagreement, from the largest organ to the smallest."""
    brain, lung, parotid, lens = (65.0, 93.0, 73.0), (55.0, 70.0, 50.0), (30.0, 20.0, 13.0), (3.5, 3.5, 3.5)
    return [
        Pair("brain, two observers", organ(brain, 1, 1), organ(brain, 1, 2), 1.01),
        Pair("brain, a poor model", organ(brain, 1, 1), organ(brain, 6, 2), 1.01),
        Pair("brain, the same mask", organ(brain, 1, 1), organ(brain, 1, 1), 1.01),
        Pair("brain, 20 mm beside", organ(brain, 1, 1), organ(brain, 1, 1, 20), 1.01),
        Pair("lung, two observers", organ(lung, 1.5, 3), organ(lung, 1.5, 4), 2.97),
        Pair("parotid, two observers", organ(parotid, 1.5, 5), organ(parotid, 1.5, 6), 2.85),
        Pair("parotid, on the other side", organ(parotid, 1.5, 5, -55), organ(parotid, 1.5, 6, 55), 2.85),
        Pair("lens, two observers", organ(lens, 0.4, 7), organ(lens, 0.4, 8), 0.98),
    ]


def load_peer(folder: Path) -> ModuleType:
    """The package, which was written for NumPy 1 and misses two of its names in NumPy 2."""
    sys.path.insert(0, str(folder))
    for name, value in (("Inf", np.inf), ("NaN", np.nan)):
        setattr(np, name, value)
    try:
        return importlib.import_module("surface_distance")
    except ModuleNotFoundError as error:
        raise typer.BadParameter(f"{folder} holds no surface_distance; see --help ({error})") from error


def peer_surface_dice(peer: ModuleType, pair: Pair) -> float:
    """As the package's users compute it."""
    distances = peer.compute_surface_distances(pair.gt, pair.pred, SPACING_MM)
    return float(peer.compute_surface_dice_at_tolerance(distances, pair.tolerance_mm))


def peer_measures(peer: ModuleType, pair: Pair) -> list[float]:
    """Every measure of the package from one search."""
    distances = peer.compute_surface_distances(pair.gt, pair.pred, SPACING_MM)
    return [
        peer.compute_surface_dice_at_tolerance(distances, pair.tolerance_mm),
        peer.compute_robust_hausdorff(distances, 95),
        peer.compute_robust_hausdorff(distances, 100),
        *peer.compute_average_surface_distance(distances),
        *peer.compute_surface_overlap_at_tolerance(distances, pair.tolerance_mm),
    ]


def our_measures(pair: Pair) -> list[float]:
    """The same measures in the same order."""
    distances = surface_distances(pair.gt, pair.pred, SPACING_MM)
    return [
        surface_dice_at(distances, pair.tolerance_mm),
        hausdorff_mm(distances, 95),
        hausdorff_mm(distances, 100),
        *average_distances_mm(distances),
        *overlap_at(distances, pair.tolerance_mm),
    ]


def processor_seconds(rounds: int, *programs: Callable[[], object]) -> list[float]:
    """Median of each program's time; they take turns, after one round that does not count."""
    times: list[list[float]] = [[] for _ in programs]
    for number in range(rounds + 1):
        for program, taken in zip(programs, times, strict=True):
            started = time.process_time()
            program()
            if number:
                taken.append(time.process_time() - started)
    return [float(np.median(taken)) for taken in times]


@dataclass(frozen=True)
class Row:
    """What one pair gave."""

    pair: Pair
    worst: float  # largest difference between two measures
    dice_seconds: tuple[float, float]  # theirs, ours
    all_seconds: tuple[float, float]


def measure(peer: ModuleType, rounds: int, console: Console) -> Iterator[Row]:
    """Every pair in turn."""
    for pair in track(pairs(), "comparing", console=console):
        theirs, ours = peer_measures(peer, pair), our_measures(pair)
        quick = surface_dice(pair.gt, pair.pred, SPACING_MM, pair.tolerance_mm)
        worst = float(np.abs(np.subtract([*theirs, theirs[0]], [*ours, quick])).max())
        a, b, c, d = processor_seconds(
            rounds,
            lambda pair=pair: peer_surface_dice(peer, pair),
            lambda pair=pair: surface_dice(pair.gt, pair.pred, SPACING_MM, pair.tolerance_mm),
            lambda pair=pair: peer_measures(peer, pair),
            lambda pair=pair: our_measures(pair),
        )
        yield Row(pair, worst, (a, b), (c, d))


def main(
    peer: Path = typer.Option(..., help="Folder that pip installed surface-distance into."),  # noqa: B008
    rounds: int = typer.Option(5, help="How often each program is run."),
) -> None:
    """Print times and their ratios; fail where a measure differs by more than a millionth."""
    console = Console()
    table = Table("masks", "surface Dice, ms", "ratio", "all measures, ms", "ratio", "largest difference")
    table.title = "google-deepmind/surface-distance → oarlock"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls names that SciPy will drop
        rows = list(measure(load_peer(peer), rounds, console))
    for row in rows:
        cells = []
        for theirs, ours in (row.dice_seconds, row.all_seconds):
            cells += [f"{1000 * theirs:.1f} → {1000 * ours:.1f}", f"{theirs / ours:.1f}"]
        table.add_row(row.pair.name, *cells, f"{row.worst:.0e}")
    console.print(table)
    if any(row.worst > EQUAL for row in rows):
        console.print(f"measures differ by more than {EQUAL}")
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
