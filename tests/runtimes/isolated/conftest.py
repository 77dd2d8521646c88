"""Isolated fakes, and a look at what a process has open."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated import runtime
from crossfade.runtimes.isolated.session import IsolatedSession

Fake = Callable[..., IsolatedSession]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[Fake]:
    """Loads a fake in a worker process: its keys, ``instances``, and ``limits``."""
    loaded: list[IsolatedSession] = []

    def make(instances: int = 1, limits: dict[str, Any] | None = None, **keys: Any) -> Any:
        content = {"inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}], **keys}
        file = tmp_path / "fake.yaml"
        file.write_text(yaml.safe_dump(content))
        artifact = Artifact(file, "model", 1, instances)
        loaded.append(runtime.load("fake", artifact, runtime.Limits(**(limits or {}))))
        return loaded[-1]

    yield make
    for session in loaded:
        session.close()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def children() -> list[psutil.Process]:
    """Of this process, zombies among them."""
    return psutil.Process().children(recursive=True)


def wait_until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    until_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < until_s, "it did not come to pass"
        time.sleep(0.01)
