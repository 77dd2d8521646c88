"""Amounts of memory as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import build
from crossfade.serving.config.sizes import parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        ("1.5MiB", 3 << 19),
        ("2KB", 2000),
        ("3tib", 3 << 40),
        ("10B", 10),
    ],
)
def test_is_read(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "4XB", "-4GiB", "4 Gi", "0", "0.0001B", "1e9", "4G"])
def test_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="memory"):
        parse_bytes(text)


@given(st.integers(1, 2**60))
def test_plain_numbers_are_bytes(size: int) -> None:
    assert parse_bytes(str(size)) == size


def test_isolation_is_written_short_or_long() -> None:
    short = build({"isolation": "process"}, "model.yaml").isolation
    assert short is not None
    assert short.process
    long = build(
        {"isolation": {"memory_limit": "2GiB", "environment": "e"}}, "model.yaml"
    ).isolation
    assert long is not None
    assert (long.memory_limit_bytes, long.environment) == (2 << 30, "e")


@pytest.mark.parametrize(
    ("isolation", "said"),
    [
        ({"memory_limit": "lots"}, "amount of memory"),
        ({"memory_limit": "1GiB", "memory_limit_bytes": 1}, "give one of"),
        ({"environment": "a", "python": "/b"}, "give one of"),
        ({"process": False, "environment": "a"}, "process: true"),
        ({"enviroment": "a"}, "environment"),
        ("thread", "isolation"),
    ],
)
def test_what_makes_no_sense_is_refused(isolation: object, said: str) -> None:
    with pytest.raises(LoadFailed, match=said):
        build({"isolation": isolation}, "model.yaml")


def test_a_decoupled_model_cannot_be_isolated() -> None:
    with pytest.raises(LoadFailed, match="decoupled"):
        build({"isolation": "process", "decoupled": True}, "model.yaml")
