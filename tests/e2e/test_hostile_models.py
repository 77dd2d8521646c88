"""Files made to break the libraries that read them: each is refused, and the server lives on."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated.probe import Probe
from tests.conftest import ServerProcess
from tests.e2e.hostile_models import ONNX, SAVED_MODELS, TFLITE, Build, flipped
from tests.runtimes import onnx_models, tflite_models

GROWTH_MIB = 64
FLIPS = 20
Start = Callable[..., ServerProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A server that tries files first, over a repository of hostile ones and a good one."""
    servers: list[ServerProcess] = []

    def begin(corpus: Mapping[str, Build]) -> ServerProcess:
        for name, build in {**corpus, "good": _good}.items():
            folder = tmp_path / "models" / name / "1"
            folder.mkdir(parents=True)
            build(folder)
        server = ServerProcess(
            *("--model-repository", str(tmp_path / "models"), "--cache", str(tmp_path / "cache")),
            *("--model-control-mode", "explicit", "--load-model", "good", "--probe", "auto"),
        )
        servers.append(server)
        return server

    yield begin
    for server in servers:
        assert server.stop() == 0


def _good(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(onnx_models.affine())


def answers(client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 3), np.float32))
    assert client.infer("good", [tensor]).as_numpy("y").tolist() == [[3, 3, 3]]


def _survives(server: ServerProcess, corpus: Mapping[str, Build], tmp_path: Path) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        answers(client)
        before = server.rss_mib
        for name in corpus:
            with pytest.raises(InferenceServerException) as told:
                client.load_model(name, client_timeout=110)
            message = told.value.message()
            assert f"failed to load '{name}'" in message
            assert "tried in a process of its own" in message or "empty" in message, message
            assert "Traceback" not in message
            assert str(tmp_path) not in message
            assert not re.search(r"(?<![\w:/.])/(etc|usr|root|tmp|work)/", message), message
            assert "root:" not in message
            answers(client)
            assert not client.is_model_ready(name)
        assert server.process.poll() is None
        assert server.rss_mib - before < GROWTH_MIB
        assert not psutil.Process(server.process.pid).children(recursive=True)


@pytest.mark.parametrize("corpus", [ONNX, TFLITE], ids=["onnx", "tflite"])
def test_each_is_refused_with_a_reason(
    start: Start, tmp_path: Path, corpus: Mapping[str, Build]
) -> None:
    _survives(start(corpus), corpus, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_saved_models_are_refused_with_a_reason(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    _survives(start(SAVED_MODELS), SAVED_MODELS, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("corpus", [ONNX, TFLITE], ids=["onnx", "tflite"])
def test_inspect_refuses_each_and_stays_alive(corpus: Mapping[str, Build], tmp_path: Path) -> None:
    for name, build in {**corpus, "good": _good}.items():
        folder = tmp_path / name
        folder.mkdir()
        build(folder)
        command = [sys.executable, "-m", "crossfade", "inspect", name]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, timeout=110, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == (0 if name == "good" else 1), (name, said)
        assert "Traceback" not in said
        assert "root:" not in said


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("platform", ["onnxruntime_onnx", "tflite"])
def test_bits_that_flip_never_reach_this_process(platform: str, tmp_path: Path) -> None:
    """Whatever a library makes of it: the file is loaded, or refused with a clean reason."""
    if platform == "tflite":
        name, content = "model.tflite", tflite_models.build(tflite_models.affine(2.0, 1.0))
    else:
        name, content = "model.onnx", onnx_models.affine()
    probe = Probe(tmp_path / "marks", timeout_s=60)
    reasons: list[str] = []
    for seed in range(FLIPS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        (folder / name).write_bytes(flipped(content, seed))
        try:
            probe.check(platform, Artifact(folder / name, "model", 1))
            reasons.append("")
        except LoadFailed as error:
            reasons.append(error.message)
    said = "".join(reasons)
    assert str(tmp_path) not in said
    assert "\n" not in said
    assert len(reasons) == FLIPS
    assert any(reasons), "some of these bits matter"


def test_a_known_file_costs_no_process(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "good" / "1"
    folder.mkdir(parents=True)
    _good(folder)
    said = []
    for _ in range(2):
        server = ServerProcess(
            *("--model-repository", str(tmp_path / "models"), "--cache", str(tmp_path / "cache")),
            *("--probe", "auto"),
        )
        said.append([line["message"] for line in server.lines])
        assert server.stop() == 0
    assert ["tried in a process of its own" in messages for messages in said] == [True, False]
