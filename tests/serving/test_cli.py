"""The command line, as a user types it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from crossfade.runtimes import registry
from crossfade.serving.cli import doctor
from tests.conftest import ServerProcess


def crossfade(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossfade", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, input=stdin, timeout=100, check=False
    )


def test_help_teaches() -> None:
    for command in ("serve", "inspect", "infer"):
        done = crossfade(command, "--help")
        assert done.returncode == 0
        assert "examples:" in done.stdout
    assert "exit codes:" in crossfade("--help").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["serve"], 2, "--model-repository"),
        (["serve", "--model-repository", "nowhere"], 1, "'nowhere' is not a folder"),
        (["serve", "--model-repository", ".", "--grpc-port", "99999"], 2, "not a port"),
        (["serve", "--model-repository", "nope://x"], 1, "nope://"),
        (["serve", "--model-repository", ".", "--load-model", "x"], 1, "explicit"),
        (
            ["serve", "--model-repository", ".", "--shared-memory-prefix", "/a"],
            1,
            "needs --allow-shared-memory",
        ),
        (
            [
                *("serve", "--model-repository", ".", "--allow-shared-memory"),
                *("--shared-memory-prefix", "a"),
            ],
            1,
            "must begin with '/'",
        ),
        (["inspect", "nowhere"], 1, "nothing at"),
        (["infer", "m", "{}", "--url", "127.0.0.1:1", "--timeout-s", "5"], 1, "no server answers"),
        (["dance"], 2, "invalid choice"),
    ],
)
def test_errors_are_readable(arguments: list[str], code: int, says: str) -> None:
    done = crossfade(*arguments)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def test_inspect_tells_what_an_export_is(digits: Path) -> None:
    done = crossfade("inspect", digits / "models" / "digits_automl")
    assert done.returncode == 0, done.stderr
    for part in ("AutoML Vision Edge export", "crossfade[tflite]", "zero, one", "image: UINT8"):
        assert part in done.stdout


def test_inspect_names_the_input_that_takes_image_files(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits / "models" / "digits_automl", tmp_path / "m")
    (tmp_path / "m" / "model.yaml").write_text("preprocess: {}")
    done = crossfade("inspect", tmp_path / "m")
    assert "  processing image files as 'image' (" in done.stdout, done.stderr


def test_inspect_as_json_of_a_file(digits: Path) -> None:
    path = digits / "models" / "digits_custom" / "1" / "model.onnx"
    (report,) = json.loads(crossfade("inspect", path, "--json").stdout)
    assert report["platform"] == "onnxruntime_onnx"
    assert report["signatures"]["serving_default"]["inputs"] == {
        "image": {"dtype": "FP32", "shape": [-1, 1, 8, 8]}
    }
    assert report["memory_bytes_at_most"] > path.stat().st_size


def test_inspect_of_an_ensemble(tmp_path: Path) -> None:
    (tmp_path / "a" / "1").mkdir(parents=True)
    (tmp_path / "a" / "1" / "fake.yaml").write_text("inputs: [{name: x}]")
    (tmp_path / "both").mkdir()
    config = tmp_path / "both" / "model.yaml"
    members = "members: [{model: a, weight: 3, outputs: {p: q}}, {model: b, label: new, weight: 1}]"
    config.write_text(f"ensemble: {{kind: weighted, rule: logit, scores: logits, {members}}}")
    done = crossfade("inspect", tmp_path / "both")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "both version 1: ensemble (weighted)",
        "  rule       logit",
        "  member     a, weight 3",
        "    output   p is the ensemble's q",
        "  member     b label new, weight 1",
        "  cannot be loaded here: there is no model 'b' beside it",
    ]
    config.write_text("ensemble: {kind: pipeline, steps: [{model: a}]}")
    (report,) = json.loads(crossfade("inspect", tmp_path / "both", "--json").stdout)
    assert (report["kind"], report["error"]) == ("ensemble (pipeline)", None)


def test_inspect_of_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    assert crossfade("inspect", tmp_path).returncode == 1
    (tmp_path / "model.onnx").write_bytes(b"garbage")
    done = crossfade("inspect", tmp_path / "model.onnx")
    assert done.returncode == 1
    assert "cannot be loaded here" in done.stdout


def test_infer(serve: Callable[..., ServerProcess], digits: Path, tmp_path: Path) -> None:
    (tmp_path / "torn" / "1").mkdir(parents=True)
    (tmp_path / "torn" / "1" / "fake.yaml").write_text("inputs: [")
    server = serve("--model-repository", digits / "models", "--model-repository", tmp_path)
    picture = digits / "images" / "three_0.png"
    to = ("--url", server.grpc)
    done = crossfade("infer", "digits_automl", picture, "--top", "2", *to)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].strip().endswith(":3:three")
    assert "64x64 -> 32x32 (bilinear)" in done.stderr

    zeros = json.dumps([[[0.0] * 8] * 8])
    done = crossfade("infer", "digits_custom", "-", "--json", *to, stdin=zeros)
    answer = json.loads(done.stdout)
    assert answer["model"] == "digits_custom"
    assert sum(answer["outputs"]["probabilities"][0]) == pytest.approx(1)

    done = crossfade("infer", "digits_custom", picture, *to)
    assert done.returncode == 1
    assert "how a picture becomes that is not known" in done.stderr
    assert "unknown model" in crossfade("infer", "nope", "{}", *to).stderr
    said = crossfade("infer", "torn", "{}", *to).stderr
    assert "'torn' is not at ready state (crossfade models says why)" in said
    assert "fake.yaml is not YAML" in crossfade("models", "--url", server.grpc).stdout


def test_doctor_says_what_is_there_and_what_is_missing() -> None:
    shown = crossfade("doctor")
    assert shown.returncode == 0
    for name in ("onnxruntime_onnx", "tensorflow_savedmodel", "tflite", "grpcio", "native"):
        assert name in shown.stdout
    for name in ("fade", "fusion", "otel", "training"):
        assert f"feature      {name} " in shown.stdout


def test_doctor_finds_what_can_be_imported() -> None:
    parts = {one["name"]: one for one in json.loads(crossfade("doctor", "--json").stdout)["parts"]}
    for name, entry in registry.entries().items():
        assert not entry.extra or entry.extra in doctor._MODULES, name
    for name, module in (("torch", "torch"), ("onnxruntime_onnx", "onnxruntime")):
        there = importlib.util.find_spec(module) is not None
        for platform in (one for one in parts if one.startswith(name)):
            assert (parts[platform]["version"] is not None) == there, platform


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_the_transport_is_shown_where_one_looks(
    serve: Callable[..., ServerProcess], digits: Path, transport: str
) -> None:
    report = json.loads(crossfade("doctor", "--json").stdout)
    if transport == "native" and report["transport"] != "native":
        pytest.skip("crossfade-native is not built: make native-deps")
    server = serve("--model-repository", digits / "models", "--transport", transport)
    assert server.wait_for("listening")["transport"] == transport
    with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert f'crossfade_transport_info{{transport="{transport}"}} 1.0' in text
    assert ("crossfade_grpc_connections" in text) == (transport == "native")
