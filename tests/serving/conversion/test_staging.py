"""A version is there as a whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from crossfade.runtimes.core.errors import AlreadyExists, ResourceExhausted
from crossfade.serving.conversion import staging


def test_a_stage_leaves_nothing(tmp_path: Path) -> None:
    with staging.stage(tmp_path) as stage:
        (stage / "version").mkdir()
        (stage / "version" / "model.onnx").write_bytes(b"model")
        assert stage.name.startswith(".")
        staging.publish(stage / "version", tmp_path / "net" / "2")
    assert [p.name for p in tmp_path.iterdir()] == ["net"]
    assert (tmp_path / "net" / "2" / "model.onnx").read_bytes() == b"model"


def test_a_version_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "net" / "2").mkdir(parents=True)
    with staging.stage(tmp_path) as stage:
        (stage / "version").mkdir()
        with pytest.raises(AlreadyExists):
            staging.publish(stage / "version", tmp_path / "net" / "2")


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(stage: Path) -> None:
        (stage / "half").write_bytes(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError), staging.stage(tmp_path) as stage:
        fail(stage)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceExhausted, match="disk is full"), staging.stage(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_abandoned_stages_go_and_others_stay(tmp_path: Path) -> None:
    for name in (".convert-dead", ".convert-alive"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lock").touch()
    with (tmp_path / ".convert-alive" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with staging.stage(tmp_path):
            pass
    assert [p.name for p in tmp_path.iterdir()] == [".convert-alive"]
