"""The order in which a run sees its examples: a function of seed, epoch and position alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from crossfade.training.core import seeds


class EpochBatches(Sampler[list[int]]):
    """Batches of indices of one epoch, for one of several processes, from any position on.

    All processes get as many batches of the same size: what does not fill a batch for each is
    left out, and it is other examples in each epoch. A set smaller than one such batch makes one
    batch by starting over.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, *, rank: int = 0, world: int = 1
    ) -> None:
        """``batch_size``: of one process."""
        self._count, self._batch, self._seed = count, batch_size, seed
        self._rank, self._world = rank, world
        self.epoch = 0
        self.position = 0  # batches of the epoch that have been seen

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return max(self._count // (self._batch * self._world), 1)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches from ``position`` to the end of ``epoch``."""
        shuffled = torch.randperm(
            self._count, generator=seeds.generator(self._seed, "order", self.epoch)
        ).tolist()
        for number in range(self.position, len(self)):
            start = (number * self._world + self._rank) * self._batch
            yield [shuffled[(start + i) % self._count] for i in range(self._batch)]
