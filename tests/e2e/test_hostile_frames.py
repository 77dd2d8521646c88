"""The list of hostile inputs, row 38: what no gRPC library would send, frame by frame."""

from __future__ import annotations

import contextlib
import functools
import socket
import struct
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from hpack import Decoder

from tests.e2e.hostile import SERVICE, Target, bomb, simple, target

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
        self.wait_for(SETTINGS)
        self.send(frame(SETTINGS, ACK, 0))  # the windows are open now

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


def status(headers: tuple[int, int, int, bytes]) -> str:
    """The grpc-status in the first header frame of a connection."""
    return dict(Decoder().decode(headers[3])).get("grpc-status", "")


def streams(count: int) -> Iterator[int]:
    return iter(range(1, 2 * count, 2))


def open_streams(connection: Connection, count: int, header: bytes) -> bool:
    return connection.send(*[frame(HEADERS, END_HEADERS, s, header) for s in streams(count)])


def test_row38_a_plain_call_is_understood(attacked: Target) -> None:
    """The frames of these tests are good ones: a call made of them is answered."""
    request = message(simple().SerializeToString())
    with Connection(attacked) as connection:
        connection.send(frame(HEADERS, END_HEADERS, 1, head()), frame(DATA, END_STREAM, 1, request))
        assert len(connection.wait_for(DATA)[3]) > 128


@pytest.mark.parametrize("with_message", [False, True], ids=["headers", "whole-calls"])
def test_row38_rapid_reset(attacked: Target, with_message: bool) -> None:
    body = message(simple().SerializeToString())
    reset = struct.pack(">I", CANCEL)
    with attacked.survives(), Connection(attacked) as connection:
        for first in range(1, 40_000, 400):
            frames = [
                frame(HEADERS, END_HEADERS, s, head())
                + (frame(DATA, END_STREAM, s, body) if with_message else b"")
                + frame(RST_STREAM, 0, s, reset)
                for s in range(first, first + 400, 2)
            ]
            if not connection.send(*frames):
                break
        attacked.assert_serving()


def assert_recovers(attacked: Target) -> None:
    """Serves well, though not at once: of a burst of calls grpcio's core drops some, anybody's."""
    until_s = time.monotonic() + 5
    while attacked.call("ServerLive", b"", 5)[0] is not grpc.StatusCode.OK:
        assert time.monotonic() < until_s
    time.sleep(0.5)
    for _ in range(10):
        attacked.assert_serving()


@pytest.mark.parametrize("method", ["ModelInfer", "ServerLive", "Nothing"])
def test_row38_idle_streams(attacked: Target, method: str) -> None:
    """Ten thousand calls that never send their message: they hold no thread."""
    with attacked.survives(), contextlib.ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(Connection(attacked))
            open_streams(connection, 1000, head(method))
        assert_recovers(attacked)


def test_row38_half_messages(attacked: Target) -> None:
    """As idle streams, but each has begun its message."""
    begun = message(simple().SerializeToString())[:-1]
    with attacked.survives(), contextlib.ExitStack() as stack:
        for _ in range(4):
            connection = stack.enter_context(Connection(attacked))
            open_streams(connection, 1000, head())
            connection.send(*[frame(DATA, 0, s, begun) for s in streams(100)])
        assert_recovers(attacked)


def test_row38_idle_watchers(attacked: Target) -> None:
    """Streams that stay open by their nature hold a thread each, but only so many."""
    with attacked.survives(), Connection(attacked) as connection:
        open_streams(connection, 500, head("/grpc.health.v1.Health/Watch"))
        assert_recovers(attacked)


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(frame(PING, 0, 0, bytes(8)), id="ping"),
        pytest.param(frame(SETTINGS, 0, 0), id="settings"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)), id="window"),
        pytest.param(frame(DATA, 0, 1, b""), id="empty-data"),
        pytest.param(frame(250, 0, 0, bytes(100)), id="unknown-frames"),
    ],
)
def test_row38_flood(attacked: Target, flood: bytes) -> None:
    with attacked.survives(), Connection(attacked) as connection:
        connection.send(frame(HEADERS, END_HEADERS, 1, head()))
        for _ in range(200):
            if not connection.send(flood * 200):
                break
        attacked.assert_serving()


def test_row38_ping_flood_is_told_to_be_calm(attacked: Target) -> None:
    with attacked.survives(), Connection(attacked) as connection:
        for _ in range(100):
            if not connection.send(frame(PING, 0, 0, bytes(8)) * 100):
                break
        assert connection.ended.wait(10)
        assert connection.calmed


def test_row38_endless_headers(attacked: Target) -> None:
    with attacked.survives(), Connection(attacked) as connection:
        connection.send(frame(HEADERS, 0, 1, head()))
        for number in range(2000):
            more = field(b"x-%d" % number, b"y" * 16_000)
            if not connection.send(frame(CONTINUATION, 0, 1, more)):
                break
        attacked.assert_serving()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", id="http-1"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), id="tls"),
        pytest.param(PREFACE + frame(DATA, 0, 0, b"x"), id="data-on-0"),
        pytest.param(PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", id="frame-16-mib"),
        pytest.param(PREFACE + frame(HEADERS, END_HEADERS, 1, b"\xff" * 100), id="bad-hpack"),
        pytest.param(PREFACE + frame(HEADERS, END_HEADERS, 2, head()), id="even-stream"),
        pytest.param(bytes(range(256)) * 100, id="noise"),
    ],
)
def test_row38_not_what_is_spoken_here(attacked: Target, data: bytes) -> None:
    host, port = attacked.server.grpc.split(":")
    with attacked.survives(), contextlib.ExitStack() as stack:
        for _ in range(50):
            opened = stack.enter_context(socket.create_connection((host, int(port)), 5))
            with contextlib.suppress(ConnectionError):
                opened.sendall(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack(">BI", 0, 2**32 - 1), id="said-to-be-4-gib"),
        pytest.param(struct.pack(">BI", 0, 65 * 2**20), id="said-to-be-65-mib"),
    ],
)
def test_row37_a_message_announced_over_the_limit(attacked: Target, data: bytes) -> None:
    with attacked.survives(), Connection(attacked) as connection:
        connection.send(frame(HEADERS, END_HEADERS, 1, head()), frame(DATA, 0, 1, data))
        assert status(connection.wait_for(HEADERS)) == "8"  # RESOURCE_EXHAUSTED


def test_row37_gzip_bomb(attacked: Target) -> None:
    """A gigabyte in a megabyte: the limit is for what it becomes."""
    data = message(bomb("gzip", 2**30, b"\0"), flag=1)
    # What is inflated up to the limit of 64 MiB is there before it can be refused.
    with attacked.survives(peak_mib=80), Connection(attacked) as connection:
        header = head("ModelInfer", (b"grpc-encoding", b"gzip"))
        connection.send(frame(HEADERS, END_HEADERS, 1, header))
        for at in range(0, len(data), 16_384):
            last = END_STREAM if at + 16_384 >= len(data) else 0
            connection.send(frame(DATA, last, 1, data[at : at + 16_384]))
        assert status(connection.wait_for(HEADERS)) == "8"
