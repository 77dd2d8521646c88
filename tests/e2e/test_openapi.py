"""The published document: valid, and true, as schemathesis finds by calling what it describes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ServerProcess
from tests.e2e.hostile import Target, make_repository
from tests.e2e.test_vertex import ask

CONFIG = Path(__file__).parent / "programs" / "schemathesis.toml"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Everything that can be on, and nothing that a call could take away from the next one."""
    repository = make_repository(tmp_path_factory.mktemp("openapi") / "repository")
    server = ServerProcess(
        *("--model-repository", str(repository), "--allow-shared-memory"),
        *("--vertex-ai", "--vertex-ai-default-model", "simple", "--host", "127.0.0.1"),
    )
    started = Target(server, repository)
    yield started
    started.close()
    assert server.stop() == 0


def test_the_document_is_valid(attacked: Target, clients: Path, tmp_path: Path) -> None:
    status, body, headers = ask(attacked.server, path="/openapi.json", method="GET")
    assert (status, headers["content-type"]) == (200, "application/json")
    paths = json.loads(body)["paths"]
    assert {
        "/",
        "/predict",
        "/v1/models/{model}:predict",
        "/v2/models/{model}/infer",
    } <= paths.keys()
    (tmp_path / "openapi.json").write_bytes(body)
    done = subprocess.run(
        [clients / "python", "-m", "openapi_spec_validator", tmp_path / "openapi.json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", ["", "simple"], ids=["any-model", "a-model-that-is-there"])
def test_the_document_is_true(attacked: Target, clients: Path, tmp_path: Path, model: str) -> None:
    config = CONFIG.read_text()
    config = config.replace("${MODEL}", model) if model else config.partition("# In the second")[0]
    (tmp_path / "schemathesis.toml").write_text(config)
    with attacked.survives():
        done = subprocess.run(
            [
                *(clients / "schemathesis", "--config-file", "schemathesis.toml", "run"),
                f"http://{attacked.server.http}/openapi.json",
                *("--mode", "all", "--phases", "coverage,fuzzing"),
                *("--max-examples", "20", "--seed", "20", "--generation-database", "none"),
                *("--request-timeout", "10", "--continue-on-failure", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=110,
        )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Tested: 67" in done.stdout


def test_the_document_is_behind_the_policy(
    serve: Callable[..., ServerProcess], digits: Path, tmp_path: Path
) -> None:
    entry = {"name": "ci", "sha256": "0" * 64, "roles": ["infer"]}
    (tmp_path / "tokens.yaml").write_text(json.dumps({"tokens": [entry]}))
    server = serve("--model-repository", digits / "models", "--tokens", tmp_path / "tokens.yaml")
    assert ask(server, path="/openapi.json", method="GET")[0] == 401
    assert ask(server, path="/", method="GET")[0] == 200
