"""One HTTP connection: a request at a time, from its first byte to the last one of its answer."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import socket
import struct
import time
from typing import Final, cast

from crossfade.runtimes.core.errors import CrossfadeError, DeadlineExceeded, Unavailable
from crossfade.serving.transport.calls import HttpRequest
from crossfade.serving.transport.cancellation import CancelToken
from crossfade.serving.transport.http_answer import Answer, Refused, encode, refusal
from crossfade.serving.transport.http_body import BodyReader, ChunkedReader, LengthReader
from crossfade.serving.transport.http_encoding import encoding_of
from crossfade.serving.transport.http_head import MALFORMED, Head, complete_head, parse_head
from crossfade.serving.transport.http_shared import Shared

# A client that is still sending when it is refused would lose the answer to a TCP reset: what it
# sends is thrown away for so long.
LINGER_S: Final = 2.0
# An answer up to this size is copied behind its head, which saves a system call and a packet.
_JOINED_BYTES: Final = 64 * 1024
_PIECE_BYTES: Final = 256 * 1024
_HEAD_READ_BYTES: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)
_NOTHING: Final = memoryview(b"")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Phase(enum.Enum):
    """Whose turn it is: BUSY is the server's, the others are the peer's."""

    HEAD = enum.auto()  # … to send a request line and headers
    BODY = enum.auto()  # … to send a body
    BUSY = enum.auto()  # a handler runs, or its answer is being written
    TAKE = enum.auto()  # … to take what has been written
    CLOSE = enum.auto()


class HttpConnection(asyncio.BufferedProtocol):
    """All methods are called on the loop's thread.

    A peer that closes its side while its request is handled counts as gone, as a close cannot be
    told from a half-close: the request is cancelled, and what the handler answers is still sent.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._limits = shared.limits
        self._phase = _Phase.HEAD
        self._inbox = bytearray()
        self._checked = self._held_bytes = self._mark = 0
        self._head: Head | None = None
        self._body: BodyReader | None = None
        self._unsent = _NOTHING
        self._keep_alive = self._is_whole = self._timed_out = False
        self._token: CancelToken | None = None
        self._deadline = time.monotonic() + shared.limits.header_timeout_s

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Registers the connection, or refuses it where there are too many."""
        self._transport = cast(asyncio.Transport, transport)
        # 0: resume_writing then says that everything has been written.
        self._transport.set_write_buffer_limits(high=0)
        self._socket = transport.get_extra_info("socket")
        peer = transport.get_extra_info("peername") or ("",)
        self._peer = str(peer[0]).partition("%")[0].removeprefix("::ffff:")
        connections = self._shared.connections
        connections.add(self)
        if len(connections) > 2 * self._limits.max_connections:
            self.abort()  # not even those who are being refused may pile up
        elif len(connections) > self._limits.max_connections:
            self._refuse(Unavailable("too many connections", retry_after_s=1.0))
        elif self._shared.draining:
            self.drain()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lends the shared buffer until ``buffer_updated``."""
        buffer = self._shared.buffer
        return buffer if self._phase is _Phase.BODY else buffer[:_HEAD_READ_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes what has been received."""
        received = self._shared.buffer[:nbytes]
        if self._phase is _Phase.BODY:
            self._read_body(received)
        elif self._phase is not _Phase.CLOSE:
            self._inbox += received
            if self._phase is _Phase.HEAD:
                self._read_head()
            elif len(self._inbox) > self._limits.header_bytes:
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The peer sends no more; returns whether the connection stays open for an answer."""
        if self._phase in (_Phase.BUSY, _Phase.TAKE):
            self._keep_alive = False
            if self._token:
                self._token.set()
            return self._transport.can_write_eof()  # TLS closes both ways at once
        if self._phase is _Phase.BODY or self._inbox:
            self._refuse(Refused(400, MALFORMED))
        return False

    def resume_writing(self) -> None:
        """The peer has taken everything that was written."""
        if self._phase is _Phase.TAKE:
            self._write()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever closed it."""
        self._phase = _Phase.CLOSE
        if self._token:
            self._token.set()  # the handler still holds the body
        else:
            self._release_body()
        self._shared.connections.discard(self)
        if not self._shared.connections:
            self._shared.empty.set()

    # Called by the host.

    def check(self, now_s: float) -> None:
        """Ends the connection if the peer has kept it waiting for too long."""
        if now_s < self._deadline:
            return
        if self._phase in (_Phase.TAKE, _Phase.CLOSE):
            self.abort()
        elif self._phase is _Phase.BUSY:
            self._time_out()
        elif self._phase is _Phase.BODY and self._body:
            window_s = self._limits.body_timeout_s
            if self._body.size - self._mark < window_s * self._limits.body_bytes_per_s:
                self._refuse(Refused(408, "the body came too slowly"))
            else:
                self._mark = self._body.size
                self._deadline = now_s + window_s
        elif self._inbox:
            self._refuse(Refused(408, "the headers came too slowly"))
        else:
            self._close()

    def drain(self) -> None:
        """Closes the connection if no request has begun on it; others close with their answer."""
        if self._phase is _Phase.HEAD and not self._inbox:
            self._close()

    def abort(self) -> None:
        """Closes the connection now, whatever goes on."""
        self._phase = _Phase.CLOSE
        # By a reset: the kernel would go on offering what it has buffered to a peer that hangs.
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    # A request: head, body, handler.

    def _read_head(self) -> None:
        if self._phase is not _Phase.HEAD or not self._inbox:
            return
        if not self._checked:
            self._deadline = time.monotonic() + self._limits.header_timeout_s
        try:
            size = complete_head(self._inbox, self._checked, self._limits)
            if not size:
                self._checked = len(self._inbox)
                return
            raw_head = bytes(self._inbox[:size])
            del self._inbox[:size]
            head = self._head = parse_head(raw_head)
            has_body = head.is_chunked or head.body_bytes > 0
            self._is_whole = not has_body
            self._keep_alive = self._is_whole and head.keep_alive
            self._match = self._shared.router.find(head.method, head.path)
            if has_body:
                self._start_body(head, raw_head)
            else:
                self._run_handler(head, b"")
        except (CrossfadeError, Refused) as error:
            self._refuse(error)

    def _start_body(self, head: Head, raw_head: bytes) -> None:
        encoding_of(head.headers.get("content-encoding"))
        limit = self._match[0].limit
        if head.is_chunked:
            self._body = ChunkedReader(raw_head, self._limits, limit)
        else:
            self._body = LengthReader(head.body_bytes, self._limits, limit)
        self._mark = 0
        self._deadline = time.monotonic() + self._limits.body_timeout_s
        self._phase = _Phase.BODY
        if self._inbox:
            begun, self._inbox = self._inbox, bytearray()
            self._read_body(memoryview(begun))
        elif head.awaits_continue:
            self._transport.write(_CONTINUE)

    def _read_body(self, received: memoryview) -> None:
        head, body, shared = self._head, self._body, self._shared
        if not head or not body:
            return
        try:
            self._is_whole = body.feed(received)
            shared.buffered_bytes += body.size - self._held_bytes
            self._held_bytes = body.size
            if shared.buffered_bytes > self._limits.buffered_bytes:
                raise Unavailable("the server holds too many request bodies", retry_after_s=1.0)
            if self._is_whole:
                self._inbox += body.rest
                self._keep_alive = head.keep_alive
                self._run_handler(head, body.take())
        except (CrossfadeError, Refused) as error:
            self._refuse(error)

    def _run_handler(self, head: Head, body: bytes) -> None:
        self._phase = _Phase.BUSY
        timeout_s = self._limits.request_timeout_s
        self._deadline = time.monotonic() + timeout_s if timeout_s else math.inf
        self._token = token = CancelToken()
        request = HttpRequest(
            *(head.method, head.path, head.headers, body, self._peer, token),
            self._deadline if timeout_s else None,
        )
        self._shared.workers.submit(request, *self._match, self._deliver)

    def _deliver(self, answer: Answer) -> None:
        self._token = None  # a later disconnect is no concern of a request that is done
        self._release_body()
        if self._phase is _Phase.BUSY and not self._timed_out:
            self._send(answer)

    def _time_out(self) -> None:
        """Says that it took too long, and closes; the handler still holds the body."""
        if self._token:
            self._token.set()
        self._timed_out = True
        self._keep_alive = False
        self._send(encode(refusal(DeadlineExceeded("the request took too long"))))

    def _release_body(self) -> None:
        self._shared.buffered_bytes -= self._held_bytes
        self._held_bytes = 0
        self._body = None

    # Its answer.

    def _refuse(self, error: CrossfadeError | Refused) -> None:
        self._release_body()
        self._send(encode(refusal(error)))

    def _send(self, answer: Answer) -> None:
        self._keep_alive = self._keep_alive and not self._shared.draining
        head = answer.head + (b"\r\n" if self._keep_alive else b"Connection: close\r\n\r\n")
        body = b"" if self._head and self._head.method == "HEAD" else answer.body
        if len(body) <= _JOINED_BYTES:
            self._unsent = memoryview(head + body)
        else:
            self._transport.write(head)
            self._unsent = memoryview(body)
        self._write()

    def _write(self) -> None:
        """Writes the next piece, once the last one is on its way: TLS would buffer everything."""
        if self._phase is _Phase.CLOSE:
            return
        # TLS calls resume_writing within write: not in this phase.
        self._phase = _Phase.BUSY
        self._deadline = math.inf
        piece, self._unsent = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
        self._transport.write(piece)
        if self._transport.get_write_buffer_size():
            self._phase = _Phase.TAKE
            self._deadline = time.monotonic() + self._limits.write_timeout_s
        elif self._unsent:
            asyncio.get_running_loop().call_soon(self._write)
        else:
            self._written()

    def _written(self) -> None:
        self._unsent = _NOTHING  # an empty slice would keep all of the answer alive
        if not self._keep_alive or self._shared.draining:
            self._close(linger=not self._is_whole)
            return
        self._phase = _Phase.HEAD
        self._deadline = time.monotonic() + self._limits.idle_timeout_s
        self._head = None
        self._keep_alive = self._is_whole = False
        self._checked = 0
        self._transport.resume_reading()
        if self._inbox:  # pipelined; by way of the loop, as others want their turn
            asyncio.get_running_loop().call_soon(self._read_head)

    def _close(self, *, linger: bool = False) -> None:
        self._phase = _Phase.CLOSE
        self._inbox.clear()
        if not linger:
            self._deadline = math.inf
            self._transport.close()
            return
        self._deadline = time.monotonic() + LINGER_S
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            try:
                self._transport.write_eof()
            except OSError:  # the peer has reset the connection
                self.abort()
