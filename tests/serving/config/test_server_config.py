"""What a server is told at its start: safe defaults, Triton's ports, nothing to change later."""

from __future__ import annotations

import dataclasses

import pytest

from crossfade.serving.config.server_config import ServerConfig


def test_the_defaults_are_safe_and_those_that_clients_know() -> None:
    config = ServerConfig(("models",))
    assert config.host == "127.0.0.1", "nobody else unless told so"
    assert (config.http_port, config.grpc_port, config.metrics_port) == (8000, 8001, 8002)
    assert config.model_control_mode == "none", "no client may load models unless told so"
    assert config.load_models == ()
    assert config.max_request_bytes == 64 * 2**20
    assert not config.allow_shared_memory
    assert config.shared_memory_prefixes == ("/cf_client_",)
    assert config.cache is None


def test_it_cannot_be_changed() -> None:
    config = ServerConfig(("models",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.host = "0.0.0.0"  # type: ignore[misc]
