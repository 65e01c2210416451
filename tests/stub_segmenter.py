"""A segmenter that finds the phantom's parts by their HU, in milliseconds and without a network."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from model.ct import CTVolume
from model.geometry import Mask, SliceGrid

PARTS_HU = {"Brain": 40, "Eye_L": 300, "Eye_R": 700, "Larynx": -300}
"""Structure name to the HU of a part of the phantom; the left ball lies on the patient's left."""


@dataclass(frozen=True)
class StubBundle:
    """Stands for weights."""

    name: str = "threshold"
    version: str = "1.0"
    digest: str = "0123456789abcdef" * 4
    structure_names: tuple[str, ...] = tuple(PARTS_HU)
    reference_ranges: None = None


@dataclass(frozen=True)
class StubSegmentation:
    """What was found."""

    masks: dict[str, Mask]
    remarks: tuple[str, ...] = ()
    confidence: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)


@dataclass
class StubSegmenter:
    """Thresholds a volume of `tests.phantom`.

    Parameters
    ----------
    before
        Called before anything is found, with the volume; may wait or raise.
    """

    bundle: StubBundle = field(default_factory=StubBundle)
    remarks: tuple[str, ...] = ("segmented by threshold",)
    before: Callable[[CTVolume], None] | None = None
    confidence: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    device: str = "cpu"
    precision: str = "float32"
    max_memory_bytes: int = sys.maxsize

    def require_memory(self, grid: SliceGrid) -> None:
        """Take whatever comes."""

    def segment(
        self, volume: CTVolume, progress: Callable[[str, float], None] | None = None
    ) -> StubSegmentation:
        """Report the stages of the real one."""
        report = progress or (lambda _stage, _share: None)
        self.calls += 1
        report("resample", 0.0)
        report("network", 0.0)
        if self.before:
            self.before(volume)
        report("network", 1.0)
        report("grid", 0.0)
        masks = {name: Mask.from_full(volume.hu == hu) for name, hu in PARTS_HU.items()}
        return StubSegmentation(
            {name: mask for name, mask in masks.items() if not mask.is_empty},
            self.remarks,
            self.confidence,
            self.left_out,
        )
