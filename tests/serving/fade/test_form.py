"""A member stands in for another: names, labels, dtypes; and what it cannot stand in for."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.runtimes.core.model import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.fade.form import Adapter

LABELS = ("rose", "tulip", "daisy", "oak")


def model(
    labels: tuple[str, ...] | None = LABELS,
    *,
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", (-1, 4)),),
    outputs: tuple[TensorSpec, ...] = (TensorSpec("scores", "FP32", (-1, 4)),),
    **others: Any,
) -> ModelMetadata:
    signature = Signature.derive(inputs, outputs)
    found = {} if labels is None else {outputs[0].name: labels}
    settings = {"max_batch_size": 8 if signature.batched else 0, **others}
    return ModelMetadata("m", 1, "fake", {"serving_default": signature}, found, **settings)


def answered(adapter: Adapter, request: InferRequest, member: ModelMetadata, **outputs: Any) -> Any:
    return adapter.response(request, InferResponse(outputs, member)).outputs


@given(st.permutations(LABELS), st.integers(1, 3))
def test_scores_go_where_their_labels_are(order: list[str], rows: int) -> None:
    member = model(tuple(order), outputs=(TensorSpec("probabilities", "FP64", (-1, 4)),))
    adapter = Adapter(model(), member)
    scores = np.array(
        [[LABELS.index(label) + 10.0 * row for label in order] for row in range(rows)]
    )
    request = InferRequest({"x": np.zeros((rows, 4), np.float32)}, rows=rows)
    found = answered(adapter, request, member, probabilities=scores)["scores"]
    assert found.dtype == np.float32
    assert found.tolist() == [[c + 10.0 * row for c in range(4)] for row in range(rows)]


def test_names_beside_scores_go_with_them() -> None:
    outputs = (TensorSpec("scores", "FP32", (-1, 4)), TensorSpec("labels", "BYTES", (-1, 4)))
    turned = LABELS[::-1]
    member = model(turned, outputs=outputs)
    adapter = Adapter(model(outputs=outputs), member)
    names = np.array([[label.encode() for label in turned]], np.object_)
    found = answered(
        *(adapter, InferRequest({}), member), scores=np.arange(4.0)[None], labels=names
    )
    assert found["scores"].tolist() == [[3, 2, 1, 0]]
    assert found["labels"].tolist() == [[label.encode() for label in LABELS]]


def test_a_request_takes_the_members_names_and_loses_what_it_does_not_need() -> None:
    two = (TensorSpec("age", "FP32", (-1, 1)), TensorSpec("note", "BYTES", (-1, 1), optional=True))
    adapter = Adapter(model(inputs=two), model(inputs=two[:1]))
    age = np.zeros((2, 1), np.float32)
    asked = adapter.request(InferRequest({"age": age, "note": age}, outputs=("scores",), rows=2))
    assert list(asked.inputs) == ["age"]
    renamed = Adapter(model(), model(inputs=(TensorSpec("image", "FP32", (-1, -1)),)))
    asked = renamed.request(InferRequest({"x": age}, rows=2))
    assert asked.inputs["image"] is age


def test_the_same_form_costs_nothing() -> None:
    adapter = Adapter(model(), dataclasses.replace(model(), version=7))
    request = InferRequest({"x": np.zeros((1, 4), np.float32)})
    assert adapter.request(request) is request
    assert adapter.differences == adapter.unread == ()
    response = adapter.response(request, InferResponse({"scores": np.zeros(4)}, model()))
    assert (response.model.name, response.model.version) == ("m", 7)
    (said,) = Adapter(model(), model(LABELS[::-1])).differences
    assert said == "the labels of its output 'scores' have another order"


def test_what_is_translated_is_said() -> None:
    member = model(
        inputs=(TensorSpec("pixels", "FP32", (-1, 4)),),
        outputs=(TensorSpec("p", "FP64", (-1, 4)),),
    )
    assert Adapter(model(), member).differences == (
        "its input is called 'pixels', clients send 'x'",
        "its output is called 'p', clients expect 'scores'",
        "its output 'p' has another type, clients expect FP32",
    )


def test_a_batch_that_only_the_primary_takes() -> None:
    adapter = Adapter(model(), model(max_batch_size=2))
    inputs = {"x": np.zeros((3, 4), np.float32)}
    assert not adapter.takes(InferRequest(inputs, rows=3))
    assert (adapter.unread, adapter.differences) == (("takes at most 2 rows a request",), ())
    assert adapter.takes(InferRequest(inputs, rows=2))


def test_another_form_of_an_input_that_only_the_primary_takes() -> None:
    pixels = TensorSpec("pixels", "FP32", (-1, 2))
    image = TensorSpec("image", "BYTES", (-1,), alternative=pixels)
    plain = TensorSpec("image", "BYTES", (-1,))
    adapter = Adapter(model(inputs=(image,)), model(inputs=(plain,)))
    assert adapter.takes(InferRequest({"image": np.array([b"png"], np.object_)}))
    assert not adapter.takes(InferRequest({"pixels": np.zeros((1, 2), np.float32)}))
    assert adapter.differences == ()
    (said,) = adapter.unread
    assert said == "does not read the tensor 'pixels' (FP32, [-1, 2]) that 'm' also takes"
    assert Adapter(model(inputs=(image,)), model(inputs=(image,))).takes(
        InferRequest({"pixels": np.zeros((1, 2), np.float32)})
    )


def test_a_member_with_a_batch_behind_a_form_without() -> None:
    fixed = (TensorSpec("x", "FP32", (2, 4)),), (TensorSpec("scores", "FP32", (2, 4)),)
    adapter = Adapter(model(inputs=fixed[0], outputs=fixed[1]), model())
    assert adapter.request(InferRequest({"x": np.zeros((2, 4), np.float32)})).rows == 2


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (model(("rose", "tulip", "daisy", "elm")), "only one of the two knows the labels"),
        (model(None), "it has no labels for the output 'scores'"),
        (model(("Rose", *LABELS[1:])), "write one label as"),
        (model(inputs=(TensorSpec("x", "UINT8", (-1, 4)),)), "is UINT8, clients send FP32"),
        (model(inputs=(TensorSpec("x", "FP32", (-1, 5)),)), r"has the shape \[-1, 5\]"),
        (model(inputs=(TensorSpec("x", "FP32", (1, 4)),)), r"has the shape \[1, 4\]"),
        (
            model(inputs=(TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 1)))),
            "it needs the input 'y', which clients do not send",
        ),
        (model(outputs=(TensorSpec("scores", "UINT8", (-1, 4)),)), "is UINT8, clients expect FP32"),
        (model(outputs=(TensorSpec("scores", "FP32", (-1, 4, 1)),)), "clients expect"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit(member: ModelMetadata, said: str) -> None:
    with pytest.raises(FailedPrecondition, match=said):
        Adapter(model(), member)
    with pytest.raises(FailedPrecondition, match="cannot answer what is asked of 'm'"):
        Adapter(model(), member)
