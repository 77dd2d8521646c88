"""A ``PredictRequest`` that is recognised is read as if it had been parsed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, ModelMetadata, Signature, TensorSpec
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.tensorflow_serving import predict_codec
from crossfade.serving.frontends.tensorflow_serving.plans import Known, Plans
from crossfade.serving.tensors.validator import Validator
from crossfade.serving.wire import tf_framework as framework
from crossfade.serving.wire import tf_serving as wire

SIGNATURE = Signature.derive(
    [TensorSpec("a", "INT32", (-1, 4)), TensorSpec("b", "FP32", (-1, 2))],
    [TensorSpec("out", "FP32", (-1, 4))],
)
VALIDATOR = Validator(
    ModelMetadata("model", 1, "fake", {DEFAULT_SIGNATURE: SIGNATURE}, max_batch_size=8),
    DEFAULT_SIGNATURE,
)
DTYPES = {framework.DT_INT32: np.int32, framework.DT_FLOAT: np.float32}


class NobodyCalls:
    deadline_s = None
    cancelled = None


def entry(name: str, dtype: int, rows: int, columns: int, packed: bool) -> bytes:
    """An entry of ``inputs``; in a message of its own, so that a test sets the order."""
    values = np.arange(rows * columns).astype(DTYPES[dtype])
    request = wire.PredictRequest()
    tensor = request.inputs[name]
    tensor.dtype = dtype
    tensor.tensor_shape.dim.add(size=rows)
    tensor.tensor_shape.dim.add(size=columns)
    if packed and dtype == framework.DT_FLOAT:
        tensor.float_val.extend(values.tolist())
    else:
        tensor.tensor_content = values.tobytes()
    data: bytes = request.SerializeToString()
    return data


def request(
    rows: int = 1, *, packed: bool = False, turned: bool = False, outputs: Any = (), **spec: Any
) -> bytes:
    head = wire.PredictRequest(model_spec=wire.ModelSpec(**{"name": "model", **spec}))
    a = entry("a", framework.DT_INT32, rows, 4, packed)
    b = entry("b", framework.DT_FLOAT, rows, 2, packed)
    tail = wire.PredictRequest(output_filter=outputs)
    return b"".join(
        (head.SerializeToString(), *((b, a) if turned else (a, b)), tail.SerializeToString())
    )


def query(message: predict_codec.PredictMessage | Known) -> Query:
    if isinstance(message, Known):
        return message.query(NobodyCalls())  # type: ignore[arg-type]
    return predict_codec.to_query(message)


def outcome(decode: Any, message: bytes) -> Any:
    """Everything that the data plane would see, or that it would refuse."""
    try:
        asked = query(decode(message))
        arrays, rows = VALIDATOR.inputs(asked.inputs, asked.layout)
    except CrossfadeError as error:
        return error.code
    values = {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
    return asked.ref, tuple(asked.outputs), asked.signature, values, rows


@pytest.mark.parametrize("packed", [False, True])
def test_the_second_of_a_form_is_known(packed: bool) -> None:
    found = Plans()
    assert not isinstance(found.decode(request(packed=packed)), Known)
    known = found.decode(request(packed=packed))
    assert isinstance(known, Known)
    assert known.plan.ref.name == "model"
    assert not isinstance(found.decode(request(2, packed=packed)), Known)
    assert not isinstance(found.decode(request(packed=packed, signature_name="s")), Known)


def test_two_orders_are_known_side_by_side() -> None:
    found = Plans()
    both = [request(), request(turned=True)]
    for message in both:
        assert not isinstance(found.decode(message), Known)
    for message in both * 3:
        assert isinstance(found.decode(message), Known)


def _one_value(tensor: Any) -> None:
    tensor.ClearField("tensor_content")
    tensor.float_val.append(1)


def _text(tensor: Any) -> None:
    tensor.dtype = framework.DT_STRING


def _typed(tensor: Any) -> None:
    tensor.dtype = framework.DT_INT32
    tensor.ClearField("tensor_content")
    tensor.int_val.extend([1, 2])


@pytest.mark.parametrize("change", [_one_value, _text, _typed])
def test_what_needs_a_closer_look_each_time(change: Any) -> None:
    made = wire.PredictRequest.FromString(request())
    change(made.inputs["b"])
    found = Plans()
    for _ in range(3):
        assert not isinstance(found.decode(made.SerializeToString()), Known)


def test_an_input_twice() -> None:
    """The last one counts, whatever the first one holds."""
    first = entry("a", framework.DT_INT32, 1, 4, packed=False)
    message = request() + first.replace(np.arange(4, dtype=np.int32).tobytes(), b"\x07" * 16)
    found = Plans()
    for bent in (message, message.replace(b"\x07", b"\x08"), message):
        assert outcome(found.decode, bent) == outcome(predict_codec.decode, bent)


MESSAGES = st.builds(
    request,
    st.integers(1, 9),
    packed=st.booleans(),
    turned=st.booleans(),
    outputs=st.lists(st.sampled_from(["out", "none"]), max_size=2),
    signature_name=st.sampled_from(["", "other"]),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_it_is_the_same_as_parsing(messages: list[bytes], chance: random.Random) -> None:
    """Also of bytes that were bent: those of a form that is known are the likeliest to deceive."""
    found = Plans()
    for _ in range(12):
        message = bytearray(chance.choice(messages))
        for _ in range(chance.choice((0, 0, 1, 2))):
            message[chance.randrange(len(message))] = chance.randrange(256)
        bent = bytes(message)
        assert outcome(found.decode, bent) == outcome(predict_codec.decode, bent)
