"""What of the environment and what of the options counts on Vertex AI."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from crossfade.serving.cli import serve, vertex_options
from crossfade.serving.cli.main import main

ON_VERTEX = {
    "AIP_MODE": "PREDICTION",
    "AIP_HTTP_PORT": "8085",
    "AIP_ENDPOINT_ID": "12",
    "AIP_DEPLOYED_MODEL_ID": "34",
    "AIP_STORAGE_URI": "gs://bucket/folder",
}


@pytest.fixture
def on_vertex(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ON_VERTEX.items():
        monkeypatch.setenv(name, value)


def applied(*arguments: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    serve.add(parser.add_subparsers())
    options = parser.parse_args(["serve", *arguments])
    settings: dict[str, Any] = {"model_repositories": tuple(options.model_repositories)}
    vertex_options.apply(options, settings)
    return settings


@pytest.mark.usefixtures("on_vertex")
def test_the_environment_is_enough() -> None:
    settings = applied()
    assert settings["http_port"] == 8085
    assert settings["http_host"] == "0.0.0.0"
    assert settings["model_repositories"] == ("gs://bucket/folder",)
    assert settings["model_name"] == "model"
    assert settings["vertex"].predict_route == "/v1/endpoints/12/deployedModels/34:predict"


@pytest.mark.usefixtures("on_vertex")
def test_options_win() -> None:
    settings = applied(
        *("--http-port", "9000", "--host", "127.0.0.1", "--model-repository", "models"),
        *("--vertex-ai-default-model", "rose", "--vertex-ai-max-payload-bytes", "10000000"),
    )
    assert settings["http_port"] == 9000
    assert "http_host" not in settings
    assert settings["model_repositories"] == ("models",)
    assert settings["vertex"].default_model == "rose"
    assert settings["vertex"].max_payload_bytes == 10_000_000


@pytest.mark.usefixtures("on_vertex")
def test_the_name_of_the_one_model() -> None:
    assert applied("--vertex-ai-default-model", "rose")["model_name"] == "rose"
    both = ("--vertex-ai-default-model", "rose", "--model-name", "tulip")
    assert applied(*both)["model_name"] == "tulip"


@pytest.mark.usefixtures("on_vertex")
def test_switched_off() -> None:
    assert applied("--no-vertex-ai") == {"model_repositories": ()}


def test_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ON_VERTEX:
        monkeypatch.delenv(name, raising=False)
    assert "vertex" not in applied("--model-repository", "models")
    settings = applied("--vertex-ai", "--model-repository", "models")
    assert (settings["vertex"].health_route, settings["http_port"]) == ("/health", 8080)


def test_options_with_underscores(capsys: pytest.CaptureFixture[str]) -> None:
    """As KServe's runtimes pass them; what stands behind the sign of equality stays as it is."""
    assert main(["serve", "--model_name=a_b", "--model_dir=no_where/x", "--http_port=0"]) == 1
    assert "the model repository 'no_where/x' is not a folder" in capsys.readouterr().err


def test_a_name_that_no_model_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--model-name", "../a", "--model-dir", "."]) == 1
    assert "path traversal" in capsys.readouterr().err
