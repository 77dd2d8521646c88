"""``grpc.health.v1.Health``: the whole server under the empty name, and each service by its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, NotFound
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.transport.calls import (
    Access,
    Buffer,
    Call,
    Rpc,
    StreamCall,
    StreamRpc,
    always,
    each,
)
from crossfade.serving.wire import health as wire

SERVICE: Final = "grpc.health.v1.Health"
# How long a watcher sleeps at most before it looks whether its caller is still there.
_LOOK_S: Final = 1.0


def table(plane: DataPlane, services: Sequence[str]) -> list[Rpc[Any, Any] | StreamRpc[Any, Any]]:
    """The RPCs ``Check`` and ``Watch`` for ``services``."""
    known = {"", *services}
    changed = threading.Condition()

    def wake() -> None:
        with changed:
            changed.notify_all()

    plane.on_drain(wake)

    def status(service: str) -> Any:
        kind = wire.HealthCheckResponse
        if service not in known:
            return kind.SERVICE_UNKNOWN
        return kind.SERVING if plane.ready else kind.NOT_SERVING

    def check(request: Any, _: Call) -> Any:
        if request.service not in known:
            raise NotFound("unknown service")
        return wire.HealthCheckResponse(status=status(request.service))

    def watch(requests: Iterator[Any], call: StreamCall) -> Iterator[Any]:
        request = next(requests, None)
        if request is None:
            raise InvalidArgument("Watch needs one request")
        last = -1
        while not call.cancelled.is_set():
            now = status(request.service)
            if now != last:
                last = now
                yield wire.HealthCheckResponse(status=now)
            with changed:
                changed.wait(_LOOK_S)

    def decode(message: Buffer) -> Any:
        try:
            return wire.HealthCheckRequest.FromString(bytes(message))
        except Exception:
            raise InvalidArgument("not a HealthCheckRequest") from None

    def encode(response: Any) -> bytes:
        data: bytes = response.SerializeToString()
        return data

    return [
        Rpc(f"/{SERVICE}/Check", Access.PROBE, decode, each(check), encode, always),
        StreamRpc(f"/{SERVICE}/Watch", Access.PROBE, decode, watch, encode),
    ]
