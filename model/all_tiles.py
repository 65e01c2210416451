"""Do something for every tile of a volume, on a CPU with several at once. torch only.

On a CPU every thread has a tile of its own. Where all threads share the work of each layer, they wait for each
other some hundred times a tile, and a single other busy program makes that many times slower.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

T = TypeVar("T")

TILES_AT_ONCE = 4
"""Each takes up to 210 MB on its way through the network; further threads share the work within a tile."""


def each_tile(do: Callable[[T], None], tiles: Sequence[T], device: torch.device) -> Iterator[None]:
    """Do all, in any order; yields after each, and raises what one raises.

    On a CPU `do` is called in other threads, which share torch's threads between them.
    """
    threads = torch.get_num_threads()
    at_once = min(threads, TILES_AT_ONCE, len(tiles)) if device.type == "cpu" else 1
    if at_once <= 1:
        yield from map(do, tiles)
        return
    # Every thread has its own number of torch's threads, which must not be set while another computes.
    all_are_set = threading.Barrier(at_once)

    def start() -> None:
        torch.set_num_threads(threads // at_once)
        all_are_set.wait()

    pool = ThreadPoolExecutor(at_once, "tile", start)
    try:
        for done in as_completed([pool.submit(do, tile) for tile in tiles]):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
