"""Hosts the RPC table on grpcio's threads: the thread that received a call runs it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from crossfade.runtimes.core.errors import Code, CrossfadeError, Internal, Unavailable
from crossfade.serving.transport.calls import Buffer, Policy, Rpc, StreamRpc, dispatch
from crossfade.serving.transport.grpc_threads import MAX_WAITING, GrpcThreads
from crossfade.serving.transport.listening import private_socket
from crossfade.serving.transport.streams import MAX_STREAMS, Streams

_log = logging.getLogger(__name__)
# RPCs that may wait for a thread; one more is refused with RESOURCE_EXHAUSTED.
_BACKLOG: Final = 1024
# How often the end looks whether only streams are left.
_LOOK_S: Final = 0.05
# Without a deadline grpcio says that some 292 years remain.
_NO_DEADLINE_S: Final = 10 * 365 * 86400.0
_STATUS: Final = {code: getattr(grpc.StatusCode, code.name) for code in Code}


class GrpcHost:
    """A gRPC server for a table of RPCs.

    Args:
        rpcs: the table.
        policy: asked before each RPC.
        address: ``host:port``, port 0 is any free one; ``None`` leaves only the socket.
        threads: RPCs that may run at the same time, streams aside.
        max_message_bytes: a larger request is refused with RESOURCE_EXHAUSTED.
        credentials: of the server, as grpcio makes them; ``None`` is no TLS.
        socket_path: of a Unix socket to listen on, too, without TLS: only this user reaches it.
        options: channel arguments that count more than ours.
    """

    def __init__(
        self,
        rpcs: Sequence[Rpc[Any, Any] | StreamRpc[Any, Any]],
        policy: Policy,
        address: str | None,
        *,
        threads: int,
        max_message_bytes: int,
        credentials: Any = None,
        socket_path: Path | None = None,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        self._address = address
        self._socket_path = socket_path
        self._credentials = credentials
        self._streams = Streams()
        table = _Table(rpcs, policy, self._streams)
        self._pool = GrpcThreads(threads + MAX_STREAMS, table.is_quick)
        self._server = grpc.server(
            self._pool,
            handlers=(table,),
            maximum_concurrent_rpcs=threads + MAX_STREAMS + _BACKLOG + MAX_WAITING,
            options=(
                *options,  # the first of a name counts
                ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", 1000),
                ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ),
        )
        self.port = 0

    def start(self) -> None:
        """Binds and serves.

        Raises:
            Unavailable: the address cannot be bound.
        """
        if self._address is not None:
            try:
                self.port = (
                    self._server.add_secure_port(self._address, self._credentials)
                    if self._credentials
                    else self._server.add_insecure_port(self._address)
                )
            except RuntimeError:
                self.port = 0
            if not self.port:
                raise Unavailable(f"cannot listen on {self._address}: is the port in use?")
        if self._socket_path is not None:
            self._bind_socket(self._socket_path)
        self._pool.serve(self._server)
        self._server.start()

    def counters(self) -> Mapping[str, int]:
        """Nothing: grpcio keeps its counts to itself."""
        return {}

    def stop(self, grace_s: float) -> None:
        """Refuses new RPCs, gives those in flight ``grace_s`` seconds, then cuts them off.

        Streams are cut off once nothing else is in flight: an idle one would wait for ever.
        """
        self._pool.leave_the_poller()
        time.sleep(_LOOK_S)  # what is on its way is accepted, and answered within the grace
        stopped = self._server.stop(grace_s)
        while not stopped.wait(_LOOK_S):
            if self._pool.pending <= self._streams.open:
                self._server.stop(0)
        self._pool.shutdown(wait=False)

    def _bind_socket(self, path: Path) -> None:
        """Binds; gRPC removes the socket when the server stops."""
        with private_socket(path):
            try:
                self._server.add_insecure_port(f"unix:{path}")
            except RuntimeError:
                raise Unavailable(f"cannot listen on {path}: is its folder there?") from None


class _Table(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(
        self,
        rpcs: Sequence[Rpc[Any, Any] | StreamRpc[Any, Any]],
        policy: Policy,
        streams: Streams,
    ) -> None:
        self._handlers: dict[str, Any] = {}
        self.is_quick: dict[Any, Callable[[Buffer], bool]] = {}  # by the function that grpcio calls
        for rpc in rpcs:
            if isinstance(rpc, Rpc):
                behave = _unary(rpc, policy)
                self.is_quick[behave] = rpc.is_quick
                self._handlers[rpc.path] = grpc.unary_unary_rpc_method_handler(behave)
            else:
                answer = _stream(rpc, policy, streams)
                self._handlers[rpc.path] = grpc.stream_stream_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(handler_call_details.method)


class _Call:
    """A call as grpcio gives it; its context is asked only for what somebody wants to know."""

    __slots__ = ("_context", "answer", "cancelled", "error", "message")

    def __init__(self, message: Buffer, context: Any) -> None:
        self._context = context
        self.message = message
        self.cancelled = _Cancellation(context)
        self.answer = b""
        self.error: CrossfadeError | None = None

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return {entry.key: entry.value for entry in self._context.invocation_metadata()}

    @property
    def peer(self) -> str:
        kind, _, address = self._context.peer().partition(":")
        if kind not in ("ipv4", "ipv6"):
            return str(kind)
        host: str = address.rpartition(":")[0]
        return host.replace("%5B", "").replace("%5D", "").strip("[]")

    @property
    def deadline_s(self) -> float | None:
        remaining_s = self._context.time_remaining()
        if remaining_s is None or remaining_s > _NO_DEADLINE_S:
            return None
        return time.monotonic() + float(remaining_s)

    def reply(self, message: bytes) -> None:
        self.answer = message

    def fail(self, error: CrossfadeError) -> None:
        self.error = error


class _Cancellation:
    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:
        self._context = context

    def is_set(self) -> bool:
        return not self._context.is_active()

    def subscribe(self, callback: Callable[[], None]) -> None:
        if not self._context.add_callback(callback):
            callback()


def _unary(rpc: Rpc[Any, Any], policy: Policy) -> Callable[[bytes, Any], bytes]:
    def behave(message: bytes, context: Any) -> bytes:
        call = _Call(message, context)
        dispatch(rpc, policy, (call,))
        if call.error is not None:
            _abort(context, call.error)
        return call.answer

    return behave


def _stream(
    rpc: StreamRpc[Any, Any], policy: Policy, streams: Streams
) -> Callable[[Iterator[bytes], Any], Iterator[bytes]]:
    def behave(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        call = _Call(b"", context)
        try:
            with streams:
                policy.check(rpc.access, call)
                requests = (rpc.decode(message) for message in messages)
                for response in rpc.handle(requests, call):
                    yield rpc.encode(response)
        except CrossfadeError as error:
            _abort(context, error)
        except grpc.RpcError:  # the caller went while its messages were read
            return
        except Exception as error:
            _abort(context, Internal.hide(error, _log, rpc.path))

    return behave


def _abort(context: Any, error: CrossfadeError) -> None:
    if error.retry_after_s is not None:
        pushback_ms = str(max(1, round(error.retry_after_s * 1000)))
        context.set_trailing_metadata((("grpc-retry-pushback-ms", pushback_ms),))
    context.abort(_STATUS[error.code], error.message)
