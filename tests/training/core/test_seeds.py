"""Seeds: the same numbers again, in workers, too."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from crossfade.training.core import seeds


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_all_generators_are_seeded() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    seeds.seed_everything(5)
    first = draw()
    seeds.seed_everything(5)
    assert draw() == first
    seeds.seed_everything(6)
    assert draw() != first
    assert torch.are_deterministic_algorithms_enabled()


def test_purposes_have_seeds_of_their_own() -> None:
    found = {seeds.derived(0, name, epoch) for name in "ab" for epoch in range(100)}
    assert len(found) == 200
    assert all(0 <= seed < 2**63 for seed in found)
    assert seeds.derived(0, "a", 11) != seeds.derived(0, "a1", 1)


class _Drawn(Dataset[tuple[float, float, float]]):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, _: int) -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))


def test_workers_draw_the_same_again_and_not_all_alike() -> None:
    def drawn(epoch: int) -> list[tuple[float, ...]]:
        loader = DataLoader(
            _Drawn(),
            batch_size=None,
            num_workers=2,
            worker_init_fn=seeds.worker_seeds(3, epoch),
            generator=seeds.generator(3, epoch),
        )
        return [tuple(map(float, row)) for row in loader]

    first = drawn(0)
    assert drawn(0) == first
    assert drawn(1) != first
    assert len(set(first)) == 8
