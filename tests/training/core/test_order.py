"""The order of examples: every one at most once, the same from any position on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from crossfade.training.core.order import EpochBatches


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 3), st.integers(0, 5), st.data())
def test_batches(count: int, size: int, world: int, epoch: int, data: st.DataObject) -> None:
    seen: list[int] = []
    for rank in range(world):
        batches = EpochBatches(count, size, 7, rank=rank, world=world)
        batches.epoch = epoch
        whole = list(batches)
        assert len(whole) == len(batches)
        assert {len(batch) for batch in whole} == {size}
        batches.position = data.draw(st.integers(0, len(batches)))
        assert list(batches) == whole[batches.position :]
        seen += [index for batch in whole for index in batch]
    assert set(seen) <= set(range(count))
    if count >= size * world:
        assert len(seen) == len(set(seen)), "no example twice"
        assert len(seen) > count - size * world, "fewer left out than a batch for each"


def test_epochs_and_seeds_differ() -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        batches = EpochBatches(50, 5, seed)
        batches.epoch = epoch
        return list(batches)

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
