"""Threads for grpcio's calls that are complete.

grpcio takes a thread as soon as the headers of a call are there and has it wait for the message:
as many calls without one as there are threads stop the server for everybody, and one connection
may have a thousand. No public option changes that. So the executor that grpcio gets knows what it
is handed: it receives the message first and takes a thread then, which wakes that thread once
instead of twice. A call that will be over in a moment takes no thread at all: see ``inline.py``.
With a grpcio whose inside is another, it is a plain pool.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import grpc
from grpc import _server
from grpc._cython import cygrpc

from crossfade.serving.transport.calls import Buffer, never
from crossfade.serving.transport.inline import Inline
from crossfade.serving.transport.lean_pool import LeanPool

# How often a thread that stands in for grpcio's poller looks whether it is still needed.
_LOOK_S: Final = 0.1
# Calls whose message has not come. Of more than these the one that has waited longest is refused:
# an honest message is there within milliseconds.
MAX_WAITING: Final = 1024
_PRIVATE: Final = (
    "_unary_response_in_pool",
    "_receive_message",
    "_abort",
    "_is_rpc_state_active",
    "_RECEIVE_MESSAGE_TOKEN",
    "_process_event_and_continue",
)
_IS_KNOWN: Final = all(hasattr(_server, name) for name in _PRIVATE)
Done = Callable[[Any], object]


class GrpcThreads(LeanPool):
    """The pool for ``grpc.server``, which submits calls from one thread, its poller."""

    def __init__(self, threads: int, is_quick: Mapping[Any, Callable[[Buffer], bool]]) -> None:
        super().__init__(len(os.sched_getaffinity(0)), threads, "grpc")
        self._waiting: dict[_Waiting, None] = {}  # oldest first
        self._is_quick = is_quick
        self._state: Any = None
        self._inline: Inline | None = None

    def serve(self, server: grpc.Server) -> None:
        """Runs quick calls on the thread that polls for ``server``, from now on."""
        self._state = getattr(server, "_state", None)
        if _IS_KNOWN and self._state is not None:
            self._inline = Inline(self._poll, self._most)

    def leave_the_poller(self) -> None:
        """Runs no more calls on it, so that it is free to accept all that have been sent."""
        if self._inline is not None:
            self._inline.close()
            self._is_quick = {}

    @property
    def pending(self) -> int:
        """Work that waits or is being done."""
        return super().pending + (self._inline.pending if self._inline else 0)

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
                return
            run = (respond, event, state, behavior, lambda: message, decode, encode)
            if self._inline is not None and self._is_quick.get(behavior, never)(message):
                self._inline.run(lambda: fn(*run))
                call.end()
                if self._state.stage is _server._ServerStage.STOPPED:
                    raise SystemExit  # another thread has seen to the end; this one polls no more
            else:
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

    def _poll(self) -> bool:
        """As grpcio's own poller does; False once there is nothing more to poll."""
        event = self._state.completion_queue.poll(time.time() + _LOOK_S)
        if event.completion_type == cygrpc.CompletionType.queue_shutdown:
            return False
        if event.completion_type == cygrpc.CompletionType.queue_timeout:
            return True
        return bool(_server._process_event_and_continue(self._state, event))


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
        future.add_done_callback(self.end)

    def refuse(self, code: Any, details: bytes) -> None:
        """Ends the call, if it has not ended by itself."""
        with self._state.condition:
            if self._is_active:
                _server._abort(self._state, self._call, code, details)
        self.end()

    @property
    def _is_active(self) -> bool:
        return bool(_server._is_rpc_state_active(self._state))

    def end(self, _: object = None) -> None:
        """Says that the call is over."""
        while self._done:
            self._done.pop()(self)
