"""Surface measures beside google-deepmind/surface-distance and MONAI: are all equal, and how much quicker.

Masks are made: organs with rough surfaces, each drawn twice.
"""

import importlib
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks import peers, record
from benchmarks.result import Goal, Report, ResultsDifferError, Row, Sample, Unit
from benchmarks.timer import take_turns, timed
from training.metrics import average_distances_mm, hausdorff_mm, overlap_at, surface_dice, surface_dice_at
from training.surface_distance import surface_distances

SHAPE, SPACING_MM = (160, 512, 512), (2.5, 0.98, 0.98)
EQUAL = 1e-6
ROUNDS = 5

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks to compare at a tolerance."""

    name: str
    gt: Mask
    pred: Mask
    tolerance_mm: float
    goal: Goal | None = None


def pairs(*, quick: bool) -> Iterator[Pair]:
    """From agreement to disagreement, from the largest organ to the smallest."""
    brain, lung, parotid, lens = (65.0, 93.0, 73.0), (55.0, 70.0, 50.0), (30.0, 20.0, 13.0), (3.5, 3.5, 3.5)
    goal = Goal(ratio=5)
    if not quick:
        yield Pair("brain, two observers", organ(brain, 1, 1), organ(brain, 1, 2), 1.01, goal)
        yield Pair("brain, a poor model", organ(brain, 1, 1), organ(brain, 6, 2), 1.01, goal)
        yield Pair("brain, the same mask", organ(brain, 1, 1), organ(brain, 1, 1), 1.01, goal)
        yield Pair("brain, 20 mm beside", organ(brain, 1, 1), organ(brain, 1, 1, 20), 1.01, goal)
        yield Pair("lung, two observers", organ(lung, 1.5, 3), organ(lung, 1.5, 4), 2.97)
        yield Pair("parotid, two observers", organ(parotid, 1.5, 5), organ(parotid, 1.5, 6), 2.85)
    yield Pair("parotid, on the other side", organ(parotid, 1.5, 5, -55), organ(parotid, 1.5, 6, 55), 2.85)
    yield Pair("lens, two observers", organ(lens, 0.4, 7), organ(lens, 0.4, 8), 0.98)


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


# Programs: each gives its measures of a pair, the surface Dice coefficient first.


def our_surface_dice(pair: Pair) -> list[float]:
    """Looking no farther than the tolerance."""
    return [surface_dice(pair.gt, pair.pred, SPACING_MM, pair.tolerance_mm)]


def our_measures(pair: Pair) -> list[float]:
    """Every measure from one search."""
    distances = surface_distances(pair.gt, pair.pred, SPACING_MM)
    return [
        surface_dice_at(distances, pair.tolerance_mm),
        hausdorff_mm(distances, 95),
        hausdorff_mm(distances, 100),
        *average_distances_mm(distances),
        *overlap_at(distances, pair.tolerance_mm),
    ]


def deepmind_surface_dice(pair: Pair) -> list[float]:
    """As the package's users compute it."""
    peer = importlib.import_module("surface_distance")
    distances = peer.compute_surface_distances(pair.gt, pair.pred, SPACING_MM)
    return [float(peer.compute_surface_dice_at_tolerance(distances, pair.tolerance_mm))]


def deepmind_measures(pair: Pair) -> list[float]:
    """Every measure of the package from one search, in the order of ours."""
    peer = importlib.import_module("surface_distance")
    distances = peer.compute_surface_distances(pair.gt, pair.pred, SPACING_MM)
    return [
        peer.compute_surface_dice_at_tolerance(distances, pair.tolerance_mm),
        peer.compute_robust_hausdorff(distances, 95),
        peer.compute_robust_hausdorff(distances, 100),
        *peer.compute_average_surface_distance(distances),
        *peer.compute_surface_overlap_at_tolerance(distances, pair.tolerance_mm),
    ]


def monai_surface_dice(pair: Pair) -> list[float]:
    """By subvoxels, which is DeepMind's definition."""
    peer = importlib.import_module("monai.metrics")
    gt, pred = (torch.from_numpy(mask)[None, None] for mask in (pair.gt, pair.pred))
    found = peer.compute_surface_dice(
        pred, gt, [pair.tolerance_mm], include_background=True, spacing=SPACING_MM, use_subvoxels=True
    )
    return [float(found.item())]


DEEPMIND, MONAI = "surface-distance", "MONAI"
SURFACE_DICE = {DEEPMIND: deepmind_surface_dice, MONAI: monai_surface_dice}


def run(*, quick: bool) -> Report:
    """Compare every pair of masks with every peer that is there, on one thread, as processor time adds them up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measured(quick=quick)
    finally:
        torch.set_num_threads(threads)


def _measured(*, quick: bool) -> Report:
    there = peers.see("monai")
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers call names that SciPy and torch will drop
        if there:
            for name, value in (("Inf", np.inf), ("NaN", np.nan)):
                setattr(np, name, value)  # of NumPy 1, for which surface-distance was written
        for pair in pairs(quick=quick):
            dice_peers, all_peers = (SURFACE_DICE, {DEEPMIND: deepmind_measures}) if there else ({}, {})
            rows += compare("surface Dice", our_surface_dice, dice_peers, pair, 1 if quick else ROUNDS)
            rows += compare(
                "all measures, HD95 among them", our_measures, all_peers, pair, 1 if quick else ROUNDS
            )
    return Report(
        title="Surface measures",
        about=(
            f"From two masks in memory, {_by(SHAPE)} voxels of {_by(SPACING_MM)} mm, to numbers.",
            f"All are equal to those of the peers to {EQUAL:g}, or this part would have failed.",
            "Time is processor time of one thread; MONAI computes with `use_subvoxels=True`.",
        ),
        rows=tuple(rows),
        unmeasured=() if there else ("MONAI and surface-distance: they are not installed.",),
        versions=peers.versions("monai", "monai", "surface-distance"),
    )


def _by(sides: tuple[float, ...]) -> str:
    return " × ".join(map(str, sides))


def compare(
    what: str,
    ours: Callable[[Pair], list[float]],
    theirs: dict[str, Callable[[Pair], list[float]]],
    pair: Pair,
    rounds: int,
) -> Iterator[Row]:
    """A row for each peer, or one without; raises ResultsDifferError."""
    found = ours(pair)
    for name, peer in theirs.items():
        worst = float(np.abs(np.subtract(peer(pair), found)).max())
        if not worst <= EQUAL:
            raise ResultsDifferError(f"{what} of {pair.name} differs from {name}'s by {worst:g}")
    programs = {"": ours, **theirs}
    samples = take_turns(
        {name: timed(partial(program, pair), time.process_time) for name, program in programs.items()},
        rounds,
        f"metrics: {what}, {pair.name}",
        warm_up=rounds > 1,
    )
    samples = {name: sample.scaled(1000) for name, sample in samples.items()}
    beside: dict[str, Sample | None] = {name: samples[name] for name in theirs} or {"": None}
    for name, sample in beside.items():
        yield Row(what, pair.name, Unit.MILLISECONDS, samples[""], name, sample, pair.goal if name else None)


if __name__ == "__main__":
    record.alone("metrics", run)
