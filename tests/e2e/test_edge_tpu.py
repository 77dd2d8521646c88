"""Models for the Edge TPU, played by a delegate made here, through a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image

from tests.conftest import ROOT, ServerProcess

pytest.importorskip("ai_edge_litert")
from tests.runtimes import tflite_models as tm

COMPILED, PLAIN = tm.build(tm.edge_tpu()), tm.build(tm.reshape([1, 4], tm.UINT8))
X = np.array([[1, 2, 3, 4]], np.uint8)


def model(repository: Path, name: str, files: dict[str, bytes | Path], **options: Any) -> None:
    folder = repository / name
    (folder / "1").mkdir(parents=True)
    (folder / "model.yaml").write_text(json.dumps({"options": options}))
    for file, content in files.items():
        if isinstance(content, Path):
            (folder / "1" / file).symlink_to(content)
        else:
            (folder / "1" / file).write_bytes(content)


@pytest.fixture(scope="module")
def repository(edge_tpu: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    both: dict[str, bytes | Path] = {"model.tflite": PLAIN, "model_edgetpu.tflite": COMPILED}
    alone: dict[str, bytes | Path] = {"model_edgetpu.tflite": COMPILED}
    here = {"delegate": str(edge_tpu)}
    model(root, "two_devices", both, **here, devices=["usb:0", "usb:1"])
    model(root, "fallback", both, **here, device="usb:7", fallback="cpu")
    model(root, "unplugged", both, **here, device="usb:7")
    model(root, "no_device", alone)
    model(root, "plain", {"model.tflite": PLAIN}, **here, device="usb:0")
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    found = ServerProcess("--model-repository", str(repository))
    yield found
    assert found.stop() == 0
    assert "Exception ignored" not in "".join(found.raw)


def infer(server: ServerProcess, name: str, array: np.ndarray, x: str = "x") -> Any:
    with triton.InferenceServerClient(server.grpc) as client:
        tensor = triton.InferInput(x, array.shape, "UINT8")
        tensor.set_data_from_numpy(array)
        return client.infer(name, [tensor])


def test_the_device_answers_or_its_twin(server: ServerProcess) -> None:
    assert infer(server, "two_devices", X).as_numpy("y").tolist() == [[10, 11, 12, 13]]
    assert infer(server, "fallback", X).as_numpy("y").tolist() == X.tolist()
    assert infer(server, "plain", X).as_numpy("y").tolist() == X.tolist()


def test_what_cannot_be_loaded_says_why(server: ServerProcess) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        index = client.get_model_repository_index(as_json=True)["models"]
    reasons = {m["name"]: m.get("reason", "") for m in index}
    assert "is its device plugged in" in reasons["unplugged"]
    assert "no Edge TPU at usb" in reasons["unplugged"]
    assert "compiled for the Edge TPU" in reasons["no_device"]
    assert "/" not in reasons["unplugged"] + reasons["no_device"]


def test_the_log_warns_of_what_runs_on_the_cpu(server: ServerProcess) -> None:
    def lines(name: str) -> list[tuple[str, str]]:
        return [
            (m["severity"].lower(), m["message"]) for m in server.lines if m.get("model") == name
        ]

    assert ("info", "nodes by where they run") in lines("two_devices")
    (twin,) = [message for level, message in lines("fallback") if level == "warning"]
    assert "its twin runs on the CPU" in twin
    assert any("took no node" in message for level, message in lines("plain"))


def test_metrics_count_the_nodes(server: ServerProcess) -> None:
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    lines = {line for line in text.splitlines() if line.startswith("crossfade_nodes{")}
    labels = 'crossfade_nodes{{model="{}",placed="{}",version="1"}} {}.0'
    assert lines == {
        labels.format("two_devices", "delegate", 1),
        labels.format("two_devices", "cpu", 0),
        labels.format("plain", "delegate", 0),
        labels.format("plain", "cpu", 1),
    }


@pytest.mark.parametrize(
    ("name", "nodes", "says"),
    [
        ("two_devices", {"delegate": 1, "cpu": 0}, "nodes      1 on delegate, 0 on cpu"),
        ("plain", {"delegate": 0, "cpu": 1}, "nodes      0 on delegate, 1 on cpu"),
        ("unplugged", {}, "cannot be loaded here: the delegate did not start"),
    ],
)
def test_inspect_counts_the_nodes(
    repository: Path, name: str, nodes: dict[str, int], says: str
) -> None:
    def inspect(*more: str) -> str:
        command = [sys.executable, "-m", "crossfade", "inspect", str(repository / name), *more]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT.parent
        )
        assert "Exception ignored" not in done.stderr
        return done.stdout

    (report,) = json.loads(inspect("--json"))
    assert report["nodes"] == nodes
    assert says in inspect()


def test_the_real_compiled_mobilenet_and_its_twin(
    shared: Path, tmp_path: Path, serve: Callable[..., ServerProcess]
) -> None:
    compiled = shared / "edgetpu" / "mobilenet_v2_1.0_224_quant_edgetpu.tflite"
    twin = shared / "edgetpu" / "mobilenet_v2_1.0_224_quant.tflite"
    files: dict[str, bytes | Path] = {compiled.name: compiled}
    model(tmp_path, "alone", files)
    model(tmp_path, "with_twin", {**files, "cpu.tflite": twin})
    (tmp_path / "with_twin" / "model.yaml").write_text(
        json.dumps(
            {
                "default_filename": compiled.name,
                "options": {"fallback": "cpu", "cpu_model": "cpu.tflite"},
            }
        )
    )
    server = serve("--model-repository", tmp_path)
    with triton.InferenceServerClient(server.grpc) as client:
        index = client.get_model_repository_index(as_json=True)["models"]
        metadata = client.get_model_metadata("with_twin", as_json=True)
    (reason,) = [m["reason"] for m in index if m["name"] == "alone"]
    assert "compiled for the Edge TPU" in reason
    with Image.open(shared / "edgetpu" / "cat.bmp") as image:
        cat = image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
    (x,), (y,) = ([t["name"] for t in metadata[side]] for side in ("inputs", "outputs"))
    scores = infer(server, "with_twin", np.asarray(cat)[None], x).as_numpy(y)[0]
    assert int(scores.argmax()) == 286
    assert scores[286] / 256 == pytest.approx(0.79, abs=0.02)
