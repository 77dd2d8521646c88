"""Profiles and sizes of engines: plain values, whatever shapes come."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.trt.shapes import Range, choose, max_rows, offered, size_bytes

SIZES = st.integers(1, 64)


@st.composite
def ranges(draw: st.DrawFn, rank: int) -> Range:
    triples = [sorted(draw(st.tuples(SIZES, SIZES, SIZES))) for _ in range(rank)]
    low, best, high = zip(*triples, strict=True) if triples else ((), (), ())
    return Range(tuple(low), tuple(best), tuple(high))


@settings(deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 3))
def test_the_profile_chosen_takes_the_shape_and_no_other_is_nearer(
    data: st.DataObject, count: int, rank: int
) -> None:
    profiles = [{"x": data.draw(ranges(rank))} for _ in range(count)]
    shape = tuple(data.draw(SIZES) for _ in range(rank))
    fitting = [i for i, profile in enumerate(profiles) if profile["x"].takes(shape)]
    if not fitting:
        with pytest.raises(InvalidArgument, match=r"input 'x' has shape .* was built for"):
            choose(profiles, {"x": shape})
        return
    chosen = choose(profiles, {"x": shape})
    assert chosen in fitting
    nearest = min(profiles[i]["x"].distance(shape) for i in fitting)
    assert profiles[chosen]["x"].distance(shape) == nearest


@settings(deadline=None)
@given(st.data(), st.integers(1, 3))
def test_what_a_profile_was_tuned_for_is_taken_by_it(data: st.DataObject, rank: int) -> None:
    profile = {"x": data.draw(ranges(rank))}
    assert profile["x"].distance(profile["x"].best) == 0
    for shape in (profile["x"].smallest, profile["x"].best, profile["x"].largest):
        assert choose([profile], {"x": shape}) == 0


def test_inputs_that_fit_alone_but_not_together() -> None:
    def only(size: int) -> Range:
        return Range((size,), (size,), (size,))

    profiles = [{"a": only(1), "b": only(1)}, {"a": only(2), "b": only(2)}]
    assert choose(profiles, {"a": (2,), "b": (2,)}) == 1
    with pytest.raises(InvalidArgument, match="not together"):
        choose(profiles, {"a": (1,), "b": (2,)})


def test_the_rank_counts() -> None:
    with pytest.raises(InvalidArgument, match=r"shape \[2, 2\]"):
        choose([{"x": Range((1,), (2,), (4,))}], {"x": (2, 2)})


@settings(deadline=None)
@given(st.data(), st.integers(1, 3))
def test_a_size_is_free_only_where_profiles_differ(data: st.DataObject, rank: int) -> None:
    profiles = [{"x": data.draw(ranges(rank))} for _ in range(2)]
    shown = offered((-1,) * rank, profiles, "x")
    for at, size in enumerate(shown):
        sizes = {r for p in profiles for r in (p["x"].smallest[at], p["x"].largest[at])}
        assert (size == -1) == (len(sizes) > 1)
        assert size == -1 or sizes == {size}


def test_the_largest_batch_is_what_all_inputs_of_one_profile_take() -> None:
    def rows(largest: int) -> Range:
        return Range((1, 3), (1, 3), (largest, 3))

    assert max_rows([{"a": rows(8), "b": rows(4)}, {"a": rows(2), "b": rows(6)}]) == 4


@settings(deadline=None)
@given(st.lists(st.integers(0, 200), max_size=4), st.sampled_from([1, 2, 4, 8]))
def test_a_buffer_holds_its_tensor_and_is_aligned(shape: list[int], itemsize: int) -> None:
    exact = math.prod(shape) * itemsize
    if math.prod(shape) > 2**31 - 1:
        return
    size = size_bytes(tuple(shape), itemsize, "x")
    assert exact <= size < exact + 257
    assert size % 256 == 0
    assert size > 0


@pytest.mark.parametrize("shape", [(2**31,), (2**16, 2**16), (2**40, 2**40)])
def test_more_than_an_engine_can_address_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match="more elements"):
        size_bytes(shape, 4, "x")


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="depends on values"):
        size_bytes((3, -1), 4, "y")
