"""What a session says of itself: rows of its largest batch, runs at once, where nodes run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Artifact, Session, Signature, Tensors, TensorSpec
from crossfade.serving.lifecycle.loader import load
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.repository.folders import read_folder


class Limited:
    """A session for at most four rows, on one device."""

    instances = 1
    max_rows = 4
    nodes: ClassVar[Mapping[str, int]] = {"delegate": 3, "cpu": 1}

    def __init__(self) -> None:
        spec = TensorSpec("x", "FP32", (-1, 2))
        self.signatures = {"serving_default": Signature.derive([spec], [spec])}
        self.largest = 0

    def run(self, inputs: Tensors, signature: str, outputs: Sequence[str]) -> Tensors:
        rows = len(inputs["x"])
        if rows > 4:
            raise InvalidArgument("the engine was built for 1 to 4 rows")
        self.largest = max(self.largest, rows)
        return dict(inputs)

    def close(self) -> None:
        pass


class LimitedRuntime:
    platform = "fake"

    def __init__(self, session: Limited) -> None:
        self._session = session

    def estimate(self, artifact: Artifact) -> int:
        return 0

    def load(self, artifact: Artifact) -> Session:
        return self._session


def served(
    folder: Path, session: Limited, monkeypatch: pytest.MonkeyPatch, config: str = ""
) -> Served:
    version = folder / "1"
    version.mkdir()
    (version / "fake.yaml").touch()
    (folder / "model.yaml").write_text(config)
    monkeypatch.setattr(registry, "create", lambda platform: LimitedRuntime(session))
    model = read_folder("limited", folder)
    return load(model, model.versions[1], version)


@pytest.mark.parametrize(
    ("config", "limit"), [("", 4), ("max_batch_size: 2", 2), ("max_batch_size: 64", 4)]
)
def test_a_batch_has_no_more_rows_than_the_session_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, limit: int
) -> None:
    session = Limited()
    found = served(tmp_path, session, monkeypatch, config)
    assert found.metadata.max_batch_size == limit
    assert session.largest == limit, "sizes up to the limit were tried out, none beyond it"
    assert found.queue.max_rows <= limit


def test_runs_at_once_are_the_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = served(tmp_path, Limited(), monkeypatch, "instances: 8")
    assert found.queue.instances == 1


def test_nodes_reach_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = served(tmp_path, Limited(), monkeypatch)
    assert found.metadata.nodes == {"delegate": 3, "cpu": 1}
