"""Deadlines, retries, credentials and the circuit breaker of a session, against real sockets."""

from __future__ import annotations

import email.utils
import itertools
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from crossfade.runtimes.core.errors import Code, CrossfadeError, ResourceExhausted, Unavailable
from crossfade.runtimes.core.model import Session
from crossfade.serving.wire import open_inference as v2
from tests.serving.remote.conftest import Open, deadline
from tests.serving.remote.far_servers import GrpcFar, HttpFar, Talk, answers, hang_up

INPUTS = {"x": np.float32([[1, 2]])}
GOOD = answers(
    json.dumps(
        {"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3, 4]}]}
    ).encode()
)
BUSY = answers(b"", "503 Service Unavailable")
LATER = answers(b"", "429 Too Many Requests", "Retry-After: 0\r\n")


def run(session: Session) -> np.ndarray[Any, Any]:
    return session.run(INPUTS, "serving_default", ())["y"]


def in_turn(far: HttpFar, talks: Sequence[Talk]) -> None:
    """Has each request answered by the next one of these, the last one for ever."""
    line = itertools.chain(talks, itertools.repeat(talks[-1]))

    def talk(connection: Any) -> None:
        next(line)(connection)

    far.talk = talk


@pytest.mark.parametrize("failures", [[BUSY], [BUSY, BUSY], [LATER, BUSY], [hang_up]])
def test_it_is_tried_again_where_that_may_help(
    open_session: Open, http_far: HttpFar, failures: list[Talk]
) -> None:
    session = open_session("open_inference_http", http_far.url, retries=2)
    in_turn(http_far, [*failures, GOOD])
    assert run(session).tolist() == [[3, 4]]
    assert len(http_far.requests) == len(failures) + 1


@pytest.mark.parametrize(
    "status",
    ["400 Bad", "401 Who", "404 Where", "429 No Hint", "500 Broken", "501 What", "504 Late"],
)
def test_it_is_not_tried_again_where_it_cannot(
    open_session: Open, http_far: HttpFar, status: str
) -> None:
    session = open_session("open_inference_http", http_far.url, retries=5)
    in_turn(http_far, [answers(b"", status), GOOD])
    with pytest.raises(CrossfadeError):
        run(session)
    assert len(http_far.requests) == 1


def test_only_so_often(open_session: Open, http_far: HttpFar) -> None:
    session = open_session("open_inference_http", http_far.url, retries=2)
    in_turn(http_far, [BUSY])
    with pytest.raises(Unavailable):
        run(session)
    assert len(http_far.requests) == 3


def test_all_requests_share_a_budget(open_session: Open, http_far: HttpFar) -> None:
    """A server that is down gets few calls more than it would without retries."""
    many = {"failures": 1000}
    session = open_session("open_inference_http", http_far.url, retries=2, breaker=many)
    in_turn(http_far, [BUSY])
    for _ in range(20):
        with pytest.raises(Unavailable):
            run(session)
    assert len(http_far.requests) == 20 + 10


def test_a_connection_that_is_refused_is_tried_again(open_session: Open, grpc_far: GrpcFar) -> None:
    far = HttpFar()
    far.close()
    session = open_session("open_inference_http", far.url, retries=2)
    with pytest.raises(Unavailable, match="the server behind 'member' is not available"):
        run(session)
    assert session._budget.tokens < 9  # type: ignore[attr-defined] # nobody counted the calls


def test_no_retry_begins_that_would_end_too_late(open_session: Open, http_far: HttpFar) -> None:
    session = open_session("open_inference_http", http_far.url, retries=5)
    in_turn(http_far, [answers(b"", "503 No", "Retry-After: 5\r\n")])
    began_s = time.monotonic()
    with deadline(2), pytest.raises(Unavailable) as failed:
        run(session)
    assert time.monotonic() - began_s < 2
    assert len(http_far.requests) == 1
    assert failed.value.retry_after_s == 5


def test_a_date_to_retry_after(open_session: Open, http_far: HttpFar) -> None:
    session = open_session("open_inference_http", http_far.url)
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    http_far.talk = answers(b"", "429 No", f"Retry-After: {date}\r\n")
    with pytest.raises(ResourceExhausted) as failed:
        run(session)
    assert failed.value.retry_after_s is not None
    assert 90 < failed.value.retry_after_s < 101


def test_the_deadline_travels_over_grpc(open_session: Open, grpc_far: GrpcFar) -> None:
    grpc_far.answer = lambda *_: v2.ModelInferResponse(
        outputs=[{"name": "y", "datatype": "FP32", "shape": [1, 2]}],
        raw_output_contents=[bytes(8)],
    ).SerializeToString()
    session = open_session("open_inference_grpc", grpc_far.target, timeout_ms=20_000)
    with deadline(5):
        run(session)
    run(session)
    near, own = (left_s for _, left_s in grpc_far.calls)
    assert 3 < near < 5.1  # the header has three digits
    assert 15 < own < 20.2


def test_the_deadline_travels_over_http(open_session: Open, http_far: HttpFar) -> None:
    http_far.talk = GOOD
    session = open_session("open_inference_http", http_far.url)
    with deadline(5):
        run(session)
    head, _, body = http_far.requests[0].partition(b"\r\n\r\n")
    size = int(head.lower().partition(b"inference-header-content-length:")[2].split()[0])
    left_us = json.loads(body[:size])["parameters"]["timeout"]
    assert 3e6 < left_us <= 5e6


@pytest.mark.parametrize("protocol", ["open_inference_grpc", "open_inference_http"])
def test_its_own_timeout_ends_it_and_counts_against_the_server(
    open_session: Open, http_far: HttpFar, protocol: str
) -> None:
    url = http_far.url if protocol.endswith("http") else f"127.0.0.1:{http_far.port}"
    http_far.talk = lambda _: time.sleep(30)
    rule = {"failures": 2, "pause_ms": 60_000}
    session = open_session(protocol, url, timeout_ms=300, breaker=rule)
    codes = []
    for _ in range(3):
        with pytest.raises(CrossfadeError) as failed:
            run(session)
        codes.append(failed.value.code)
    assert codes[2] is Code.UNAVAILABLE
    if protocol.endswith("http"):
        assert codes[:2] == [Code.DEADLINE_EXCEEDED] * 2


def test_a_callers_short_time_says_nothing_of_the_server(
    open_session: Open, http_far: HttpFar
) -> None:
    rule = {"failures": 1, "pause_ms": 60_000}
    session = open_session("open_inference_http", http_far.url, breaker=rule)
    http_far.talk = lambda _: time.sleep(30)
    for _ in range(3):
        with deadline(0.05), pytest.raises(CrossfadeError) as failed:
            run(session)
        assert failed.value.code is Code.DEADLINE_EXCEEDED
    http_far.talk = GOOD
    assert run(session).tolist() == [[3, 4]]


def test_the_breaker_spares_a_server_that_is_down(open_session: Open, http_far: HttpFar) -> None:
    rule = {"failures": 3, "pause_ms": 300}
    session = open_session("open_inference_http", http_far.url, breaker=rule)
    in_turn(http_far, [BUSY])
    for _ in range(10):
        with pytest.raises(Unavailable):
            run(session)
    assert len(http_far.requests) == 3
    with pytest.raises(Unavailable, match="left alone for a moment") as failed:
        run(session)
    assert failed.value.retry_after_s is not None
    http_far.talk = GOOD
    time.sleep(0.3)
    assert run(session).tolist() == [[3, 4]]
    assert run(session).tolist() == [[3, 4]]


def test_one_call_looks_whether_it_is_back(open_session: Open, http_far: HttpFar) -> None:
    rule = {"failures": 1, "pause_ms": 100}
    session = open_session("open_inference_http", http_far.url, breaker=rule)
    http_far.talk = BUSY
    with pytest.raises(Unavailable):
        run(session)
    time.sleep(0.15)
    asked, go_on = threading.Event(), threading.Event()

    def slow(connection: Any) -> None:
        asked.set()
        go_on.wait(10)
        GOOD(connection)

    http_far.talk = slow
    probe = threading.Thread(target=run, args=(session,))
    probe.start()
    assert asked.wait(10)
    with pytest.raises(Unavailable, match="left alone"):
        run(session)
    go_on.set()
    probe.join(10)
    http_far.talk = GOOD
    assert run(session).tolist() == [[3, 4]]


def test_connections_are_kept(open_session: Open, http_far: HttpFar) -> None:
    session = open_session("open_inference_http", http_far.url)
    http_far.talk = GOOD
    for _ in range(20):
        run(session)
    assert http_far.connections == 1


def test_a_kept_connection_that_was_closed_costs_nothing(
    open_session: Open, http_far: HttpFar
) -> None:
    session = open_session("open_inference_http", http_far.url)

    def once(connection: Any) -> None:
        GOOD(connection)
        connection.close()

    http_far.talk = once
    for _ in range(5):
        assert run(session).tolist() == [[3, 4]]


def test_a_token_is_read_again_when_it_changes(
    open_session: Open, http_far: HttpFar, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    session = open_session(
        "open_inference_http", http_far.url, token_file="token", headers={"x-tenant": "a"}
    )
    http_far.talk = GOOD
    run(session)
    token.write_text("second, that is none")
    os.utime(token, ns=(1, 1))
    with pytest.raises(CrossfadeError) as failed:
        run(session)
    assert failed.value.code is Code.FAILED_PRECONDITION
    token.write_text("third")
    os.utime(token, ns=(2, 2))
    run(session)
    sent = [request.lower() for request in http_far.requests]
    assert [b"bearer first" in sent[0], b"bearer third" in sent[1]] == [True, True]
    assert all(b"x-tenant: a" in request for request in sent)


def test_headers_travel_over_grpc(open_session: Open, grpc_far: GrpcFar) -> None:
    seen: list[Any] = []

    def note(_: bytes, context: Any) -> bytes:
        seen.extend(context.invocation_metadata())
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        raise AssertionError

    grpc_far.answer = note
    session = open_session("open_inference_grpc", grpc_far.target, headers={"x-tenant": "a"})
    with pytest.raises(CrossfadeError):
        run(session)
    assert ("x-tenant", "a") in [tuple(pair) for pair in seen]
