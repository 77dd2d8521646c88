"""Rows of columns over every protocol, to a model that gives back what it was given."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import yaml
from google.protobuf import json_format, struct_pb2

from tests.conftest import ServerProcess

# The packed rows are no text, and JSON has such outputs in base64 if their names say so.
PACKED = "rows_bytes"
WIDE = 10_000
INSTANCE = """\
type: object
required: [name, age]
properties:
  name: {type: string}
  age: {type: number, nullable: true}
  member: {type: boolean, nullable: true}
  tags: {type: array, items: {type: string}, nullable: true}
"""
WANTED = [
    {"name": "Ä 1", "age": 3.5, "member": True, "tags": ["a", "b"]},
    {"name": "2", "age": None, "member": None, "tags": ["c"]},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("table")
    version = root / "people" / "1"
    version.mkdir(parents=True)
    fake = {"inputs": [{"name": PACKED, "dtype": "BYTES", "shape": [-1]}]}
    (version / "fake.yaml").write_text(yaml.safe_dump(fake))
    (version / "instance.yaml").write_text(INSTANCE)
    config = {
        "table": {"instance": "instance.yaml"},
        "warmup": [{"inputs": {"name": ["x"], "age": [3], "tags": [["a"]]}}],
    }
    (root / "people" / "model.yaml").write_text(yaml.safe_dump(config))
    version = root / "wide" / "1"
    version.mkdir(parents=True)
    (version / "fake.yaml").write_text(yaml.safe_dump(fake))
    columns = {f"c{i}": {"type": "string", "nullable": True} for i in range(WIDE)}
    (version / "instance.yaml").write_text(yaml.safe_dump({"properties": columns}))
    (root / "wide" / "model.yaml").write_text("table: {instance: instance.yaml}")
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


def unpacked(rows: Any) -> list[Any]:
    return [json_format.MessageToDict(struct_pb2.Value.FromString(row)) for row in rows]


def post(server: ServerProcess, path: str, document: Any) -> tuple[int, Any]:
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(document).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def rest(server: ServerProcess, document: Any) -> list[Any]:
    status, answer = post(server, "/v1/models/people:predict", document)
    assert status == 200, answer
    (values,) = answer.values()
    return unpacked(base64.b64decode(value["b64"]) for value in values)


def triton(kind: Any, address: str, inputs: Mapping[str, tuple[str, Any]]) -> list[Any]:
    with kind.InferenceServerClient(address) as client:
        tensors = []
        for name, (dtype, array) in inputs.items():
            tensors.append(kind.InferInput(name, list(array.shape), dtype))
            tensors[-1].set_data_from_numpy(array)
        return unpacked(client.infer("people", tensors).as_numpy(PACKED))


def texts(*values: str) -> tuple[str, Any]:
    return "BYTES", np.array([value.encode() for value in values], np.object_)


def test_rows_and_columns_over_rest(server: ServerProcess) -> None:
    rows = [
        {"name": "Ä 1", "age": 3.5, "member": True, "tags": ["a", "b"]},
        {"name": 2, "age": None, "tags": ["c"], "member": None},
    ]
    assert rest(server, {"instances": rows}) == WANTED
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    assert rest(server, {"inputs": columns}) == WANTED
    assert rest(server, {"instances": [{"name": "x"}]}) == [{"name": "x"}]


def test_tensors(server: ServerProcess) -> None:
    tags = np.array([[b"a", b"b"], [b"c", b""]], np.object_)
    inputs = {
        "name": texts("Ä 1", "2"),
        "age": ("FP32", np.array([3.5, np.nan], np.float32)),
        "member": texts("true", ""),
        "tags": ("BYTES", tags),
    }
    assert triton(triton_grpc, server.grpc, inputs) == WANTED
    assert triton(triton_http, server.http, inputs) == WANTED
    numbers = {"name": ("INT32", np.array([7], np.int32)), "member": ("BOOL", np.array([False]))}
    for _ in range(3):
        assert triton(triton_grpc, server.grpc, numbers) == [{"name": "7", "member": False}]


def test_tensorflow_serving(server: ServerProcess) -> None:
    grpc = pytest.importorskip("grpc")
    tf = pytest.importorskip("tensorflow")
    predict = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
    request = predict.PredictRequest()
    request.model_spec.name = "people"
    request.inputs["name"].CopyFrom(tf.make_tensor_proto(["a", "b"]))
    request.inputs["age"].CopyFrom(tf.make_tensor_proto([1.5, 2.0], tf.float32))
    with grpc.insecure_channel(server.grpc) as channel:
        stub = service.PredictionServiceStub(channel)
        answer = stub.Predict(request, timeout=30)
        found = unpacked(tf.make_ndarray(answer.outputs[PACKED]))
        assert found == [{"name": "a", "age": 1.5}, {"name": "b", "age": 2.0}]
        request.inputs["nam"].CopyFrom(tf.make_tensor_proto(["a", "b"]))
        with pytest.raises(grpc.RpcError) as told:
            stub.Predict(request, timeout=30)
        assert told.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "there is no column 'nam'; did you mean 'name'?" in told.value.details()


@pytest.mark.parametrize(
    ("instance", "says"),
    [
        ({"age": 3}, "column 'name' is missing"),
        ({"name": None}, "column 'name' has no value in row 0"),
        ({"name": "x", "age": "old"}, "column 'age': the value in row 0 is no number: 'old'"),
        ({"name": "x", "member": "maybe"}, "column 'member': the value in row 0 is no boolean"),
        ({"name": "x", "tags": "a"}, "column 'tags' is declared an array"),
        ({"nam": "x"}, "did you mean 'name'?"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(
    server: ServerProcess, instance: Any, says: str
) -> None:
    status, answer = post(server, "/v1/models/people:predict", {"instances": [instance]})
    assert status == 400
    assert says in answer["error"]


def test_ten_thousand_columns(server: ServerProcess) -> None:
    path = "/v1/models/wide:predict"
    instance = {f"c{i}": i for i in range(WIDE)}
    status, answer = post(server, path, {"instances": [instance]})
    assert status == 200, answer
    (row,) = unpacked(base64.b64decode(value["b64"]) for value in answer["predictions"])
    assert row == {f"c{i}": str(i) for i in range(WIDE)}
    status, answer = post(server, path, {"inputs": {f"c{i}": [1, 2] for i in range(WIDE)}})
    assert status == 200, answer
    status, answer = post(server, path, {"instances": [{f"d{i}": i for i in range(WIDE)}]})
    assert status == 400
    assert "there is no column 'd0'; did you mean 'c" in answer["error"]
    scattered = [{f"c{i}": 1} for i in range(5000)]
    status, answer = post(server, path, {"instances": scattered})
    assert status == 400
    assert "more than 1048576 cells" in answer["error"]
    inputs = {f"c{i}": ("INT8", np.array([i % 100], np.int8)) for i in range(0, WIDE, 10)}
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        tensors = []
        for name, (dtype, array) in inputs.items():
            tensors.append(triton_grpc.InferInput(name, [1], dtype))
            tensors[-1].set_data_from_numpy(array)
        (row,) = unpacked(client.infer("wide", tensors).as_numpy(PACKED))
    assert row == {f"c{i}": str(i % 100) for i in range(0, WIDE, 10)}
