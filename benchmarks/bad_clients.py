"""Clients that keep to no rules, each as a function that misbehaves once and comes back.

They write HTTP/2 frames by hand, since no library would.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence

from crossfade.benchmarks.framing import frame as grpc_frame
from crossfade.benchmarks.load import METHOD_PATH

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING = 0, 1, 3, 4, 6
_END_STREAM, _END_HEADERS = 1, 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTLE_S = 0.05


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _head(path: str, *more: tuple[str, str]) -> bytes:
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields
    )


@contextlib.contextmanager
def _connection(port: int, greeting: bytes = _PREFACE) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10) as opened:
        opened.settimeout(2)
        with contextlib.suppress(OSError):  # the server may hang up, and is right to
            if greeting:
                opened.sendall(greeting + _frame(_SETTINGS, 0, 0))
            yield opened


def _calls(count: int, body: bytes, path: str = METHOD_PATH, flags: int = _END_STREAM) -> bytes:
    head = _head(path)
    return b"".join(
        _frame(_HEADERS, _END_HEADERS, stream, head) + _frame(_DATA, flags, stream, body)
        for stream in range(1, 2 * count, 2)
    )


def noise(port: int, message: bytes) -> None:
    """Bytes that are no HTTP/2."""
    with _connection(port, b"") as opened:
        opened.sendall(random.randbytes(2000))
        time.sleep(_SETTLE_S)


def half_messages(port: int, message: bytes) -> None:
    """Calls that never end, and a connection that does."""
    with _connection(port) as opened:
        opened.sendall(_calls(50, grpc_frame(message)[:-3], flags=0))
        time.sleep(_SETTLE_S)


def vanishing(port: int, message: bytes) -> None:
    """Good calls whose answers nobody waits for."""
    with _connection(port) as opened:
        opened.sendall(_calls(50, grpc_frame(message)))


def rapid_reset(port: int, message: bytes) -> None:
    """Calls that are taken back at once."""
    reset = struct.pack(">I", 8)
    with _connection(port) as opened:
        for stream in range(1, 400, 2):
            opened.sendall(
                _frame(_HEADERS, _END_HEADERS, stream, _head(METHOD_PATH))
                + _frame(_DATA, _END_STREAM, stream, grpc_frame(message))
                + _frame(_RST_STREAM, 0, stream, reset)
            )


def pings(port: int, message: bytes) -> None:
    """One ping after the other."""
    with _connection(port) as opened:
        for _ in range(20):
            opened.sendall(_frame(_PING, 0, 0, bytes(8)) * 50)


def oversized(port: int, message: bytes) -> None:
    """A message said to be of 3 GiB, and the beginning of it."""
    with _connection(port) as opened:
        opened.sendall(_calls(1, struct.pack(">BI", 0, 3 * 2**30) + bytes(200_000), flags=0))
        time.sleep(_SETTLE_S)


def short_deadlines(port: int, message: bytes) -> None:
    """Calls whose time is up before they are read."""
    head = _head(METHOD_PATH, ("grpc-timeout", "10u"))
    with _connection(port) as opened:
        for stream in range(1, 100, 2):
            opened.sendall(
                _frame(_HEADERS, _END_HEADERS, stream, head)
                + _frame(_DATA, _END_STREAM, stream, grpc_frame(message))
            )
        time.sleep(_SETTLE_S)


def deaf(port: int, message: bytes) -> None:
    """Many calls, and not a byte of the answers is read."""
    with _connection(port) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(4):
            opened.sendall(_calls(200, grpc_frame(message)))
        time.sleep(0.5)


def garbage(port: int, message: bytes) -> None:
    """Well framed calls with bytes that are no message, to methods that there may be."""
    with _connection(port) as opened:
        bent = bytearray(message)
        for _ in range(8):
            bent[random.randrange(len(bent))] = random.randrange(256)
        for path in (METHOD_PATH, "/inference.GRPCInferenceService/ModelStreamInfer", "/no/thing"):
            opened.sendall(_calls(20, grpc_frame(bytes(bent)), path))
            time.sleep(_SETTLE_S)


def idle(port: int, message: bytes) -> None:
    """Connections and streams that say nothing more."""
    with contextlib.ExitStack() as stack:
        watch = _head("/grpc.health.v1.Health/Watch")
        for _ in range(20):
            opened = stack.enter_context(_connection(port))
            opened.sendall(_frame(_HEADERS, _END_HEADERS, 1, watch))
        time.sleep(1)


BAD_CLIENTS: Sequence[Callable[[int, bytes], None]] = (
    *(noise, half_messages, vanishing, rapid_reset, pings, oversized, short_deadlines, deaf),
    *(garbage, idle),
)
