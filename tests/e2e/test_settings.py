"""Trace and log settings and the generate routes, over both protocols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from tests.e2e.hostile import Target, assert_clean, target

APIS = {"grpc": grpc_client, "http": http_client}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("settings")) as started:
        yield started


@pytest.fixture(params=["grpc", "http"])
def client(server: Target, request: pytest.FixtureRequest) -> Iterator[Any]:
    address = server.server.grpc if request.param == "grpc" else server.server.http
    with APIS[request.param].InferenceServerClient(address) as made:
        yield made


def plain(answer: Any) -> dict[str, Any]:
    if isinstance(answer, dict):
        return answer
    found: dict[str, Any] = {}
    for name, value in answer.settings.items():
        kind = value.WhichOneof("parameter_choice") if hasattr(value, "bool_param") else None
        found[name] = getattr(value, kind) if kind else list(value.value)
    return found


def refused(action: Any, codes: str, **arguments: Any) -> None:
    with pytest.raises(InferenceServerException) as caught:
        action(**arguments)
    assert str(caught.value.status()).removeprefix("StatusCode.") in codes.split()
    assert_clean(str(caught.value.message()))


def test_row40_log(client: Any, server: Target) -> None:
    before = plain(client.get_log_settings())
    assert set(before) == {
        "log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format",
    }  # fmt: skip
    assert plain(client.update_log_settings({"log_verbose_level": 1}))["log_verbose_level"] == 1
    assert plain(client.update_log_settings({"log_verbose_level": 0})) == before
    update = client.update_log_settings
    with server.survives():
        refused(update, "PERMISSION_DENIED 403", settings={"log_file": "/tmp/crossfade"})
        refused(update, "INVALID_ARGUMENT 400", settings={"log_everything": True})
        refused(update, "UNIMPLEMENTED 501", settings={"log_format": "ISO8601"})


@pytest.mark.parametrize("model", [None, "simple"])
def test_row40_trace(client: Any, server: Target, model: str | None) -> None:
    found = plain(client.get_trace_settings(model_name=model))
    assert found["trace_level"] == ["OFF"]
    assert plain(client.update_trace_settings(model, {"trace_level": ["OFF"]})) == found
    update = client.update_trace_settings
    with server.survives():
        for settings, codes in (
            ({"trace_file": "/tmp/crossfade"}, "PERMISSION_DENIED 403"),
            ({"trace_all": "1"}, "INVALID_ARGUMENT 400"),
            ({"trace_level": ["TIMESTAMPS"]}, "UNIMPLEMENTED 501"),
        ):
            refused(update, codes, model_name=model, settings=settings)
        refused(client.get_trace_settings, "NOT_FOUND 404", model_name="nobody")


@pytest.mark.parametrize("path", ["generate", "generate_stream", "versions/1/generate"])
def test_generate(server: Target, path: str) -> None:
    reply = server.post(f"/v2/models/simple/{path}", {"text_input": "a rose"})
    assert (reply.status, "not supported" in reply.error) == (501, True)


def test_what_is_advertised(client: Any) -> None:
    metadata = client.get_server_metadata()
    extensions = metadata["extensions"] if isinstance(metadata, dict) else metadata.extensions
    assert sorted(extensions) == [
        "binary_tensor_data",
        "classification",
        "logging",
        "model_configuration",
        "model_repository",
        "parameters",
        "sequence",
        "statistics",
    ]
