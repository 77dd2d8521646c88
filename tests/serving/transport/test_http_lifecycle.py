"""How an HTTP host starts and stops, and what happens to those who leave or stay."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPSConnection, IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import Unavailable
from crossfade.serving.transport.http_host import HttpHost
from crossfade.serving.transport.http_limits import HttpLimits

Start = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], None]
GET = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"


def host_on(address: str, port: int = 0, threads: int = 1) -> HttpHost:
    class Nobody:
        def check(self, *_: object) -> None:
            """Anybody may do anything."""

    return HttpHost([], Nobody(), HttpLimits(), host=address, port=port, threads=threads)


# Starting.


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("localhost", "::1"),
        ("0.0.0.0", "127.0.0.1"),
        ("", "127.0.0.1"),
        ("", "::1"),
        ("::", "127.0.0.1"),
        ("::", "::1"),
        ("[::1]", "::1"),
    ],
)
def test_addresses(address: str, client: str) -> None:
    if ":" in address + client and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    if address == "localhost" and client == "::1" and not localhost_has_ipv6():
        pytest.skip("localhost is IPv4 only here")
    host = host_on(address)
    host.start()
    try:
        connection = HTTPConnection(client, host.port, timeout=5)
        connection.request("GET", "/")
        assert connection.getresponse().status == 404
        connection.close()
    finally:
        host.stop(1)


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def localhost_has_ipv6() -> bool:
    return socket.AF_INET6 in {found[0] for found in socket.getaddrinfo("localhost", 1)}


def test_port_in_use(http: Start) -> None:
    port = http().port
    second = host_on("127.0.0.1", port)
    with pytest.raises(Unavailable, match=f"127.0.0.1, port {port}: Address already in use"):
        second.start()
    second.stop(1)


def test_unknown_host_name() -> None:
    with pytest.raises(Unavailable, match="cannot listen on no-such-host"):
        host_on("no-such-host.invalid").start()


def test_start_fails_cleanly() -> None:
    host = host_on("127.0.0.1", threads=0)
    before = threading.active_count()
    with pytest.raises(ValueError, match="max_workers"):
        host.start()
    assert threading.active_count() == before


def test_a_port_is_free_after_stop() -> None:
    first = host_on("127.0.0.1")
    first.start()
    first.stop(1)
    first.stop(1)
    second = host_on("127.0.0.1", first.port)
    second.start()
    second.stop(1)


# Leaving.


@pytest.mark.parametrize("how", ["close", "half-close", "reset"])
def test_a_client_that_leaves_cancels_its_request(http: Start, how: str) -> None:
    server = http()
    client = server.connect(WAIT)
    assert server.service.waiting.acquire(timeout=5)
    assert not server.service.cancelled.is_set()
    if how == "half-close":
        client.sock.shutdown(socket.SHUT_WR)
    elif how == "reset":
        client.reset()
    else:
        client.close()
    assert server.service.cancelled.wait(5)
    server.service.release.set()
    if how == "half-close":
        assert client.reply().body == b'"waited"'
        assert client.is_closed()
    assert server.is_live()


def test_a_request_that_is_done_is_not_cancelled(http: Start, eventually: Eventually) -> None:
    server = http()
    server.service.release.set()
    client = server.connect()
    assert client.ask(WAIT).status == 200
    client.close()
    time.sleep(0.1)
    assert not server.service.cancelled.is_set()


def test_a_request_whose_client_left_is_not_handled(http: Start) -> None:
    server = http(threads=1)
    first = server.connect(WAIT)
    assert server.service.waiting.acquire(timeout=5)
    second = server.connect(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
    time.sleep(0.1)
    second.close()
    time.sleep(0.1)
    server.service.release.set()
    assert first.reply().status == 200
    assert first.ask(WAIT).status == 200
    assert server.service.seen == []


# Stopping.


def test_drain(http: Start) -> None:
    server = http(header_timeout_s=30)
    idle = server.connect()
    assert idle.ask(GET).status == 200
    fresh = server.connect()
    half = server.connect(GET[:10])
    busy = server.connect(WAIT)
    assert server.service.waiting.acquire(timeout=5)
    stopping = threading.Thread(target=server.host.stop, args=(10,))
    stopping.start()
    assert idle.is_closed()
    assert fresh.is_closed()
    with pytest.raises(ConnectionRefusedError):
        server.connect()
    assert not server.service.cancelled.is_set()
    replies = [half.ask(GET[10:])]
    server.service.release.set()
    replies.append(busy.reply())
    assert [r.status for r in replies] == [200, 200]
    assert [r.headers["connection"] for r in replies] == ["close", "close"]
    stopping.join(3)
    assert not stopping.is_alive()


def test_a_handler_that_outlives_the_grace(http: Start) -> None:
    server = http()
    busy = server.connect(WAIT)
    queued = [server.connect(WAIT) for _ in range(10)]
    assert server.service.waiting.acquire(timeout=5)
    started = time.monotonic()
    server.host.stop(grace_s=0.3)
    assert 0.2 < time.monotonic() - started < 2
    assert server.service.cancelled.is_set()
    assert all(client.is_closed() for client in (busy, *queued))


def test_stopping_while_clients_connect(http: Start) -> None:
    """Whoever has been accepted is answered or closed; asyncio loses some if it is not careful."""
    for _ in range(20):
        server = http()
        clients = [server.connect(GET) for _ in range(20)]
        server.host.stop(grace_s=2)
        assert all(client.is_gone() for client in clients)


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no certificate without the openssl command: {error}")
    return folder


@pytest.fixture
def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return server, ssl.create_default_context(cafile=str(certificate / "cert.pem"))


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


def test_tls(http: Start, contexts: Contexts) -> None:
    server = http(tls=contexts[0])
    connection = tls_client(server, contexts)
    for size in (0, 1, 100_000, 3_000_000):
        connection.request("POST", "/echo", b"x" * size)
        assert connection.getresponse().read() == b"x" * size
    connection.request("GET", "/big/20000000")
    answer = connection.getresponse()
    time.sleep(0.5)
    assert len(answer.read()) == 20_000_000
    connection.request("POST", "/echo", b"x", {"Connection": "close"})
    assert connection.getresponse().read() == b"x"
    connection.close()


def tls_client(server: Any, contexts: Contexts) -> HTTPSConnection:
    return HTTPSConnection("127.0.0.1", server.port, context=contexts[1], timeout=10)


def test_tls_refusals_and_cancellation(http: Start, contexts: Contexts) -> None:
    server = http(tls=contexts[0], body_bytes=1000)
    connection = tls_client(server, contexts)
    connection.putrequest("POST", "/echo")
    connection.putheader("Content-Length", "2000")
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()
    connection = tls_client(server, contexts)
    connection.request("GET", "/wait")
    assert server.service.waiting.acquire(timeout=5)
    connection.close()
    assert server.service.cancelled.wait(5)


def test_tls_handshakes(http: Start, contexts: Contexts) -> None:
    """Those that stall are cut, at the latest when the host stops; plain HTTP gets nowhere."""
    server = http(tls=contexts[0], header_timeout_s=0.5)
    stalled = server.connect()
    plain = server.connect(GET)
    assert plain.is_closed()
    assert stalled.is_closed(3)
    late = server.connect(b"\x16\x03")
    time.sleep(0.1)
    server.host.stop(grace_s=1)
    assert late.is_closed()


def test_tls_client_that_does_not_read(http: Start, contexts: Contexts) -> None:
    server = http(tls=contexts[0], write_timeout_s=0.3, idle_timeout_s=0.5)
    connection = tls_client(server, contexts)
    connection.request("GET", "/big/50000000")
    answer = connection.getresponse()
    time.sleep(1)
    started = time.monotonic()
    server.host.stop(grace_s=5)
    assert time.monotonic() - started < 3
    with pytest.raises((IncompleteRead, OSError)):
        answer.read()
    connection.close()
