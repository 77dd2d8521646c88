"""Repositories of fake models, made and changed on the local disk, and ways to ask them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from crossfade.runtimes.core.model import InferRequest, InferResponse, Model, ModelRef
from crossfade.serving.lifecycle.manager import Manager, Mode
from crossfade.serving.lifecycle.versions import IndexEntry
from crossfade.serving.repository.layout import ModelFiles, VersionFiles
from crossfade.serving.repository.source import LocalSource

PATIENCE_S = 20.0


class Repository:
    """A folder of models; every version answers with its own number."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)

    def add(self, name: str, version: int, **fake: Any) -> None:
        """Writes a version whole, as a careful exporter does: it is there at once or not at all."""
        content: Mapping[str, Any] = {
            "inputs": [{"name": "x", "dtype": "FP32", "shape": [-1]}],
            "outputs": [
                {"name": "y", "from": "x"},
                {"name": "version", "dtype": "INT64", "shape": [-1], "value": version},
            ],
            **fake,
        }
        self.write(f"{name}/{version}/fake.yaml", yaml.safe_dump(content))

    def broken(self, name: str, version: int) -> None:
        self.write(f"{name}/{version}/fake.yaml", "inputs: [")

    def configure(self, name: str, **config: Any) -> None:
        self.write(f"{name}/model.yaml", yaml.safe_dump(config))

    def write(self, path: str, text: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = self.root / f".{time.time_ns()}"
        scratch.write_text(text)
        scratch.rename(place)

    def remove(self, path: str) -> None:
        place = self.root / path
        if place.is_dir():
            for one in sorted(place.rglob("*"), reverse=True):
                one.rmdir() if one.is_dir() else one.unlink()
            place.rmdir()
        else:
            place.unlink()

    def manager(self, mode: Mode = Mode.EXPLICIT, **settings: Any) -> Manager:
        return Manager([LocalSource(self.root)], mode, **settings)


class Gate(LocalSource):
    """A repository that hands out some versions only when the test lets it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.closed: set[int] = set()
        self.asked: list[int] = []
        self._changed = threading.Condition()

    def fetch(self, model: ModelFiles, version: VersionFiles) -> Path:
        with self._changed:
            self.asked.append(version.version)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: version.version not in self.closed, PATIENCE_S)
        return super().fetch(model, version)

    def open(self, *versions: int) -> None:
        with self._changed:
            self.closed.difference_update(versions)
            self._changed.notify_all()

    def wait_asked(self, version: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: version in self.asked, PATIENCE_S)


def ask(model: Model, value: float = 1.0) -> int:
    """Asks a model for its version, and checks the rest of the answer."""
    (found,) = model.infer((InferRequest({"x": np.array([value], np.float32)}),))
    assert isinstance(found, InferResponse), found
    assert found.outputs["y"].tolist() == [value]
    return int(found.outputs["version"][0])


def answers(
    manager: Manager, name: str, version: int | None = None, label: str | None = None
) -> int:
    """Which version answers for that name now."""
    with manager.lease(ModelRef(name, version, label)) as model:
        return ask(model)


def serving(manager: Manager) -> set[tuple[str, int]]:
    return {(one.metadata.name, one.metadata.version) for one in manager.served()}


def lines(manager: Manager, name: str) -> list[tuple[int | None, str | None, str]]:
    """The model's lines in the index."""
    return [plain(line) for line in manager.index() if line.name == name]


def plain(line: IndexEntry) -> tuple[int | None, str | None, str]:
    return (line.version, line.state.value if line.state else None, line.reason)


def wait_until(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s, "it did not come to pass"
        time.sleep(0.002)
