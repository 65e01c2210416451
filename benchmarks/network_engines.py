"""Whether another engine would compute the network faster on the CPU: tiles without blending."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.result import Table
from benchmarks.timer import said_rounds, take_turns, timed
from model.all_tiles import each_tile
from model.arranged import Arranged
from model.bundle import Bundle

COLUMNS = ("engine", "precision", "ms a tile", "voxels that differ from float32", "of")
TILES = 8

Masks = list[Tensor]


def compared(bundle: Bundle, image: Tensor, rounds: int) -> Table | None:
    """Milliseconds of a tile by engine and precision, and how far it agrees; None where OpenVINO is missing."""
    if not peers.see("openvino"):
        return None
    tiles = _tiles(bundle, image)
    outputs = len(bundle.structure_names)
    engines: dict[tuple[str, str], Callable[[], Masks]] = {
        ("oarlock", "as it is used"): _ours(bundle, tiles, torch.bfloat16),
        ("oarlock", "float32"): _ours(bundle, tiles, torch.float32),
        ("OpenVINO", "bfloat16"): _openvino(bundle, tiles, "bf16"),
        ("OpenVINO", "float32"): _openvino(bundle, tiles, "f32"),
    }
    with torch.inference_mode():
        exact = [bundle.network(tile[None])[0, :outputs] > 0 for tile in tiles]
    turns = {" ".join(name): timed(run) for name, run in engines.items()}
    samples = take_turns(turns, rounds, "engines")
    rows = tuple(
        (
            *name,
            f"{samples[' '.join(name)].median / len(tiles) * 1e3:.0f}",
            str(sum(int((a != b).sum()) for a, b in zip(exact, run(), strict=True))),
            str(sum(int(each.sum()) for each in exact)),
        )
        for name, run in engines.items()
    )
    return Table(
        f"OpenVINO: it would be an engine of ours if it won by 1.5 times with equal masks; {said_rounds(rounds)}",
        COLUMNS,
        rows,
    )


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
