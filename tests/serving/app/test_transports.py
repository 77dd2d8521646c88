"""Which host serves gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import InvalidArgument, Unimplemented
from crossfade.serving.app.transports import choose
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.transport import native_host

TLS = {"tls_cert": Path("cert.pem"), "tls_key": Path("key.pem")}


@pytest.mark.parametrize(
    ("installed", "options", "chosen"),
    [
        (True, {}, "native"),
        (True, {"transport": "native"}, "native"),
        (True, {"transport": "grpcio"}, "grpcio"),
        (True, TLS, "grpcio"),
        (True, {"transport": "grpcio", **TLS}, "grpcio"),
        (False, {}, "grpcio"),
        (False, {"transport": "grpcio"}, "grpcio"),
        (False, TLS, "grpcio"),
    ],
)
def test_the_choice(
    monkeypatch: pytest.MonkeyPatch, installed: bool, options: dict[str, Any], chosen: str
) -> None:
    monkeypatch.setattr(native_host, "is_installed", lambda: installed)
    assert choose(ServerConfig(("models",), **options)) == chosen


def test_native_with_tls_is_a_contradiction() -> None:
    with pytest.raises(InvalidArgument, match="does not speak TLS"):
        choose(ServerConfig(("models",), transport="native", **TLS))  # type: ignore[arg-type]


def test_native_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_host, "is_installed", lambda: False)
    with pytest.raises(Unimplemented, match="crossfade-native"):
        choose(ServerConfig(("models",), transport="native"))
