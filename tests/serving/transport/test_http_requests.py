"""What a well-behaved client sees of the HTTP host."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

Start = Callable[..., Any]
GET = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes, path: str = "/echo", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + body + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize("size", [0, 1, 70_000, 600_000, 20_000_000])
def test_echo_with_a_client_library(http: Start, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    connection = http_client(http())
    connection.request("POST", "/echo", body)
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("Content-Type") == ("application/octet-stream" if size else None)
    assert answer.getheader("Date", "").endswith("GMT")
    assert answer.read() == body
    connection.close()


def http_client(server: Any) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)


def test_many_requests_on_one_connection(http: Start) -> None:
    client = http().connect()
    for n in range(100):
        body = b"%d" % n
        assert client.ask(post(body)).body == body
    assert client.ask(GET).headers["content-length"] == "0"


@pytest.mark.parametrize("piece_bytes", [1, 7, 1000])
def test_requests_in_fragments(http: Start, piece_bytes: int) -> None:
    client = http().connect()
    data = post(b"first") + chunked(b"se", b"cond", trailer=b"X-Trailer: t\r\n") + GET
    for start in range(0, len(data), piece_bytes):
        client.send(data[start : start + piece_bytes])
    assert [client.reply().body for _ in range(3)] == [b"first", b"second", b""]


def test_pipelined_requests_are_answered_in_order(http: Start) -> None:
    client = http().connect()
    bodies = [b"%d" % n for n in range(300)]
    missing = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(missing + b"".join(post(b) if len(b) < 3 else chunked(b) for b in bodies) + GET)
    assert client.reply().status == 404
    assert [client.reply().body for _ in bodies] == bodies
    assert client.reply().status == 200


def test_a_client_that_pipelines_is_read_only_so_far(http: Start) -> None:
    server = http()
    client = server.connect(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.send(GET * 1_000_000)
    server.service.release.set()
    client.sock.settimeout(10)
    assert client.reply().body == b'"waited"'
    assert client.reply().status == 200


def test_chunked(http: Start) -> None:
    parts = [b"a" * 10_000, b"b", b"c" * 300_000]
    assert http().ask(chunked(*parts)).body == b"".join(parts)


def test_expect_continue(http: Start) -> None:
    client = http(body_bytes=100).connect()
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    assert client.ask(head % 5).status == 100
    assert client.ask(b"hello").body == b"hello"
    assert client.ask(head % 101).status == 413


def test_head_is_get_without_the_body(http: Start) -> None:
    client = http().connect()
    client.send(b"HEAD /big/1000 HTTP/1.1\r\nHost: x\r\n\r\n")
    reply = client.reply(head_only=True)
    assert (reply.status, reply.headers["content-length"]) == (200, "1000")
    client.send(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.reply(head_only=True).status == 404
    assert client.ask(GET).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"GET /live HTTP/1.0\r\n\r\n",
        b"GET /live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n",
    ],
)
def test_the_last_request(http: Start, data: bytes) -> None:
    client = http().connect()
    reply = client.ask(data)
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    assert client.is_closed()


@pytest.mark.parametrize(
    "head",
    [
        b"GET http://elsewhere/live?x=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /live?a=%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%6cive HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
)
def test_other_ways_to_ask(http: Start, head: bytes) -> None:
    client = http().connect()
    assert [client.ask(head).status, client.ask(GET).status] == [200, 200]


def test_what_a_handler_gets(http: Start) -> None:
    server = http()
    server.ask(post(b"b", "/echo?q=%20", "X-A: 1\r\nx-a: 2\r\nX-Latin: \xe9\r\n"))
    (request,) = server.service.seen
    assert (request.method, request.path, request.body) == ("POST", "/echo", b"b")
    assert request.peer == "127.0.0.1"
    assert request.headers["x-a"] == "1, 2"
    assert request.headers["host"] == "x"
    assert isinstance(request.body, bytes)
    assert not request.cancelled.is_set()


@pytest.mark.parametrize(
    ("path", "groups"),
    [
        ("/m/a%20b", {"name": "a b"}),
        ("/m/%E2%82%AC/versions/3", {"name": "\u20ac", "version": "3"}),
        ("/m/a%252Fb", {"name": "a%2Fb"}),
        ("/m/a+b", {"name": "a+b"}),
    ],
)
def test_path_groups(http: Start, path: str, groups: dict[str, str]) -> None:
    reply = http().ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert json.loads(reply.body) == groups


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/live/", "/m/..%2f..%2fetc", "*", "/m/a/%2e%2e"]
)
def test_unknown_path(http: Start, path: str) -> None:
    client = http().connect()
    reply = client.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (reply.status, reply.error) == (404, "no such path")
    assert client.ask(GET).status == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/echo", "POST"),
        ("GET", "/echo", "POST"),
        ("HEAD", "/echo", "POST"),
        ("BREW", "/wait", "GET, HEAD, POST"),
        ("POST", "/m/a", "GET, HEAD"),
    ],
)
def test_known_path_with_another_method(http: Start, method: str, path: str, allow: str) -> None:
    client = http().connect()
    client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    reply = client.reply(head_only=method == "HEAD")
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert client.ask(GET).status == 200


@pytest.mark.parametrize("path", ["/nowhere", "/live"])
def test_a_body_that_no_route_wants(http: Start, path: str) -> None:
    client = http().connect()
    reply = client.ask(post(b"x" * 200_000, path))
    assert reply.status in (404, 405)
    assert reply.headers["connection"] == "close"
    assert client.is_closed()


def test_errors_of_handlers(http: Start, caplog: pytest.LogCaptureFixture) -> None:
    client = http().connect()
    busy = client.ask(b"GET /fail/busy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (busy.status, busy.error, busy.headers["retry-after"]) == (429, "the queue is full", "2")
    for how in ("bug", "header"):
        broken = client.ask(f"GET /fail/{how} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert broken.status == 500
        assert "secret" not in broken.error
        assert "Injected" not in str(broken)
        assert broken.error.split("id ")[1].split(" ")[0] in caplog.text


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 403),
        ("Authorization: Bearer secret\r\n", 200),
    ],
)
def test_policy(http: Start, header: str, status: int) -> None:
    reply = http().ask(post(b"{}", "/admin", header))
    assert reply.status == status
    assert ("www-authenticate" in reply.headers) == (status == 401)


@pytest.mark.parametrize(
    ("coding", "encode"),
    [("gzip", gzip.compress), ("X-GZip", gzip.compress), ("deflate", zlib.compress)],
)
@pytest.mark.parametrize("size", [0, 10, 1_000_000, 30_000_000])
def test_compressed_body(
    http: Start, coding: str, encode: Callable[[bytes], bytes], size: int
) -> None:
    body = b"0123456789" * (size // 10)
    reply = http().ask(post(encode(body), headers=f"Content-Encoding: {coding}\r\n"))
    assert (reply.status, reply.body == body) == (200, True)


def test_identity(http: Start) -> None:
    assert http().ask(post(b"plain", headers="Content-Encoding: identity\r\n")).body == b"plain"


def test_an_answer_larger_than_all_buffers(http: Start) -> None:
    client = http().connect()
    assert len(client.ask(b"GET /big/30000000 HTTP/1.1\r\nHost: x\r\n\r\n").body) == 30_000_000
    assert client.ask(GET).status == 200


# -- routes with a limit of their own, and requests that mean another route -----------------------


def test_a_routes_own_limit(http: Start) -> None:
    server = http()
    assert server.ask(post(b"x" * 500, "/small")).body == b"x" * 1000
    for size, what in ((501, "the answer"), (1000, "the answer"), (1001, "the body")):
        reply = server.ask(post(b"x" * size, "/small"))
        assert (reply.status, reply.error) == (413, f"{what} is larger than 1000 bytes; send less")
    head = b"POST /small HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert server.ask(head + b"3e9\r\n").status == 413, "before it has come"
    assert server.ask(post(b"x" * 1001)).status == 200, "other routes have the host's"


def test_a_routes_limit_is_for_what_is_on_the_wire(http: Start) -> None:
    headers = "Content-Encoding: gzip\r\nAccept-Encoding: gzip\r\n"
    reply = http().ask(post(gzip.compress(b"x" * 50_000), "/small", headers))
    assert reply.status == 200
    assert gzip.decompress(reply.body) == b"x" * 100_000


def test_a_request_that_means_another_route(http: Start) -> None:
    server = http()
    assert server.ask(post(b"here", "/door")).body == b"here"
    assert server.ask(post(b"", "/door", "X-Path: /m/a/versions/7\r\n")).body == (
        b'{"name": "a", "version": "7"}'
    )
    assert server.ask(post(b"there", "/door", "X-Path: /echo\r\n")).body == b"there"
    assert [seen.method for seen in server.service.seen] == ["POST", "POST"]
    assert server.ask(post(b"", "/door", "X-Path: /live\r\n")).status == 200
    assert server.ask(post(b"", "/door", "X-Path: /nowhere\r\n")).status == 404
    assert server.ask(post(b"", "/door", "X-Path: /fail/busy\r\n")).status == 429


def test_another_route_is_behind_its_own_guard(http: Start) -> None:
    server = http()
    asked = "X-Path: /admin\r\n"
    assert server.ask(post(b"", "/door", asked)).status == 401
    assert server.ask(post(b"", "/door", asked + "Authorization: Bearer no\r\n")).status == 403
    assert server.ask(post(b"", "/door", asked + "Authorization: Bearer secret\r\n")).status == 200
    assert server.ask(post(b"once", "/door", "X-Path: /door\r\n")).body == b"once", "and no loop"
