"""Tabular exports: imported, served, and asked over every protocol, against TensorFlow's answer."""

from __future__ import annotations

import base64
import csv
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import yaml
from google.protobuf import struct_pb2

from tests import tabular_exports
from tests.conftest import ServerProcess
from tests.e2e.test_import import crossfade, imported
from tests.make_tabular_export import CONTAINER, TASKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

VERTEX = {
    "AIP_MODE": "PREDICTION",
    "AIP_ENDPOINT_ID": "1",
    "AIP_DEPLOYED_MODEL_ID": "2",
}
PREDICT = "/v1/endpoints/1/deployedModels/2:predict"
TITANIC = (*TASKS["classification"]["numbers"], *TASKS["classification"]["words"])
Row = dict[str, str | None]
Scores = np.ndarray[Any, Any]


@pytest.fixture(scope="session")
def exports(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Both exports by task."""
    if reason := tabular_exports.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("tabular")
    return {
        task: tabular_exports.make(task, shared / "tabular" / data, folder / task)
        for task, data in tabular_exports.DATA.items()
    }


@pytest.fixture(scope="session")
def models(exports: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with both, ``titanic`` and ``housing``."""
    repository = tmp_path_factory.mktemp("models")
    for name, task in (("titanic", "classification"), ("housing", "regression")):
        said = imported(repository, name, exports[task])
        assert "tried: it loads here" in said
        assert "model.yaml has task, table, isolation, warmup" in said
    return repository


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[ServerProcess]:
    arguments = ("--host", "127.0.0.1", "--vertex-ai-default-model", "titanic")
    environment = {**VERTEX, "AIP_STORAGE_URI": str(models)}
    started = ServerProcess(*arguments, environment=environment)
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def rows(shared: Path) -> list[Row]:
    """Rows of the data set, and odd ones, as text; ``None`` is missing."""
    with (shared / "tabular" / "titanic.csv").open(newline="") as file:
        found: list[Row] = [
            {name: row[name] or None for name in TITANIC} for row in csv.DictReader(file)
        ]
    whole = found[1]
    return [
        *found[:40],
        dict.fromkeys(TITANIC),
        {**whole, "Sex": "unheard of", "Cabin": "ß漢🚢" * 300},
        {**whole, "Age": "no number", "Fare": "1e2"},
        {**whole, "Age": "NaN", "Fare": "-inf"},
    ]


@pytest.fixture(scope="module")
def wanted(exports: Mapping[str, Path], rows: list[Row]) -> Scores:
    """TensorFlow's scores of ``rows``."""
    found = tabular_exports.answer(exports["classification"], rows)
    assert found["classes"] == [["0", "1"]] * len(rows)
    return np.array(found["scores"], np.float32)


def post(server: ServerProcess, path: str, document: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    try:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        connection.request("POST", path, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def good(server: ServerProcess, path: str, document: Any) -> Any:
    status, answer = post(server, path, document)
    assert status == 200, answer
    return answer


def refused(server: ServerProcess, document: Any, path: str = PREDICT) -> str:
    status, answer = post(server, path, document)
    assert status == 400, answer
    said = answer["error"]
    assert isinstance(said, str)
    for secret in ("Traceback", "/tmp", "struct2tensor", "node", ".py"):
        assert secret not in said
    return said


def column(rows: Sequence[Row], name: str) -> np.ndarray[Any, Any]:
    return np.array([(row[name] or "").encode() for row in rows], np.object_)


def packed(rows: Sequence[Row]) -> list[bytes]:
    found = []
    for row in rows:
        value = struct_pb2.Value()
        value.struct_value.update(dict(row))
        found.append(value.SerializeToString())
    return found


def typed(row: Row) -> dict[str, Any]:
    """As a JSON client would have it: numbers as numbers, what is missing left out or null."""
    made: dict[str, Any] = {}
    for name, text in row.items():
        if name in ("Age", "SibSp", "Parch", "Fare") and text and text[0].isdigit():
            made[name] = json.loads(text) if "." in text else int(float(text))
        elif text is not None or name == "Cabin":
            made[name] = text
    return made


# Every protocol, to scores.


def vertex(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    answer = good(server, PREDICT, {"instances": [typed(row) for row in rows]})
    assert list(answer) == ["predictions"]
    assert all(list(each) == ["classes", "scores"] for each in answer["predictions"])
    assert all(each["classes"] == ["0", "1"] for each in answer["predictions"])
    return np.array([each["scores"] for each in answer["predictions"]], np.float32)


def rest_rows(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    answer = good(server, "/v1/models/titanic:predict", {"instances": rows})
    return np.array([each["scores"] for each in answer["predictions"]], np.float32)


def rest_columns(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    columns = {name: [row[name] for row in rows] for name in TITANIC}
    answer = good(server, "/v1/models/titanic:predict", {"inputs": columns})
    return np.array(answer["outputs"]["scores"], np.float32)


def rest_packed(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    texts = [{"b64": base64.b64encode(each).decode()} for each in packed(rows)]
    answer = good(server, "/v1/models/titanic:predict", {"instances": texts})
    return np.array([each["scores"] for each in answer["predictions"]], np.float32)


def tf_serving(server: ServerProcess, inputs: Mapping[str, Any], dtypes: Any = None) -> Scores:
    tf = pytest.importorskip("tensorflow")
    predict = pytest.importorskip("tensorflow_serving.apis.predict_pb2")
    service = pytest.importorskip("tensorflow_serving.apis.prediction_service_pb2_grpc")
    request = predict.PredictRequest()
    request.model_spec.name = "titanic"
    for name, values in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(values, (dtypes or {}).get(name)))
    with grpc.insecure_channel(server.grpc) as channel:
        answer = service.PredictionServiceStub(channel).Predict(request, timeout=60)
    scores: Scores = tf.make_ndarray(answer.outputs["scores"])
    return scores


def tf_columns(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    return tf_serving(server, {name: column(rows, name).tolist() for name in TITANIC})


def tf_packed(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    return tf_serving(server, {"inputs": packed(rows)})


def triton(kind: Any, address: str, inputs: Mapping[str, tuple[str, Any]], name: str) -> Any:
    with kind.InferenceServerClient(address) as client:
        tensors = []
        for key, (dtype, array) in inputs.items():
            tensor = kind.InferInput(key, list(array.shape), dtype)
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return client.infer(name, tensors)


def v2_columns(kind: Any, address: str, rows: Sequence[Row]) -> Scores:
    inputs = {name: ("BYTES", column(rows, name)) for name in TITANIC}
    answer = triton(kind, address, inputs, "titanic")
    scores: Scores = answer.as_numpy("scores")
    assert answer.as_numpy("classes").tolist() == [[b"0", b"1"]] * len(rows)
    return scores


def v2_grpc(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    return v2_columns(triton_grpc, server.grpc, rows)


def v2_http(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    return v2_columns(triton_http, server.http, rows)


def v2_packed(server: ServerProcess, rows: Sequence[Row]) -> Scores:
    inputs = {"inputs": ("BYTES", np.array(packed(rows), np.object_))}
    scores: Scores = triton(triton_grpc, server.grpc, inputs, "titanic").as_numpy("scores")
    return scores


@pytest.mark.parametrize(
    "ask",
    [
        *(vertex, rest_rows, rest_columns, rest_packed),
        *(tf_columns, tf_packed, v2_grpc, v2_http, v2_packed),
    ],
    ids=lambda ask: ask.__name__,
)
def test_every_protocol_gives_tensorflows_answer(
    server: ServerProcess,
    rows: list[Row],
    wanted: Scores,
    ask: Callable[[ServerProcess, Sequence[Row]], Scores],
) -> None:
    np.testing.assert_allclose(ask(server, rows), wanted, atol=1e-6)
    np.testing.assert_allclose(ask(server, rows[:1]), wanted[:1], atol=1e-6)


def test_the_answers_mean_something(server: ServerProcess, shared: Path, rows: list[Row]) -> None:
    with (shared / "tabular" / "titanic.csv").open(newline="") as file:
        data = list(csv.DictReader(file))
    every: list[Row] = [{name: row[name] or None for name in TITANIC} for row in data]
    found = rest_columns(server, every).argmax(axis=1)
    assert len(found) == 891
    assert np.mean(found == [int(row["Survived"]) for row in data]) > 0.8


def test_numbers_of_any_dtype_become_text(
    server: ServerProcess, rows: list[Row], wanted: Scores
) -> None:
    dtypes = {"Age": "FP32", "SibSp": "INT64", "Parch": "UINT8", "Fare": "FP64", "Pclass": "INT32"}
    arrays = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "UINT8": np.uint8}
    some = rows[:40]
    inputs = {name: ("BYTES", column(some, name)) for name in TITANIC}
    for name, dtype in dtypes.items():
        texts = [row[name] or "nan" for row in some]
        inputs[name] = (dtype, np.array([float(t) for t in texts]).astype(arrays.get(dtype, "i4")))
    for kind, address in ((triton_grpc, server.grpc), (triton_http, server.http)):
        for _ in range(3):  # a form that was seen before is read in another way
            answer = triton(kind, address, inputs, "titanic")
            np.testing.assert_allclose(answer.as_numpy("scores"), wanted[:40], atol=1e-6)
    scores = tf_serving(server, {name: array.tolist() for name, (_, array) in inputs.items()})
    np.testing.assert_allclose(scores, wanted[:40], atol=1e-6)
    only = {"Fare": ("FP64", np.array([7.25])), "Age": ("FP32", np.array([22.0], np.float32))}
    first = triton(triton_grpc, server.grpc, only, "titanic").as_numpy("scores")
    for value in (7.25, 71.0, 7.25):
        only["Fare"] = ("FP64", np.array([value]))
        again = triton(triton_grpc, server.grpc, only, "titanic").as_numpy("scores")
        assert (again == first).all() == (value == 7.25)
    instance = {"Fare": 7.25, "Age": 22.0}
    assert good(server, PREDICT, {"instances": [instance]})["predictions"][0][
        "scores"
    ] == pytest.approx(first[0].tolist(), abs=1e-6)


def test_classify_takes_examples(server: ServerProcess, rows: list[Row], wanted: Scores) -> None:
    examples = [
        {name: text.encode().decode() for name, text in row.items() if text} for row in rows[:20]
    ]
    document = {"examples": examples}
    results = good(server, "/v1/models/titanic:classify", document)["results"]
    assert [[label for label, _ in result] for result in results] == [["0", "1"]] * 20
    scores = np.array([[score for _, score in result] for result in results], np.float32)
    np.testing.assert_allclose(scores, wanted[:20], atol=1e-6)


def test_missing_null_and_empty_are_the_same(server: ServerProcess, wanted: Scores) -> None:
    forms: list[dict[str, Any]] = [
        {},
        dict.fromkeys(TITANIC),
        dict.fromkeys(TITANIC, ""),
        {"Age": float("nan"), "Fare": float("inf"), "SibSp": None},
    ]
    answer = good(server, PREDICT, {"instances": forms})["predictions"]
    for one in answer:
        assert one["scores"] == pytest.approx(wanted[40].tolist(), abs=1e-6)
    assert len(good(server, PREDICT, {"instances": [{}, {}]})["predictions"]) == 2


def test_regression_answers_as_its_schema_says(
    server: ServerProcess, exports: Mapping[str, Path], shared: Path
) -> None:
    known = TASKS["regression"]
    names = (*known["numbers"], *known["words"])
    with (shared / "tabular" / "housing.csv").open(newline="") as file:
        data = [row for _, row in zip(range(300), csv.DictReader(file), strict=False)]
    some: list[Row] = [{name: row[name] or None for name in names} for row in data]
    assert any(row["total_bedrooms"] is None for row in some)
    want = tabular_exports.answer(exports["regression"], some)
    answer = good(server, "/v1/models/housing:predict", {"instances": some})["predictions"]
    fields = ["value", "lower_bound", "upper_bound"]
    assert list(answer[0]) == fields
    for field in fields:
        found = [each[field] for each in answer]
        np.testing.assert_allclose(found, np.array(want[field])[:, 0], rtol=1e-5)
    errors = [
        abs(a["value"] - float(row[known["target"]])) for a, row in zip(answer, data, strict=True)
    ]
    assert np.mean(errors) < 60_000
    inside = [
        a["lower_bound"] <= float(row[known["target"]]) <= a["upper_bound"]
        for a, row in zip(answer, data, strict=True)
    ]
    assert np.mean(inside) > 0.8
    inputs = {name: ("BYTES", column(some, name)) for name in names}
    found = triton(triton_grpc, server.grpc, inputs, "housing")
    assert found.as_numpy("value").shape == (300,)
    np.testing.assert_allclose(found.as_numpy("value"), [a["value"] for a in answer], rtol=1e-6)


def test_the_entry_and_its_description(server: ServerProcess, models: Path) -> None:
    config = yaml.safe_load((models / "titanic" / "model.yaml").read_text())
    assert config["task"] == "classification"
    assert config["isolation"] == {"process": True, "environment": "automl-tabular"}
    assert len(config["warmup"]) == 30
    assert (models / "titanic" / "1" / "labels.txt").read_text() == "0\n1\n"
    config = yaml.safe_load((models / "housing" / "model.yaml").read_text())
    assert config["task"] == "regression"
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        found = client.get_model_metadata("titanic", as_json=True)
        assert [tensor["name"] for tensor in found["inputs"]] == [*TITANIC, "inputs"]
        assert {tensor["datatype"] for tensor in found["inputs"]} == {"BYTES"}
        described = client.get_model_config("titanic").config
        assert all(tensor.optional for tensor in described.input)
        asked = triton_grpc.InferInput("Sex", [1], "BYTES")
        asked.set_data_from_numpy(np.array([b"female"], np.object_))
        best = triton_grpc.InferRequestedOutput("scores", class_count=1)
        answer = client.infer("titanic", [asked], outputs=[best]).as_numpy("scores")
        assert answer[0][0].split(b":")[1:] == [b"1", b"1"]
        counts = client.get_inference_statistics("titanic", as_json=True)["model_stats"][0]
        assert "compute_input" in counts["inference_stats"]


@pytest.mark.parametrize(
    ("instance", "says"),
    [
        ({"Sexx": "male"}, "there is no column 'Sexx'; did you mean 'Sex'?"),
        ({"Sex": {"is": "male"}}, "column 'Sex' has a value that is an object"),
        ({"Sex": ["male"]}, "column 'Sex' has a value that is a list"),
        ({"Age": [[[1]]]}, "column 'Age' has a value that is a list"),
        ({"Sex": {"b64": "//8="}}, "column 'Sex': the value in row 0 is not UTF-8 text"),
        ({"inputs": "x", "Sex": "male"}, "'inputs' holds whole rows"),
        ({"\n../../etc": 1}, "there is no column"),
        ({"x" * 1_000_000: 1}, "there is no column"),
        (3, "input 'inputs' has a value that is not a string"),
        ([{"Sex": "male"}], "input 'inputs' has"),
        ({f"c{i}": i for i in range(10_000)}, "there is no column 'c"),
    ],
)
def test_what_is_no_row_is_refused(server: ServerProcess, instance: Any, says: str) -> None:
    for path in (PREDICT, "/v1/models/titanic:predict"):
        said = refused(server, {"instances": [instance]}, path)
        assert says in said
        assert len(said) < 1500
    assert vertex(server, [{"Sex": "male"}]).shape == (1, 2)


def test_other_hostile_requests(server: ServerProcess, wanted: Scores) -> None:
    before_mib = server.rss_mib
    deep = b'{"instances": [{"Sex": ' + b"[" * 90 + b"1" + b"]" * 90 + b"}]}"
    assert "a list" in refused(server, deep)
    deeper = b'{"instances": [' + b'{"Sex": ' * 200 + b"1" + b"}" * 200 + b"]}"
    assert "nesting depth" in refused(server, deeper)
    assert "not an object of columns" in refused(server, {"instances": [{"Sex": "male"}, 3]})
    assert "not valid JSON" in refused(server, b'{"instances": [{"Age": 1e999}]}')
    wide = {"instances": [{"Sex": "m" * 1_000_000, "Cabin": "\u0000" * 100_000}]}
    assert len(good(server, "/v1/models/titanic:predict", wide)["predictions"]) == 1
    path = "/v1/models/titanic:predict"
    assert "a list with a value for each row" in refused(server, {"inputs": {"Age": 3}}, path)
    uneven = {"inputs": {"Age": [1, 2], "Fare": [1]}}
    assert "batch size does not match" in refused(server, uneven, path)
    many = {"inputs": {"Age": [1] * 5000}}
    assert "batch-size must be <= 4096" in refused(server, many, path)
    cells = {"inputs": {"Age": [1] * (2**20 + 1)}}
    assert "cells" in refused(server, cells, path)
    broken = {"instances": [{"b64": base64.b64encode(b"no row").decode()}]}
    assert "the model refused the inputs" in refused(server, broken, path)
    for inputs, says in (
        ({"Sex": ("BYTES", np.array([b"\xff\xfe"], np.object_))}, "not UTF-8"),
        ({"Sex": ("BYTES", np.array([[b"male"]], np.object_))}, "unexpected shape"),
        ({"sex": ("BYTES", np.array([b"male"], np.object_))}, "did you mean 'Sex'?"),
        ({"Age": ("INT8", np.zeros([2**21], np.int8))}, "batch-size must be"),
    ):
        with pytest.raises(triton_grpc.InferenceServerException) as told:
            triton(triton_grpc, server.grpc, inputs, "titanic")
        assert told.value.status() == "StatusCode.INVALID_ARGUMENT"
        assert says in told.value.message()
    odd = {"Age": ("FP32", np.array([np.nan, np.inf, -np.inf], np.float32))}
    answer = triton(triton_grpc, server.grpc, odd, "titanic").as_numpy("scores")
    np.testing.assert_allclose(answer, np.tile(wanted[40], (3, 1)), atol=1e-6)
    assert server.rss_mib - before_mib < 200


def test_a_killed_worker_costs_its_requests_and_comes_back(
    serve: Callable[..., ServerProcess], models: Path
) -> None:
    server = serve("--model-repository", models)
    path = "/v1/models/titanic:predict"
    question = {"instances": [{"Sex": "female"}]}
    want = good(server, path, question)
    workers = [
        child
        for child in psutil.Process(server.process.pid).children(recursive=True)
        if "automl-tabular" in child.exe() or "automl-tabular" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2  # one a model
    # Stopped, so that the request is surely under way when it is killed.
    for worker in workers:
        worker.send_signal(signal.SIGSTOP)
    connection = http.client.HTTPConnection(server.http, timeout=60)
    connection.request("POST", path, json.dumps(question))
    time.sleep(0.5)
    for worker in workers:
        os.kill(worker.pid, signal.SIGKILL)
    answer = connection.getresponse()
    assert answer.status == 503
    assert "worker process ended" in json.loads(answer.read())["error"]
    connection.close()
    until_s = time.monotonic() + 120
    while True:
        status, found = post(server, path, question)
        if status == 200:
            break
        assert status == 503, found
        assert time.monotonic() < until_s
        time.sleep(0.2)
    assert found == want


def test_a_warm_up_that_fails_is_told_before_anything_is_written(
    exports: Mapping[str, Path], tmp_path: Path
) -> None:
    (inside,) = (exports["classification"] / "tf-saved-model").iterdir()
    copy = tmp_path / "model-1"
    for file in inside.rglob("*"):
        if file.is_file():
            target = copy / file.relative_to(inside)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    schema = copy / "prediction_schema.yaml"
    schema.write_text(schema.read_text().replace("'1'", "'2'"))
    done = crossfade("import", copy, "--name", "t", "--repository", tmp_path / "models")
    assert done.returncode == 1
    assert "other classes than those declared" in done.stderr
    assert list((tmp_path / "models").iterdir()) == []
    inspected = crossfade("inspect", copy).stdout
    assert CONTAINER in inspected
