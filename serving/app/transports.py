"""Chooses which host serves gRPC: the native one where it is installed, grpcio otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument, Unimplemented
from crossfade.serving.config.server_config import ServerConfig
from crossfade.serving.transport import native_host
from crossfade.serving.transport.calls import Policy, Rpc, StreamRpc
from crossfade.serving.transport.grpc_host import GrpcHost
from crossfade.serving.transport.native_host import NativeHost
from crossfade.serving.transport.tls import Tls


def choose(config: ServerConfig) -> str:
    """Returns ``native`` or ``grpcio``.

    Raises:
        InvalidArgument: the native transport is asked for together with TLS.
        Unimplemented: it is asked for and not installed.
    """
    needs_grpcio = bool(config.tls_cert or config.grpc_options)
    if config.transport == "grpcio" or (config.transport == "auto" and needs_grpcio):
        return "grpcio"
    if config.tls_cert:
        raise InvalidArgument("--transport native does not speak TLS: leave it out, or use grpcio")
    if config.transport == "native" and automatic() != "native":
        raise Unimplemented(
            "--transport native needs the package crossfade-native, which is not installed:"
            " build it from the folder native/ of the sources"
        )
    return automatic()


def automatic() -> str:
    """Returns what serves without TLS where nothing is asked for."""
    return "native" if native_host.is_installed() else "grpcio"


def grpc_host(
    config: ServerConfig,
    rpcs: Sequence[Rpc[Any, Any] | StreamRpc[Any, Any]],
    policy: Policy,
    tls: Tls | None,
) -> GrpcHost | NativeHost:
    """Builds the host of the gRPC port; raises as ``choose`` does."""
    address = None if config.grpc_port is None else f"{config.host}:{config.grpc_port}"
    threads, limit = config.grpc_threads, config.max_request_bytes
    if choose(config) == "native":
        return NativeHost(
            rpcs,
            policy,
            address,
            threads=threads,
            max_message_bytes=limit,
            socket_path=config.grpc_socket,
        )
    return GrpcHost(
        rpcs,
        policy,
        address,
        threads=threads,
        max_message_bytes=limit,
        credentials=tls.grpc_credentials() if tls else None,
        socket_path=config.grpc_socket,
        options=config.grpc_options,
    )
