"""A real HTTP host on loopback, and a client that writes what no client library would."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from crossfade.runtimes.core.errors import PermissionDenied, ResourceExhausted, Unauthenticated
from crossfade.serving.transport.calls import (
    Access,
    Caller,
    HttpRequest,
    HttpResponse,
    PayloadLimit,
    Route,
)
from crossfade.serving.transport.http_host import HttpHost
from crossfade.serving.transport.http_limits import HttpLimits

Groups = Mapping[str, str]


class Service:
    """Handlers whose effects a test can see."""

    def __init__(self) -> None:
        self.seen: list[HttpRequest] = []
        self.release = threading.Event()
        self.cancelled = threading.Event()
        self.waiting = threading.Semaphore(0)

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/live", Access.READ, lambda request, groups: HttpResponse()),
            Route("POST", "/echo", Access.INFER, self.echo),
            Route("GET", "/big/(?P<size>[0-9]+)", Access.INFER, self.big),
            Route("GET", "/wait", Access.INFER, self.wait),
            Route("POST", "/wait", Access.INFER, self.wait),
            Route("GET", "/m/(?P<name>[^/]+)(/versions/(?P<version>[0-9]+))?", Access.READ, self.m),
            Route("GET", "/fail/(?P<how>[a-z]+)", Access.INFER, self.fail),
            Route(
                "POST", "/small", Access.INFER, self.twice, limit=PayloadLimit(1000, "send less")
            ),
            Route("POST", "/door", Access.INFER, self.echo, forward=self.elsewhere),
            Route("POST", "/admin", Access.ADMIN, lambda request, groups: HttpResponse()),
        ]

    def check(self, access: Access, caller: Caller) -> None:
        if access is Access.ADMIN and caller.metadata.get("authorization") != "Bearer secret":
            if "authorization" in caller.metadata:
                raise PermissionDenied("this token may not administrate")
            raise Unauthenticated("this needs a token")

    def echo(self, request: HttpRequest, groups: Groups) -> HttpResponse:
        self.seen.append(request)
        return HttpResponse(body=request.body, content_type="application/octet-stream")

    def twice(self, request: HttpRequest, groups: Groups) -> HttpResponse:
        return HttpResponse(body=2 * request.body, content_type="text/plain", compressible=True)

    def elsewhere(self, request: HttpRequest) -> HttpRequest | None:
        path = request.headers.get("x-path")
        return dataclasses.replace(request, path=path) if path else None

    def big(self, request: HttpRequest, groups: Groups) -> HttpResponse:
        return HttpResponse(body=b"b" * int(groups["size"]))

    def wait(self, request: HttpRequest, groups: Groups) -> HttpResponse:
        request.cancelled.subscribe(self.cancelled.set)
        self.waiting.release()
        assert self.release.wait(20)
        return HttpResponse(body=b'"waited"')

    def m(self, request: HttpRequest, groups: Groups) -> HttpResponse:
        return HttpResponse(body=json.dumps(groups).encode())

    def fail(self, request: HttpRequest, groups: Groups) -> HttpResponse:
        if groups["how"] == "busy":
            raise ResourceExhausted("the queue is full", retry_after_s=1.2)
        if groups["how"] == "header":
            return HttpResponse(headers=(("X-Bad", "a\r\nX-Injected: b"),))
        raise ZeroDivisionError("/secret/path")


@dataclasses.dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        assert self.headers["content-type"] == "application/json"
        message = json.loads(self.body)["error"]
        assert isinstance(message, str)
        assert not re.search(r"h11|Traceback|\.py|0x[0-9a-f]{6}", message)
        return message


class Client:
    """One connection; closed with its test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(10)
        self._reader = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self, *, head_only: bool = False) -> Reply:
        """Reads one answer; interim answers count."""
        line = self._reader.readline()
        assert re.fullmatch(rb"HTTP/1\.1 \d{3} [^\r]+\r\n", line), line
        headers: dict[str, str] = {}
        while (text := self._reader.readline()) != b"\r\n":
            name, _, value = text.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = 0 if head_only else int(headers.get("content-length", 0))
        return Reply(int(line[9:12]), headers, self._reader.read(size))

    def ask(self, data: bytes) -> Reply:
        self.send(data)
        return self.reply()

    def is_closed(self, within_s: float = 5) -> bool:
        """Whether the server has closed its side, and sent nothing more before."""
        self.sock.settimeout(within_s)
        try:
            return self._reader.read(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def is_gone(self) -> bool:
        """Whether the server has closed its side, whatever it has sent before."""
        try:
            self._reader.read()
            return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._reader.close()
        self.sock.close()


class Http:
    """A running host with its service."""

    def __init__(self, service: Service, host: HttpHost) -> None:
        self.service = service
        self.host = host
        self.clients: list[Client] = []

    @property
    def port(self) -> int:
        return self.host.port

    def connect(self, data: bytes = b"") -> Client:
        client = Client(socket.create_connection(("127.0.0.1", self.port), 10))
        self.clients.append(client)
        client.send(data)
        return client

    def ask(self, data: bytes) -> Reply:
        return self.connect().ask(data)

    def is_live(self) -> bool:
        return self.ask(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n").status == 200


@pytest.fixture
def http() -> Iterator[Callable[..., Http]]:
    """Starts hosts: keyword arguments are those of the limits, and ``threads`` and ``tls``."""
    started: list[Http] = []

    def start(threads: int = 4, tls: Any = None, **limits: Any) -> Http:
        service = Service()
        host = HttpHost(
            service.routes(),
            service,
            HttpLimits(**limits),
            host="127.0.0.1",
            port=0,
            threads=threads,
            tls=tls,
        )
        host.start()
        started.append(Http(service, host))
        return started[-1]

    yield start
    for running in started:
        running.service.release.set()
        for client in running.clients:
            client.close()
        running.host.stop(grace_s=2)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something becomes true, for five seconds at most."""

    def wait(condition: Callable[[], bool]) -> None:
        until = time.monotonic() + 5
        while not condition():
            assert time.monotonic() < until
            time.sleep(0.01)

    return wait
