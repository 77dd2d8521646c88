"""The ``TensorProto`` codec: every dtype, there and back, in every form, beside TensorFlow's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crossfade.runtimes.core.dtypes import NUMPY, name_of
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferResponse,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.frontends.tensorflow_serving import predict_codec, tensor_codec
from crossfade.serving.frontends.tensorflow_serving.packed import varints
from crossfade.serving.tensors.validator import Validator
from crossfade.serving.wire import tf_framework as framework
from crossfade.serving.wire import tf_serving as wire

EXAMPLES = settings(max_examples=60, derandomize=True, deadline=None)
NUMERIC = sorted(set(NUMPY) - {"BYTES"})
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=6)


class NobodyCalls:
    """A call of which only the message is known."""

    deadline_s = None
    cancelled = None


def validated(raw: Any) -> np.ndarray[Any, Any]:
    """What the door makes of an input."""
    signature = Signature((TensorSpec("x", raw.dtype, None),), ())
    metadata = ModelMetadata("m", 1, "fake", {DEFAULT_SIGNATURE: signature})
    found, _ = Validator(metadata, DEFAULT_SIGNATURE).inputs([raw])
    return found["x"]


def sent(array: np.ndarray[Any, Any]) -> Any:
    """Our answer's tensor, read back as a message."""
    return framework.TensorProto.FromString(b"".join(tensor_codec.tensor_bytes(array)))


def made(dtype: str) -> st.SearchStrategy[np.ndarray[Any, Any]]:
    """Arrays of any bits, NaN and denormals among them."""
    target = NUMPY[dtype]
    if dtype == "BOOL":
        return arrays.arrays(np.bool_, SHAPES)
    bits = np.dtype(f"u{target.itemsize}")
    return arrays.arrays(bits, SHAPES).map(lambda found: found.view(target))


def same(left: np.ndarray[Any, Any], right: np.ndarray[Any, Any]) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    assert left.tobytes() == right.tobytes()


@pytest.mark.parametrize("dtype", NUMERIC)
@EXAMPLES
@given(data=st.data())
def test_there_and_back(dtype: str, data: st.DataObject) -> None:
    array = data.draw(made(dtype))
    message = sent(array)
    assert not message.tensor_content  # clients read the typed fields
    same(validated(tensor_codec.to_raw("x", message)), array)
    content = framework.TensorProto(dtype=message.dtype, tensor_shape=message.tensor_shape)
    content.tensor_content = array.tobytes()
    same(validated(tensor_codec.to_raw("x", content)), array)


@EXAMPLES
@given(arrays.array_shapes(min_dims=0, max_dims=3, max_side=4), st.data())
def test_strings_there_and_back(shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.empty(shape, np.object_)
    for place in np.ndindex(*shape):
        array[place] = data.draw(st.binary(max_size=200))
    found = validated(tensor_codec.to_raw("x", sent(array)))
    assert (found.shape, found.tolist()) == (array.shape, array.tolist())


@pytest.mark.parametrize("dtype", [*NUMERIC, "BYTES"])
def test_tensorflow_reads_and_writes_the_same(dtype: str) -> None:
    tf = pytest.importorskip("tensorflow")
    if dtype == "BYTES":
        array: Any = np.array([[b"a", b""], [b"\xff\x00", b"bcd"]], np.object_)
    else:
        array = np.arange(12).reshape(3, 4).astype(NUMPY[dtype])
    theirs = type(tf.make_tensor_proto(0)).FromString(sent(array).SerializeToString())
    assert (tf.make_ndarray(theirs) == array).all()
    back = framework.TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    found = validated(tensor_codec.to_raw("x", back))
    assert (name_of(found.dtype), found.shape) == (dtype, array.shape)
    assert (found == array).all()


@pytest.mark.parametrize("kind", [np.int8, np.int32, np.int64, np.uint64])
@EXAMPLES
@given(data=st.data())
def test_packed_integers_are_protobufs(kind: type, data: st.DataObject) -> None:
    array = data.draw(arrays.arrays(kind, st.integers(0, 40)))
    message = framework.TensorProto()
    field = message.uint64_val if kind is np.uint64 else message.int64_val
    field.extend(array.tolist())
    expected = message.SerializeToString()
    assert expected.endswith(varints(array))


@pytest.mark.parametrize("count", [10, 40_000])
@pytest.mark.parametrize("form", ["tensor_content", "float_val", "int_val", "string_val"])
def test_a_message_of_any_size_is_read_the_same(count: int, form: str) -> None:
    request = wire.PredictRequest(output_filter=["y"])
    request.model_spec.name = "m"
    x = request.inputs["x"]
    x.tensor_shape.dim.add(size=count)
    expected: Any = np.arange(count, dtype=np.float32)
    x.dtype = framework.DT_FLOAT
    if form == "tensor_content":
        x.tensor_content = expected.tobytes()
    elif form == "float_val":
        x.float_val.extend(expected)
    elif form == "int_val":
        x.dtype, expected = framework.DT_INT32, np.arange(count, dtype=np.int32)
        x.int_val.extend(expected)
    else:
        x.dtype, expected = framework.DT_STRING, np.array([b"%d" % i for i in range(count)], "O")
        x.string_val.extend(expected)
    request.inputs["y"].CopyFrom(x)
    data = request.SerializeToString()
    query = predict_codec.to_query(predict_codec.decode(data), NobodyCalls())  # type: ignore[arg-type]
    assert (query.ref.name, query.outputs) == ("m", ("y",))
    assert sorted(raw.name for raw in query.inputs) == ["x", "y"]
    for raw in query.inputs:
        raw.name = "x"
        found = validated(raw)
        assert (found == expected).all()
        if count > 10 and form in ("tensor_content", "float_val"):
            assert isinstance(raw.data, memoryview)
            assert raw.data.obj is data  # not copied


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 3))
def test_noise_is_refused_or_read(noise: bytes, place: int) -> None:
    """Nothing but an error of ours, whatever the bytes are; small and large messages alike."""
    entry = b"\x0a\x01x\x12" + bytes([len(noise)]) + noise
    tails = [noise, b"\x12" + bytes([len(entry)]) + entry, b"\x0a" + bytes([len(noise)]) + noise]
    message = b"\x0a\x03\x0a\x01m" + tails[place % 3]
    padding = b"\x12\x80\x80\x01" + b"\x1a\xfc\xff\x00" + bytes(16380)  # an unknown field inside
    for data in (message, message + padding):
        try:
            predict_codec.to_query(predict_codec.decode(data), NobodyCalls())  # type: ignore[arg-type]
        except CrossfadeError:
            continue


def test_an_answer_is_a_predict_response() -> None:
    signature = Signature((), (TensorSpec("y", "FP32", (-1,)), TensorSpec("n", "INT64", ())))
    metadata = ModelMetadata("model", 7, "fake", {DEFAULT_SIGNATURE: signature})
    y = np.arange(100_000, dtype=np.float32)
    outputs = {"y": y, "n": np.array(-3), "e": np.zeros((0, 2), np.float32)}
    data = predict_codec.encode(InferResponse(outputs, metadata), "serving_default")
    answer = wire.PredictResponse.FromString(data)
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("model", 7, "serving_default")
    assert (np.array(answer.outputs["y"].float_val, np.float32) == y).all()
    assert list(answer.outputs["n"].int64_val) == [-3]
    assert [d.size for d in answer.outputs["e"].tensor_shape.dim] == [0, 2]


def test_the_name_of_a_small_messages_model() -> None:
    request = wire.PredictRequest()
    request.model_spec.name = "flowers"
    request.model_spec.version.value = 3
    request.inputs["x"].dtype = 1
    assert predict_codec.model_of(request.SerializeToString()) == "flowers"
    for other in (b"", b"\x12\x00\x00\x00\x00", b"\x0a\x03\x12\x01\x08", bytes(20_000)):
        assert predict_codec.model_of(other) is None
