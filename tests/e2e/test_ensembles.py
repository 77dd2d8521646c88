"""Ensembles over every protocol: labels, members that fail, go and come back, Triton's own."""

from __future__ import annotations

import http.client
import importlib.util
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
import yaml
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from tests.conftest import ServerProcess
from tests.runtimes.onnx_models import model, node, value
from tests.serving.lifecycle.folders import Repository, wait_until

FLOWERS = ["rose", "tulip", "lily"]
TRITON = """
name: "chain"
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling {
  step [
    { model_name: "double" model_version: -1
      input_map { key: "x" value: "middle" } output_map { key: "y" value: "OUT" } },
    { model_name: "double" model_version: -1
      input_map { key: "x" value: "IN" } output_map { key: "y" value: "middle" } }
  ]
}
"""


def classifier(models: Repository, name: str, labels: Sequence[str], **fake: Any) -> None:
    """Answers with the scores that it is sent, in the order of its labels."""
    content = {
        "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1, len(labels)]}],
        "outputs": [{"name": "scores", "from": "x"}],
        **fake,
    }
    models.write(f"{name}/labels.txt", "\n".join(labels))
    models.write(f"{name}/1/fake.yaml", yaml.safe_dump(content))


def ensemble(kind: str, *members: str | dict[str, Any], **keys: Any) -> dict[str, Any]:
    named = [{"model": one} if isinstance(one, str) else one for one in members]
    return {"ensemble": {"kind": kind, "members": named, **keys}}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    models = Repository(tmp_path_factory.mktemp("ensembles") / "models")
    classifier(models, "automl", FLOWERS)
    classifier(models, "custom", ["lily", "rose", "tulip"])
    classifier(models, "slow", FLOWERS, delay_ms=2000, delay_when={"input": "x", "value": 1.0})
    when = {"input": "x", "value": 1.0}
    for name, code in (("shaky", "UNAVAILABLE"), ("strict", "INVALID_ARGUMENT")):
        classifier(models, name, FLOWERS, behaviour="fail", fail={"code": code, "when": when})
    x, y = value("x", TensorProto.FLOAT, ["n", 3]), value("y", TensorProto.FLOAT, ["n", 3])
    (models.root / "double" / "1").mkdir(parents=True)
    (models.root / "double" / "1" / "model.onnx").write_bytes(
        model([node("Add", "x x", "y")], [x], [y])
    )
    weights = [{"model": "automl", "weight": 3}, {"model": "custom", "weight": 1}]
    models.configure("both", **ensemble("weighted", *weights, scores="probabilities"))
    models.configure("either", **ensemble("fallback", "shaky", "custom"))
    models.configure("never", **ensemble("fallback", "strict", "custom"))
    models.configure("nested", **ensemble("fallback", "shaky", "both"))
    models.configure(
        "timed",
        **ensemble("weighted", "automl", "slow", scores="probabilities", member_timeout_ms=150),
    )
    models.configure("sooner", **ensemble("fallback", "slow", "automl"))
    models.write("chain/config.pbtxt", TRITON)
    (models.root / "chain" / "1").mkdir()
    classifier(models, "guest", FLOWERS)
    models.configure("host", **ensemble("weighted", "guest", "custom", scores="probabilities"))
    return models


@pytest.fixture(scope="module")
def server(models: Repository) -> Iterator[ServerProcess]:
    started = ServerProcess(
        *("--model-repository", str(models.root)),
        *("--model-control-mode", "poll", "--poll-s", "0.2"),
    )
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as found:
        yield found


def ask(client: Any, name: str, rows: Any, to: str = "x", **keys: Any) -> Any:
    api = triton if isinstance(client, triton.InferenceServerClient) else triton_http
    array = np.array(rows, np.float32)
    given = api.InferInput(to, array.shape, "FP32")
    given.set_data_from_numpy(array)
    return client.infer(name, [given], **keys)


def said(answer: Any) -> dict[str, str]:
    return {name: one.string_param for name, one in answer.get_response().parameters.items()}


def test_scores_are_aligned_by_label_over_every_protocol(
    server: ServerProcess, client: Any
) -> None:
    row = [0.7, 0.2, 0.1]  # rose, tulip, lily of automl; lily, rose, tulip of custom
    expected = [0.75 * 0.7 + 0.25 * 0.2, 0.75 * 0.2 + 0.25 * 0.1, 0.75 * 0.1 + 0.25 * 0.7]
    answer = ask(client, "both", [row, row])
    assert np.allclose(answer.as_numpy("scores"), [expected, expected], atol=1e-5)
    assert said(answer) == {}
    with triton_http.InferenceServerClient(server.http) as over_http:
        assert np.allclose(ask(over_http, "both", [row]).as_numpy("scores"), [expected], atol=1e-5)
    body = json.dumps({"instances": [row]}).encode()
    address = f"http://{server.http}/v1/models/both:predict"
    with urllib.request.urlopen(address, body) as found:
        assert np.allclose(json.load(found)["predictions"], [expected], atol=1e-5)


def test_clients_see_labels_and_signature(server: ServerProcess, client: Any) -> None:
    metadata = client.get_model_metadata("both", as_json=True)
    assert metadata["platform"] == "ensemble"
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert metadata["outputs"] == [{"name": "scores", "datatype": "FP32", "shape": ["-1", "3"]}]
    config = client.get_model_config("both", as_json=True)["config"]
    assert (config["platform"], config["max_batch_size"]) == ("ensemble", 4096)
    given = triton.InferInput("x", (1, 3), "FP32")
    given.set_data_from_numpy(np.array([[0.1, 0.8, 0.1]], np.float32))
    wanted = [triton.InferRequestedOutput("scores", class_count=1)]
    (best,) = client.infer("both", [given], outputs=wanted).as_numpy("scores").ravel()
    assert best.decode().endswith(":tulip")
    with urllib.request.urlopen(f"http://{server.http}/v1/models/both") as found:
        (status,) = json.load(found)["model_version_status"]
    assert (status["version"], status["state"]) == ("1", "AVAILABLE")
    with urllib.request.urlopen(f"http://{server.http}/v1/models/both/metadata") as found:
        assert '"scores"' in found.read().decode()
    body = json.dumps({"signature_name": "serving_default", "instances": [[0.1, 0.8, 0.1]]})
    address = f"http://{server.http}/v1/models/both/versions/1:predict"
    with urllib.request.urlopen(address, body.encode()) as found:
        assert len(json.load(found)["predictions"][0]) == 3


PROGRAM = """
import json, sys
import numpy as np
import ovmsclient
client = ovmsclient.make_grpc_client(sys.argv[1])
print(json.dumps(client.predict({"x": np.array([[0.7, 0.2, 0.1]], np.float32)}, "both").tolist()))
"""


def test_a_client_of_tensorflow_serving(server: ServerProcess) -> None:
    if importlib.util.find_spec("ovmsclient") is None:
        pytest.skip("ovmsclient is not installed")
    command = [sys.executable, "-c", PROGRAM, server.grpc]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout), [[0.575, 0.175, 0.25]], atol=1e-5)


def test_the_next_member_answers_what_the_first_one_cannot(
    server: ServerProcess, client: Any
) -> None:
    answer = ask(client, "either", [[0.7, 0.2, 0.1]])
    assert said(answer) == {"ensemble_member": "shaky"}
    answer = ask(client, "either", [[1.0, 0.0, 0.0]])  # the custom model's lily
    assert answer.as_numpy("scores").tolist() == [[0.0, 0.0, 1.0]]
    assert said(answer) == {"ensemble_member": "custom", "ensemble_left_out": "shaky"}
    connection = http.client.HTTPConnection(server.http)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 0, 0]}
    connection.request("POST", "/v2/models/either/infer", json.dumps({"inputs": [tensor]}))
    document = json.load(connection.getresponse())
    connection.close()
    assert document["parameters"] == {
        "ensemble_member": "custom",
        "ensemble_left_out": "shaky",
    }


def test_no_other_member_mends_a_wrong_request(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        ask(client, "never", [[1.0, 0.0, 0.0]])


def test_an_ensemble_in_an_ensemble(client: Any) -> None:
    answer = ask(client, "nested", [[1.0, 0.0, 0.0]])
    assert np.allclose(answer.as_numpy("scores"), [[0.75, 0.0, 0.25]], atol=1e-5)
    assert said(answer)["ensemble_member"] == "both"


def test_a_member_that_is_late_is_left_out(client: Any) -> None:
    answer = ask(client, "timed", [[0.7, 0.2, 0.1]])
    assert said(answer) == {}
    began_s = time.monotonic()
    answer = ask(client, "timed", [[1.0, 0.0, 0.0]])
    assert time.monotonic() - began_s < 1.9
    assert said(answer) == {"ensemble_left_out": "slow"}
    assert np.allclose(answer.as_numpy("scores"), [[1.0, 0.0, 0.0]], atol=1e-5)


def test_a_member_that_would_miss_the_deadline_is_passed_over(client: Any) -> None:
    answer = ask(client, "sooner", [[1.0, 0.0, 0.0]], client_timeout=1.5)
    assert said(answer) == {"ensemble_member": "automl", "ensemble_left_out": "slow"}


def test_tritons_ensemble_runs_as_it_is(client: Any) -> None:
    answer = ask(client, "chain", [[1, 2, 3], [4, 5, 6]], to="IN")
    assert answer.as_numpy("OUT").tolist() == [[4, 8, 12], [16, 20, 24]]
    config = client.get_model_config("chain", as_json=True)["config"]
    steps = config["ensemble_scheduling"]["step"]
    assert [step["model_name"] for step in steps] == ["double", "double"]
    assert steps[1]["input_map"] == {"x": "IN"}
    with pytest.raises(InferenceServerException, match="batch-size must be <= 8"):
        ask(client, "chain", [[1, 2, 3]] * 9, to="IN")


def test_the_list_of_models(server: ServerProcess) -> None:
    command = [*(sys.executable, "-m", "crossfade", "models"), "--json", "--url", server.grpc]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    (line,) = [one for one in json.loads(done.stdout) if one["name"] == "both"]
    assert (line["state"], line["version"], line["memory_bytes"]) == ("READY", "1", 0)
    assert line["requests"] >= 1


def test_statistics_and_metrics_down_to_each_member(server: ServerProcess, client: Any) -> None:
    def count(name: str) -> int:
        (line,) = client.get_inference_statistics(name, as_json=True)["model_stats"]
        return int(line["inference_stats"]["success"].get("count", 0))

    before = count("both"), count("custom")
    ask(client, "both", [[0.7, 0.2, 0.1]])
    assert (count("both"), count("custom")) == (before[0] + 1, before[1] + 1)
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as found:
        text = found.read().decode()
    line = 'crossfade_member_requests_total{code="UNAVAILABLE",member="shaky",model="either"'
    assert line in text
    assert 'crossfade_requests_total{code="OK",model="both",version="1"}' in text


def test_members_are_reloaded_go_and_come_back_under_the_ensemble(
    models: Repository, server: ServerProcess, client: Any
) -> None:
    def lily() -> float:
        return float(ask(client, "host", [[1.0, 0.0, 0.0]]).as_numpy("scores")[0][2])

    def reason() -> str:
        index = client.get_model_repository_index(as_json=True)["models"]
        return next((m.get("reason", "") for m in index if m["name"] == "host"), "")

    assert lily() == pytest.approx(0.5, abs=1e-5)
    faults: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with triton.InferenceServerClient(server.grpc) as own:
            while not stop.is_set():
                try:
                    ask(own, "host", [[1.0, 0.0, 0.0]])
                except InferenceServerException as error:
                    faults.append(str(error))

    asker = threading.Thread(target=keep_asking)
    asker.start()
    try:
        for _ in range(3):  # the same model again: nobody notices
            classifier(models, "guest", FLOWERS)
            time.sleep(0.4)
        # Another order of its labels: what it calls rose is now a lily.
        classifier(models, "guest", ["lily", "tulip", "rose"])
        wait_until(lambda: client.get_model_metadata("host") and lily_of(client, "host") == 1.0)
    finally:
        stop.set()
        asker.join()
    assert faults == []
    models.remove("guest/1")
    wait_until(lambda: "guest" in reason())
    assert not client.is_model_ready("host")
    with pytest.raises(InferenceServerException, match="not at ready state"):
        lily()
    classifier(models, "guest", FLOWERS)
    wait_until(lambda: client.is_model_ready("host"))
    assert lily() == pytest.approx(0.5, abs=1e-5)


def lily_of(client: Any, name: str) -> float:
    """What the answer says of lilies, by the labels that it has now; -1 while it changes."""
    given = triton.InferInput("x", (1, 3), "FP32")
    given.set_data_from_numpy(np.array([[1.0, 0.0, 0.0]], np.float32))
    wanted = [triton.InferRequestedOutput("scores", class_count=3)]
    found = client.infer(name, [given], outputs=wanted).as_numpy("scores").ravel()
    scores = {one.decode().rpartition(":")[2]: float(one.split(b":")[0]) for one in found}
    return round(scores["lily"], 4)


def test_loading_and_unloading_on_request(
    tmp_path: Path, serve: Callable[..., ServerProcess]
) -> None:
    models = Repository(tmp_path / "models")
    for name in ("one", "two"):
        classifier(models, name, FLOWERS)
    models.configure("both", **ensemble("weighted", "one", "two", scores="probabilities"))
    server = serve("--model-repository", models.root, "--model-control-mode", "explicit")
    with (
        triton.InferenceServerClient(server.grpc) as over_grpc,
        triton_http.InferenceServerClient(server.http) as over_http,
    ):
        for client in (over_grpc, over_http):
            client.load_model("both")
            assert client.is_model_ready("both")
            assert client.is_model_ready("two")
            client.unload_model("both")
            assert client.is_model_ready("two")
            client.load_model("both")
            client.unload_model("both", unload_dependents=True)
            assert not client.is_model_ready("two")
