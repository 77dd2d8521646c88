"""Which coding an answer gets, and that it can be read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.serving.transport.http_encoding import accepted, deflate, inflate


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (None, ""),
        ("", ""),
        ("identity", ""),
        ("br", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", ""),
        ("gzip;q=0, *", "deflate"),
        ("*;q=0", ""),
        ("*", "gzip"),
        ("identity;q=1, gzip;q=0.5", ""),
        ("GZIP ; Q=1", "gzip"),
        ("gzip;q=nan", ""),
        ("gzip;q=1e999", ""),
        ("gzip;level=9", ""),
    ],
)
def test_accept_encoding(header: str | None, coding: str) -> None:
    assert accepted(header) == coding


@given(st.text(max_size=40))
def test_no_header_breaks_it(header: str) -> None:
    assert accepted(header) in ("", "gzip", "deflate")


@given(st.binary(max_size=4096), st.sampled_from(["gzip", "deflate"]))
def test_round_trip(body: bytes, coding: str) -> None:
    assert inflate(deflate(body, coding), coding, 4096) == body
