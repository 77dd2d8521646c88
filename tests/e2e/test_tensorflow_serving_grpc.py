"""TensorFlow Serving's gRPC API, with its own messages, against a real server."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from onnx import TensorProto

from crossfade.serving.wire.fields import varint_bytes
from tests.conftest import ServerProcess
from tests.runtimes.onnx_models import model, node, value

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving")

from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

HALF = "saved_model_half_plus_two_cpu"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("tfs")
    for path in (shared / "savedmodel").iterdir():
        if path.is_dir():
            (root / path.name).symlink_to(path)
    (root / "labelled").mkdir()
    for version in ("00000123", "00000124"):
        source = shared / "savedmodel" / "saved_model_half_plus_two_2_versions" / version
        (root / "labelled" / version).symlink_to(source)
    (root / "labelled" / "model.yaml").write_text(
        "version_policy: all\nlabels: {stable: 123, canary: 124}\n"
    )
    (root / "onnx" / "1").mkdir(parents=True)
    x, s = value("x", TensorProto.FLOAT, ["n", 3]), value("scores", TensorProto.FLOAT, ["n", 3])
    (root / "onnx" / "1" / "model.onnx").write_bytes(
        model([node("Add", "x x", "scores")], [x], [s])
    )
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as found:
        yield found


@pytest.fixture(scope="module")
def stub(channel: Any) -> Any:
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.fixture(scope="module")
def models(channel: Any) -> Any:
    return model_service_pb2_grpc.ModelServiceStub(channel)


def asking(kind: Any, name: str, signature: str = "", **spec: Any) -> Any:
    request = kind()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec["version"]
    if "label" in spec:
        request.model_spec.version_label = spec["label"]
    return request


def predict(name: str, signature: str = "", **spec: Any) -> Any:
    """The good request: x = [1, 2, 5]."""
    request = asking(predict_pb2.PredictRequest, name, signature, **spec)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto([[1.0], [2.0], [5.0]], dtype=tf.float32))
    return request


def examples(request: Any, *rows: dict[str, float]) -> Any:
    for row in rows:
        feature = request.input.example_list.examples.add().features.feature
        for name, number in row.items():
            feature[name].float_list.value.append(number)
    return request


def refused(call: Any, request: Any, code: Any, says: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=10)
    error: Any = caught.value
    assert (error.code(), error.details()) == (code, error.details())
    assert says in error.details()
    for leak in ("Traceback", ".py", "/", "crossfade"):
        assert leak not in error.details().replace("tensorflow/serving/", "")


# -- Predict ------------------------------------------------------------------------------------


def test_predict(stub: Any) -> None:
    answer = stub.Predict(predict(HALF), timeout=10)
    assert list(answer.outputs["y"].float_val) == [2.5, 3.0, 4.5]
    assert tf.make_ndarray(answer.outputs["y"]).shape == (3, 1)
    spec = answer.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == (HALF, 123, "serving_default")


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("saved_model_half_plus_two_2_versions", (3, 1), [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_three", (3, 1), [3.5, 4.0, 5.5]),
        ("saved_model_half_plus_three", (3,), [3.5, 4.0, 5.5]),
        ("saved_model_half_plus_two_2_versions", (3,), [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_two_tf2_cpu", (1,), [2.5]),
    ],
)
def test_predict_with_other_forms(
    stub: Any, name: str, shape: tuple[int, ...], expected: list[float]
) -> None:
    request = asking(predict_pb2.PredictRequest, name)
    x = np.array([1, 2, 5], np.float32)[: shape[0]].reshape(shape)
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    answer = stub.Predict(request, timeout=10).outputs["y"]
    assert list(answer.float_val) == expected
    assert tf.make_ndarray(answer).shape == shape


@pytest.mark.parametrize("fields", [{"float_val": [1, 2, 5]}, {"float_val": [2]}, {}])
def test_every_form_of_values(stub: Any, fields: dict[str, Any]) -> None:
    request = asking(predict_pb2.PredictRequest, HALF)
    x = request.inputs["x"]
    x.CopyFrom(tf.make_tensor_proto(np.zeros((3, 1), np.float32)))
    if fields:
        x.ClearField("tensor_content")
        x.float_val.extend(fields["float_val"])
    given = np.broadcast_to(np.reshape(fields.get("float_val", [0]), (-1, 1)), (3, 1))
    got = tf.make_ndarray(stub.Predict(request, timeout=10).outputs["y"])
    assert (got == given / 2 + 2).all()


@pytest.mark.parametrize("form", ["tensor_content", "float_val"])
def test_a_large_message(stub: Any, form: str) -> None:
    x = np.arange(12_000, dtype=np.float32).reshape(4000, 3)
    request = asking(predict_pb2.PredictRequest, "onnx")
    if form == "float_val":
        tensor = request.inputs["x"]
        tensor.CopyFrom(tf.make_tensor_proto(x[:0]))
        tensor.tensor_shape.dim[0].size = 4000
        tensor.float_val.extend(x.ravel().tolist())
    else:
        request.inputs["x"].CopyFrom(tf.make_tensor_proto(x))
    answer = stub.Predict(request, timeout=10)
    assert (tf.make_ndarray(answer.outputs["scores"]) == x + x).all()
    assert answer.model_spec.name == "onnx"


def test_one_value_for_a_whole_tensor_of_another_runtime(stub: Any) -> None:
    request = asking(predict_pb2.PredictRequest, "onnx")
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(3.0, shape=[2, 3]))
    assert len(request.inputs["x"].float_val) == 1
    answer = stub.Predict(request, timeout=10)
    assert (tf.make_ndarray(answer.outputs["scores"]) == 6).all()


@pytest.mark.parametrize(
    "name", ["saved_model_half_plus_two_tflite", "saved_model_half_plus_two_tflite_with_sigdef"]
)
def test_predict_with_litert(stub: Any, name: str) -> None:
    request = asking(get_model_metadata_pb2.GetModelMetadataRequest, name)
    request.metadata_field.append("signature_def")
    found = get_model_metadata_pb2.SignatureDefMap()
    stub.GetModelMetadata(request, timeout=10).metadata["signature_def"].Unpack(found)
    (signature,) = found.signature_def.values()
    (source,), (target,) = signature.inputs, signature.outputs
    shape = [abs(dim.size) for dim in signature.inputs[source].tensor_shape.dim]
    request = asking(predict_pb2.PredictRequest, name)
    request.inputs[source].CopyFrom(tf.make_tensor_proto(2.0, tf.float32, shape))
    assert list(stub.Predict(request, timeout=10).outputs[target].float_val) == [3.0]


def test_versions_and_labels(stub: Any) -> None:
    for spec, version in [({"version": 123}, 123), ({"label": "stable"}, 123), ({}, 124)]:
        answer = stub.Predict(predict("labelled", **spec), timeout=10)
        assert answer.model_spec.version.value == version


def test_output_filter(stub: Any) -> None:
    request = predict(HALF)
    request.output_filter.append("y")
    assert list(stub.Predict(request, timeout=10).outputs) == ["y"]


def test_refusals_of_predict(stub: Any, channel: Any) -> None:
    call = stub.Predict
    refused(call, predict_pb2.PredictRequest(), CODE.INVALID_ARGUMENT, "Missing ModelSpec")
    refused(call, predict(""), CODE.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    refused(call, predict("no"), CODE.NOT_FOUND, "Servable not found for request: Latest(no)")
    refused(call, predict(HALF, version=7), CODE.NOT_FOUND, f"Specific({HALF}, 7)")
    says = "Unrecognized servable version label: beta"
    refused(call, predict("labelled", label="beta"), CODE.INVALID_ARGUMENT, says)
    says = 'Serving signature key "wrong" not found.'
    refused(call, predict(HALF, "wrong"), CODE.FAILED_PRECONDITION, says)
    request = predict(HALF)
    request.inputs["z"].CopyFrom(request.inputs["x"])
    del request.inputs["x"]
    says = "input size does not match signature: 1!=1 len({z}) != len({x}). Sent extra: {z}."
    refused(call, request, CODE.INVALID_ARGUMENT, says + " Missing but required: {x}.")
    request = predict(HALF)
    request.output_filter.append("nothing")
    refused(call, request, CODE.INVALID_ARGUMENT, "output tensor alias not found in signature")
    request.output_filter[:] = ["y", "y"]
    refused(call, request, CODE.INVALID_ARGUMENT, "duplicate output tensor alias: y")
    both = predict(HALF, version=123).SerializeToString()
    both += predict(HALF, label="stable").SerializeToString()
    refused(
        channel.unary_unary(PREDICT),
        both,
        CODE.INVALID_ARGUMENT,
        "both a version and a version label",
    )


# -- the list of hostile inputs, row 42 ---------------------------------------------------------


def tensor(**fields: Any) -> Any:
    request = predict(HALF)
    x = request.inputs["x"]
    x.ClearField("tensor_content")
    for name, what in fields.items():
        if name == "dims":
            del x.tensor_shape.dim[:]
            for size in what:
                x.tensor_shape.dim.add(size=size)
        elif name == "unknown_rank":
            x.tensor_shape.unknown_rank = what
        elif isinstance(what, list):
            getattr(x, name).extend(what)
        else:
            setattr(x, name, what)
    return request


ROW = b"\0" * 12


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (tensor(int_val=[1, 2, 5]), "DT_FLOAT with int_val"),
        (tensor(float_val=[1, 2, 5], int_val=[1]), "and nothing else"),
        (tensor(float_val=[1, 2, 5], tensor_content=ROW), "and nothing else"),
        (tensor(tensor_content=ROW[:-1]), "byte size mismatch"),
        (tensor(tensor_content=ROW + b"1"), "byte size mismatch"),
        (tensor(float_val=[1, 2]), "element size mismatch"),
        (tensor(), "has no values"),
        (tensor(float_val=[1, 2, 5], unknown_rank=True), "unknown rank"),
        (tensor(float_val=[1], dims=[1] * 1_000_000), "too many dimensions"),
        (tensor(float_val=[1], dims=[1] * 1_000), "exceeds the maximum"),
        (tensor(float_val=[1], dims=[2**31 - 2, 1]), "one value for"),
        (tensor(float_val=[1], dims=[2**62, 2**62]), "one value for"),
        (tensor(float_val=[1], dims=[-3, 1]), "must be positive"),
        (tensor(float_val=[1], dims=[0, 1]), "must be positive"),
        (tensor(dtype=20, float_val=[1]), "DT_RESOURCE"),
        (tensor(dtype=21, float_val=[1]), "DT_VARIANT"),
        (tensor(dtype=8, scomplex_val=[1, 2]), "DT_COMPLEX64"),
        (tensor(dtype=0, float_val=[1]), "DT_INVALID"),
        (tensor(dtype=99, float_val=[1]), "data type 99"),
        (tensor(dtype=7, tensor_content=ROW), "DT_STRING with tensor_content"),
        (tensor(dtype=3, int_val=[1, 2, 5]), "data-type"),
        (tensor(dtype=4, int_val=[1, 2, 500]), "cannot hold"),
    ],
)
def test_hostile_tensors(stub: Any, request_: Any, says: str) -> None:
    refused(stub.Predict, request_, CODE.INVALID_ARGUMENT, says)
    assert list(stub.Predict(predict(HALF), timeout=10).outputs["y"].float_val) == [2.5, 3.0, 4.5]


def test_garbage(channel: Any, server: ServerProcess) -> None:
    call = channel.unary_unary(PREDICT)
    before = server.rss_mib
    for message in (b"\xff" * 30, b"\x12\x00" * 20_000, b"\xff" * 50_000, b"\x12\xff\x7f" * 9000):
        refused(call, message, CODE.INVALID_ARGUMENT, "")
    classify = channel.unary_unary("/tensorflow.serving.PredictionService/Classify")
    examples_ = wrapped(0x12, wrapped(0x0A, b"\x0a\x00" * 5_000_000))
    refused(classify, examples_, CODE.INVALID_ARGUMENT, "more than 16384")
    dims = wrapped(0x12, wrapped(0x12, wrapped(0x12, b"\x12\x00" * 5_000_000)))
    refused(call, dims, CODE.INVALID_ARGUMENT, "too many dimensions")
    strings = wrapped(0x12, wrapped(0x12, b"\x42\x00" * 5_000_000))
    refused(call, strings, CODE.INVALID_ARGUMENT, "more than 65536")
    assert server.rss_mib - before < 64


def wrapped(tag: int, content: bytes) -> bytes:
    """A field of that tag with this content."""
    return bytes([tag]) + varint_bytes(len(content)) + content


# -- Classify, Regress, MultiInference ----------------------------------------------------------


def test_classify(stub: Any) -> None:
    request = asking(classification_pb2.ClassificationRequest, HALF, "classify_x_to_y")
    answer = stub.Classify(examples(request, {"x": 2}, {"x": 4}), timeout=10)
    lines = [[c.score for c in line.classes] for line in answer.result.classifications]
    assert lines == [[3.0], [4.0]]
    assert answer.model_spec.version.value == 123
    assert answer.model_spec.signature_name == "classify_x_to_y"


def test_regress(stub: Any) -> None:
    request = asking(regression_pb2.RegressionRequest, HALF, "regress_x_to_y")
    answer = stub.Regress(examples(request, {"x": 2}, {"x": 4}), timeout=10)
    assert [line.value for line in answer.result.regressions] == [3.0, 4.0]


def test_the_context_goes_with_each_example(stub: Any) -> None:
    request = asking(regression_pb2.RegressionRequest, HALF, "regress_x_to_y")
    listed = request.input.example_list_with_context
    listed.context.features.feature["x"].float_list.value.append(2)
    listed.examples.add()
    listed.examples.add().features.feature["x"].float_list.value.append(4)
    answer = stub.Regress(request, timeout=10)
    assert [line.value for line in answer.result.regressions] == [3.0, 4.0]


def test_features_become_inputs(stub: Any) -> None:
    request = asking(regression_pb2.RegressionRequest, HALF, "regress_x2_to_y3")
    answer = stub.Regress(examples(request, {"inputs": 2}), timeout=10)
    assert [line.value for line in answer.result.regressions] == [4.0]
    request = asking(classification_pb2.ClassificationRequest, "onnx")
    row = request.input.example_list.examples.add().features.feature["x"].float_list.value
    row.extend([1, 2, 3])
    (line,) = stub.Classify(request, timeout=10).result.classifications
    assert [c.score for c in line.classes] == [2, 4, 6]


def task(request: Any, method: str, signature: str, name: str = HALF) -> Any:
    made = request.tasks.add(method_name=f"tensorflow/serving/{method}")
    made.model_spec.name, made.model_spec.signature_name = name, signature
    return request


def test_multi_inference(stub: Any) -> None:
    request = inference_pb2.MultiInferenceRequest()
    task(request, "regress", "regress_x_to_y")
    task(request, "classify", "classify_x_to_y")
    first, second = stub.MultiInference(examples(request, {"x": 2}), timeout=10).results
    assert first.regression_result.regressions[0].value == 3
    assert second.classification_result.classifications[0].classes[0].score == 3
    assert second.model_spec.signature_name == "classify_x_to_y"
    refused(
        stub.MultiInference,
        task(request, "regress", "regress_x_to_y"),
        CODE.INVALID_ARGUMENT,
        "Duplicate evaluation of signature: regress_x_to_y",
    )
    other = task(inference_pb2.MultiInferenceRequest(), "regress", "a")
    says = "must access the same model name"
    refused(stub.MultiInference, task(other, "regress", "b", "x"), CODE.INVALID_ARGUMENT, says)
    odd = task(inference_pb2.MultiInferenceRequest(), "predict", "")
    refused(stub.MultiInference, odd, CODE.UNIMPLEMENTED, "Unsupported signature method_name")


def test_refusals_of_examples(stub: Any) -> None:
    kind = classification_pb2.ClassificationRequest
    request = examples(asking(kind, HALF, "regress_x_to_y"), {"x": 1})
    says = "Expected classification signature method_name to be tensorflow/serving/classify"
    refused(stub.Classify, request, CODE.INVALID_ARGUMENT, says)
    request = asking(kind, HALF, "classify_x_to_y")
    refused(stub.Classify, request, CODE.INVALID_ARGUMENT, "Input is empty.")
    request = examples(asking(kind, HALF, "no"), {"x": 1})
    refused(stub.Classify, request, CODE.FAILED_PRECONDITION, 'signature key "no" not found')
    request = examples(asking(kind, HALF, "classify_x_to_y"), {"z": 1})
    refused(stub.Classify, request, CODE.INVALID_ARGUMENT, "")
    request = examples(asking(kind, "onnx"), {"x": 1})
    refused(stub.Classify, request, CODE.INVALID_ARGUMENT, "has 1 values")
    request = examples(asking(kind, "onnx"), {"z": 1})
    refused(stub.Classify, request, CODE.INVALID_ARGUMENT, "is required")


# -- what is known of models --------------------------------------------------------------------


def test_model_metadata(stub: Any) -> None:
    request = asking(get_model_metadata_pb2.GetModelMetadataRequest, HALF)
    refused(stub.GetModelMetadata, request, CODE.INVALID_ARGUMENT, "at least one metadata_field")
    request.metadata_field.append("signature_def")
    answer = stub.GetModelMetadata(request, timeout=10)
    assert answer.model_spec.version.value == 123
    found = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(found)
    signature = found.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    assert signature.inputs["x"].dtype == tf.float32.as_datatype_enum
    assert [dim.size for dim in signature.inputs["x"].tensor_shape.dim] == [-1, 1]
    assert found.signature_def["classify_x_to_y"].method_name == "tensorflow/serving/classify"
    request.metadata_field.append("secrets")
    refused(stub.GetModelMetadata, request, CODE.INVALID_ARGUMENT, "secrets is not supported")


def test_model_status(models: Any) -> None:
    kind = get_model_status_pb2.GetModelStatusRequest
    lines = models.GetModelStatus(asking(kind, "labelled"), timeout=10).model_version_status
    assert [(s.version, s.state, s.status.error_code) for s in lines] == [
        (124, 30, 0),
        (123, 30, 0),
    ]
    for spec in ({"version": 123}, {"label": "stable"}):
        answer = models.GetModelStatus(asking(kind, "labelled", **spec), timeout=10)
        assert [s.version for s in answer.model_version_status] == [123]
    bad = models.GetModelStatus(asking(kind, "bad_half_plus_two"), timeout=10)
    (line,) = bad.model_version_status
    assert (line.state, line.status.error_code) == (50, 13)
    assert line.status.error_message
    assert "/tmp" not in line.status.error_message
    refused(models.GetModelStatus, kind(), CODE.INVALID_ARGUMENT, "Missing ModelSpec")
    says = "Could not find any versions of model no"
    refused(models.GetModelStatus, asking(kind, "no"), CODE.NOT_FOUND, says)
    says = "Could not find version 9 of model labelled"
    refused(models.GetModelStatus, asking(kind, "labelled", version=9), CODE.NOT_FOUND, says)


def test_reload_is_refused(models: Any) -> None:
    request = model_management_pb2.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="m", base_path="/etc")
    refused(
        models.HandleReloadConfigRequest, request, CODE.FAILED_PRECONDITION, "not a list of models"
    )


# -- metrics --------------------------------------------------------------------------------------


def counted(server: ServerProcess) -> dict[str, float]:
    """TensorFlow Serving's metrics of one model: name and labels to value."""
    url = f"http://{server.http}/monitoring/prometheus/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    ours = (
        line.rpartition(" ") for line in lines if line.startswith(":tensorflow:") and HALF in line
    )
    return {name: float(value) for name, _, value in ours}


def test_metrics(server: ServerProcess, stub: Any) -> None:
    before = counted(server)
    stub.Predict(predict(HALF), timeout=10)
    request = asking(classification_pb2.ClassificationRequest, HALF, "classify_x_to_y")
    stub.Classify(examples(request, {"x": 1}, {"x": 2}, {"x": 3}), timeout=10)
    both = inference_pb2.MultiInferenceRequest()
    task(both, "regress", "regress_x_to_y")
    task(both, "classify", "classify_x_to_y")
    stub.MultiInference(examples(both, {"x": 2}), timeout=10)
    for bad in (predict(HALF, "nope"), predict("no-such-model")):
        with pytest.raises(grpc.RpcError):
            stub.Predict(bad, timeout=10)
    after = counted(server)
    grew = {name: value - before.get(name, 0) for name, value in after.items()}

    def label(api: str, more: str) -> str:
        return f'{{API="{api}",{more}}}'

    for api, runs in (("Predict", 1), ("Classify", 1), ("MultiInference", 2)):
        calls = label(api, f'entrypoint="GRPC",model_name="{HALF}"')
        assert grew[f":tensorflow:serving:request_latency_count{calls}"] == 1
        assert grew[f":tensorflow:serving:request_latency_sum{calls}"] > 0
        ran = label(api, f'model_name="{HALF}",runtime="tensorflow_savedmodel"')
        assert grew[f":tensorflow:serving:runtime_latency_count{ran}"] == runs
    model = f'{{model="{HALF}"}}'
    assert grew[f":tensorflow:serving:request_example_counts_count{model}"] == 2
    assert grew[f":tensorflow:serving:request_example_count_total{model}"] == 4
