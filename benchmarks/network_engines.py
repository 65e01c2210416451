"""Whether another engine would compute the network faster on the CPU: tiles without blending."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.mask_agreement import EQUAL, LEAST_DICE, dice, is_equal
from benchmarks.result import Table
from benchmarks.timer import said_rounds, take_turns, timed
from model.all_tiles import each_tile
from model.arranged import Arranged
from model.bundle import Bundle
from model.segmenter import fastest_precision

COLUMNS = (
    "engine",
    "precision",
    "ms a tile",
    "times as fast as oarlock is used",
    "voxels that differ from float32",
    "of",
    "Dice of all voxels",
    f"organs below {LEAST_DICE}",
    "of these by more than a voxel",
)
TILES = 8
WINS = 1.5
USED = ("oarlock", "as it is used")

Masks = list[Tensor]


def compared(bundle: Bundle, image: Tensor, rounds: int) -> Table | None:
    """Milliseconds of a tile by engine and precision, and how far it agrees; None where OpenVINO is missing."""
    if not peers.see("openvino"):
        return None
    tiles = _tiles(bundle, image)
    outputs = len(bundle.structure_names)
    used = fastest_precision(image.device)
    engines: dict[tuple[str, str], Callable[[], Masks]] = {
        USED: _ours(bundle, tiles, used),
    }
    if used == torch.bfloat16:
        engines["oarlock", "float32"] = _ours(bundle, tiles, torch.float32)
        engines["OpenVINO", "bfloat16"] = _openvino(bundle, tiles, "bf16")
    engines["OpenVINO", "float32"] = _openvino(bundle, tiles, "f32")
    with torch.inference_mode():
        exact = _by_organ([bundle.network(tile[None])[0, :outputs] > 0 for tile in tiles])
    turns = {" ".join(name): timed(run) for name, run in engines.items()}
    samples = take_turns(turns, rounds, "engines")
    seconds = {name: samples[" ".join(name)].median / len(tiles) for name in engines}
    found = {
        name: Tried(name, each, seconds[USED] / each, exact, _by_organ(engines[name]()))
        for name, each in seconds.items()
    }
    return Table(
        f"OpenVINO on {len(tiles)} tiles, {said_rounds(rounds)}",
        COLUMNS,
        tuple(each.cells for each in found.values()),
        (
            f"An engine of ours would have to win {WINS} times with equal masks: {EQUAL}.",
            *(each.verdict for name, each in found.items() if name[0] != USED[0]),
        ),
    )


@dataclass(frozen=True, eq=False)
class Tried:
    """An engine's time and masks.

    Parameters
    ----------
    ratio
        How many times as fast as oarlock is used.
    exact, found
        (voxels,) of all tiles by organ: by the network as it is trained, and by the engine.
    """

    name: tuple[str, str]
    seconds: float
    ratio: float
    exact: Masks
    found: Masks

    @property
    def cells(self) -> tuple[str, ...]:
        """Its line of the table."""
        pairs = list(zip(self.exact, self.found, strict=True))
        return (
            *self.name,
            f"{self.seconds * 1e3:.0f}",
            f"{self.ratio:.2f}",
            str(sum(int((a != b).sum()) for a, b in pairs)),
            str(sum(int(a.sum()) for a in self.exact)),
            f"{self.dice:.5f}",
            str(sum(dice(a, b) < LEAST_DICE for a, b in pairs)),
            str(self.unequal),
        )

    @property
    def dice(self) -> float:
        """Of all voxels."""
        return dice(torch.cat(self.exact), torch.cat(self.found))

    @property
    def unequal(self) -> int:
        """Organs whose masks are not equal."""
        return sum(not is_equal(a, b) for a, b in zip(self.exact, self.found, strict=True))

    @property
    def verdict(self) -> str:
        """Whether it would be an engine of ours, and why."""
        is_equal_all = self.dice >= LEAST_DICE and not self.unequal
        reasons = [
            f"it is {self.ratio:.2f} times as fast",
            f"its Dice is {self.dice:.5f}",
            f"organs whose masks are not equal: {self.unequal}",
        ]
        said = "would be one" if self.ratio >= WINS and is_equal_all else "is none"
        return f"{' in '.join(self.name)} {said}: {', '.join(reasons)}."


def _by_organ(masks: Masks) -> Masks:
    """(organs, D, H, W) of every tile to (voxels,) of all tiles for every organ."""
    return list(torch.stack(masks, dim=1).flatten(1))


def _tiles(bundle: Bundle, image: Tensor) -> Sequence[Tensor]:
    """From the head down, in the middle."""
    _, depth, height, width = image.shape
    d, h, w = bundle.tile
    row, column = (height - h) // 2, (width - w) // 2
    starts = sorted({round(start) for start in torch.linspace(depth - d, 0, TILES).tolist()})
    return [image[:, n : n + d, row : row + h, column : column + w].contiguous() for n in starts]


def _ours(bundle: Bundle, tiles: Sequence[Tensor], dtype: torch.dtype) -> Callable[[], Masks]:
    outputs = len(bundle.structure_names)
    arranged = Arranged(bundle.network, outputs, dtype)

    def run() -> Masks:
        masks = [torch.zeros(outputs, *tile.shape[1:], dtype=torch.bool) for tile in tiles]

        def do(number: int) -> None:
            with torch.inference_mode():
                for organs, logits in arranged.logits(arranged.prepare(tiles[number])):
                    masks[number][organs] = logits > 0

        for _ in each_tile(do, range(len(tiles)), torch.device("cpu")):
            pass
        return masks

    return run


def _openvino(bundle: Bundle, tiles: Sequence[Tensor], precision: str) -> Callable[[], Masks]:
    """As many tiles at once as threads, as ours."""
    import openvino

    exported = torch.export.export(bundle.network, (tiles[0][None],))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it calls what torch is about to remove
        model = openvino.convert_model(exported)
    threads = str(torch.get_num_threads())
    settings = {
        "INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads,
    }  # fmt: skip
    queue = openvino.AsyncInferQueue(openvino.Core().compile_model(model, "CPU", settings))
    outputs = len(bundle.structure_names)

    def run() -> Masks:
        masks: dict[int, Tensor] = {}

        def take(request: openvino.InferRequest, number: int) -> None:
            masks[number] = torch.from_numpy(request.get_output_tensor().data)[0, :outputs] > 0

        queue.set_callback(take)
        for number, tile in enumerate(tiles):
            queue.start_async({0: tile[None].numpy()}, number)
        queue.wait_all()
        return [masks[number] for number in range(len(tiles))]

    return run
