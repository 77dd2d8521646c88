"""What clients that mean harm, or are broken, get from the HTTP host."""

from __future__ import annotations

import contextlib
import gzip
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

Start = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], None]
MIB = 2**20
GET = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"hello\r\n\r\n", id="no HTTP"),
        pytest.param(b"\r\n\r\n", id="empty lines"),
        pytest.param(b"GET  /live HTTP/1.1\r\nHost: x\r\n\r\n", id="two spaces"),
        pytest.param(b"GET /li ve HTTP/1.1\r\nHost: x\r\n\r\n", id="space in target"),
        pytest.param(b"GET /live\r\n\r\n", id="HTTP/0.9"),
        pytest.param(b"GET /live HTTP/3.0\r\nHost: x\r\n\r\n", id="HTTP/3.0"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS hello"),
        pytest.param(b"\x00", id="NUL first"),
        pytest.param(b"GET /live HTTP/1.1\r\n\r\n", id="no Host"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", id="two Hosts"),
        pytest.param(b"GET /live HTTP/1.1\nHost: x\n\n", id="bare LF"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\nX-A: b\r\n\r\n", id="LF between headers"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: a\rX-B: b\r\n\r\n", id="CR in value"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: a\0b\r\n\r\n", id="NUL in value"),
        pytest.param(
            b"GET /live HTTP/1.1\r\nHost: x\r\nX-A: \x1b[31m\r\n\r\n", id="escape in value"
        ),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nX-\x7f: a\r\n\r\n", id="DEL in name"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nX A: a\r\n\r\n", id="space in name"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nX-A : a\r\n\r\n", id="space before colon"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\n: a\r\n\r\n", id="no name"),
        pytest.param(b"GET /live HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n", id="no colon"),
        pytest.param(b"GET /live HTTP/1.1\r\n X-A: a\r\nHost: x\r\n\r\n", id="fold at start"),
        pytest.param(b"GET /m/%00 HTTP/1.1\r\nHost: x\r\n\r\n", id="NUL in path"),
        pytest.param(b"GET /m/%ff HTTP/1.1\r\nHost: x\r\n\r\n", id="no UTF-8 in path"),
        pytest.param(b"GET /m/\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", id="8 bit in path"),
        pytest.param(POST + b"Content-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(POST + b"Content-Length: +1\r\n\r\n", id="signed length"),
        pytest.param(POST + b"Content-Length: abc\r\n\r\n", id="length no number"),
        pytest.param(POST + b"Content-Length: 0x10\r\n\r\n", id="hexadecimal length"),
        pytest.param(POST + b"Content-Length: \r\n\r\n", id="length missing"),
        pytest.param(POST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n", id="length 10^30"),
        pytest.param(POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", id="two lengths"),
        pytest.param(
            POST + b"Content-Length: 1\r\nX: y\r\ncontent-length: 1\r\n\r\nx",
            id="length said twice",
        ),
        pytest.param(POST + b"Content-Length: 1, 1\r\n\r\nx", id="list of lengths"),
        pytest.param(
            POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="CL+TE"
        ),
        pytest.param(
            b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="TE in 1.0"
        ),
        pytest.param(CHUNKED + b"10000000000000000\r\n", id="chunk of 2^64"),
        pytest.param(CHUNKED + b"ffffffffffffffff\r\nabc", id="chunk of 2^64-1"),
        pytest.param(CHUNKED + b"1" + b"0" * 40 + b"\r\n", id="chunk of 16^40"),
        pytest.param(CHUNKED + b"-1\r\n\r\n", id="negative chunk"),
        pytest.param(CHUNKED + b"xyz\r\n\r\n", id="chunk size no number"),
        pytest.param(CHUNKED + b"1\r\nabc\r\n", id="chunk longer than said"),
        pytest.param(CHUNKED + b"1;" + b"e" * 400_000, id="endless chunk extension"),
        pytest.param(CHUNKED + b"1\r\na\r\n" * 200_000, id="tiny chunks"),
        pytest.param(CHUNKED + b"0\r\nbad trailer\r\n\r\n", id="bad trailer"),
    ],
)
def test_malformed(http: Start, data: bytes) -> None:
    server = http()
    client = server.connect()
    started = time.monotonic()
    sender = threading.Thread(target=send_quietly, args=(client, data))
    sender.start()
    reply = client.reply()
    assert (reply.status, reply.headers["connection"]) == (400, "close")
    assert reply.error
    assert time.monotonic() - started < 3  # not by a timeout
    assert client.is_closed()
    sender.join()
    assert server.is_live()
    assert server.service.seen == []


def send_quietly(client: Any, data: bytes) -> None:
    """Sends until the server does not want to read any more."""
    with contextlib.suppress(OSError):
        client.send(data)


@pytest.mark.parametrize("cut", [10, 40, 90])
def test_a_request_that_ends_early(http: Start, cut: int) -> None:
    data = POST + b"Content-Length: 50\r\n\r\n" + b"x" * 50
    client = http().connect(data[:cut])
    client.sock.shutdown(socket.SHUT_WR)
    assert client.reply().status == 400
    assert client.is_closed()


def test_unknown_transfer_coding(http: Start) -> None:
    assert http().ask(POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n").status == 501


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="9 kB URL"),
        pytest.param(
            b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, id="200 kB URL"
        ),
        pytest.param(b"GET /" + b"a" * 9000, 414, id="URL without an end"),
        pytest.param(GET[:-2] + b"X: 1\r\n" * 2000 + b"\r\n", 431, id="2000 headers"),
        pytest.param(GET[:-2] + b"X: 1\r\n" * 256 + b"\r\n", 431, id="257 headers"),
        pytest.param(GET[:-2] + b"X: " + b"x" * 66_000 + b"\r\n\r\n", 431, id="66 kB header"),
        pytest.param(GET[:-2] + b"X: " + b"x" * 66_000, 431, id="header without an end"),
        pytest.param(POST + b"Content-Length: 67108865\r\n\r\n", 413, id="body announced"),
        pytest.param(POST + b"Content-Length: 9" + b"0" * 19 + b"\r\n\r\n", 413, id="length 10^20"),
        pytest.param(CHUNKED + b"4000001\r\n", 413, id="chunk announced"),
        pytest.param(POST + b"Content-Encoding: br\r\nContent-Length: 9\r\n\r\n", 415, id="br"),
        pytest.param(
            POST + b"Content-Encoding: gzip, gzip\r\nContent-Length: 9\r\n\r\n",
            415,
            id="gzip twice",
        ),
    ],
)
def test_too_large(http: Start, data: bytes, status: int) -> None:
    """The answer comes before the body is sent, and is not lost to a reset."""
    server = http()
    client = server.connect()
    sender = threading.Thread(target=send_quietly, args=(client, data))
    sender.start()
    reply = client.reply()
    sender.join()
    assert (reply.status, reply.headers["connection"]) == (status, "close")
    assert reply.error
    assert client.is_closed()
    assert server.is_live()


def test_the_largest_that_is_allowed(http: Start) -> None:
    server = http(body_bytes=1000)
    target = b"/echo?" + b"a" * (8 * 1024 - 22)
    headers = b"X: 1\r\n" * 254 + b"Content-Length: 1000\r\n"
    head = b"POST " + target + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
    assert server.ask(head + b"x" * 1000).status == 200


def test_a_chunked_body_over_the_limit(http: Start) -> None:
    server = http(body_bytes=MIB)
    client = server.connect(CHUNKED)
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    sender = threading.Thread(target=send_quietly, args=(client, chunk * 64))
    sender.start()
    assert client.reply().status == 413
    sender.join()
    assert server.service.seen == []


def test_many_small_chunks_of_a_large_body_pass(http: Start) -> None:
    line = b"x" * 80
    data = CHUNKED + (b"50\r\n" + line + b"\r\n") * 4000 + b"0\r\n\r\n"
    assert http().ask(data).body == line * 4000


def compressed(coding: str, body: bytes) -> bytes:
    return (
        POST + f"Content-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        pytest.param("gzip", b"not gzip at all", id="no gzip"),
        pytest.param("deflate", b"not deflate at all", id="no deflate"),
        pytest.param("deflate", zlib.compress(b"raw")[2:-4], id="raw deflate"),
        pytest.param("deflate", gzip.compress(b"other"), id="gzip as deflate"),
        pytest.param("gzip", gzip.compress(b"x" * 1000)[:-9], id="cut off"),
        pytest.param("gzip", gzip.compress(b"x" * 1000)[:-1], id="cut off in the trailer"),
        pytest.param("gzip", gzip.compress(b"x")[:5], id="cut off in the header"),
        pytest.param("gzip", gzip.compress(b"x" * 99)[:-8] + b"\0" * 8, id="wrong checksum"),
        pytest.param("gzip", gzip.compress(b"x") + b"rest", id="goes on"),
        pytest.param("gzip", gzip.compress(b"x") * 100_000, id="many members"),
    ],
)
def test_corrupt_compression(http: Start, coding: str, body: bytes) -> None:
    server = http()
    client = server.connect()
    reply = client.ask(compressed(coding, body))
    assert reply.status == 400
    assert reply.error
    assert client.ask(GET).status == 200
    assert server.service.seen == []


def bomb(wbits: int) -> bytes:
    """1 GiB of zeros, made of one block over and over."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, wbits)
    block = bytes(MIB)
    first, second = (deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + second * 1023


class PeakMemory:
    """Samples this process's memory while a block runs."""

    def __enter__(self) -> PeakMemory:
        self._start = self._peak = rss()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._stop.wait(0.002):
            self._peak = max(self._peak, rss())

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self._peak - self._start


@pytest.mark.parametrize(("coding", "wbits"), [("gzip", 31), ("deflate", 15)])
def test_bomb(http: Start, coding: str, wbits: int) -> None:
    server = http()
    assert server.is_live()
    data = compressed(coding, bomb(wbits))
    with PeakMemory() as memory:
        reply = server.ask(data)
    assert (reply.status, "decompressed" in reply.error) == (413, True)
    assert memory.growth < 64 * MIB
    assert server.is_live()


def test_tiny_chunks_cost_nothing(http: Start) -> None:
    server = http()
    before = psutil.Process().cpu_times()
    with PeakMemory() as memory:
        for _ in range(5):
            client = server.connect(CHUNKED)
            send_quietly(client, b"1\r\na\r\n" * 300_000)
            assert client.reply().status == 400
            client.close()
    after = psutil.Process().cpu_times()
    assert memory.growth < 64 * MIB
    assert after.user - before.user < 5


def test_the_answer_reaches_a_client_that_sends_on(http: Start) -> None:
    client = http(body_bytes=MIB).connect()
    body = b"Content-Length: 20000000\r\n\r\n" + bytes(20_000_000)
    client.send(POST + body)
    assert client.reply().status == 413
    assert client.is_closed()


def test_bodies_are_bounded_together(http: Start) -> None:
    server = http(body_bytes=MIB, buffered_bytes=3 * MIB)
    ask = POST.replace(b"/echo", b"/wait") + b"Content-Length: %d\r\n\r\n" % MIB + bytes(MIB)
    clients = [server.connect(ask) for _ in range(3)]
    assert all(server.service.waiting.acquire(timeout=5) for _ in clients)
    small = POST + b"Content-Length: 1\r\n\r\nx"
    reply = server.ask(small)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert server.is_live()
    server.service.release.set()
    assert [client.reply().status for client in clients] == [200] * 3
    assert server.ask(ask.replace(b"/wait", b"/echo")).status == 200


def test_bodies_of_clients_that_left_do_not_count(http: Start, eventually: Eventually) -> None:
    server = http(body_bytes=MIB, buffered_bytes=6 * MIB)
    wait = POST.replace(b"/echo", b"/wait") + b"Content-Length: %d\r\n\r\n" % MIB + bytes(MIB)
    for _ in range(3):
        partial, complete = server.connect(wait[:-1]), server.connect(wait)
        assert server.service.waiting.acquire(timeout=5)
        time.sleep(0.05)  # a reset overtakes what has not been read
        partial.reset()
        complete.reset()
    server.service.release.set()
    eventually(lambda: server.ask(wait).status == 200)
    last = [server.connect(wait[:-1]) for _ in range(3)]
    assert server.ask(wait).status == 200
    for client in last:
        assert client.ask(b"x").status == 200


def test_idle_connections_hold_nothing(http: Start) -> None:
    server = http()
    ask = b"GET /big/20000000 HTTP/1.1\r\nHost: x\r\n\r\n"
    before = rss()
    clients = [server.connect() for _ in range(10)]
    for client in clients:
        assert len(client.ask(ask).body) == 20_000_000
        body = POST + b"Content-Length: 20000000\r\n\r\n" + bytes(20_000_000)
        assert len(client.ask(body).body) == 20_000_000
        server.service.seen.clear()
    assert rss() - before < 150_000_000


# Time.


def drip(client: Any, data: bytes) -> float:
    """Sends byte after byte until the server answers; returns after how long, in seconds."""
    started = time.monotonic()
    for byte in data:
        client.send(bytes([byte]))
        if select.select([client.sock], [], [], 0.05)[0]:
            break
    return time.monotonic() - started


def test_slow_head(http: Start) -> None:
    server = http(header_timeout_s=0.4)
    silent = server.connect()
    client = server.connect(b"GET /live HTTP/1.1\r\n")
    assert drip(client, b"X-Slow: " + b"y" * 100) < 2
    reply = client.reply()
    assert (reply.status, bool(reply.error)) == (408, True)
    assert client.is_closed()
    assert silent.is_closed()


def test_200_slow_clients_disturb_no_one(http: Start) -> None:
    server = http(header_timeout_s=1.5)
    slow = [server.connect(b"GET / HTTP/1.1\r\nX-%d: " % n) for n in range(200)]
    good = server.connect()
    delays = []
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        for client in slow[::10]:
            client.send(b"a")
        started = time.monotonic()
        assert good.ask(GET).status == 200
        delays.append(time.monotonic() - started)
    assert sorted(delays)[len(delays) // 2] < 0.1
    assert {client.reply().status for client in slow} == {408}


def test_slow_body(http: Start) -> None:
    client = http(body_timeout_s=0.4).connect(POST + b"Content-Length: 100\r\n\r\n")
    assert drip(client, b"x" * 100) < 2
    assert client.reply().status == 408
    assert client.is_closed()


def test_large_body_over_a_slow_line(http: Start) -> None:
    server = http(body_timeout_s=0.3, body_bytes_per_s=10_000)
    client = server.connect(POST + b"Content-Length: 100000\r\n\r\n")
    for _ in range(20):
        client.send(b"x" * 5000)
        time.sleep(0.05)
    assert client.reply().status == 200


def test_fast_start_gives_no_credit(http: Start) -> None:
    server = http(body_timeout_s=0.3, body_bytes_per_s=10_000)
    client = server.connect(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 900_000)
    started = time.monotonic()
    assert client.reply().status == 408
    assert time.monotonic() - started < 2


def test_idle_connection(http: Start) -> None:
    client = http(idle_timeout_s=0.3).connect()
    assert client.ask(GET).status == 200
    assert client.is_closed()


def test_a_client_that_does_not_read(http: Start) -> None:
    server = http(write_timeout_s=0.3)
    client = server.connect(b"GET /big/50000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(1)
    size = 0
    with pytest.raises(ConnectionResetError):  # noqa: PT012
        while data := client.sock.recv(MIB):
            size += len(data)
    assert size < 50_000_000
    assert server.is_live()


def test_a_client_that_reads_slowly_gets_everything(http: Start) -> None:
    client = http(write_timeout_s=0.4).connect(b"GET /big/20000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    size = 0
    while size < 20_000_000:
        size += len(client.sock.recv(2**20))
        time.sleep(0.02)


# Numbers.


def test_too_many_connections(http: Start, eventually: Eventually) -> None:
    server = http(max_connections=3)
    clients = [server.connect() for _ in range(3)]
    assert [client.ask(GET).status for client in clients] == [200] * 3
    reply = server.connect().reply()
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    for client in clients:
        client.close()
    eventually(server.is_live)


@pytest.fixture
def crowd() -> Iterator[list[socket.socket]]:
    sockets: list[socket.socket] = []
    yield sockets
    for each in sockets:
        each.close()


def test_five_thousand_idle_connections(http: Start, crowd: list[socket.socket]) -> None:
    resource = pytest.importorskip("resource")
    count = min(5000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500) // 2)
    server = http(max_connections=count + 200)
    before = rss()
    for n in range(count):
        crowd.append(socket.create_connection(("127.0.0.1", server.port), 10))
        if n % 50 == 0:  # no faster than they are accepted: the kernel's queue is short
            assert server.is_live()
    assert rss() - before < 64 * MIB
    process = psutil.Process()
    used = process.cpu_times()
    time.sleep(1)
    now = process.cpu_times()
    assert now.user + now.system - used.user - used.system < 0.2


def test_a_full_queue(http: Start) -> None:
    server = http(threads=2, max_waiting=3)
    ask = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
    clients = [server.connect(ask) for _ in range(2)]
    assert all(server.service.waiting.acquire(timeout=5) for _ in clients)
    clients += [server.connect(ask) for _ in range(3)]
    time.sleep(0.1)
    refused = server.connect()
    reply = refused.ask(ask)
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert "connection" not in reply.headers
    assert refused.ask(GET).status == 200  # health has threads of its own
    server.service.release.set()
    assert [client.reply().status for client in clients] == [200] * 5


def test_clients_that_reset(http: Start) -> None:
    """A reset at any moment leaves nothing behind."""
    server = http(header_timeout_s=30)
    data = POST + b"Content-Length: 100\r\n\r\n" + b"x" * 100
    for cut in range(0, len(data) + 1, 5):
        server.connect(data[:cut]).reset()
    assert server.is_live()
    started = time.monotonic()
    server.host.stop(grace_s=5)
    assert time.monotonic() - started < 3
