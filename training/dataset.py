"""Cases for training, packed into compact files: image, organ bits, and what is known of which organ where."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.config import ORGANS


@dataclass(frozen=True)
class Frame:
    """Where an array lies: (slices, rows, columns) ascending to the patient's head, back and left, in mm."""

    origin_mm: tuple[float, float, float]  # centre of voxel (0, 0, 0): head, back, left
    spacing_mm: tuple[float, float, float]

    def extent(self, shape: tuple[int, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres of the first and the last voxel, each (3,) in mm."""
        first = np.array(self.origin_mm)
        return first, first + (np.array(shape) - 1) * np.array(self.spacing_mm)


@dataclass(frozen=True, eq=False)
class Case:
    """One scan with its organs.

    Bit i of `labels` is organ i of `ORGANS`.
    Image and labels may lie on different grids of one patient space.
    `known` maps each organ that was contoured, or is truly absent, to the range of millimetres along the
    body axis (feet to head) within which that holds; any other organ says nothing and is left out of the loss.
    """

    name: str
    group: str
    image: NDArray[np.int16]
    image_frame: Frame
    labels: NDArray[np.uint32]
    label_frame: Frame
    known: Mapping[str, tuple[float, float]]

    def organ(self, name: str) -> NDArray[np.bool_]:
        """One organ's mask on the grid of the labels."""
        return (self.labels >> np.uint32(ORGANS.index(name))) & np.uint32(1) > 0


def bits(organs: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.uint32]:
    """Join masks into one array of bits."""
    labels = np.zeros(next(iter(organs.values())).shape, np.uint32)
    for name, mask in organs.items():
        labels |= mask.astype(np.uint32) << np.uint32(ORGANS.index(name))
    return labels


PACK_LIMIT_BYTES = 60_000_000


def write_packs(cases: Iterable[Case], stem: Path) -> list[Path]:
    """Write cases as `stem`-00.npz, `stem`-01.npz, …, each under 60 MB."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    arrays: dict[str, NDArray[np.generic]] = {}
    about: list[dict[str, object]] = []

    def flush() -> None:
        if not about:
            return
        path = stem.with_name(f"{stem.name}-{len(paths):02d}.npz")
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez_compressed(path, about=text, organs=np.array(ORGANS), **arrays)  # type: ignore[arg-type]
        paths.append(path)
        arrays.clear()
        about.clear()

    size = 0
    for case in cases:
        # CT noise compresses to about half; bits to almost nothing.
        size += case.image.nbytes * 6 // 10 + case.labels.nbytes // 40
        if size > PACK_LIMIT_BYTES:
            flush()
            size = case.image.nbytes * 6 // 10
        index = len(about)
        arrays[f"image{index}"], arrays[f"labels{index}"] = case.image, case.labels
        about.append(
            {
                "name": case.name,
                "group": case.group,
                "image_frame": asdict(case.image_frame),
                "label_frame": asdict(case.label_frame),
                "known": {name: list(span) for name, span in case.known.items()},
            }
        )
    flush()
    return paths


def read_packs(paths: Iterable[Path]) -> Iterator[Case]:
    """Every case of the packs, in order; ValueError where a pack was made for other organs."""
    for path in paths:
        with np.load(path, allow_pickle=False) as pack:
            if tuple(pack["organs"]) != ORGANS:
                raise ValueError(f"{path} was packed for other organs: prepare it again")
            for index, about in enumerate(json.loads(pack["about"].tobytes())):
                yield Case(
                    name=about["name"],
                    group=about["group"],
                    image=pack[f"image{index}"],
                    image_frame=_frame(about["image_frame"]),
                    labels=pack[f"labels{index}"],
                    label_frame=_frame(about["label_frame"]),
                    known={name: (low, high) for name, (low, high) in about["known"].items()},
                )


def _frame(table: dict[str, list[float]]) -> Frame:
    origin, spacing = table["origin_mm"], table["spacing_mm"]
    return Frame((origin[0], origin[1], origin[2]), (spacing[0], spacing[1], spacing[2]))
