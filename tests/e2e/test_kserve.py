"""KServe: its unmodified clients, and a server started as its runtimes start one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ServerProcess
from tests.e2e.test_vertex import ask

PROGRAM = Path(__file__).parent / "programs" / "kserve_clients.py"
Serve = Callable[..., ServerProcess]


def call(clients: Path, server: ServerProcess, model: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [clients / "python", PROGRAM, model, server.grpc, server.http, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def mounted(server: Serve, folder: Path) -> ServerProcess:
    """As a runtime's arguments are, for what the storage initialiser has put into one folder."""
    return server("--model_name=flowers", f"--model_dir={folder}", "--host=127.0.0.1")


def test_one_model_for_all_clients(serve: Serve, clients: Path, digits: Path) -> None:
    server = mounted(serve, digits / "models" / "digits_custom" / "1")
    image = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    body = json.dumps({"inputs": {"image": image.tolist()}, "rows": image.tolist()})
    found = call(clients, server, "flowers", body, "[1, 1, 8, 8]")
    for answer in ("v1 live", "v1 model ready", "v2 live", "v2 ready", "v2 model ready"):
        assert found[answer] is True, answer
    for answer in ("grpc live", "grpc ready", "grpc model ready"):
        assert found[answer] is True, answer
    expected = found["v1 infer"]["predictions"]
    assert sum(expected[0]) == pytest.approx(1, abs=1e-5)
    for answer in ("v2 infer json", "v2 infer binary", "grpc infer"):
        np.testing.assert_allclose(found[answer]["probabilities"], expected, rtol=1e-6)
    assert found["v2 unknown"] is False
    assert "404" in found["v1 unknown"]
    assert "'instances' must be a list that is not empty" in found["v1 wrong"]
    assert "400" in found["v1 wrong"]
    assert "unknown model" in found["grpc unknown"]


@pytest.mark.parametrize("part", ["00000123", ""])
def test_a_saved_model_that_was_mounted(
    serve: Serve, clients: Path, shared: Path, part: str
) -> None:
    server = mounted(serve, shared / "savedmodel" / "saved_model_half_plus_two_cpu" / part)
    body = json.dumps({"inputs": {"x": [[1.0], [2.0]]}, "rows": [1.0, 2.0]})
    found = call(clients, server, "flowers", body, "[2, 1]")
    assert found["v1 infer"] == {"predictions": [2.5, 3.0]}
    assert found["v2 infer binary"] == found["grpc infer"] == {"y": [[2.5], [3.0]]}


def test_what_the_first_protocol_says_of_models(serve: Serve, tmp_path: Path) -> None:
    for name, text in (("good", "inputs: [{name: x, dtype: FP32, shape: [-1]}]"), ("bad", "a: b")):
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "1" / "fake.yaml").write_text(text)
    server = serve("--model-repository", tmp_path)

    def get(path: str) -> tuple[int, Any]:
        status, answer, _ = ask(server, path=path, method="GET")
        return status, json.loads(answer)

    assert get("/") == (200, {"status": "alive"})
    assert get("/v1/models") == (200, {"models": ["good"]})
    for path in ("/v1/models/good", "/v1/models/good/versions/1"):
        status, document = get(path)
        assert (status, document["name"], document["ready"]) == (200, "good", True)
        assert document["model_version_status"][0]["state"] == "AVAILABLE"
    status, document = get("/v1/models/bad")
    assert (status, document["ready"]) == (200, False)
    assert document["model_version_status"][0]["state"] == "END"
    assert get("/v1/models/nobody")[0] == 404
    assert get("/v2/health/live") == (200, {"live": True})
    assert get("/v2/health/ready") == (200, {"ready": True})
    assert get("/v2/models/good/ready") == (200, {"name": "good", "ready": True})
    assert get("/v2/models/bad/ready") == (400, {"name": "bad", "ready": False})
    status, text, _ = ask(server, path="/metrics", method="GET")
    assert status == 200
    assert b"crossfade_requests_total" in text
