"""Answers are remembered: equal requests get them without a run, others never do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import (
    Cancelled,
    CrossfadeError,
    DeadlineExceeded,
    Unavailable,
)
from crossfade.runtimes.core.model import InferRequest, InferResponse, InferResult, Tensor
from crossfade.serving.batching.response_cache import Cached, Store, digest
from crossfade.serving.config.model_config import Cache
from crossfade.serving.metrics.statistics import Statistics
from tests.serving.batching.fakes import Runs, answer, request, wait_until

KIB = 1 << 10


class Each:
    """Hands a batch to the model inside one by one, as a leaf does."""

    def __init__(self, inner: Runs) -> None:
        self._inner = inner
        self.metadata = inner.metadata

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        return [self._inner.infer((one,))[0] for one in requests]

    def close(self) -> None:
        self._inner.close()


class Bench:
    def __init__(
        self,
        behaviour: Callable[[InferRequest], InferResult | None] | None = None,
        **limits: Any,
    ) -> None:
        self.runs = Runs(behaviour)
        self.statistics = Statistics()
        self.cached = Cached(Each(self.runs), Cache(**limits), self.statistics)

    def ask(self, *requests: InferRequest) -> list[Any]:
        results = self.cached.infer(requests)
        return [r if isinstance(r, CrossfadeError) else r.outputs["y"].tolist() for r in results]

    @property
    def counts(self) -> tuple[int, int]:
        return self.statistics.cache.hits, self.statistics.cache.misses


def test_an_equal_request_is_answered_without_a_run() -> None:
    bench = Bench()

    assert bench.ask(request(1, rows=2)) == [answer(1, rows=2)]
    assert bench.ask(request(1, rows=2)) == [answer(1, rows=2)]
    assert bench.ask(request(2)) == [answer(2)]

    assert len(bench.runs.requests) == 2
    assert bench.counts == (1, 2)
    assert bench.statistics.cache.rows == 2
    assert bench.statistics.cache.hit_ns > 0


def test_requests_that_come_together_are_told_apart_and_run_once_each() -> None:
    bench = Bench()
    bench.ask(request(3))

    got = bench.ask(request(1), request(3), request(2), request(1))

    assert got == [answer(1), answer(3), answer(2), answer(1)]
    assert bench.runs.numbers == [[3], [1], [2]]
    assert bench.counts == (2, 3)


def texts(*values: bytes, shape: tuple[int, ...] = (-1,)) -> Tensor:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": np.float32([1, 2])}, {"x": np.float32([[1, 2]])}),
        ({"x": np.float32([1])}, {"x": np.float32([1]).view(np.int32)}),
        ({"x": np.float32([1])}, {"y": np.float32([1])}),
        ({"x": np.float32([0.0])}, {"x": np.float32([-0.0])}),
        ({"x": np.int8([1]), "y": np.int8([2])}, {"x": np.int8([2]), "y": np.int8([1])}),
        ({"x": texts(b"ab", b"c")}, {"x": texts(b"a", b"bc")}),
        ({"x": texts(b"ab", b"")}, {"x": texts(b"", b"ab")}),
        ({"x": texts(b"", b"", shape=(2, 1))}, {"x": texts(b"", b"")}),
        ({"x": np.zeros((0, 2), np.int8)}, {"x": np.zeros((0, 3), np.int8)}),
    ],
)
def test_requests_that_only_look_alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert digest(InferRequest(one)) != digest(InferRequest(other))


def test_what_else_an_answer_depends_on() -> None:
    inputs = {"x": np.float32([1])}
    plain = digest(InferRequest(inputs))
    assert digest(InferRequest(inputs, signature="second")) != plain
    assert digest(InferRequest(inputs, outputs=("y",))) != plain
    assert digest(InferRequest(inputs, priority=3, id="7", deadline_s=1.0)) == plain


def test_how_an_array_lies_in_memory_does_not_count() -> None:
    x = np.arange(12, dtype=np.int16).reshape(3, 4)
    lying = {"x": np.asfortranarray(x), "scalar": np.float64(3).reshape(())}
    standing = {"scalar": np.float64(3).reshape(()), "x": x}
    assert digest(InferRequest(lying)) == digest(InferRequest(standing))


def test_one_run_answers_all_that_ask_the_same_meanwhile() -> None:
    bench = Bench()
    with ThreadPoolExecutor(8) as pool:
        with bench.runs.held():
            asked = [pool.submit(bench.ask, request(1)) for _ in range(8)]
            bench.runs.wait_active(1)
        assert [one.result() for one in asked] == [[answer(1)]] * 8

    assert len(bench.runs.requests) == 1
    assert bench.counts == (7, 1)


def test_crossed_requests_of_two_callers_do_not_wait_for_each_other_for_ever() -> None:
    bench = Bench()
    with ThreadPoolExecutor(2) as pool:
        for number in range(0, 200, 2):
            one, other = request(number), request(number + 1)
            both = [pool.submit(bench.ask, one, other), pool.submit(bench.ask, other, one)]
            expected = answer(number), answer(number + 1)
            assert both[0].result(20) == list(expected)
            assert both[1].result(20) == list(reversed(expected))
    assert sum(bench.counts) == 400
    assert bench.counts[1] == len(bench.runs.requests) == 200


def test_a_failure_is_not_kept_and_the_others_run_for_themselves() -> None:
    failures = iter([Unavailable("not now")])
    bench = Bench(lambda one: next(failures, None))
    with ThreadPoolExecutor(2) as pool:
        with bench.runs.held():
            first = pool.submit(bench.ask, request(1))
            bench.runs.wait_active(1)
            second = pool.submit(bench.ask, request(1))
            time.sleep(0.05)  # most likely it waits by now; if not, the outcome is the same
        assert isinstance(first.result()[0], Unavailable)
        assert second.result() == [answer(1)]
    assert bench.ask(request(1)) == [answer(1)]


def test_a_model_that_raises_leaves_nobody_waiting() -> None:
    def breaks(one: InferRequest) -> InferResult | None:
        raise MemoryError

    bench = Bench(breaks)
    for _ in range(2):  # else the second would wait for the first
        with pytest.raises(MemoryError):
            bench.ask(request(1))


class Gone:
    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def subscribe(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def set(self) -> None:
        self._set = True
        for callback in self._callbacks:
            callback()


def test_one_who_waits_for_an_equal_request_may_run_out_of_time_or_leave() -> None:
    bench, gone = Bench(), Gone()
    with ThreadPoolExecutor(3) as pool, bench.runs.held():
        pool.submit(bench.ask, request(1))
        bench.runs.wait_active(1)
        late = pool.submit(bench.ask, request(1, deadline_s=time.monotonic() + 0.05))
        left = pool.submit(bench.ask, request(1, cancelled=gone))
        assert isinstance(late.result(20)[0], DeadlineExceeded)
        wait_until(lambda: bool(gone._callbacks))
        gone.set()
        assert isinstance(left.result(20)[0], Cancelled)
        assert len(bench.runs.requests) == 1


def test_what_a_caller_gets_cannot_be_changed_for_the_next() -> None:
    bench = Bench()
    bench.ask(request(1))
    (got,) = bench.cached.infer((request(1),))
    assert isinstance(got, InferResponse)
    with pytest.raises(ValueError, match="read-only"):
        got.outputs["y"][0, 0] = 7


def test_an_answer_cut_out_of_a_batch_does_not_hold_the_batch() -> None:
    whole = np.zeros((1000, 8), np.float32)
    store = Store(Cache(), Statistics())
    store.put(b"k", InferResponse({"y": whole[3:4]}, Runs().metadata))
    found = store.get(b"k")
    assert found is not None
    assert found.outputs["y"].base is None
    assert whole.flags.writeable


def kept(size: int) -> InferResponse:
    return InferResponse({"y": np.zeros(size, np.uint8)}, Runs().metadata)


def test_answers_get_old() -> None:
    now_ns = [0]
    store = Store(Cache(ttl_s=2), Statistics(), lambda: now_ns[0])
    store.put(b"k", kept(1))
    now_ns[0] = 1_999_999_999
    assert store.get(b"k") is not None
    now_ns[0] = 2_000_000_000
    assert store.get(b"k") is None
    assert (store.used_bytes, len(store)) == (0, 0)


@given(
    actions=st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 5 * KIB))),
)
def test_the_least_recently_used_goes_first_and_the_bound_holds(
    actions: list[tuple[bool, int, int]],
) -> None:
    statistics = Statistics()
    store = Store(Cache(max_bytes=8 * KIB), statistics)
    model: dict[bytes, int] = {}  # in the order of use
    dropped = 0
    for puts, number, size in actions:
        key = bytes([number])
        if not puts:
            assert (store.get(key) is not None) == (key in model)
            if key in model:
                model[key] = model.pop(key)
            continue
        store.put(key, kept(size))
        model.pop(key, None)
        model[key] = size + 600
        while sum(model.values()) > 8 * KIB:
            del model[next(iter(model))]
            dropped += 1
        assert store.used_bytes == sum(model.values()) <= 8 * KIB
    assert statistics.cache.evictions == dropped


def test_one_that_is_too_large_is_not_kept_and_text_is_weighed() -> None:
    store = Store(Cache(max_bytes=4 * KIB), Statistics())
    store.put(b"a", kept(5 * KIB))
    store.put(b"b", InferResponse({"y": texts(b"z" * 5 * KIB)}, Runs().metadata))
    assert len(store) == 0
    store.put(b"c", InferResponse({"y": texts(b"z" * KIB)}, Runs().metadata))
    assert KIB < store.used_bytes < 2 * KIB


def test_many_threads_see_right_answers_within_the_bound() -> None:
    bench = Bench(max_bytes=4 * KIB)
    wrong: list[Any] = []

    def client(seed: int) -> None:
        random = np.random.default_rng(seed)
        for number in random.integers(0, 20, 300).tolist():
            if bench.ask(request(number)) != [answer(number)]:
                wrong.append(number)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not wrong
    assert sum(bench.counts) == 1800
    assert bench.statistics.cache.evictions
    assert bench.cached.store.used_bytes <= 4 * KIB


def test_closing_closes_what_is_inside() -> None:
    bench = Bench()
    bench.cached.close()
    assert bench.runs.closed
