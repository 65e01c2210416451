"""A CT volume in, one mask per organ on the CT's own grid out."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from model.bundle import Bundle
from model.ct import CTVolume
from model.errors import BundleError
from model.geometry import Mask, SliceGrid
from model.memory_need import machine_memory_bytes, require_memory
from model.network_input import lateral_mm
from model.preprocess import HALF, NetworkImage, box_of, to_mask, to_network_grid
from model.sliding_window import predict
from model.structures import typical_cm3
from model.unet import Triple, UNet3D

SPECK_SHARE = 0.01
"""Less than this share of an organ's typical volume is noise of the network, as plastic phantoms provoke it."""

FEWEST_VOXELS_APART = 8
"""Of the network's grid: fewer, apart from an organ, are no part of it that anybody would miss."""

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Segmentation:
    """What was found.

    Parameters
    ----------
    masks
        Structure name to mask on the CT's own grid; a structure that was not found is absent.
    remarks
        What a reader should know about how it was done, for example a fall back to the CPU.
    seconds
        Stage name to duration.
    confidence
        Structure name to the network's mean probability within what was found, 0.5 to 1.
    left_out
        Structure name to the share of what the network found that lay apart from the rest and was left out.
    """

    masks: Mapping[str, Mask]
    remarks: tuple[str, ...]
    seconds: Mapping[str, float]
    confidence: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, float] = field(default_factory=dict)


class Segmenter:
    """A bundle on a device.

    Parameters
    ----------
    device
        "auto" (CUDA where there is one), "cpu" or "cuda".
    threads
        CPU threads; 0 lets torch decide.
    max_memory_bytes
        What the process may take; 0 means what the machine has.
    """

    def __init__(
        self, bundle: Bundle, device: str = "auto", threads: int = 0, max_memory_bytes: int = 0
    ) -> None:
        if not bundle.structure_names:
            raise BundleError(
                f"{bundle.name} {bundle.version} offers no structure: it was taught none of those that may be sent"
            )
        self.bundle = bundle
        self.max_memory_bytes = max_memory_bytes or machine_memory_bytes()
        self.device = _device(device)
        if threads:
            torch.set_num_threads(threads)

    @property
    def precision(self) -> str:
        """Of the network's arithmetic, as PyTorch names it."""
        return str(fastest_precision(self.device)).removeprefix("torch.")

    def require_memory(self, grid: SliceGrid) -> None:
        """Raise SeriesUnsuitable where a CT on this grid needs more memory than is allowed."""
        bundle = self.bundle
        require_memory(grid, bundle.preprocessing, len(bundle.structure_names), self.max_memory_bytes)

    def segment(
        self, volume: CTVolume, progress: Progress | None = None, grid: SliceGrid | None = None
    ) -> Segmentation:
        """Find the bundle's structures.

        Parameters
        ----------
        volume
            The CT.
        progress
            Hears of the stages resample, network and grid, and how far each is.
        grid
            The planes on which the masks are wanted, by default the CT's own.
        """
        report = progress or (lambda _stage, _share: None)
        seconds: dict[str, float] = {}
        remarks: list[str] = []
        with _timed(seconds, "resample"):
            report("resample", 0.0)
            image = to_network_grid(volume, self.bundle.preprocessing)
        with _timed(seconds, "network"):
            report("network", 0.0)
            probabilities = self._predict(image, remarks, lambda share: report("network", share))
        masks, confidence, left_out = {}, {}, {}
        with _timed(seconds, "grid"):
            for index, name in enumerate(self.bundle.structure_names):
                report("grid", index / len(self.bundle.structure_names))
                box = box_of(probabilities[index])
                if box is None:
                    continue
                probability = probabilities[index][box].astype(np.float32)
                cleaned = largest_component(probability)
                corner = box[0].start, box[1].start, box[2].start
                mask = to_mask(cleaned, image, grid or volume.grid, corner)
                if is_speck(name, mask.volume_cm3(grid or volume.grid)):
                    remarks.append(f"{name}: a speck was found and taken for nothing")
                elif not mask.is_empty:
                    masks[name] = mask
                    inside = cleaned > HALF
                    confidence[name] = float(probability[inside].mean(dtype=np.float64))
                    left_out[name] = _share_apart(probability > HALF, inside)
        return Segmentation(masks, tuple(remarks), seconds, confidence, left_out)

    def _predict(
        self, image: NetworkImage, remarks: list[str], progress: Callable[[float], None]
    ) -> NDArray[np.float16]:
        """Probabilities; when the device's memory does not suffice, smaller tiles, then the CPU."""
        bundle = self.bundle
        hu = torch.from_numpy(image.hu)
        lateral = torch.from_numpy(lateral_mm(image.hu, image.spacing_mm[2]))
        channels = torch.stack([hu, lateral.expand_as(hu)])
        for device, tile in self._attempts():
            try:
                found = predict(
                    bundle.network.to(device),
                    channels.to(device),
                    tile,
                    len(bundle.structure_names),
                    dtype=fastest_precision(device),
                    progress=progress,
                )
            except torch.OutOfMemoryError:
                remarks.append(f"memory of {device.type} did not suffice for tiles of {tile}")
                torch.cuda.empty_cache()
                continue
            if (device, tile) != (self.device, bundle.tile):
                remarks.append(f"segmented on {device.type} with tiles of {tile}")
            return found.numpy()
        raise MemoryError("; ".join(remarks))

    def _attempts(self) -> list[tuple[torch.device, Triple]]:
        tile = self.bundle.tile
        if self.device.type == "cpu":
            return [(self.device, tile)]
        network = self.bundle.network
        multiple = network.config.multiple if isinstance(network, UNet3D) else (1, 1, 1)
        depth, height, width = (
            max(side // 2 // step, 1) * step for side, step in zip(tile, multiple, strict=True)
        )
        return [(self.device, tile), (self.device, (depth, height, width)), (torch.device("cpu"), tile)]


def is_speck(name: str, volume_cm3: float) -> bool:
    """Whether something was found, but too little to be an organ, even one that the image cuts off."""
    return 0 < volume_cm3 < SPECK_SHARE * typical_cm3(name)


def largest_component(probability: NDArray[np.floating]) -> NDArray[np.float32]:
    """Keep a structure's largest 26-connected part with its holes filled: every one of the organs is one piece.

    (D, H, W) to (D, H, W); probabilities of other parts become 0, of holes 1.
    """
    field = probability.astype(np.float32)
    inside = field > HALF
    labels, count = ndimage.label(inside, np.ones((3, 3, 3), dtype=bool))
    if not count:
        return field
    if count > 1:
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        largest = labels == sizes.argmax()
        field[inside & ~largest] = 0
        inside = largest
    field[_holes(inside)] = 1
    return field


def _share_apart(found: NDArray[np.bool_], kept: NDArray[np.bool_]) -> float:
    """Share of what was found that was not kept; 0 for so little that it may be anything."""
    apart = np.count_nonzero(found & ~kept)
    return float(apart / np.count_nonzero(found)) if apart >= FEWEST_VOXELS_APART else 0.0


def _holes(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is outside and has no way to the border; of `ndimage.binary_fill_holes`, but many times as fast."""
    labels, count = ndimage.label(~inside)
    is_hole = np.ones(count + 1, dtype=bool)
    is_hole[0] = False
    for axis in range(labels.ndim):
        for end in (0, -1):
            is_hole[np.unique(labels.take(end, axis))] = False
    return np.asarray(is_hole[labels])


def _device(name: str) -> torch.device:
    if name not in {"auto", "cpu", "cuda"}:
        raise BundleError(f"device {name} is not known; it is auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise BundleError("device cuda is configured, but torch finds no CUDA device; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def fastest_precision(device: torch.device) -> torch.dtype:
    """The fastest precision that the device computes natively: that in which networks predict on it."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    # torch offers no public way to ask; where the CPU lacks bfloat16 it is emulated and slower than float32.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return torch.bfloat16 if native else torch.float32


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started
