"""A new file is loaded where it can do no harm, once; a known one costs no process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated import probe as module
from crossfade.runtimes.isolated.probe import Probe
from crossfade.runtimes.isolated.process import Crashed
from tests.runtimes import onnx_models

PLATFORM = "onnxruntime_onnx"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The worker processes that were started."""
    found: list[Any] = []
    real = subprocess.Popen

    class Counted(real):  # type: ignore[misc, valid-type]
        def __init__(self, command: Any, *args: Any, **keys: Any) -> None:
            found.append(command)
            super().__init__(command, *args, **keys)

    monkeypatch.setattr(subprocess, "Popen", Counted)
    return found


def artifact(folder: Path, content: bytes, **options: Any) -> Artifact:
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    return Artifact(folder / "model.onnx", "model", 1, 2, options)


def test_a_file_is_tried_once(tmp_path: Path, started: list[Any]) -> None:
    probe = Probe(tmp_path / "marks")
    good = artifact(tmp_path / "1", onnx_models.affine())
    probe.check(PLATFORM, good)
    assert len(started) == 1
    for again in (probe, Probe(tmp_path / "marks")):
        again.check(PLATFORM, good)
    assert len(started) == 1


def test_the_same_content_elsewhere_is_known(tmp_path: Path, started: list[Any]) -> None:
    probe = Probe(tmp_path / "marks")
    probe.check(PLATFORM, artifact(tmp_path / "1", onnx_models.affine()))
    probe.check(PLATFORM, artifact(tmp_path / "2", onnx_models.affine()))
    assert len(started) == 1


def test_what_is_known_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe(tmp_path / "marks")
    good = artifact(tmp_path / "1", onnx_models.affine())
    probe.check(PLATFORM, good)

    def read(*_: Any) -> str:
        raise AssertionError("a known file was read")

    monkeypatch.setattr(module, "_digest", read)
    probe.check(PLATFORM, good)


def test_other_content_other_weights_or_other_options_are_new(
    tmp_path: Path, started: list[Any]
) -> None:
    probe = Probe(tmp_path / "marks")
    folder = tmp_path / "1"
    probe.check(PLATFORM, artifact(folder, onnx_models.affine()))
    probe.check(PLATFORM, artifact(folder, onnx_models.same(1)))
    assert len(started) == 2
    (folder / "weights.bin").write_bytes(b"beside it")
    probe.check(PLATFORM, artifact(folder, onnx_models.same(1)))
    assert len(started) == 3
    probe.check(PLATFORM, artifact(folder, onnx_models.same(1), intra_op_threads=2))
    assert len(started) == 4


def test_a_change_with_the_old_time_and_size_is_new(tmp_path: Path, started: list[Any]) -> None:
    probe = Probe(tmp_path / "marks")
    good = artifact(tmp_path / "1", onnx_models.affine())
    probe.check(PLATFORM, good)
    before = good.path.stat()
    changed = bytearray(good.path.read_bytes())
    changed[-1] ^= 1
    good.path.write_bytes(changed)
    os.utime(good.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with contextlib.suppress(LoadFailed):
        probe.check(PLATFORM, good)
    assert len(started) == 2


def test_what_fails_is_told_and_tried_again(tmp_path: Path, started: list[Any]) -> None:
    probe = Probe(tmp_path / "marks")
    bad = artifact(tmp_path / "1", b"\xff" * 99)
    for count in (1, 2):
        with pytest.raises(LoadFailed, match="process of its own"):
            probe.check(PLATFORM, bad)
        assert len(started) == count


def test_a_crash_is_a_failed_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake, taken for a runtime with a native parser, ends its process."""
    from crossfade.runtimes import registry

    (tmp_path / "1").mkdir()
    file = tmp_path / "1" / "fake.yaml"
    table = dict(registry.entries())
    table["fake"] = registry.Entry(table["fake"].target, ("fake.yaml",), native_parser=True)
    monkeypatch.setattr(registry, "entries", lambda: table)
    probe = Probe(tmp_path / "marks", timeout_s=5)
    for crash, said in (
        ({"at": "load", "how": "segfault"}, "SIGSEGV"),
        ({"at": "run", "how": "abort"}, "SIGABRT"),
        ({"at": "load", "how": "hang"}, "more than 5 s"),
    ):
        file.write_text(str({"inputs": [{"name": "x"}], "behaviour": "crash", "crash": crash}))
        with pytest.raises(LoadFailed, match=said):
            probe.check("fake", Artifact(file, "model", 1))
    assert not (tmp_path / "marks").exists()


def test_files_that_no_native_code_reads_are_not_tried(tmp_path: Path, started: list[Any]) -> None:
    (tmp_path / "fake.yaml").write_text("inputs: [{name: x}]")
    Probe(tmp_path / "marks").check("fake", Artifact(tmp_path / "fake.yaml", "model", 1))
    assert not started


def test_a_folder_that_cannot_be_written_costs_a_trial_each_time(
    tmp_path: Path, started: list[Any]
) -> None:
    (tmp_path / "marks").write_text("a file is in the way")
    good = artifact(tmp_path / "1", onnx_models.affine())
    for marks in (tmp_path / "marks", None):
        started.clear()
        probe = Probe(marks)
        for _ in range(2):
            probe.check(PLATFORM, good)
        assert len(started) == 2


def test_marks_do_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_MARKS", 6)
    probe = Probe(tmp_path / "marks")
    for number in range(8):
        probe.check(PLATFORM, artifact(tmp_path / str(number), onnx_models.affine()))
        shutil.rmtree(tmp_path / str(number))
    assert len(list((tmp_path / "marks").iterdir())) <= 7


def test_what_wants_a_device_may_be_refused_but_not_crash(
    tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the device is free for it is seen where it is loaded, so nothing is remembered."""
    pytest.importorskip("ai_edge_litert")
    from tests.runtimes import tflite_models

    (tmp_path / "model.tflite").write_bytes(tflite_models.build(tflite_models.edge_tpu()))
    probe = Probe(tmp_path / "marks")
    options = {"device": "usb", "delegate": "libnowhere.so"}
    for count in (1, 2):
        probe.check("tflite", Artifact(tmp_path / "model.tflite", "model", 1, 1, options))
        assert len(started) == count
    monkeypatch.setattr(module, "trial", _crash)
    with pytest.raises(LoadFailed, match="SIGSEGV"):
        probe.check("tflite", Artifact(tmp_path / "model.tflite", "model", 1, 1, options))


def _crash(*_: Any) -> None:
    raise Crashed("the worker process was ended by SIGSEGV")
