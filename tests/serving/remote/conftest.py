"""Servers that misbehave, and sessions of their models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes import deadline as deadlines
from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact, Session
from tests.serving.remote.far_servers import GrpcFar, HttpFar, running

X = {"name": "x", "dtype": "FP32", "shape": [-1, 2]}
Y = {"name": "y", "dtype": "FP32", "shape": [-1, 2]}
Open = Callable[..., Session]


@pytest.fixture
def http_far() -> Iterator[HttpFar]:
    with running(HttpFar()) as far:
        yield far


@pytest.fixture
def grpc_far() -> Iterator[GrpcFar]:
    with running(GrpcFar()) as far:
        yield far


@pytest.fixture
def open_session(tmp_path: Path) -> Iterator[Open]:
    """Makes sessions of x FP32 [n, 2] to y FP32 [n, 2], without retries unless asked for."""
    opened: list[Session] = []

    def make(protocol: str, url: str, **more: Any) -> Session:
        options = {"protocol": protocol, "url": url, "inputs": [X], "outputs": [Y], "retries": 0}
        artifact = Artifact(tmp_path, "member", 1, options={**options, **more})
        opened.append(registry.create("remote").load(artifact))
        return opened[-1]

    yield make
    for session in opened:
        session.close()


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """As the data plane sets it for a request."""
    outer = deadlines.of_run.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        deadlines.of_run.reset(outer)
