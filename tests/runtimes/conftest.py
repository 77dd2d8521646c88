"""Fixtures of the runtimes' tests: loading, and what no message may hold."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import Artifact, Session

Load = Callable[..., Session]


@pytest.fixture
def load() -> Load:
    """Loads a path with the runtime of a platform; keywords are options, ``instances`` aside."""

    def do(platform: str, path: Path, instances: int = 1, **options: Any) -> Session:
        return registry.create(platform).load(Artifact(path, "model", 1, instances, options))

    return do


@pytest.fixture
def assert_clean() -> Callable[[CrossfadeError, Path], None]:
    """Checks that a message is one line without a path."""

    def check(error: CrossfadeError, folder: Path) -> None:
        assert error.message
        assert "\n" not in error.message
        assert str(folder) not in error.message
        assert folder.name not in error.message
        assert not re.search(r"(?<![\w:/])/\w+/", error.message)
        assert "Traceback" not in error.message

    return check
