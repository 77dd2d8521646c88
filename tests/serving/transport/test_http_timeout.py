"""A request that takes longer than it may is told 504, and its connection ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Start = Callable[..., Any]
Eventually = Callable[[Callable[[], bool]], None]
WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
ECHO = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"


def test_a_handler_that_takes_too_long(http: Start) -> None:
    server = http(request_timeout_s=0.2)
    client = server.connect()
    reply = client.ask(WAIT)
    assert (reply.status, reply.error) == (504, "the request took too long")
    assert reply.headers["connection"] == "close"
    assert client.is_closed()
    assert server.service.cancelled.wait(5)  # the handler learns of it
    assert server.is_live()


def test_a_late_answer_goes_to_nobody(http: Start, eventually: Eventually) -> None:
    server = http(request_timeout_s=0.2)
    body = b"x" * 1000
    client = server.connect()
    reply = client.ask(
        b"POST /wait HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + body + WAIT
    )
    assert reply.status == 504
    server.service.release.set()
    assert client.is_closed()  # and nothing was sent after the 504
    assert server.ask(ECHO).body == b"hi"
    shared = server.host._shared
    eventually(lambda: shared.buffered_bytes == 0)


def test_one_that_waits_for_a_thread_is_never_run(http: Start) -> None:
    server = http(threads=1, request_timeout_s=0.3)
    first, second = server.connect(WAIT), server.connect(ECHO)
    assert (first.reply().status, second.reply().status) == (504, 504)
    server.service.release.set()
    assert server.ask(ECHO).body == b"hi"
    assert len(server.service.seen) == 1


def test_handlers_know_their_deadline(http: Start) -> None:
    server = http(request_timeout_s=30)
    before_s = time.monotonic()
    client = server.connect()
    for _ in range(2):  # each request of a connection has its own
        assert client.ask(ECHO).status == 200
    first, second = (request.deadline_s for request in server.service.seen)
    assert before_s + 30 <= first <= second <= time.monotonic() + 30


def test_without_a_limit(http: Start) -> None:
    server = http()
    server.ask(ECHO)
    assert server.service.seen[0].deadline_s is None


def test_an_answer_that_is_taken_slowly_is_not_timed_out(http: Start) -> None:
    server = http(request_timeout_s=0.3)
    client = server.connect(b"GET /big/8000000 HTTP/1.1\r\nHost: x\r\n\r\n")
    time.sleep(1)
    reply = client.reply()
    assert (reply.status, len(reply.body)) == (200, 8_000_000)
    assert client.ask(ECHO).body == b"hi"
