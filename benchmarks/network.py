"""The network on one volume beside nnU-Net v2's own predictor: the same weights, tiles and machine."""

import time
from functools import partial
from types import SimpleNamespace

import torch
from pydicom import Dataset
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import peers, record
from benchmarks.result import Goal, Limit, Report, ResultsDifferError, Row, Table, Unit
from benchmarks.timer import take_turns, timed
from model.bundle import DEFAULT_BUNDLE, Bundle
from model.ct import CTVolume
from model.preprocess import lateral_mm, to_network_grid
from model.sliding_window import predict
from tests.anatomy import average_anatomy

ROUNDS = 3
LEAST_DICE = 0.999
PEAK_SIDE = 4096
OURS, PEER = "oarlock", "nnU-Net v2"


def network_image(bundle: Bundle, *, quick: bool) -> Tensor:
    """(2, D, H, W) of the average anatomy on the network's grid; quick, one tile's height of its head."""
    hu, grid, _ = average_anatomy()
    volume = CTVolume(hu, grid, ("",) * len(hu), Dataset())
    image = to_network_grid(volume, bundle.preprocessing)
    voxels = torch.from_numpy(image.hu)
    lateral = torch.from_numpy(lateral_mm(image.hu, image.spacing_mm[2])).expand_as(voxels)
    whole = torch.stack([voxels, lateral])
    depth, height, width = bundle.tile
    middle = whole.shape[3] // 2
    return whole[:, -depth:, :height, middle - width // 2 : middle + width // 2] if quick else whole


def ours(bundle: Bundle, image: Tensor, dtype: torch.dtype, overlap: float) -> Tensor:
    """(organs, D, H, W) masks."""
    outputs = len(bundle.structure_names)
    return predict(bundle.network, image, bundle.tile, outputs, overlap=overlap, dtype=dtype) > 0.5


def nnunet(bundle: Bundle, image: Tensor) -> Tensor:
    """(organs, D, H, W) masks by nnU-Net's predictor with its step of half a tile, without mirroring."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5, use_gaussian=True, use_mirroring=False, perform_everything_on_device=False,
        device=torch.device("cpu"), allow_tqdm=False,
    )  # fmt: skip
    predictor.network = bundle.network
    predictor.configuration_manager = SimpleNamespace(patch_size=bundle.tile)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=bundle.network.config.outputs)
    with torch.inference_mode():
        logits = predictor.predict_sliding_window_return_logits(image)
    return logits[: len(bundle.structure_names)] > 0


def dice(a: Tensor, b: Tensor) -> float:
    """Of two masks; 1 where both are empty."""
    total = int(a.sum() + b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def peak_flops() -> float:
    """Floating point operations a second of a large product of bfloat16 matrices."""
    a, b = (torch.randn(PEAK_SIDE, PEAK_SIDE).bfloat16() for _ in range(2))
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - started)
    return 2 * PEAK_SIDE**3 / min(seconds)


def run(*, quick: bool) -> Report:
    """Compare the masks, then measure."""
    bundle = Bundle.load(DEFAULT_BUNDLE)
    image = network_image(bundle, quick=quick)
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if quick else threads)  # several wait for each other where others need the cores
    try:
        return _compare(bundle, image, quick=quick)
    finally:
        torch.set_num_threads(threads)


def _compare(bundle: Bundle, image: Tensor, *, quick: bool) -> Report:
    size = " × ".join(map(str, image.shape[1:])) + " voxels"
    about = (
        "Both get the image on the network's grid and give a mask for each organ; neither reads nor resamples.",
        "Both tile alike, by half a tile.",
        "On a CPU nnU-Net computes in float32; ours in bfloat16, and leaves out tiles that hold no body.",
        f"Results count as equal where Dice over the voxels of all organs is {LEAST_DICE} at least.",
        "Organs of a few voxels may differ in one or two, because bfloat16 rounds.",
    )
    half, usual = partial(ours, overlap=0.5), partial(ours, overlap=0.4)
    programs = {
        OURS: timed(lambda: half(bundle, image, torch.bfloat16)),
        "float32": timed(lambda: half(bundle, image, torch.float32)),
        "as it is used": timed(lambda: usual(bundle, image, torch.bfloat16)),
    }
    tables: tuple[Table, ...] = ()
    unmeasured = [
        "GPUs: none was at hand.",
        "nnU-Net with its default mirroring: it computes every tile eight times, and would exchange the sides.",
    ]
    is_there = peers.see("nnunet")
    if is_there:
        found, theirs = half(bundle, image, torch.bfloat16), nnunet(bundle, image)
        if (joined := dice(found, theirs)) < LEAST_DICE:
            raise ResultsDifferError(f"masks differ from nnU-Net's predictor: Dice {joined:.5f}")
        rows = tuple(
            (name, str(int(b.sum())), str(int((a != b).sum())), f"{dice(a, b):.4f}")
            for name, a, b in zip(bundle.structure_names, found, theirs, strict=True)
        )
        columns = ("organ", "voxels by nnU-Net", "different", "Dice")
        tables = (Table(f"Masks beside nnU-Net's: Dice of all voxels {joined:.5f}", columns, rows),)
        programs[PEER] = timed(lambda: nnunet(bundle, image))
    else:
        unmeasured.append("nnU-Net: it is not installed.")
    seconds = take_turns(programs, 1 if quick else ROUNDS, "network", warm_up=not quick)
    goal = Goal(ratio=2)
    measured = (
        Row("tiles by half", size, Unit.SECONDS, seconds[OURS], PEER, seconds.get(PEER), goal, "bfloat16"),
        Row("tiles by half, float32", size, Unit.SECONDS, seconds["float32"], PEER, seconds.get(PEER)),
        Row("tiles that overlap by 0.4, as used", size, Unit.SECONDS, seconds["as it is used"]),
    )
    return Report(
        "Network",
        about,
        measured,
        limits=() if quick else (_limit(bundle),),
        tables=tables,
        unmeasured=tuple(unmeasured),
        versions=peers.versions("nnunet", "nnunetv2"),
    )


def _limit(bundle: Bundle) -> Limit:
    """How much of the processor one tile after another makes use of."""
    tile = torch.zeros(2, *bundle.tile)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        bundle.network(tile[None])
    rounds = 10
    for number in range(rounds + 2):
        if number == 2:
            started = time.perf_counter()
        ours(bundle, tile, torch.bfloat16, 0.4)
    reached = counter.get_total_flops() * rounds / (time.perf_counter() - started)
    source = f"product of two bfloat16 matrices of {PEAK_SIDE} × {PEAK_SIDE}, best of four, in the same run"
    return Limit("one tile of the network", Unit.GFLOP_PER_SECOND, reached / 1e9, peak_flops() / 1e9, source)


if __name__ == "__main__":
    record.alone("network", run)
