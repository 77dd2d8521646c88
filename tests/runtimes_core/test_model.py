"""The contracts' values: immutable, with few and sensible defaults; batches are recognised."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.model import (
    Artifact,
    InferRequest,
    InferResponse,
    Model,
    ModelMetadata,
    ModelRef,
    Session,
    Signature,
    Tensors,
    TensorSpec,
    Timings,
)

X = TensorSpec("x", "FP32", (-1, 2))
METADATA = ModelMetadata("m", 1, "fake", {"s": Signature((X,), (X,))})
VALUES = [
    X,
    Signature((X,), (X,)),
    Artifact(Path("x"), "m", 1),
    METADATA,
    InferRequest({}),
    InferResponse({}, METADATA),
    Timings(),
    ModelRef("m"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_cannot_be_changed(value: Any) -> None:
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)
    assert not hasattr(value, "__dict__"), "slots: nothing can be added either"


@pytest.mark.parametrize(
    ("inputs", "outputs", "batched"),
    [
        ([(-1, 2)], [(-1,)], True),
        ([(-1,), (-1, 3, 3)], [(-1, 2), (-1,)], True),
        ([(1, 2)], [(1,)], False),
        ([(-1, 2)], [(1,)], False),
        ([(-1, 2), (2,)], [(-1,)], False),
        ([(2, -1)], [(2, -1)], False),
        ([(-1, 2)], [()], False),
        ([()], [(-1,)], False),
        ([None], [(-1,)], False),
        ([(-1,)], [None], False),
        ([], [(-1,)], False),
        ([(-1,)], [], True),
    ],
)
def test_a_batch_is_where_every_first_dimension_is_free(
    inputs: Sequence[tuple[int, ...] | None],
    outputs: Sequence[tuple[int, ...] | None],
    batched: bool,
) -> None:
    signature = Signature.derive(
        [TensorSpec(f"i{n}", "FP32", shape) for n, shape in enumerate(inputs)],
        [TensorSpec(f"o{n}", "FP32", shape) for n, shape in enumerate(outputs)],
        "classify",
    )
    assert signature.batched == batched
    assert signature.method == "classify"
    assert [s.shape for s in signature.inputs] == list(inputs)
    assert [s.shape for s in signature.outputs] == list(outputs)


SHAPES = st.none() | st.lists(st.sampled_from([-1, 1, 3]), max_size=3).map(tuple)


@given(shapes=st.lists(SHAPES, min_size=1, max_size=4), data=st.data())
def test_one_tensor_that_is_not_free_ends_the_batch(
    shapes: list[tuple[int, ...] | None], data: st.DataObject
) -> None:
    specs = [TensorSpec(f"t{n}", "FP32", shape) for n, shape in enumerate(shapes)]
    cut = data.draw(st.integers(1, len(specs)))
    signature = Signature.derive(specs[:cut], specs[cut:])
    assert signature.batched == all(shape is not None and shape[:1] == (-1,) for shape in shapes)


@pytest.mark.parametrize(
    ("names", "default"),
    [
        (["serving_default"], "serving_default"),
        (["a", "serving_default", "b"], "serving_default"),
        (["b", "a"], "b"),
    ],
)
def test_the_default_signature(names: list[str], default: str) -> None:
    signatures = {name: Signature((X,), (X,)) for name in names}
    assert ModelMetadata("m", 1, "fake", signatures).default_signature == default


def test_a_request_asks_for_nothing_special() -> None:
    one = InferRequest({"x": np.zeros(1)})
    assert (one.signature, one.outputs, one.rows) == ("serving_default", (), 1)
    assert (one.deadline_s, one.priority, one.cancelled, one.id) == (None, 0, None, "")
    assert dict(one.parameters) == {}
    with pytest.raises(TypeError):
        one.parameters["x"] = 1  # type: ignore[index]


def test_references_are_keys() -> None:
    refs = {ModelRef("m"): 1, ModelRef("m", 2): 2, ModelRef("m", label="stable"): 3}
    assert refs[ModelRef("m")] == 1
    assert refs[ModelRef("m", label="stable")] == 3
    assert ModelRef("m", 3) not in refs


class Complete:
    metadata = METADATA
    signatures = METADATA.signatures

    def infer(self, requests: Sequence[InferRequest]) -> Sequence[InferResponse]:
        return []

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        return {}

    def close(self) -> None:
        pass


def test_contracts_are_checked_by_shape() -> None:
    assert isinstance(Complete(), Model)
    assert isinstance(Complete(), Session)
    assert not isinstance(object(), Model)
    assert not isinstance(METADATA, Session)
