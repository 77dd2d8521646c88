"""Where a run computes, alone or as one of several processes, with the same code.

A process that ``torchrun`` started finds its place in the environment. One that Ray Train started
finds the group of processes made. Any other is alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import distributed, nn

from crossfade.runtimes.core.errors import InvalidArgument


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A process's place in a run.

    Attributes:
        rank: 0 is the one that writes.
        world: processes in all.
        device: where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes: logs, checkpoints, the result."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Averages gradients over all processes, where there are several."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=ids)

    def share_buffers(self, module: nn.Module) -> None:
        """Gives all processes the first one's buffers, such as BatchNorm's statistics."""
        if self.world > 1:
            for buffer in module.buffers():
                distributed.broadcast(buffer, 0)

    def total(self, *values: float) -> list[float]:
        """Sums of each value over all processes (of correct answers, say)."""
        if self.world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return [float(v) for v in tensor]

    def gather(self, value: Any) -> list[Any]:
        """Each process's value, by rank; only for values of this run's own processes."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Returns once all processes are here."""
        if self.world > 1:
            distributed.barrier()


@contextlib.contextmanager
def place(device: str = "auto") -> Iterator[Place]:
    """Joins the other processes of the run, if there are any.

    Args:
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.

    Raises:
        InvalidArgument: there is no CUDA device.
    """
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise InvalidArgument("there is no CUDA device here: say device: cpu, or auto")
    use_cuda = cuda and device != "cpu"
    joined = distributed.is_available() and distributed.is_initialized()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if not joined and world == 1:
        yield Place(0, 1, torch.device("cuda", 0) if use_cuda else torch.device("cpu"))
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    here = torch.device("cuda", local) if use_cuda else torch.device("cpu")
    if use_cuda:
        torch.cuda.set_device(here)
    if not joined:
        distributed.init_process_group("nccl" if use_cuda else "gloo")
    try:
        yield Place(distributed.get_rank(), distributed.get_world_size(), here)
    finally:
        if not joined:
            distributed.destroy_process_group()
