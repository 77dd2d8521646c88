"""What a client is told of another server's failure."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import Code, Internal, Unavailable
from crossfade.serving.remote.breaker import Verdict
from crossfade.serving.remote.failures import (
    FarError,
    cleaned,
    garbage,
    told,
    too_late,
    unreachable,
)

_log = logging.getLogger(__name__)


@pytest.mark.parametrize(
    "secret",
    [
        "http://10.0.0.7:8000/v2/models/m",
        "https://models.internal.example.com/v1",
        "10.0.0.7",
        "10.0.0.7:8001",
        "ipv4:10.0.0.7:8001",
        "[fe80::1%eth0]:8001",
        "fe80::aede:48ff:fe00:1122",
        "models.internal.example.com:8001",
        "dns:///models.internal",
        "triton-7f9c:8001",
    ],
)
def test_addresses_are_cleaned_away(secret: str) -> None:
    text = cleaned(f"failed to connect to {secret}; shape of input 'x' is wrong")
    for part in secret.replace("[", " ").replace("]", " ").replace("/", " ").split():
        assert part not in text
    assert "shape of input 'x' is wrong" in text


def test_paths_and_lines_are_cleaned_away() -> None:
    assert cleaned("in /srv/models/a/1/model.py\n  line 3\x1b[31m") == "in model.py line 3 [31m"


@pytest.mark.parametrize("part", ["a-", "a.", "1.", "::", "[:", "a:", "http:", "a+"])
def test_a_text_that_is_made_to_be_slow_is_not(part: str) -> None:
    assert len(cleaned(part * 500_000)) <= 300


def test_what_is_no_address_stays() -> None:
    text = "unexpected shape for input 'x': expected [-1,3], got [2,4]; dtype FP32, at 12:30"
    assert cleaned(text).startswith("unexpected shape for input 'x': expected [-1,3], got [2,4]")


@given(st.text(max_size=600))
def test_a_cleaned_text_is_one_short_line(text: str) -> None:
    found = cleaned(text)
    assert found.isprintable() or not found
    assert len(found) <= 300


@pytest.mark.parametrize("code", list(Code))
def test_every_code_is_told(code: Code) -> None:
    error = told(FarError(code, "at 10.0.0.7:80 it said no"), "m", _log)
    assert "10.0.0.7" not in error.message
    assert error.code in (code, Code.UNAVAILABLE, Code.FAILED_PRECONDITION)
    if code not in (Code.INVALID_ARGUMENT, Code.INTERNAL):
        assert "said no" not in error.message


def test_the_servers_failures_and_the_requests_are_told_apart() -> None:
    assert unreachable("x").verdict is Verdict.ILL
    assert garbage("x").verdict is Verdict.ILL
    assert too_late().verdict is Verdict.UNKNOWN
    assert FarError(Code.INVALID_ARGUMENT, "x").verdict is Verdict.WELL
    assert isinstance(told(garbage("x"), "m", _log), Internal)
    assert isinstance(told(FarError(Code.NOT_FOUND, "x"), "m", _log), Unavailable)
