"""The parts of the HTTP host that need no network."""

from __future__ import annotations

import functools
import threading
import timeit
import tracemalloc

import pytest

from crossfade.runtimes.core import errors
from crossfade.serving.transport.calls import HTTP_STATUS, Access, HttpResponse, Route
from crossfade.serving.transport.cancellation import CancelToken
from crossfade.serving.transport.http_answer import encode, refusal
from crossfade.serving.transport.http_body import LengthReader
from crossfade.serving.transport.http_limits import HttpLimits
from crossfade.serving.transport.http_router import HttpRouter


def test_a_token_calls_back_once() -> None:
    token, calls = CancelToken(), []
    token.subscribe(lambda: calls.append("early"))
    token.subscribe(lambda: calls.append("second"))
    assert not token.is_set()
    assert calls == []
    token.set()
    token.set()
    token.subscribe(lambda: calls.append("late"))
    assert token.is_set()
    assert calls == ["early", "second", "late"]


def test_a_callback_that_fails_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    token, calls = CancelToken(), []
    token.subscribe(lambda: calls.remove("absent"))
    token.subscribe(lambda: calls.append("called"))
    token.set()
    assert calls == ["called"]
    assert "ValueError" in caplog.text


def test_subscribers_race_with_set() -> None:
    for _ in range(200):
        race()


def race() -> None:
    token = CancelToken()
    calls: list[int] = []
    barrier = threading.Barrier(3)

    def subscribe() -> None:
        barrier.wait()
        for n in range(20):
            token.subscribe(functools.partial(calls.append, n))

    threads = [threading.Thread(target=subscribe) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    token.set()
    for thread in threads:
        thread.join()
    assert sorted(calls) == sorted([*range(20)] * 2)


def test_a_token_is_cheap() -> None:
    assert min(timeit.repeat(CancelToken, number=1000, repeat=20)) < 1000 * 2e-6


def test_every_code_has_a_status() -> None:
    assert set(HTTP_STATUS) == {code.name for code in errors.Code}


@pytest.mark.parametrize(
    ("retry_after_s", "header"), [(None, None), (0.0, "1"), (0.2, "1"), (1.0, "1"), (2.1, "3")]
)
def test_retry_after(retry_after_s: float | None, header: str | None) -> None:
    response = refusal(errors.Unavailable("loading", retry_after_s=retry_after_s))
    assert response.status == 503
    assert dict(response.headers).get("Retry-After") == header


def test_messages_of_any_kind_can_be_sent() -> None:
    response = refusal(errors.NotFound("no \udcff \x1b \n \u20ac"))
    assert response.body == rb'{"error": "no \udcff \u001b \n \u20ac"}'


@pytest.mark.parametrize(("status", "line"), [(200, b"200 OK"), (299, b"299 Unknown")])
def test_status_lines(status: int, line: bytes) -> None:
    head = encode(HttpResponse(status, b"x", "text/plain", (("X-A", "b"),))).head
    assert head.startswith(b"HTTP/1.1 " + line + b"\r\nDate: ")
    assert head.endswith(b"GMT\r\nContent-Length: 1\r\nContent-Type: text/plain\r\nX-A: b\r\n")


def test_no_content() -> None:
    answer = encode(HttpResponse(204, b"ignored"))
    assert answer.body == b""
    assert b"Content-" not in answer.head


@pytest.mark.parametrize(
    "header", [("X-A", "a\r\nX-B: b"), ("X-A", "\0"), ("X A", ""), ("", ""), ("X-A", "\u20ac")]
)
def test_headers_that_cannot_be_sent(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="not a header"):
        encode(HttpResponse(headers=(header,)))


def test_a_body_in_single_bytes_takes_no_more_memory() -> None:
    body = LengthReader(30_000, HttpLimits())
    tracemalloc.start()
    try:
        for n in range(30_000):
            assert body.feed(memoryview(b"x")) == (n == 29_999)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert body.take() == b"x" * 30_000


def test_routes_must_differ() -> None:
    route = Route("GET", "/a", Access.READ, lambda request, groups: HttpResponse())
    with pytest.raises(ValueError, match="two routes for GET /a"):
        HttpRouter([route, route])


def test_a_literal_and_a_pattern_share_a_path() -> None:
    def route(method: str, pattern: str) -> Route:
        return Route(method, pattern, Access.READ, lambda request, groups: HttpResponse())

    router = HttpRouter([route("GET", "/m/stats"), route("POST", "/m/(?P<name>[^/]+)")])
    assert router.find("GET", "/m/stats")[0].pattern == "/m/stats"
    assert router.find("POST", "/m/stats")[1] == {"name": "stats"}
