"""The network on one volume beside nnU-Net v2's own predictor: the same weights, tiles and machine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch
from pydicom import Dataset
from torch import Tensor

from benchmarks import network_engines, peers, record
from benchmarks.mask_agreement import LEAST_DICE, dice, is_equal
from benchmarks.peak_memory import with_peak_mb
from benchmarks.processor_limit import MEASURED_BY, limit_seconds, operations_by_precision, peak_flops
from benchmarks.result import Goal, Limit, Report, ResultsDifferError, Row, Sample, Table, Unit
from benchmarks.timer import Timed, said_rounds, take_turns, timed
from model.arranged import Arranged
from model.bundle import DEFAULT_BUNDLE, Bundle
from model.ct import CTVolume
from model.network_input import lateral_mm
from model.preprocess import to_network_grid
from model.segmenter import fastest_precision
from model.sliding_window import OVERLAP, predict
from tests.anatomy import average_anatomy

ROUNDS = 3
ENOUGH_SECONDS = 150.0
MB = 1e6
PEER = "nnU-Net v2"
USED, EXACT, AS_SHIPPED = "oarlock", "oarlock, float32", "oarlock, tiles of the worker"
ABOUT = (
    "Both get the image on the network's grid and give a mask for each organ; neither reads nor resamples.",
    "Both tile alike, by half a tile, and nnU-Net does not mirror; ours leaves out tiles that hold no body.",
    "The worker's tiles lie, at each level of the slices, about what is solid there.",
    "nnU-Net computes in float32 on a CPU. Ours computes its finest level in float32 and others in bfloat16,",
    "where the processor computes bfloat16 natively; otherwise all in float32 too.",
    "In float32, ours does a convolution of three slices in fewer operations (Winograd).",
    f"Without a Dice of all voxels of {LEAST_DICE} there would be no figures.",
    "It is a goal for each organ too, but for one voxel: bold are those that differ more.",
    "Memory is all that the process holds: libraries, weights and image too. All run in the same process.",
)


@dataclass
class Program:
    """Predicts, and remembers what it gave and took."""

    predict: Callable[[], Tensor]
    masks: Tensor | None = None
    peaks_mb: list[float] = field(default_factory=list)

    def __call__(self) -> None:
        """Once more."""
        self.masks, peak = with_peak_mb(self.predict)
        self.peaks_mb.append(peak)


def network_image(bundle: Bundle, *, quick: bool) -> Tensor:
    """(2, D, H, W) of the average anatomy on the network's grid; quick, one tile's height of its head."""
    hu, grid, _ = average_anatomy()
    volume = CTVolume(hu, grid, ("",) * len(hu), Dataset())
    image = to_network_grid(volume, bundle.preprocessing)
    voxels = torch.from_numpy(image.hu)
    lateral = torch.from_numpy(lateral_mm(image.hu, image.spacing_mm[2])).expand_as(voxels)
    whole = torch.stack([voxels, lateral])
    return head_of(bundle, whole) if quick else whole


def head_of(bundle: Bundle, image: Tensor) -> Tensor:
    """One tile of the head."""
    depth, height, width = bundle.tile
    middle = image.shape[3] // 2
    return image[:, -depth:, :height, middle - width // 2 : middle + width // 2]


def ours(
    bundle: Bundle,
    image: Tensor,
    dtype: torch.dtype,
    overlap: float = 0.5,
    progress: Callable[[float], None] | None = None,
    *,
    everywhere: bool = True,
) -> Tensor:
    """(organs, D, H, W) masks, by nnU-Net's tiles or, not `everywhere`, by those of the worker."""
    found = predict(
        bundle.network, image, bundle.tile, len(bundle.structure_names), overlap=overlap, everywhere=everywhere,
        dtype=dtype, progress=progress,
    )  # fmt: skip
    return found > 0.5


def nnunet(bundle: Bundle, image: Tensor, *, mirroring: bool = False) -> Tensor:
    """(organs, D, H, W) masks by nnU-Net's predictor with its step of half a tile."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=mirroring, perform_everything_on_device=False,
        device=torch.device("cpu"), allow_tqdm=False,
    )  # fmt: skip
    predictor.network = bundle.network
    predictor.allowed_mirroring_axes = (0, 1, 2)
    predictor.configuration_manager = SimpleNamespace(patch_size=bundle.tile)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=bundle.network.config.outputs)
    with torch.inference_mode():
        logits = predictor.predict_sliding_window_return_logits(image)
    return logits[: len(bundle.structure_names)] > 0


def run(*, quick: bool) -> Report:
    """Measure, and compare the masks."""
    bundle = Bundle.load(DEFAULT_BUNDLE)
    image = network_image(bundle, quick=quick)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if quick else threads)  # several wait for each other where others need the cores
    try:
        return _measured(bundle, image, quick=quick)
    finally:
        torch.set_num_threads(threads)


def _measured(bundle: Bundle, image: Tensor, *, quick: bool) -> Report:
    used = fastest_precision(image.device)
    programs = {
        USED: Program(lambda: ours(bundle, image, used)),
        EXACT: Program(lambda: ours(bundle, image, torch.float32)),
        AS_SHIPPED: Program(lambda: ours(bundle, image, used, OVERLAP, everywhere=False)),
    }
    unmeasured = ["GPUs: none was at hand."]
    if peers.see("nnunet"):
        programs[PEER] = Program(lambda: nnunet(bundle, image))
        if not quick:
            _warm_up(bundle, image)
    else:
        unmeasured.append("nnU-Net: it is not installed.")
    turns: dict[str, Timed] = {name: timed(program) for name, program in programs.items()}
    beside = {name: turns.pop(name) for name in (USED, PEER) if name in turns}
    seconds = {
        **take_turns(beside, 1 if quick else ROUNDS, "network", warm_up=False, enough_seconds=ENOUGH_SECONDS),
        **take_turns(turns, 1, "network otherwise", warm_up=False),
    }
    tables = (
        [_compared(bundle, programs), _mirroring(bundle, image, 1 if quick else ROUNDS)]
        if PEER in programs
        else []
    )
    if (engines := network_engines.compared(bundle, image, 1 if quick else ROUNDS)) is not None:
        tables.append(engines)
    else:
        unmeasured.append("OpenVINO: it is not installed.")
    return Report(
        "Network",
        ABOUT,
        _rows(" × ".join(map(str, image.shape[1:])) + " voxels", seconds, programs),
        limits=() if quick else _limits(bundle, image, seconds),
        tables=tuple(tables),
        unmeasured=tuple(unmeasured),
        versions=(*peers.versions("nnunet", "nnunetv2"), *peers.versions("openvino", "openvino")),
    )


def _warm_up(bundle: Bundle, image: Tensor) -> None:
    """One tile by each: what is prepared once is not counted."""
    tile = head_of(bundle, image)
    for dtype in {fastest_precision(tile.device), torch.float32}:
        ours(bundle, tile, dtype)
    nnunet(bundle, tile)


def _rows(size: str, seconds: Mapping[str, Sample], programs: Mapping[str, Program]) -> tuple[Row, ...]:
    peaks = {name: Sample.of(program.peaks_mb) for name, program in programs.items()}
    peer, peer_peak, goal = seconds.get(PEER), peaks.get(PEER), Goal(ratio=2)
    return (
        Row("tiles by half", size, Unit.SECONDS, seconds[USED], PEER, peer, goal),
        Row("tiles by half, all in float32", size, Unit.SECONDS, seconds[EXACT], PEER, peer),
        Row("tiles as the worker lays them", size, Unit.SECONDS, seconds[AS_SHIPPED]),
        Row("peak memory", size, Unit.MB, peaks[USED], PEER, peer_peak),
        Row("peak memory, all in float32", size, Unit.MB, peaks[EXACT], PEER, peer_peak),
    )


def _compared(bundle: Bundle, programs: Mapping[str, Program]) -> Table:
    """Masks of each organ beside nnU-Net's; raises ResultsDifferError where they are not equal."""
    theirs, used, exact = (programs[name].masks for name in (PEER, USED, EXACT))
    assert theirs is not None and used is not None and exact is not None  # noqa: PT018 - all have run
    if dice(theirs, used) < LEAST_DICE:
        raise ResultsDifferError(f"the Dice of all voxels with nnU-Net's is {dice(theirs, used):.5f}")
    rows = []
    for name, a, b, c in zip(bundle.structure_names, theirs, used, exact, strict=True):
        different = int((a != b).sum())
        counts = (int(a.sum()), different, int((a != c).sum()))
        mark = "" if is_equal(a, b) else "**"
        rows.append((name, *map(str, counts), f"{mark}{dice(a, b):.5f}{mark}"))
    columns = ("organ", "voxels by nnU-Net", "different", "different, all in float32", "Dice")
    return Table(f"Masks beside nnU-Net's: Dice of all voxels {dice(theirs, used):.5f}", columns, tuple(rows))


def _mirroring(bundle: Bundle, image: Tensor, rounds: int) -> Table:
    """What nnU-Net takes with and without."""
    tile = head_of(bundle, image)
    turns: dict[str, Timed] = {
        "nnU-Net, without mirroring": timed(lambda: nnunet(bundle, tile)),
        "nnU-Net, with it": timed(lambda: nnunet(bundle, tile, mirroring=True)),
        "oarlock": timed(lambda: ours(bundle, tile, fastest_precision(tile.device))),
    }
    seconds = take_turns(turns, rounds, "mirroring", warm_up=False)
    rows = tuple((name, f"{sample.median:.2f}") for name, sample in seconds.items())
    title = (
        "nnU-Net mirrors unless told not to, and would exchange this network's sides: "
        f"time of one tile, {said_rounds(rounds)}"
    )
    return Table(title, ("program", "s"), rows)


def _limits(bundle: Bundle, image: Tensor, seconds: Mapping[str, Sample]) -> tuple[Limit, ...]:
    """How much of the processor is made use of on the whole volume, blending included."""
    used = fastest_precision(image.device)
    peaks = {dtype: peak_flops(dtype) for dtype in {used, torch.float32}}
    tile = torch.zeros(2, *bundle.tile)
    tiles: list[float] = []
    ours(bundle, image, used, progress=tiles.append)
    limits = []
    for name, dtype in ((USED, used), (EXACT, torch.float32)):
        arranged = Arranged(bundle.network, len(bundle.structure_names), dtype)
        operations = operations_by_precision(lambda a=arranged: list(a.logits(a.prepare(tile))))
        total = sum(operations.values())
        source = ", ".join(
            f"{count / total:.0%} of the operations at the peak of {str(precision).removeprefix('torch.')}, "
            f"{peaks[precision] / 1e9:.0f} GFLOP/s"
            for precision, count in operations.items()
        )
        reached = len(tiles) * total / seconds[name].median / 1e9
        limit = total / limit_seconds(operations, peaks) / 1e9
        note = f"{source}, measured by {MEASURED_BY}"
        limits.append(Limit(f"network: {name}", Unit.GFLOP_PER_SECOND, reached, limit, note))
    return tuple(limits)


if __name__ == "__main__":
    record.alone("network", run)
