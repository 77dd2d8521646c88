"""Tokens and rates: who is let in, and how often."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from crossfade.serving.transport import rate_limit
from crossfade.serving.transport.calls import Access
from crossfade.serving.transport.policy import Guard
from crossfade.serving.transport.rate_limit import RateLimit
from crossfade.serving.transport.tokens import Token, Tokens, digest

TOKENS = Tokens(
    [
        Token("ci", digest("infer-token"), frozenset({Access.INFER, Access.READ})),
        Token("ops", digest("admin-token"), frozenset(set(Access) - {Access.PROBE})),
    ]
)


class Someone:
    def __init__(self, header: str | bytes | None = None, peer: str = "127.0.0.1") -> None:
        self.peer = peer
        self.metadata: Mapping[str, str | bytes] = (
            {} if header is None else {"authorization": header}
        )


@pytest.mark.parametrize(
    "header", ["Bearer infer-token", "bearer infer-token", "BEARER  infer-token "]
)
def test_a_known_token(header: str) -> None:
    assert TOKENS.admit(Access.INFER, Someone(header)) == "ci"


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer ", "infer-token", "Basic infer-token", b"Bearer infer-token"),
        *("Bearer infer-toke", "Bearer infer-token, Bearer admin-token", "Bearer \udcff\x00"),
    ],
)
def test_no_token_that_is_known(header: str | bytes | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        TOKENS.admit(Access.READ, Someone(header))
    assert "ci" not in caught.value.message


@given(st.text())
def test_no_other_text_is_a_token(text: str) -> None:
    if text.strip() not in ("infer-token", "admin-token"):
        with pytest.raises(Unauthenticated):
            TOKENS.admit(Access.INFER, Someone(f"Bearer {text}"))


def test_roles() -> None:
    with pytest.raises(PermissionDenied, match="no role 'admin'"):
        TOKENS.admit(Access.ADMIN, Someone("Bearer infer-token"))
    assert TOKENS.admit(Access.ADMIN, Someone("Bearer admin-token")) == "ops"


@pytest.mark.parametrize(
    ("guard", "access", "someone", "allowed"),
    [
        (Guard(), Access.INFER, Someone(peer="10.0.0.1"), True),
        (Guard(), Access.ADMIN, Someone(peer="10.0.0.1"), False),
        (Guard(TOKENS), Access.PROBE, Someone(peer="10.0.0.1"), True),
        (Guard(TOKENS), Access.READ, Someone(peer="127.0.0.1"), False),
        (Guard(TOKENS), Access.ADMIN, Someone("Bearer admin-token", "127.0.0.1"), True),
        (Guard(TOKENS), Access.ADMIN, Someone("Bearer admin-token", "10.0.0.1"), False),
        (
            Guard(TOKENS, admin_anywhere=True),
            *(Access.ADMIN, Someone("Bearer admin-token", "10.0.0.1"), True),
        ),
        (
            Guard(TOKENS, admin_anywhere=True),
            *(Access.ADMIN, Someone("Bearer infer-token", "10.0.0.1"), False),
        ),
    ],
)
def test_who_may_do_what(guard: Guard, access: Access, someone: Someone, allowed: bool) -> None:
    if allowed:
        guard.check(access, someone)
    else:
        with pytest.raises(CrossfadeError):
            guard.check(access, someone)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [100.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_a_rate_is_for_each_caller_and_comes_back(clock: Callable[[float], None]) -> None:
    rate = RateLimit(2)
    for caller in ("a", "b"):
        rate.take(caller)
        rate.take(caller)
        with pytest.raises(ResourceExhausted) as caught:
            rate.take(caller)
        assert caught.value.retry_after_s == pytest.approx(0.5)
    clock(0.5)
    rate.take("a")
    with pytest.raises(ResourceExhausted):
        rate.take("a")
    clock(1000)
    rate.take("a")
    rate.take("a")
    with pytest.raises(ResourceExhausted):  # what was not used is not saved up
        rate.take("a")


def test_a_slow_rate_allows_one(clock: Callable[[float], None]) -> None:
    rate = RateLimit(0.1)
    rate.take("a")
    with pytest.raises(ResourceExhausted) as caught:
        rate.take("a")
    assert caught.value.retry_after_s == pytest.approx(10)
    clock(10)
    rate.take("a")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_MOST_CALLERS", 10)
    rate = RateLimit(0.001)
    for caller in range(11):
        rate.take(str(caller))
    rate.take("0")  # forgotten
    with pytest.raises(ResourceExhausted):
        rate.take("10")


def test_refused_calls_and_probes_do_not_count(clock: Callable[[float], None]) -> None:
    guard = Guard(TOKENS, rate=RateLimit(1))
    for _ in range(5):
        guard.check(Access.PROBE, Someone())
        with pytest.raises(Unauthenticated):
            guard.check(Access.INFER, Someone())
    guard.check(Access.INFER, Someone("Bearer infer-token", "10.0.0.1"))
    with pytest.raises(ResourceExhausted):  # the same token from elsewhere is the same caller
        guard.check(Access.INFER, Someone("Bearer infer-token", "10.0.0.2"))
    guard.check(Access.INFER, Someone("Bearer admin-token", "10.0.0.1"))
