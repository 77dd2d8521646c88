"""State is kept by sequence, and by sequence alone, whatever runs beside it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    ResourceExhausted,
)
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    InferResult,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.batching.sequences import Sequenced
from crossfade.serving.config.model_config import Queue, Sequencing, build
from crossfade.serving.metrics.statistics import Statistics

CONTROLS: list[dict[str, Any]] = [
    {"input": "start", "kind": "start"},
    {"input": "end", "kind": "end", "false_true": [-1, 5]},
    {"input": "ready", "kind": "ready"},
    {"input": "id", "kind": "corrid"},
]
STATES = [{"input": "sum_in", "output": "sum_out", "initial": 0}]


class Accumulator:
    """sum_out = y = sum_in + x; fails on a negative x. Echoes its controls."""

    def __init__(self, id_dtype: str = "UINT64") -> None:
        spec = TensorSpec
        signature = Signature(
            (
                spec("x", "INT64", (-1, 1)),
                spec("sum_in", "INT64", (-1, 1)),
                spec("start", "INT32", (-1, 1)),
                spec("end", "FP32", (-1, 1)),
                spec("ready", "BOOL", (-1, 1)),
                spec("id", id_dtype, (-1, 1)),
            ),
            (spec("y", "INT64", (-1, 1)), spec("sum_out", "INT64", (-1, 1))),
            batched=True,
        )
        self.metadata = ModelMetadata("m", 1, "fake", {"serving_default": signature}, {}, 64)
        self.seen: list[dict[str, list[Any]]] = []
        self.closed = False

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResult]:
        return [self._one(request) for request in requests]

    def _one(self, request: InferRequest) -> InferResult:
        inputs = request.inputs
        self.seen.append({name: a.ravel().tolist() for name, a in inputs.items()})
        if (inputs["x"] < 0).any():
            return Internal("it is negative")
        total = inputs["sum_in"] + inputs["x"]
        outputs = {"y": total, "sum_out": total}
        if request.outputs:
            outputs = {name: outputs[name] for name in request.outputs}
        return InferResponse(outputs, self.metadata)

    def close(self) -> None:
        self.closed = True


def config(**values: Any) -> Sequencing:
    made = build({"sequence": {"controls": CONTROLS, "states": STATES, **values}}, "model.yaml")
    assert made.sequence is not None
    return made.sequence


def ask(name: Any, x: int, start: bool = False, end: bool = False, **fields: Any) -> InferRequest:
    parameters = {"sequence_id": name, "sequence_start": start, "sequence_end": end}
    return InferRequest({"x": np.array([[x]])}, parameters=parameters, **fields)


def value(result: InferResult) -> int:
    assert isinstance(result, InferResponse), result
    assert list(result.outputs) == ["y"]
    return int(result.outputs["y"][0, 0])


def test_clients_do_not_see_controls_and_states() -> None:
    model = Sequenced(Accumulator(), config())
    signature = model.metadata.signatures["serving_default"]
    assert [spec.name for spec in signature.inputs] == ["x"]
    assert [spec.name for spec in signature.outputs] == ["y"]
    model.close()


def test_controls() -> None:
    inner = Accumulator()
    model = Sequenced(inner, config())
    model.infer([ask(7, 1, start=True), ask(7, 2), ask(7, 3, end=True)])
    assert [seen["start"] for seen in inner.seen] == [[1], [0], [0]]
    assert [seen["end"] for seen in inner.seen] == [[-1.0], [-1.0], [5.0]]
    assert [seen["ready"] for seen in inner.seen] == [[True]] * 3
    assert [seen["id"] for seen in inner.seen] == [[7]] * 3
    assert [seen["sum_in"] for seen in inner.seen] == [[0], [1], [3]]
    assert model.active == 0


def test_requests_of_one_sequence_in_one_batch_keep_their_order() -> None:
    model = Sequenced(Accumulator(), config())
    batch = [ask(1, 1, True), ask(2, 10, True), ask(1, 2), ask(2, 20), ask(1, 3, outputs=("y",))]
    assert [value(r) for r in model.infer(batch)] == [1, 10, 3, 30, 6]


def test_a_failure_leaves_the_state() -> None:
    model = Sequenced(Accumulator(), config())
    model.infer([ask(1, 5, start=True)])
    (failed,) = model.infer([ask(1, -1)])
    assert isinstance(failed, Internal)
    assert value(model.infer([ask(1, 2)])[0]) == 7


def test_a_start_begins_anew() -> None:
    model = Sequenced(Accumulator(), config())
    model.infer([ask(1, 5, start=True)])
    assert value(model.infer([ask(1, 2, start=True)])[0]) == 2


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (ask(0, 1, True), "non-zero or non-empty correlation ID"),
        (ask("", 1, True), "non-zero or non-empty correlation ID"),
        (InferRequest({"x": np.array([[1]])}), "non-zero or non-empty correlation ID"),
        (ask("text", 1, True), "must be an integer"),
        (ask(1, 1), "must specify the START flag on the first request"),
        (ask(1, 1, True, rows=2), "must specify batch-size 1"),
    ],
)
def test_refusals_harm_no_neighbour(request_: InferRequest, why: str) -> None:
    model = Sequenced(Accumulator(), config())
    refused, good = model.infer([request_, ask(99, 3, True)])
    assert isinstance(refused, InvalidArgument)
    assert why in refused.message
    assert value(good) == 3


def test_ids_of_text() -> None:
    inner = Accumulator("BYTES")
    model = Sequenced(inner, config())
    assert value(model.infer([ask("camera-1", 1, True)])[0]) == 1
    assert value(model.infer([ask("camera-2", 5, True)])[0]) == 5
    assert value(model.infer([ask("camera-1", 1)])[0]) == 2
    assert inner.seen[0]["id"] == [b"camera-1"]
    (refused,) = model.infer([ask(3, 1, True)])
    assert isinstance(refused, InvalidArgument)
    (refused,) = Sequenced(Accumulator("INT32"), config()).infer([ask(2**31, 1, True)])
    assert isinstance(refused, InvalidArgument)


def test_idle_sequences_are_forgotten_and_busy_ones_are_not() -> None:
    now = [0.0]
    model = Sequenced(Accumulator(), config(max_idle_ms=1000), lambda: now[0])
    model.infer([ask(1, 1, True), ask(2, 1, True)])
    now[0] = 0.9
    model.infer([ask(2, 1)])
    now[0] = 1.5
    (forgotten,) = model.infer([ask(1, 1)])
    assert isinstance(forgotten, InvalidArgument)
    assert value(model.infer([ask(2, 1)])[0]) == 3
    assert model.active == 1


def test_so_many_sequences_and_no_more() -> None:
    now = [0.0]
    model = Sequenced(Accumulator(), config(max_sequences=2, max_idle_ms=1000), lambda: now[0])
    results = model.infer([ask(n, n, True) for n in (1, 2, 3)])
    assert [isinstance(r, CrossfadeError) for r in results] == [False, False, True]
    assert isinstance(results[2], ResourceExhausted)
    assert results[2].retry_after_s
    model.infer([ask(1, 1, end=True)])
    assert value(model.infer([ask(3, 3, True)])[0]) == 3


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"controls": [{"input": "none", "kind": "start"}]}, "no input 'none'"),
        ({"states": [{"input": "x", "output": "none"}]}, "no output 'none'"),
        ({"states": [*STATES, {"input": "start", "output": "y"}]}, "'start' is named twice"),
        ({"controls": [{"input": "end", "kind": "corrid"}]}, "cannot be FP32"),
        ({"controls": [{"input": "end", "kind": "end", "dtype": "INT32"}]}, "as INT32, but"),
    ],
)
def test_what_does_not_fit_the_model(values: dict[str, Any], why: str) -> None:
    with pytest.raises(LoadFailed, match=why):
        Sequenced(Accumulator(), config(**values))


Step = tuple[int, int, bool, bool]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(-1, 9), st.booleans(), st.booleans()),
            max_size=8,
        ),
        max_size=6,
    )
)
def test_any_batches_answer_as_one_request_after_the_other(batches: list[list[Step]]) -> None:
    model = Sequenced(Accumulator(), config())
    sums: dict[int, int] = {}
    for batch in batches:
        results = model.infer([ask(*step) for step in batch])
        for (name, x, start, end), result in zip(batch, results, strict=True):
            if name not in sums and not start:
                assert isinstance(result, InvalidArgument)
                continue
            before = 0 if start else sums[name]
            if x < 0:
                assert isinstance(result, Internal)
                sums.setdefault(name, 0)
            else:
                sums[name] = before + x
                assert value(result) == sums[name]
            if end:
                del sums[name]
    assert model.active == len(sums)


def test_many_threads_with_many_sequences() -> None:
    scheduled = Scheduled(Accumulator(), Statistics(), instances=2, queue=Queue(), max_rows=8)
    model = Sequenced(scheduled, config())
    wrong: list[Any] = []

    def run(names: list[int], seed: int) -> None:
        rng = random.Random(seed)
        sums = dict.fromkeys(names, 0)
        model.infer([ask(name, 0, True) for name in names])
        for _ in range(60):
            some = [(name, rng.randrange(9)) for name in rng.sample(names, 3)]
            for (name, x), result in zip(
                some, model.infer([ask(name, x) for name, x in some]), strict=True
            ):
                sums[name] += x
                if value(result) != sums[name]:
                    wrong.append((name, result))

    work: list[Callable[[], None]] = [
        lambda n=n: run(list(range(10 * n + 1, 10 * n + 6)), n)  # type: ignore[misc]
        for n in range(6)
    ]
    threads = [threading.Thread(target=one, daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert wrong == []
