"""An ensemble of ONNX models that share a backbone, behind a real server: fused, and swapped."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml

from crossfade.serving.cli.inspect_fusion import text
from tests.conftest import ServerProcess
from tests.runtimes.test_ort_fusion import SIZE, tower

PAIR = {
    "kind": "weighted",
    "scores": "probabilities",
    "members": [{"model": "automl", "weight": 1}, {"model": "custom", "weight": 3}],
}


def write(models: Path, name: str, head: int, version: int = 1) -> None:
    (models / name / str(version)).mkdir(parents=True)
    graph = tower([1, 2, 3], head, outputs="y", tag=f"{name}_")
    (models / name / str(version) / "model.onnx").write_bytes(graph)
    (models / name / "labels.txt").write_text("rose\ntulip\nlily\niris\n")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    write(models, "automl", 1)
    write(models, "custom", 2)
    (models / "pair").mkdir()
    (models / "pair" / "model.yaml").write_text(yaml.safe_dump({"ensemble": PAIR}))
    return models


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[ServerProcess]:
    made = ServerProcess(
        *("--model-repository", str(models), "--model-control-mode", "explicit"),
        *("--load-model", "*"),
    )
    yield made
    made.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as made:
        yield made


def ask(client: Any, model: str) -> np.ndarray:
    x = triton.InferInput("x", [2, SIZE], "FP32")
    x.set_data_from_numpy(np.random.default_rng(3).normal(size=(2, SIZE)).astype(np.float32))
    return np.asarray(client.infer(model, [x]).as_numpy("y"))


def runs(client: Any, model: str) -> tuple[int, int]:
    one = client.get_inference_statistics(model).model_stats[0]
    return one.inference_stats.success.count, one.execution_count


def test_members_are_fused_and_counted(server: ServerProcess, client: Any) -> None:
    line = server.wait_for("members fused", model="pair")
    assert (line["nodes"], line["fused_nodes"], line["shared_nodes"]) == (16, 10, 6)
    wanted = 0.25 * ask(client, "automl") + 0.75 * ask(client, "custom")
    before = [runs(client, name) for name in ("automl", "custom")]

    assert np.allclose(ask(client, "pair"), wanted, atol=1e-6)

    after = [runs(client, name) for name in ("automl", "custom")]
    assert after == [(success + 1, executed) for success, executed in before]
    told = client.get_model_config("pair", as_json=True)["config"]["parameters"]["fusion"]
    assert told["string_value"].startswith("fused: 6 of 10 nodes and 768 bytes of weights")
    shown = urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10).read().decode()
    assert 'crossfade_fused{model="pair",version="1"} 1.0' in shown
    assert 'crossfade_fused_shared_nodes{model="pair",version="1"} 6.0' in shown


def test_a_member_is_swapped_while_clients_ask(
    server: ServerProcess, client: Any, models: Path
) -> None:
    server.wait_for("members fused", model="pair")
    old = ask(client, "pair")
    wrong: list[Any] = []
    answers: list[np.ndarray] = []
    done = threading.Event()

    def keep_asking() -> None:
        with triton.InferenceServerClient(server.grpc) as mine:
            while not done.is_set():
                try:
                    answers.append(ask(mine, "pair"))
                except Exception as error:
                    wrong.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    fused = sum(line["message"] == "members fused" for line in server.lines)
    write(models, "custom", 9, version=2)
    client.load_model("custom")
    new = 0.25 * ask(client, "automl") + 0.75 * ask(client, "custom")
    while sum(line["message"] == "members fused" for line in server.lines) == fused:
        server.wait_for("members fused", model="pair")
        done.wait(0.05)
    assert np.allclose(ask(client, "pair"), new, atol=1e-6)
    done.set()
    for thread in threads:
        thread.join(30)

    assert not wrong
    kinds = {(np.allclose(a, old, 0, 1e-6), np.allclose(a, new, 0, 1e-6)) for a in answers}
    assert kinds == {(True, False), (False, True)}


def test_inspect_says_what_is_shared(models: Path) -> None:
    command = [sys.executable, "-m", "crossfade", "inspect", str(models / "pair"), "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    found = told[0]["fusion"]
    assert found["fused"]
    assert text(found) == (
        "6 nodes and 768 of 1,792 bytes of weights are shared; one graph of 10 nodes saves"
        f" {found['saved']:.0%} of the work of 16"
    )
