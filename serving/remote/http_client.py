"""A blocking HTTP/1.1 client with kept connections, in which one deadline bounds all of a request.

The clients of the field bound each read, so that a server which sends a byte now and then holds a
thread for as long as it likes. Here every wait on the socket gets what is left.
"""

from __future__ import annotations

import dataclasses
import select
import socket
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

import h11

from crossfade.runtimes import trace
from crossfade.runtimes.core.errors import Code
from crossfade.serving.remote.failures import FarError, garbage, too_late, unreachable

Header = tuple[str, str]
_READ_BYTES: Final = 256 * 1024
_HEAD_BYTES: Final = 64 * 1024
# A body in pieces smaller than a kilobyte is not worth the time that taking it apart costs.
_MAX_PIECES: Final = 64 * 1024
# Servers close connections that were idle for longer; a request would meet the end of one.
_KEEP_S: Final = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """Requests to one server. Thread-safe.

    Args:
        host: name or address.
        port: its port.
        context: TLS, or ``None``.
        server_name: whose certificate it must show.
        max_answer_bytes: a larger body is refused.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        server_name: str,
        max_answer_bytes: int,
    ) -> None:
        self._address = (host, port)
        self._context = context
        self._server_name = server_name
        self._max_bytes = max_answer_bytes
        shown = f"[{host}]" if ":" in host else host
        self._host = shown if port == (443 if context else 80) else f"{shown}:{port}"
        self._idle: list[_Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def request(
        self,
        method: str,
        path: str,
        headers: Sequence[Header],
        body: Sequence[bytes | memoryview],
        until_s: float,
    ) -> Answer:
        """Sends a request and reads its answer.

        Args:
            method: of HTTP.
            path: with the query, as it is sent.
            headers: beside those that frame the message.
            body: its parts.
            until_s: ``time.monotonic()`` value by which the answer must be there.

        Raises:
            FarError: there is no answer that can be used.
        """
        framed = [("Host", self._host), ("Accept-Encoding", "identity"), *headers]
        framed += trace.headers()
        if body or method == "POST":
            framed.append(("Content-Length", str(sum(len(part) for part in body))))
        request = h11.Request(method=method, target=path, headers=framed)
        connection = self._take()
        if connection is not None:
            try:
                return self._exchange(connection, request, body, until_s)
            except _Stale:
                pass  # the server closed it just now; nothing was answered
        connection = self._connect(until_s)
        try:
            return self._exchange(connection, request, body, until_s)
        except _Stale as error:
            raise unreachable(error) from error

    def close(self) -> None:
        """Closes the kept connections, and those in use when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> _Connection | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if connection.usable():
                return connection
            connection.close()

    def _connect(self, until_s: float) -> _Connection:
        try:
            sock = socket.create_connection(self._address, left_s(until_s))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock.settimeout(left_s(until_s))
                sock = self._context.wrap_socket(sock, server_hostname=self._server_name)
            return _Connection(sock)
        except TimeoutError as error:
            raise too_late() from error
        except ssl.SSLError as error:  # the wrong certificate stays wrong
            raise FarError(Code.UNAVAILABLE, str(error), ill=True) from error
        except OSError as error:
            raise unreachable(error) from error

    def _exchange(
        self,
        connection: _Connection,
        request: h11.Request,
        body: Sequence[bytes | memoryview],
        until_s: float,
    ) -> Answer:
        keep = False
        try:
            connection.send(request, body, until_s)
            answer, keep = connection.receive(self._max_bytes, until_s)
        except TimeoutError as error:
            raise too_late() from error
        except h11.RemoteProtocolError as error:
            if not connection.started:
                raise _Stale("closed before it answered") from error
            if connection.ended:
                raise unreachable("closed in the middle of an answer") from error
            raise garbage(f"not HTTP: {error}") from error
        except OSError as error:
            if connection.started:
                raise unreachable(error) from error
            raise _Stale(str(error)) from error
        finally:
            with self._lock:
                keep = keep and not self._closed
                if keep:
                    self._idle.append(connection)
            if not keep:
                connection.close()
        return answer


class _Stale(Exception):
    """The connection ended before the first byte of an answer."""


class _Connection:
    """One connection, used by one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._protocol = h11.Connection(h11.CLIENT, _HEAD_BYTES)
        self._used_s = time.monotonic()
        self.started = self.ended = False

    def usable(self) -> bool:
        """Whether it was used lately, and the server has neither closed it nor said a word."""
        if time.monotonic() - self._used_s > _KEEP_S:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)

    def send(
        self, request: h11.Request, body: Sequence[bytes | memoryview], until_s: float
    ) -> None:
        """Sends it all, or as much as the server takes before it answers."""
        self.started = False
        parts = [self._protocol.send(request) or b""]
        for part in body:
            event = h11.Data(data=part)  # type: ignore[arg-type] # any buffer passes through
            parts += self._protocol.send_with_data_passthrough(event) or ()
        self._protocol.send(h11.EndOfMessage())
        try:
            for part in _joined(parts):
                self._sock.settimeout(left_s(until_s))
                self._sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered why; if not, reading says so

    def receive(self, max_bytes: int, until_s: float) -> tuple[Answer, bool]:
        """Reads the answer; returns it, and whether the connection can be used again."""
        status, headers, body = 0, {}, []
        size = pieces = 0
        while True:
            event = self._protocol.next_event()
            if event is h11.NEED_DATA:
                self._sock.settimeout(left_s(until_s))
                data = self._sock.recv(_READ_BYTES)
                self.started = self.started or bool(data)
                self.ended = not data
                self._protocol.receive_data(data)
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                if headers.get("content-encoding", "identity") != "identity":
                    raise garbage("compressed, which was not asked for")
                if int(headers.get("content-length", 0)) > max_bytes:  # h11 sees that it is one
                    raise garbage(f"more than {max_bytes} bytes")
            elif isinstance(event, h11.Data):
                size += len(event.data)
                pieces += 1
                if size > max_bytes or pieces > _MAX_PIECES:
                    raise garbage(f"more than {max_bytes} bytes, or in too many pieces")
                body.append(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("closed before it answered")
        again = self._protocol.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        if again and self._protocol.trailing_data == (b"", False):
            self._protocol.start_next_cycle()
            self._used_s = time.monotonic()
        else:
            again = False
        return Answer(status, headers, b"".join(body)), again

    def close(self) -> None:
        """Closes the socket."""
        self._sock.close()


def left_s(until_s: float) -> float:
    """Seconds until then; raises TimeoutError if there are none."""
    left = until_s - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _joined(parts: Sequence[bytes | memoryview]) -> Sequence[bytes | memoryview]:
    """Small parts in one, so that they travel in one packet."""
    if sum(len(part) for part in parts) <= _HEAD_BYTES:
        return [b"".join(parts)]
    return parts
