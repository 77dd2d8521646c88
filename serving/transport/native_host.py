"""Hosts the RPC table on native threads: they do HTTP/2 and gRPC, Python gets complete calls.

One thread takes all calls that have come and runs the quick ones at once, those for one RPC
together; the others go to a pool. See ``inline.py`` for what happens if a quick one is slow.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from crossfade.runtimes.core.errors import CrossfadeError, Internal, Unavailable
from crossfade.runtimes.core.model import Cancellation
from crossfade.serving.transport.calls import Buffer, Policy, Rpc, StreamRpc, dispatch
from crossfade.serving.transport.inflate import inflate
from crossfade.serving.transport.inline import Inline
from crossfade.serving.transport.lean_pool import LeanPool
from crossfade.serving.transport.listening import private_socket
from crossfade.serving.transport.streams import MAX_STREAMS, Streams

if TYPE_CHECKING:
    from crossfade_native import Call as NativeCall

_log = logging.getLogger(__name__)
# Calls that are taken at once: as many as one run of a small model may stack, and no more, so that
# others get their turn.
_MOST_CALLS: Final = 32
_LOOK_S: Final = 0.05
# Calls that may wait for a thread; one more is refused with RESOURCE_EXHAUSTED.
_BACKLOG: Final = 1024
# Requests that are on their way may take so many times the largest one, and at least so much.
_HELD_MESSAGES: Final = 4
_HELD_BYTES: Final = 512 * 1024 * 1024


def is_installed() -> bool:
    """Whether the optional package is there and loads."""
    try:
        import crossfade_native  # noqa: F401
    except ImportError:
        return False
    return True


class NativeHost:
    """A gRPC server for a table of RPCs, without TLS.

    Args:
        rpcs: the table.
        policy: asked before each RPC.
        address: ``host:port``, port 0 is any free one; ``None`` leaves only the socket.
        threads: RPCs that may run at the same time, streams and quick ones aside.
        max_message_bytes: a larger request is refused with RESOURCE_EXHAUSTED.
        socket_path: of a Unix socket to listen on, too: only this user reaches it.
    """

    def __init__(
        self,
        rpcs: Sequence[Rpc[Any, Any] | StreamRpc[Any, Any]],
        policy: Policy,
        address: str | None,
        *,
        threads: int,
        max_message_bytes: int,
        socket_path: Path | None = None,
    ) -> None:
        self._rpcs = tuple(rpcs)
        self._policy = policy
        self._address = address
        self._socket_path = socket_path
        self._threads = threads
        self._max_message_bytes = max_message_bytes
        self._streams = Streams()
        self._host: Any = None
        self.port = 0

    def start(self) -> None:
        """Binds and serves.

        Raises:
            Unavailable: the address cannot be bound.
            ImportError: the package ``crossfade-native`` is not installed.
        """
        from crossfade_native import Host

        addresses = [self._address] if self._address is not None else []
        with contextlib.ExitStack() as stack:
            if self._socket_path is not None:
                stack.enter_context(private_socket(self._socket_path))
                addresses.append(f"unix:{self._socket_path}")
            self._host = self._bind(Host, addresses)
        self.port = self._host.port
        self._pool = LeanPool(len(os.sched_getaffinity(0)), self._threads + MAX_STREAMS, "grpc")
        self._inline = Inline(self._poll, self._threads)
        self._host.start()
        threading.Thread(target=self._poll_on, name="grpc-poll", daemon=True).start()

    def _bind(self, kind: Any, addresses: Sequence[str]) -> Any:
        methods = [(rpc.path, isinstance(rpc, StreamRpc)) for rpc in self._rpcs]
        try:
            return kind(
                addresses,
                methods=methods,
                message_bytes=self._max_message_bytes,
                held_bytes=max(_HELD_BYTES, _HELD_MESSAGES * self._max_message_bytes),
                calls=self._threads + MAX_STREAMS + _BACKLOG,
            )
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {' and '.join(addresses)}: is the port in use? ({error})"
            ) from None

    def stop(self, grace_s: float) -> None:
        """Refuses new RPCs, gives those in flight ``grace_s`` seconds, then cuts them off.

        Streams are cut off once nothing else is in flight: an idle one would wait for ever.
        """
        if self._host is None:  # the address could not be bound
            return
        until_s = time.monotonic() + grace_s
        self._host.drain()
        time.sleep(2 * _LOOK_S)  # what is on its way is accepted, and answered within the grace
        while self._host.pending > self._streams.open and time.monotonic() < until_s:
            time.sleep(_LOOK_S)
        self._host.close()
        if self._socket_path is not None:
            self._socket_path.unlink(missing_ok=True)
        self._inline.close()
        self._pool.shutdown(wait=False)

    def counters(self) -> Mapping[str, int]:
        """What has happened since the start, and is there now."""
        return dict(self._host.counters()) if self._host is not None else {}

    def _poll_on(self) -> None:
        while self._poll():
            pass

    def _poll(self) -> bool:
        """Takes calls that have come, and runs them; False once there will be no more."""
        calls = self._host.next(_MOST_CALLS, 2 * _LOOK_S)
        if calls:
            self._inline.run(lambda: self._run(calls))
        return calls is not None

    def _run(self, calls: Sequence[NativeCall]) -> None:
        quick: dict[int, list[NativeCall]] = {}
        for call in calls:
            rpc = self._rpcs[call.method]
            if isinstance(rpc, StreamRpc):
                self._pool.submit(self._stream, rpc, call)
            elif call.compressed:
                inflated = _Inflated(call, self._max_message_bytes)
                self._pool.submit(dispatch, rpc, self._policy, (inflated,))
            elif rpc.is_quick(call.message):
                quick.setdefault(call.method, []).append(call)
            else:
                self._pool.submit(dispatch, rpc, self._policy, (call,))
        for method, group in quick.items():
            rpc = self._rpcs[method]
            assert isinstance(rpc, Rpc)
            dispatch(rpc, self._policy, group)

    def _stream(self, rpc: StreamRpc[Any, Any], call: NativeCall) -> None:
        try:
            with self._streams:
                self._policy.check(rpc.access, call)
                requests = (rpc.decode(message) for message in self._messages(call))
                with contextlib.closing(rpc.handle(requests, call)) as responses:  # type: ignore[type-var]
                    for response in responses:
                        if not call.write(rpc.encode(response)):
                            break
            call.finish()
        except CrossfadeError as error:
            call.fail(error)
        except Exception as error:
            call.fail(Internal.hide(error, _log, rpc.path))

    def _messages(self, call: NativeCall) -> Iterator[bytes]:
        while (read := call.read()) is not None:
            message, compressed = read
            if compressed:
                message = inflate(message, call.encoding, self._max_message_bytes)
            yield message


class _Inflated:
    """A call whose message was compressed."""

    def __init__(self, call: NativeCall, max_bytes: int) -> None:
        self._call = call
        self._max_bytes = max_bytes
        self.reply = call.reply
        self.fail = call.fail

    @property
    def message(self) -> Buffer:
        return inflate(self._call.message, self._call.encoding, self._max_bytes)

    @property
    def metadata(self) -> Mapping[str, str | bytes]:
        return self._call.metadata

    @property
    def peer(self) -> str:
        return self._call.peer

    @property
    def deadline_s(self) -> float | None:
        return self._call.deadline_s

    @property
    def cancelled(self) -> Cancellation:
        return self._call.cancelled
