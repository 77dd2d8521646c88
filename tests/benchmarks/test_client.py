import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from crossfade.benchmarks.client import decode_outputs, difference


def response(raw):
    message = service_pb2.ModelInferResponse(model_name="m")
    tensor = message.outputs.add(name="y", datatype="INT32", shape=[1, 3])
    if raw:
        message.raw_output_contents.append(np.array([1, -2, 3], np.int32).tobytes())
    else:
        tensor.contents.int_contents.extend([1, -2, 3])
    return message.SerializeToString()


@pytest.mark.parametrize("raw", [True, False])
def test_decode_outputs_reads_raw_and_typed_contents(raw):
    outputs = decode_outputs(response(raw))
    np.testing.assert_array_equal(outputs["y"], np.array([[1, -2, 3]], np.int32))
    assert outputs["y"].dtype == np.int32


RIGHT = {"y": np.array([[1.0, 2.0]], np.float32)}


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"z": RIGHT["y"]},
        {"y": RIGHT["y"][0]},
        {"y": RIGHT["y"].astype(np.float64)},
        {"y": np.array([[1.0, 2.001]], np.float32)},
        {"y": np.array([[1.0, np.nan]], np.float32)},
    ],
)
def test_difference_says_what_is_wrong(answer):
    assert difference(RIGHT, answer)


def test_difference_lets_floats_round_but_not_integers():
    assert difference(RIGHT, {"y": np.array([[1.0, 2.00001]], np.float32)}) is None
    whole = {"y": np.array([[100_000]], np.int32)}
    assert difference(whole, {"y": np.array([[100_001]], np.int32)})
