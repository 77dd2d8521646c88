"""Servers that say whatever a test has them say, on sockets of this machine."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc

Talk = Callable[[socket.socket], None]


class HttpFar:
    """Reads one request of each connection after the other, and has ``talk`` answer it."""

    def __init__(self) -> None:
        self.talk: Talk = hang_up
        self.requests: list[bytes] = []
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._open.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := read_request(connection):
                self.requests.append(request)
                self.talk(connection)
                if self.talk is hang_up:
                    return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def read_request(connection: socket.socket) -> bytes:
    """Head and body of the next request; empty where there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def hang_up(connection: socket.socket) -> None:
    connection.close()


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def says(data: bytes, *, then_close: bool = False) -> Talk:
    def talk(connection: socket.socket) -> None:
        connection.sendall(data)
        if then_close:
            connection.close()

    return talk


def answers(body: bytes, status: str = "200 OK", headers: str = "") -> Talk:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return says(head.encode() + body)


def drips(data: bytes, every_s: float = 0.02) -> Talk:
    """For ever, a byte now and then; at the end of ``data`` its last byte again."""

    def talk(connection: socket.socket) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            time.sleep(every_s)
        while True:
            connection.sendall(data[-1:])
            time.sleep(every_s)

    return talk


def floods(head: bytes, part: bytes) -> Talk:
    """A head, and then parts without an end."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(part)

    return talk


class GrpcFar:
    """Answers every method with what ``answer`` makes of the message."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes, grpc.ServicerContext], bytes] = lambda *_: b""
        self.calls: list[tuple[str, float]] = []
        far = self

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: Any) -> Any:
                def unary(message: bytes, context: Any) -> bytes:
                    far.calls.append((details.method, context.time_remaining()))
                    return far.answer(message, context)

                return grpc.unary_unary_rpc_method_handler(unary)

        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        self._server.add_generic_rpc_handlers((Handler(),))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.stop(0).wait()


@contextlib.contextmanager
def running(far: Any) -> Iterator[Any]:
    try:
        yield far
    finally:
        far.close()
