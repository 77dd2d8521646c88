"""The list of hostile inputs, row 38: what no gRPC library would send, frame by frame."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence

import pytest
from tests.e2e.hostile import SERVICE, Target, simple, target

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    *(0, 1, 3, 4, 6, 7, 8, 9),
)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL, ENHANCE_YOUR_CALM = 8, 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with target(tmp_path_factory.mktemp("hostile")) as started:
        yield started


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: bytes, value: bytes) -> bytes:
    """A header field that enters no table and is not compressed."""
    return b"\0" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes([len(text)])
    rest, out = len(text) - 127, bytearray(b"\x7f")
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    return bytes([*out, rest])


@functools.cache
def head(method: str = "ModelInfer", *more: tuple[bytes, bytes]) -> bytes:
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", (method if method.startswith("/") else SERVICE + method).encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    )
    return b"".join(field(name, value) for name, value in fields)


def message(data: bytes, flag: int = 0) -> bytes:
    return struct.pack(">BI", flag, len(data)) + data


class Connection:
    """An HTTP/2 connection that keeps to no rules, and the frames that come back on it."""

    def __init__(self, attacked: Target) -> None:
        host, port = attacked.server.grpc.split(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        self.frames: list[tuple[int, int, int, bytes]] = []
        self.ended = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.send(PREFACE, frame(SETTINGS, 0, 0))

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self._reader.join(20)
        self.socket.close()

    def send(self, *frames: bytes) -> bool:
        """Sends; False if the server has hung up."""
        try:
            self.socket.sendall(b"".join(frames))
        except OSError:
            return False
        return True

    def wait_for(self, kind: int, timeout_s: float = 10) -> tuple[int, int, int, bytes]:
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            for found in list(self.frames):
                if found[0] == kind:
                    return found
            time.sleep(0.01)
        pytest.fail(f"no frame of kind {kind}, but {self.frames[:20]}")

    @property
    def calmed(self) -> bool:
        """Whether the server has asked for calm."""
        return any(
            kind == GOAWAY and payload[4:8] == struct.pack(">I", ENHANCE_YOUR_CALM)
            for kind, _, _, payload in self.frames
        )

    def _read(self) -> None:
        with contextlib.suppress(OSError), self.socket.makefile("rb") as stream:
            while len(start := stream.read(9)) == 9:
                kind, flags, number = struct.unpack(">BBI", start[3:])
                payload = stream.read(int.from_bytes(start[:3]))
                self.frames.append((kind, flags, number, payload))
        self.ended.set()
