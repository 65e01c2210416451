"""Several processes train as one: `torchrun` starts them, and each takes its share of every batch.

    torchrun --nproc-per-node 2 -m training.train training/configs/paper.toml --out runs/paper

Batch and learning rate mean the same however many processes share them. The folder of the run must be the same
for all of them; only the first writes into it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.config import ConfigurationError


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many; alone unless `joined` says otherwise."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, batch: int) -> range:
        """The samples of a batch that this process draws."""
        return range(self.rank, batch, self.count)

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, on all of them."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def agree(self, *, stop: bool, device: torch.device) -> bool:
        """Whether any process wants to stop; all of them hear the same answer."""
        return bool(self.total(torch.tensor(float(stop), device=device)) > 0)

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network to train: its gradients are the mean over the processes."""
        return DistributedDataParallel(network) if self.count > 1 else network


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that `torchrun` started beside this one; alone where it did not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> torch.device:
    """`auto`, `cpu` or `cuda` as a device; each process of a machine takes a GPU of its own.

    Raises
    ------
    ConfigurationError
        Another word, or no GPU that torch can use.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not has_gpu):
        return torch.device("cpu")
    if name not in {"auto", "cuda"}:
        raise ConfigurationError(f"--device {name}: it is auto, cpu or cuda")
    if not has_gpu:
        raise ConfigurationError("--device cuda: torch finds no GPU here")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
