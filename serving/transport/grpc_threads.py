"""Threads for grpcio's calls that are complete.

grpcio takes a thread as soon as the headers of a call are there and has it wait for the message:
as many calls without one as there are threads stop the server for everybody, and one connection
may have a thousand. No public option changes that. So the executor that grpcio gets knows what it
is handed: it receives the message first and takes a thread then, which wakes that thread once
instead of twice. With a grpcio whose inside is another, it is a plain pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from grpc import _server
from grpc._cython import cygrpc

from crossfade.serving.transport.lean_pool import LeanPool

# Calls whose message has not come. Of more than these the one that has waited longest is refused:
# an honest message is there within milliseconds.
MAX_WAITING: Final = 1024
_PRIVATE: Final = (
    "_unary_response_in_pool",
    "_receive_message",
    "_abort",
    "_is_rpc_state_active",
    "_RECEIVE_MESSAGE_TOKEN",
)
_IS_KNOWN: Final = all(hasattr(_server, name) for name in _PRIVATE)
Done = Callable[[Any], object]


class GrpcThreads(LeanPool):
    """The pool for ``grpc.server``, which submits calls from one thread, its poller."""

    def __init__(self, threads: int) -> None:
        super().__init__(len(os.sched_getaffinity(0)), threads, "grpc")
        self._waiting: dict[_Waiting, None] = {}  # oldest first

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs ``fn`` on a thread; a unary call, once its message is there."""
        if not _IS_KNOWN or len(args) != 7 or args[0] is not _server._unary_response_in_pool:
            return super().submit(fn, *args, **kwargs)
        respond, event, state, behavior, _, decode, encode = args

        call = _Waiting(event.call, state)

        def arrived(message: Any) -> None:
            self._waiting.pop(call, None)
            if message is None:
                call.refuse(cygrpc.StatusCode.unimplemented, b"exactly one message is due")
            else:
                run = (respond, event, state, behavior, lambda: message, decode, encode)
                call.follow(super(GrpcThreads, self).submit(fn, *run))

        self._waiting[call] = None
        call.receive(decode, arrived)
        if len(self._waiting) > MAX_WAITING:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.refuse(
                cygrpc.StatusCode.resource_exhausted, b"too many calls wait for their message"
            )
        return call  # type: ignore[return-value]


class _Waiting:
    """A call without its message, and what grpcio takes for the future of its answer."""

    __slots__ = ("_call", "_done", "_state")

    def __init__(self, call: Any, state: Any) -> None:
        self._call = call
        self._state = state
        self._done: list[Done] = []

    def add_done_callback(self, callback: Done) -> None:
        """Has ``callback`` called when the call is over, once."""
        self._done.append(callback)

    def receive(self, decode: Any, arrived: Callable[[Any], None]) -> None:
        """Asks for the message; ``arrived`` gets it, or ``None`` if it never will be there."""
        state = self._state
        take = _server._receive_message(state, self._call, decode)

        def received(event: Any) -> Any:
            finished = take(event)
            message, state.request = state.request, None
            arrived(message if self._is_active else None)
            return finished

        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), received)
        state.due.add(_server._RECEIVE_MESSAGE_TOKEN)

    def follow(self, future: Future[Any]) -> None:
        """The call is over when ``future`` is."""
        future.add_done_callback(self._end)

    def refuse(self, code: Any, details: bytes) -> None:
        """Ends the call, if it has not ended by itself."""
        with self._state.condition:
            if self._is_active:
                _server._abort(self._state, self._call, code, details)
        self._end(None)

    @property
    def _is_active(self) -> bool:
        return bool(_server._is_rpc_state_active(self._state))

    def _end(self, _: object) -> None:
        while self._done:
            self._done.pop()(self)
