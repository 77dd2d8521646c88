"""A version is there as a whole or not at all, and nothing is replaced without being told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ResourceExhausted,
)
from crossfade.serving.exports.entry import Entry
from crossfade.serving.exports.writing import staged
from crossfade.serving.repository.folders import read_folder
from crossfade.serving.repository.source import LocalSource


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"a" * 100)
    (source / "b").write_bytes(b"b" * 10)
    files = {"model.onnx": source / "a", "deep/er/b": source / "b"}
    return Entry(files, {"labels.txt": "cat\ndog\n"}, {"instances": 2})


def write(
    repository: Path, entry: Entry, version: int | None = None, force: bool = False, name: str = "m"
) -> Path:
    with staged(repository, name, entry, version=version, force=force) as stage:
        return stage.publish(force)


def hidden(repository: Path) -> list[str]:
    return [path.name for path in repository.iterdir() if path.name.startswith(".")]


def test_a_version_and_the_next_one(tmp_path: Path, entry: Entry) -> None:
    repository = tmp_path / "models"
    seen: list[tuple[int, int]] = []
    with staged(repository, "m", entry, progress=lambda *at: seen.append(at)) as stage:
        assert LocalSource(repository).names() == []  # no server sees what is not there yet
        assert read_folder("m", stage.folder).versions.keys() == {1}
        first = stage.publish(False)
    assert seen[-1] == (110, 110)
    assert (first / "deep" / "er" / "b").read_bytes() == b"b" * 10
    assert (first / "labels.txt").read_text() == "cat\ndog\n"
    assert read_folder("m", repository / "m").config.instances == 2
    assert write(repository, entry).name == "2"
    assert write(repository, entry, 9).name == "9"
    assert write(repository, entry).name == "10"
    assert hidden(repository) == []


def test_what_is_not_published_leaves_nothing(tmp_path: Path, entry: Entry) -> None:
    repository = tmp_path / "models"
    with pytest.raises(RuntimeError), staged(repository, "m", entry):
        raise RuntimeError
    assert list(repository.iterdir()) == []


def test_a_version_that_is_there(tmp_path: Path, entry: Entry) -> None:
    repository = tmp_path / "models"
    write(repository, entry)
    (repository / "m" / "1").rename(repository / "m" / "0001")
    with pytest.raises(AlreadyExists, match="--force"):
        write(repository, entry, 1)
    (entry.files["model.onnx"]).write_bytes(b"new")
    target = write(repository, entry, 1, force=True)
    assert target.name == "0001"  # one version has one folder
    assert (target / "model.onnx").read_bytes() == b"new"
    assert read_folder("m", repository / "m").error is None
    assert hidden(repository) == []


def test_a_configuration_that_is_there(tmp_path: Path, entry: Entry) -> None:
    repository = tmp_path / "models"
    write(repository, entry)
    config = repository / "m" / "model.yaml"
    config.write_text("# mine\ninstances: 2\nslo: {p99_ms: 30}\n")
    write(repository, entry)  # says the same of what it says
    assert "# mine" in config.read_text()
    config.write_text("instances: 3\nslo: {p99_ms: 30}\n")
    with pytest.raises(AlreadyExists, match="instances"):
        write(repository, entry)
    assert read_folder("m", repository / "m").versions.keys() == {1, 2}
    write(repository, entry, force=True)
    assert yaml.safe_load(config.read_text()) == {"instances": 2, "slo": {"p99_ms": 30}}
    config.write_text("instances: [")
    with pytest.raises(FailedPrecondition, match="not YAML"):
        write(repository, entry)
    config.rename(config.with_name("config.pbtxt"))
    with pytest.raises(AlreadyExists, match=r"config\.pbtxt"):
        write(repository, entry)


def test_recorded_requests_of_the_model_stay(tmp_path: Path, entry: Entry) -> None:
    repository = tmp_path / "models"
    mine = Entry(entry.files, {}, {"warmup": [{"count": 3}]})
    write(repository, mine)
    others = Entry(entry.files, {}, {"warmup": [{"count": 4}]})
    with staged(repository, "m", others) as stage:
        stage.publish(False)
        assert not stage.configured
    assert read_folder("m", repository / "m").config.warmup[0].count == 3
    with staged(repository, "m", others, force=True) as stage:
        stage.publish(True)
        assert stage.configured
    assert read_folder("m", repository / "m").config.warmup[0].count == 4


def test_two_at_once(tmp_path: Path, entry: Entry) -> None:
    repository = tmp_path / "models"
    with staged(repository, "m", entry) as one, staged(repository, "m", entry) as two:
        one.publish(False)
        with pytest.raises(AlreadyExists):
            two.publish(False)
    write(repository, entry)
    with staged(repository, "m", entry) as one, staged(repository, "m", entry) as two:
        one.publish(False)
        with pytest.raises(AlreadyExists):
            two.publish(False)
    assert read_folder("m", repository / "m").versions.keys() == {1, 2, 3}


@pytest.mark.parametrize(("name", "version"), [("../x", None), ("a/b", None), ("m", 0), ("", 1)])
def test_names_and_numbers(tmp_path: Path, entry: Entry, name: str, version: int | None) -> None:
    with pytest.raises(InvalidArgument):
        write(tmp_path / "models", entry, version, name=name)
    assert not (tmp_path / "models").exists()


def test_an_export_without_version_folders_is_not_mixed(tmp_path: Path, entry: Entry) -> None:
    folder = tmp_path / "models" / "m"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"x")
    with pytest.raises(FailedPrecondition, match="without version folders"):
        write(tmp_path / "models", entry)


def test_a_folder_that_may_not_be_written_to(tmp_path: Path, entry: Entry) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises((FailedPrecondition, PermissionDenied), match="nothing was written"):
        write(tmp_path / "models", entry)


PROGRAM = """
import resource, sys
from pathlib import Path
from crossfade.serving.exports.entry import Entry
from crossfade.serving.exports.writing import staged
repository, source = map(Path, sys.argv[1:3])
if limit_bytes := int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))
with staged(repository, "m", Entry({"model.onnx": source, "second": source}, {}, {})) as stage:
    stage.publish(False)
"""


def start(*arguments: Path, limit_bytes: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments), str(limit_bytes)],
        stderr=subprocess.PIPE,
        text=True,
    )


def test_no_room_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    repository = tmp_path / "models"
    with start(repository, tmp_path / "source", limit_bytes=50_000) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert ResourceExhausted.__name__ in said
    assert list(repository.iterdir()) == []


def test_killed_at_any_moment(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(100 << 20)
    whole = {"model.onnx": 100 << 20, "second": 100 << 20}
    for after_s in (0.0, 0.02, 0.1):
        repository = tmp_path / f"models-{after_s}"
        with start(repository, source) as process:
            while process.poll() is None and not (repository.exists() and hidden(repository)):
                time.sleep(0.001)
            time.sleep(after_s)
            os.kill(process.pid, signal.SIGKILL)
        assert LocalSource(repository).names() in ([], ["m"])
        for folder in repository.glob("m/*"):
            assert {path.name: path.stat().st_size for path in folder.iterdir()} == whole
