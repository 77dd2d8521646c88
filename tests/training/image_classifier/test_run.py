"""Runs that fail say why in one line, and leave the repository as it was."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from crossfade.serving.cli.main import main
from crossfade.training.core import checkpoint, onnx_file
from tests.training import pictures


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    data = pictures.write(tmp_path / "shapes", each=5)
    return [
        *("train", "image-classifier", "--data", str(data), "--name", "shapes"),
        *("--repository", str(tmp_path / "models"), "--run-dir", str(tmp_path / "run")),
        *("--set", "data.size=16", "--set", "network.widths=[4]", "--set", "epochs=1"),
        *("--set", "batch_size=4"),
    ]


def said(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line[:5] != "step "]
    assert len(lines) == 1
    return lines[0]


def test_a_rate_that_diverges(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = ["--set", "optimisation.learning_rate=1e38", "--set", "optimisation.optimizer=sgd"]
    text = said([*command, *wild, "--set", "epochs=9"], capsys)
    assert "at step" in text
    assert "lower the learning rate (1e+38)" in text
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("where", ["checkpoint", "version"])
def test_a_full_disk(
    command: list[str],
    where: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = (checkpoint, "_write") if where == "checkpoint" else (onnx_file, "write")
    monkeypatch.setattr(*target, full)
    assert "the disk is full" in said(command, capsys)
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def test_a_name_that_no_model_may_have(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command[command.index("shapes")] = "../shapes"
    assert "path traversal" in said(command, capsys)
    assert not (tmp_path / "run").exists(), "said before the work"
