"""A container on Vertex AI, as its health checks and its proxy see it."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton

from tests.conftest import ServerProcess
from tests.e2e.test_real_files import picture

HEALTH = "/v1/endpoints/12/deployedModels/34"
PREDICT = f"{HEALTH}:predict"
REDIRECT = "X-Vertex-Ai-Triton-Redirect"
MEDIA = "application/vnd.vertex-ai-triton.binary+json;json-header-size="
IDS = {"AIP_ENDPOINT_ID": "12", "AIP_DEPLOYED_MODEL_ID": "34"}
MAX_BYTES = 3 * 512 * 1024
Serve = Callable[..., ServerProcess]


def on_vertex(storage: str | Path, **more: str) -> dict[str, str]:
    return {"AIP_MODE": "PREDICTION", "AIP_STORAGE_URI": str(storage), **IDS, **more}


def vertex(storage: str | Path, *arguments: str, **more: str) -> ServerProcess:
    arguments = ("--host", "127.0.0.1", *arguments)
    return ServerProcess(*arguments, environment=on_vertex(storage, **more))


def ask(
    server: ServerProcess,
    body: Any = None,
    path: str = PREDICT,
    headers: dict[str, str] | None = None,
    method: str = "POST",
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(server.http, timeout=20)
    try:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return response.status, response.read(), named
    finally:
        connection.close()


def predictions(server: ServerProcess, body: Any, path: str = PREDICT) -> Any:
    status, answer, _ = ask(server, body, path)
    assert status == 200, answer
    document = json.loads(answer)
    assert list(document) == ["predictions"]
    return document["predictions"]


def refused(server: ServerProcess, body: Any, status: int, says: str, **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    got, answer, _ = ask(server, body, PREDICT, named)
    assert (got, list(json.loads(answer))) == (status, ["error"])
    assert says in json.loads(answer)["error"]


# -- what AIP_STORAGE_URI may be ----------------------------------------------------------------


@pytest.mark.parametrize("url", ["{}", "file://{}", "file://{}/"])
def test_an_onnx_file_alone(digits: Path, tmp_path: Path, url: str) -> None:
    folder = digits / "models" / "digits_custom" / "1"
    server = vertex(url.format(folder), "--cache", str(tmp_path))
    try:
        assert ask(server, path=HEALTH, method="GET")[:2] == (200, b"{}")
        (scores,) = predictions(server, {"instances": [np.zeros((1, 8, 8)).tolist()]})
        assert sum(scores) == pytest.approx(1)
        assert json.loads(ask(server, path="/v1/models", method="GET")[1]) == {"models": ["model"]}
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize("part", ["00000123", ""])
def test_a_saved_model_alone_and_in_tensorflow_servings_layout(shared: Path, part: str) -> None:
    server = vertex(shared / "savedmodel" / "saved_model_half_plus_two_cpu" / part)
    try:
        for instances in ([1.0, 2.0, 5.0], [{"x": 1.0}, {"x": 2.0}, {"x": 5.0}]):
            assert predictions(server, {"instances": instances}) == [2.5, 3.0, 4.5]
    finally:
        assert server.stop() == 0


def test_an_export_of_automl(shared: Path) -> None:
    server = vertex(
        shared / "automl-vision-edge" / "flowers",
        *("--vertex-ai-default-model", "flowers"),
        AIP_PREDICT_ROUTE="/v1/models/flowers:predict",
        AIP_HEALTH_ROUTE="/v2/health/ready",
    )
    try:
        assert ask(server, path="/v2/health/ready", method="GET")[0] == 200
        path = sorted((shared / "automl-vision-edge" / "flowers" / "images").glob("*.jpg"))[0]
        body = {"instances": picture(path, 224).tolist()}
        (scores,) = predictions(server, body, "/v1/models/flowers:predict")
        labels = (shared / "automl-vision-edge" / "flowers" / "dict.txt").read_text().split()
        assert labels[scores.index(max(scores))].startswith(path.name.partition("_")[0])
    finally:
        assert server.stop() == 0


def test_a_repository_of_tritons(shared: Path) -> None:
    repository = shared / "triton" / "model_repository"
    server = vertex(repository, "--vertex-ai-default-model", "simple")
    try:
        assert ask(server, path=HEALTH, method="GET")[0] == 200
        row = {"INPUT0": list(range(16)), "INPUT1": [1] * 16}
        (answer,) = predictions(server, {"instances": [row]})
        assert answer["OUTPUT0"] == list(range(1, 17))
    finally:
        assert server.stop() == 0


def test_several_models_and_no_default(digits: Path) -> None:
    server = vertex(digits / "models")
    try:
        assert ask(server, path=HEALTH, method="GET")[0] == 503
        refused(server, {"instances": [1]}, 409, "--vertex-ai-default-model")
        status, answer, _ = ask(server, b"", headers={REDIRECT: "v2/models/digits_custom"})
        assert (status, json.loads(answer)["name"]) == (200, "digits_custom")
    finally:
        assert server.stop() == 0


def test_a_model_that_cannot_be_loaded_is_not_healthy(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    server = vertex(tmp_path)
    try:
        assert ask(server, path=HEALTH, method="GET")[:2] == (503, b"{}")
        refused(server, {"instances": [1]}, 503, "no model is ready")
    finally:
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"AIP_HTTP_PORT": "http"}, "AIP_HTTP_PORT is not a port"),
        ({"AIP_PREDICT_ROUTE": "predict"}, "AIP_PREDICT_ROUTE is not a path"),
        ({"AIP_PREDICT_ROUTE": "/v2/logging"}, "it is taken"),
        ({"AIP_STORAGE_URI": "/nowhere"}, "'/nowhere' is not a folder"),
        ({"AIP_STORAGE_URI": ""}, "--model-repository is needed"),
    ],
)
def test_what_cannot_be_served(
    serve: Serve, digits: Path, environment: dict[str, str], says: str
) -> None:
    server = serve(
        *("--host", "127.0.0.1"),
        wait_ready=False,
        environment={**on_vertex(digits / "models"), **environment},
    )
    assert server.process.wait(30) in (1, 2)
    server.stop()
    assert says in "".join(server.raw)
    assert "Traceback" not in "".join(server.raw)


# -- requests and answers -----------------------------------------------------------------------

MODELS = {
    "text": "inputs: [{name: s, dtype: BYTES, shape: [-1]}]",
    "image": "inputs: [{name: s_bytes, dtype: BYTES, shape: [-1]}]",
    "any": "inputs: [{name: a, dtype: FP32}]",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("vertex")
    for name, text in MODELS.items():
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "fake.yaml").write_text(text)
    started = vertex(root, "--vertex-ai-default-model", "text")
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("images")
    (root / "fake.yaml").write_text(MODELS["image"])
    started = vertex(root)
    yield started
    assert started.stop() == 0


def test_one_prediction_an_instance(server: ServerProcess) -> None:
    assert predictions(server, {"instances": ["a", "é"]}) == ["a", "é"]
    b64 = {"b64": base64.b64encode(b"c").decode()}
    for parameters in (None, {}, {"signature_name": "serving_default", "confidenceThreshold": 0.5}):
        body = {"instances": [b64, {"s": "d"}][:1], "parameters": parameters}
        assert predictions(server, body) == ["c"]


def test_bytes(images: ServerProcess) -> None:
    b64 = {"b64": base64.b64encode(b"\xff\x00image").decode()}
    assert predictions(images, {"instances": [{"s_bytes": b64}, {"s_bytes": b64}]}) == [b64, b64]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "either 'instances' or 'inputs'"),
        ({"instances": []}, "not empty"),
        ({"instances": "a"}, "not empty"),
        ({"instances": [1]}, "not a string"),
        ({"instances": [{"x": "a"}]}, "Sent extra: {x}"),
        ({"instances": ["a"], "inputs": []}, "and not both"),
        ({"instances": ["a"], "parameters": []}, "'parameters' must be an object"),
        ({"instances": ["a"], "parameters": {"signature_name": 1}}, "must be a string"),
        ({"instances": ["a"], "parameters": {"signature_name": "no"}}, "no signature 'no'"),
        ({"inputs": [1]}, "'inputs' must be a list of objects"),
    ],
)
def test_refusals(server: ServerProcess, body: Any, says: str) -> None:
    refused(server, body, 400, says)


def padded(size: int, **document: Any) -> bytes:
    """A body of exactly that many bytes, with what no model reads."""
    frame = len(json.dumps({**document, "parameters": {"note": ""}}))
    return json.dumps({**document, "parameters": {"note": "a" * (size - frame)}}).encode()


def test_a_request_that_vertex_would_cut(server: ServerProcess) -> None:
    assert predictions(server, padded(MAX_BYTES, instances=["a"])) == ["a"]
    refused(server, padded(MAX_BYTES + 1, instances=["a"]), 413, "send fewer instances")
    assert ask(server, {"instances": ["a" * MAX_BYTES]}, "/v1/models/text:predict")[0] == 200


def test_an_answer_that_vertex_would_cut(server: ServerProcess) -> None:
    """It comes back whole or not at all, and the connection is good for the next request."""
    says = "the answer is larger than 1572864 bytes; send fewer instances"
    text = "a" * (MAX_BYTES - len('{"instances": [""]}'))  # "predictions" is two letters longer
    refused(server, {"instances": [text]}, 413, says)
    assert predictions(server, {"instances": [text[:-10]]}) == [text[:-10]]


def test_an_answer_of_a_redirect_that_vertex_would_cut(server: ServerProcess) -> None:
    """An integer of one digit comes back as a float of two letters more."""
    tensor = {"name": "a", "shape": [500_000], "datatype": "FP32", "data": [1] * 500_000}
    body = json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()
    assert len(body) < MAX_BYTES
    assert len(ask(server, body, "/v2/models/any/infer")[1]) > MAX_BYTES
    to = {REDIRECT: "v2/models/any/infer"}
    status, answer, _ = ask(server, body, headers=to)
    assert (status, list(json.loads(answer))) == (413, ["error"])


# -- Triton's clients on Vertex AI ---------------------------------------------------------------


def inputs(rows: int = 1) -> tuple[list[Any], Any]:
    values = np.arange(16 * rows, dtype=np.int32).reshape(rows, 16)
    made = [triton.InferInput(name, values.shape, "INT32") for name in ("INPUT0", "INPUT1")]
    for one in made:
        one.set_data_from_numpy(values)
    return made, values


@pytest.fixture(scope="module")
def simple(shared: Path) -> Iterator[ServerProcess]:
    started = vertex(
        shared / "triton" / "model_repository", *("--vertex-ai-default-model", "simple")
    )
    yield started
    assert started.stop() == 0


@pytest.mark.parametrize(
    "to", [None, "v2/models/simple/infer", "v2/models/simple/versions/1/infer"]
)
def test_binary_tensors(simple: ServerProcess, to: str | None) -> None:
    """The body is made, and the answer read, by NVIDIA's client."""
    tensors, values = inputs()
    body, length = triton.InferenceServerClient.generate_request_body(tensors)
    headers = {"Content-Type": f"{MEDIA}{length}", **({REDIRECT: to} if to else {})}
    status, answer, got = ask(simple, body, headers=headers)
    assert status == 200, answer
    head = got["inference-header-content-length"]
    result = triton.InferenceServerClient.parse_response_body(answer, header_length=int(head))
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), 2 * values)


def test_json_of_the_other_protocol_needs_no_header(simple: ServerProcess) -> None:
    tensor = {"shape": [1, 16], "datatype": "INT32", "data": list(range(16))}
    body = {"id": "7", "inputs": [{"name": name, **tensor} for name in ("INPUT0", "INPUT1")]}
    for headers in ({}, {REDIRECT: "v2/models/simple/infer"}):
        status, answer, _ = ask(simple, body, headers=headers)
        document = json.loads(answer)
        assert (status, document["id"], document["model_name"]) == (200, "7", "simple")
        assert document["outputs"][0]["data"] == list(range(0, 32, 2))


def test_redirects(simple: ServerProcess) -> None:
    for to, path in (
        ("v2", "/v2"),
        ("v2/health/live", "/v2/health/live"),
        ("v2/health/ready", "/v2/health/ready"),
        ("v2/models/simple", "/v2/models/simple"),
        ("v2/models/simple/config", "/v2/models/simple/config"),
        ("v2/models/simple/ready", "/v2/models/simple/ready"),
    ):
        status, answer, _ = ask(simple, b"", headers={REDIRECT: to})
        assert (status, answer) == ask(simple, path=path, method="GET")[:2]
        assert status == 200
    status, answer, _ = ask(simple, b"{}", headers={REDIRECT: "v2/repository/index"})
    assert "simple" in {line["name"] for line in json.loads(answer)}
    status, answer, got = ask(simple, b"", headers={REDIRECT: "metrics"})
    assert (status, got["content-type"].partition(";")[0]) == (200, "text/plain")
    assert b"nv_inference_request_success" in answer
    assert ask(simple, b"", headers={REDIRECT: "v2/models/nobody"})[0] == 404
    assert ask(simple, b"", headers={REDIRECT: "v2/models/simple/explode"})[0] == 404
    assert ask(simple, b"", headers={REDIRECT: "v1/models/simple"})[0] == 400
    assert ask(simple, path=PREDICT, headers={REDIRECT: "v2"}, method="GET")[0] == 405


@pytest.mark.parametrize("size", ["", "-1", "x", "99999999", str(2**64)])
def test_a_binary_body_of_another_length(simple: ServerProcess, size: str) -> None:
    body, _ = triton.InferenceServerClient.generate_request_body(inputs()[0])
    status, answer, _ = ask(simple, body, headers={"Content-Type": f"{MEDIA}{size}"})
    assert status == 400, answer
    assert list(json.loads(answer)) == ["error"]
