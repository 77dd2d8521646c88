"""Blocking calls of one gRPC server, bytes in and bytes out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from crossfade.runtimes import trace
from crossfade.runtimes.core.errors import Code, LoadFailed
from crossfade.serving.remote.failures import FarError, garbage, too_late, unreachable
from crossfade.serving.remote.http_client import Header
from crossfade.serving.remote.options import Tls

_OURS: Final = {
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
    grpc.StatusCode.ABORTED: Code.UNAVAILABLE,
    grpc.StatusCode.CANCELLED: Code.UNAVAILABLE,
    grpc.StatusCode.UNKNOWN: Code.INTERNAL,
    grpc.StatusCode.DATA_LOSS: Code.INTERNAL,
}
_TOO_LARGE: Final = "CLIENT: Received message larger than max"
# How soon a server that comes back is found again.
_RECONNECT_MS: Final = (("initial", 100), ("min", 1000), ("max", 1000))


class GrpcClient:
    """A channel. Thread-safe.

    Args:
        target: ``host:port``.
        tls: its certificates; ``None`` is none.
        folder: of the files that ``tls`` names.
        max_answer_bytes: a larger answer is refused.
    """

    def __init__(self, target: str, tls: Tls | None, folder: Path, max_answer_bytes: int) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", max_answer_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            *((f"grpc.{name}_reconnect_backoff_ms", value) for name, value in _RECONNECT_MS),
        ]
        if tls is None:
            self._channel = grpc.insecure_channel(target, options)
            return
        if tls.server_name:
            options.append(("grpc.ssl_target_name_override", tls.server_name))
        try:
            ca, key, cert = (
                (folder / file).read_bytes() if file else None
                for file in (tls.ca_file, tls.key_file, tls.cert_file)
            )
        except OSError as error:
            raise LoadFailed(f"option 'tls': a file cannot be read: {error.strerror}") from error
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        self._channel = grpc.secure_channel(target, credentials, options)

    def call(
        self,
        method: str,
        message: bytes,
        headers: Sequence[Header],
        until_s: float,
    ) -> bytes:
        """Calls a method by its path.

        Raises:
            FarError: there is no answer.
        """
        left_s = until_s - time.monotonic()
        if left_s <= 0:
            raise too_late()
        try:
            answer: bytes = self._channel.unary_unary(method)(
                message, timeout=left_s, metadata=[*headers, *trace.headers()]
            )
        except grpc.RpcError as error:
            raise _ours(error) from error
        return answer

    def close(self) -> None:
        """Closes the channel."""
        self._channel.close()


def _ours(error: Any) -> FarError:
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return unreachable(text)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in text:
        return garbage(text)
    return FarError(_OURS.get(code) or Code(code.name), text)
