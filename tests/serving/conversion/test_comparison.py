"""The numbers of a proof."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossfade.serving.conversion.comparison import compare, top1

finite = st.floats(-(2.0**99), 2.0**99, width=32)
tensors = arrays.arrays(np.float32, arrays.array_shapes(max_side=5), elements=finite)


@given(tensors)
def test_a_tensor_is_like_itself(tensor: np.ndarray) -> None:
    found = compare(tensor, tensor.copy())
    assert (found.max_abs, found.relative, found.finite) == (0, 0, True)
    assert found.cosine == pytest.approx(1)
    assert found.within(0)


@given(tensors, st.data())
def test_the_numbers_bound_each_other(was: np.ndarray, data: st.DataObject) -> None:
    now = data.draw(arrays.arrays(np.float32, was.shape, elements=finite))
    found, back = compare(was, now), compare(now, was)
    assert found.max_abs == back.max_abs == np.abs(now.astype(float) - was.astype(float)).max()
    assert found.cosine == pytest.approx(back.cosine)
    assert -1 <= found.cosine <= 1
    assert found.within(1e-4) == (found.max_abs <= 1e-4 * max(1.0, float(np.abs(was).max())))


counts = arrays.arrays(np.int32, arrays.array_shapes(max_side=5), elements=st.integers(0, 400))


@given(counts, st.data())
def test_counts_have_in_common_what_was_not_moved(was: np.ndarray, data: st.DataObject) -> None:
    now = was.copy()
    moved = data.draw(st.integers(0, int(was.flat[0])))
    now.flat[0] -= moved
    now.flat[-1] += moved
    found = compare(was, now).overlap
    total = int(was.sum())
    kept = moved if was.size > 1 else 0
    assert found == pytest.approx(1 - 2 * kept / (total + kept) if total else 1)
    assert compare(now, was).overlap == pytest.approx(found)
    assert compare(was.astype(np.float32), now.astype(np.float32)).overlap is None


@given(tensors, st.floats(1e-3, 1e3))
def test_cosine_does_not_see_the_length(tensor: np.ndarray, length: float) -> None:
    scaled = tensor.astype(np.float64) * length
    if np.abs(tensor).max() > 1e-20:
        assert compare(tensor.astype(np.float64), scaled).cosine == pytest.approx(1)


@given(tensors, st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_what_is_not_finite_is_seen(tensor: np.ndarray, odd: float, data: st.DataObject) -> None:
    broken = tensor.copy()
    broken.reshape(-1)[data.draw(st.integers(0, tensor.size - 1))] = odd
    found = compare(tensor, broken)
    assert not found.finite
    assert not found.within(1e30)
    same = compare(broken, broken.copy())
    assert same.finite  # the source says the same
    assert same.max_abs == 0


def test_shapes_dtypes_and_texts() -> None:
    row = np.zeros((1, 3), np.float32)
    assert not compare(row, row[0]).within(1)
    assert not compare(row, row.astype(np.int32)).within(1)
    texts = np.array([b"a", b"b"], dtype=object)
    assert compare(texts, texts.copy()).within(0)
    assert not compare(texts, texts[::-1]).within(1)


@given(arrays.arrays(np.float32, (4, 5), elements=finite, unique=True))
def test_first_choices(scores: np.ndarray) -> None:
    best = top1(scores)
    assert (scores[np.arange(4), best] == scores.max(axis=1)).all()
