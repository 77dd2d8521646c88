"""TensorFlow Serving's REST API against a real server."""

from __future__ import annotations

import base64
import http.client
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.conftest import ServerProcess
from tests.e2e.hostile import LEAK
from tests.e2e.test_real_files import picture
from tests.runtimes.onnx_models import model, node, value

HALF = "/v1/models/saved_model_half_plus_two_cpu"


def onnx(folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(model(nodes, inputs, outputs))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("rest")
    a, b = value("a", TensorProto.FLOAT, ["n", 2]), value("b", TensorProto.INT32, ["n"])
    c, d = value("c", TensorProto.FLOAT, ["n", 2]), value("d", TensorProto.INT32, ["n"])
    onnx(root / "two", [node("Add", "a a", "c"), node("Neg", "b", "d")], [a, b], [c, d])
    for name, tensor in (("text", "s"), ("image", "s_bytes")):
        (root / name / "1").mkdir(parents=True)
        spec = f"inputs: [{{name: {tensor}, dtype: BYTES, shape: [-1]}}]"
        (root / name / "1" / "fake.yaml").write_text(spec)
    one = value("x", TensorProto.FLOAT, [1, 2]), value("y", TensorProto.FLOAT, [1, 2])
    onnx(root / "alone", [node("Identity", "x", "y")], [one[0]], [one[1]])
    (root / "alone" / "model.yaml").write_text("labels: {stable: 1}\n")
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def half(shared: Path) -> Iterator[ServerProcess]:
    started = ServerProcess("--model-repository", str(shared / "savedmodel"))
    yield started
    assert started.stop() == 0


def call(server: ServerProcess, path: str, body: Any = None, method: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.http, timeout=10)
    try:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.getheader("Content-Type") != "application/json":
        return response.status, text.decode()
    return response.status, json.loads(text)


def refused(server: ServerProcess, path: str, body: Any, status: int, says: str) -> None:
    got, document = call(server, path, body)
    assert (got, document.keys()) == (status, {"error"}), document
    assert says in document["error"]
    assert not LEAK.search(document["error"].replace("tensorflow/serving/", "").replace(path, ""))


# -- predict ------------------------------------------------------------------------------------


def test_rows_and_columns(server: ServerProcess) -> None:
    rows = [{"a": [1, 2], "b": 3}, {"a": [0.5, 4.25], "b": -4}]
    expected = [{"c": [2, 4], "d": -3}, {"c": [1, 8.5], "d": 4}]
    assert call(server, "/v1/models/two:predict", {"instances": rows}) == (
        200,
        {"predictions": expected},
    )
    columns = {"a": [[1, 2], [0.1, 4]], "b": [3, -4]}
    assert call(server, "/v1/models/two/versions/1:predict", {"inputs": columns}) == (
        200,
        {"outputs": {"c": [[2, 4], [0.2, 8]], "d": [-3, 4]}},
    )
    body = {"signature_name": "serving_default", "instances": rows[:1]}
    assert call(server, "/v1/models/two:predict", body)[1]["predictions"] == expected[:1]


def test_strings_and_bytes(server: ServerProcess) -> None:
    raw = b"\xff\x00image"
    b64 = {"b64": base64.b64encode(raw).decode()}
    path = "/v1/models/text:predict"
    assert call(server, path, {"instances": ["é", "b"]}) == (200, {"predictions": ["é", "b"]})
    plain = {"b64": base64.b64encode(b"plain").decode().rstrip("=")}
    assert call(server, path, {"instances": [plain]}) == (200, {"predictions": ["plain"]})
    assert call(server, path, {"inputs": {"s": ["a"]}}) == (200, {"outputs": ["a"]})
    refused(server, path, {"instances": [b64]}, 400, "not UTF-8")
    for body in ({"instances": [b64]}, {"instances": [{"s_bytes": b64}]}):
        assert call(server, "/v1/models/image:predict", body) == (200, {"predictions": [b64]})


def test_nan_and_infinity_are_tokens_both_ways(server: ServerProcess) -> None:
    body = b'{"instances": [{"a": [NaN, -Infinity], "b": 1}, {"a": [Infinity, 0.1], "b": 2}]}'
    status, document = call(server, "/v1/models/two:predict", body)
    assert status == 200
    first, second = (row["c"] for row in document["predictions"])
    assert math.isnan(first[0])
    assert (first[1], second) == (-math.inf, [math.inf, 0.2])
    for bad in (
        b"[NaN, 1e999]",
        b"[NaN, nan]",
        b"[NaN, 1e39]",
        b'[NaN, "\\ud800"]',
        b"[NaN, -NaN]",
    ):
        body = b'{"inputs": {"a": [' + bad + b'], "b": [1]}}'
        refused(server, "/v1/models/two:predict", body, 400, "")
    refused(server, "/v1/models/two:predict", b'{"inputs": {"a": [[1, 2]], "b": [NaN]}}', 400, "")


def test_rows_of_a_model_that_takes_one(server: ServerProcess) -> None:
    rows = [[1, 2], [3, 4], [5, 6]]
    for path in ("/v1/models/alone:predict", "/v1/models/alone/labels/stable:predict"):
        assert call(server, path, {"instances": rows}) == (200, {"predictions": rows})


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/models/two:predict", {"instances": [], "inputs": []}, 400, "and not both"),
        ("/v1/models/two:predict", {}, 400, "and not both"),
        ("/v1/models/two:predict", {"instances": []}, 400, "not empty"),
        ("/v1/models/two:predict", {"instances": 1}, 400, "not empty"),
        ("/v1/models/two:predict", {"instances": [1]}, 400, "several inputs: a, b"),
        (
            "/v1/models/two:predict",
            {"instances": [{"a": [1, 2]}]},
            400,
            "Missing but required: {b}",
        ),
        ("/v1/models/two:predict", {"instances": [{"a": 1}, {"b": 1}]}, 400, "same keys"),
        ("/v1/models/two:predict", {"inputs": {"a": [[1, 2], [1]], "b": [1]}}, 400, "lengths"),
        ("/v1/models/two:predict", {"inputs": {"a": [[1, "x"]], "b": [1]}}, 400, "not FP32"),
        ("/v1/models/two:predict", {"inputs": {"a": [[1, 1]], "b": [1.5]}}, 400, "not INT32"),
        ("/v1/models/two:predict", {"inputs": {"a": [[1, 1]], "b": [2**40]}}, 400, "cannot hold"),
        ("/v1/models/two:predict", {"inputs": {"a": [[1, None]], "b": [1]}}, 400, "not FP32"),
        ("/v1/models/text:predict", {"instances": [{"b64": "?"}]}, 400, "not base64"),
        ("/v1/models/text:predict", {"instances": [{"b64": 1}]}, 400, "not a string"),
        ("/v1/models/text:predict", {"instances": [["a"], "b"]}, 400, "lengths"),
        ("/v1/models/text:predict", {"instances": [1]}, 400, "not a string"),
        ("/v1/models/text:predict", {"signature_name": "no", "instances": ["a"]}, 400, "not found"),
        ("/v1/models/text:predict", {"signature_name": 1, "instances": ["a"]}, 400, "a string"),
        ("/v1/models/text:predict", b'{"instances": ["a"', 400, "not valid JSON"),
        ("/v1/models/text:predict", b"[" * 101 + b"]" * 101, 400, "nesting depth"),
        ("/v1/models/text:predict", b'{"instances": ["a"], "instances": ["b"]}', 400, "twice"),
        ("/v1/models/no:predict", {"instances": [1]}, 404, "Servable not found for request"),
        ("/v1/models/text/versions/9:predict", {"instances": [1]}, 404, "Specific(text, 9)"),
        ("/v1/models/text/labels/no:predict", {"instances": [1]}, 400, "version label: no"),
        ("/v1/models/text/versions/x:predict", {"instances": [1]}, 400, "Malformed request: POST"),
        ("/v1/models/text/versions/1/labels/a:predict", {"inputs": []}, 400, "Malformed request"),
        ("/v1/models/text:guess", {}, 400, "Malformed request: POST"),
        ("/v1/models/text:predict", None, 400, "Malformed request: GET"),
        ("/v1/models/text:regress", {"examples": []}, 400, "not empty"),
        ("/v1/models/text:regress", {"examples": [1]}, 400, "object of features"),
        ("/v1/models/text:regress", {"examples": [{"s": True}]}, 400, "must be a number"),
        ("/v1/models/text:regress", {"examples": [{"s": 2**63}]}, 400, "must be a number"),
        ("/v1/models/text:regress", {"examples": [{"s": "a"}]}, 400, "Expected regression"),
        (
            "/v1/models/two:classify",
            {"examples": [{"a": [1, 2], "b": 1}]},
            400,
            "Expected classification",
        ),
    ],
)
def test_refusals(server: ServerProcess, path: str, body: Any, status: int, says: str) -> None:
    refused(server, path, body, status, says)


# -- half_plus_two ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["saved_model_half_plus_two_cpu", "saved_model_half_plus_three"])
def test_predict(half: ServerProcess, name: str) -> None:
    expected = [3.5, 4.0, 5.5] if name.endswith("three") else [2.5, 3.0, 4.5]
    path = f"/v1/models/{name}:predict"
    for rows in ([1.0, 2.0, 5.0], [{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]):
        assert call(half, path, {"instances": rows}) == (200, {"predictions": expected})
    assert call(half, path, {"inputs": [1, 2, 5]}) == (200, {"outputs": expected})
    columns = [[number] for number in expected]
    assert call(half, path, {"instances": [[1.0], [2.0], [5.0]]}) == (200, {"predictions": columns})


def test_classify_and_regress(half: ServerProcess) -> None:
    body = {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": [2.0]}]}
    assert call(half, f"{HALF}:classify", body) == (200, {"results": [[["", 2.5]], [["", 3.0]]]})
    body["signature_name"] = "regress_x_to_y"
    assert call(half, f"{HALF}:regress", body) == (200, {"results": [2.5, 3.0]})
    body = {"signature_name": "regress_x_to_y", "context": {"x": 2.0}, "examples": [{}, {"x": 4.0}]}
    assert call(half, f"{HALF}/versions/123:regress", body) == (200, {"results": [3.0, 4.0]})
    refused(half, f"{HALF}:classify", body, 400, "Expected classification signature")


def test_status(half: ServerProcess) -> None:
    good = {"error_code": "OK", "error_message": ""}
    line = {"version": "123", "state": "AVAILABLE", "status": good}
    for path in (HALF, f"{HALF}/versions/123"):
        kserve = {"name": HALF.rpartition("/")[2], "ready": True}
        assert call(half, path) == (200, {"model_version_status": [line], **kserve})
    refused(half, f"{HALF}/versions/9", None, 404, "Could not find version 9 of model")
    refused(half, "/v1/models/no", None, 404, "Could not find any versions of model no")
    status, document = call(half, "/v1/models")
    assert status == 200
    assert HALF.rpartition("/")[2] in document["models"]
    refused(half, "/v1/models/", None, 400, "Malformed request: GET /v1/models/")


def test_metadata(half: ServerProcess, shared: Path) -> None:
    expected = json.loads((shared / "savedmodel" / "half_plus_two_model_metadata.json").read_text())
    status, got = call(half, f"{HALF}/metadata")
    assert status == 200
    expected["model_spec"]["name"] = HALF.rpartition("/")[2]
    ours, theirs = (without_names(document) for document in (got, expected))
    assert ours == theirs


def without_names(value: Any) -> Any:
    """The document without the names of tensors within the graph, which are not shown."""
    if not isinstance(value, dict):
        return value
    return {
        key: without_names(item)
        for key, item in value.items()
        if not (key == "name" and "dtype" in value)
    }


def test_metrics(server: ServerProcess) -> None:
    assert call(server, "/v1/models/text:predict", {"instances": ["a"]})[0] == 200
    status, text = call(server, "/monitoring/prometheus/metrics")
    assert status == 200
    assert ':tensorflow:serving:request_count{model_name="text",status="OK"}' in text
    assert 'crossfade_requests_total{code="OK",model="text",version="1"}' in text


# -- an export of AutoML, through a runtime that is not TensorFlow -------------------------------


def test_flowers_of_automl(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "flowers").symlink_to(shared / "automl-vision-edge" / "flowers")
    paths = sorted((shared / "automl-vision-edge" / "flowers" / "images").glob("*.jpg"))[::2]
    pictures = [picture(path, 224)[0].tolist() for path in paths]
    names = [path.name.partition("_")[0] for path in paths]
    started = ServerProcess("--model-repository", str(tmp_path))
    try:
        status, got = call(started, "/v1/models/flowers:predict", {"instances": pictures})
        assert status == 200
        labels = (shared / "automl-vision-edge" / "flowers" / "dict.txt").read_text().split()
        best = [labels[row.index(max(row))] for row in got["predictions"]]
        assert [label.startswith(name) for label, name in zip(best, names, strict=True)] == [
            True
        ] * 3
        flat = np.ravel(pictures[0]).tolist()
        status, got = call(started, "/v1/models/flowers:classify", {"examples": [{"image": flat}]})
        ((label, _), *_) = sorted(got["results"][0], key=lambda pair: -pair[1])
        assert (status, label) == (200, best[0])
    finally:
        assert started.stop() == 0


@pytest.mark.parametrize(
    "name",
    [
        "saved_model_half_plus_two_tf2_cpu",
        "saved_model_half_plus_two_2_versions",
        "saved_model_half_plus_two_tflite",
        "saved_model_half_plus_two_tflite_with_sigdef",
    ],
)
def test_numbers_in_a_row_for_every_form(half: ServerProcess, name: str) -> None:
    """As the documentation of TensorFlow Serving sends them, whatever shape was exported."""
    body = {"instances": [1.0, 2.0, 5.0]}
    assert call(half, f"/v1/models/{name}:predict", body) == (200, {"predictions": [2.5, 3.0, 4.5]})
