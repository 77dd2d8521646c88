"""ONNX Runtime: its options, its thread pools, and what happens where it is not installed."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from crossfade.runtimes.core.errors import LoadFailed, MissingExtra
from crossfade.runtimes.core.model import Session
from crossfade.runtimes.ort.providers import check, choose, prepare, report

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from tests.runtimes import onnx_models as om

Loads = Callable[..., Session]


@pytest.fixture
def loads(tmp_path: Path, load: Callable[..., Session]) -> Loads:
    def do(content: bytes, **options: object) -> Session:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return load("onnxruntime_onnx", path, **options)

    return do


def test_providers() -> None:
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    cpu = ("CPUExecutionProvider", {})
    assert choose(["cpu"], there) == [cpu]
    assert choose(["cudaexecutionprovider"], there) == [("CUDAExecutionProvider", {}), cpu]
    assert choose([{"cuda": {"device_id": 1}}, "cpu"], there) == [
        ("CUDAExecutionProvider", {"device_id": 1}),
        cpu,
    ]
    with pytest.raises(LoadFailed, match=r"'tensorrt'.* has CUDA.*\[gpu\]"):
        choose(["tensorrt"], there)
    with pytest.raises(LoadFailed, match="CUDAExecutionProvider did not start"):
        check(choose(["cuda"], there), ["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"intra_op_thread": 2}, "'intra_op_thread' is unknown; did you mean 'intra_op_threads'?"),
        ({"intra_op_threads": 0}, "'intra_op_threads': input should be greater"),
        ({"intra_op_threads": "2"}, "'intra_op_threads': input should be a valid integer"),
        ({"thread_pool": "mine"}, "'thread_pool': input should be 'own' or 'shared'"),
        ({"thread_pool": "shared", "intra_op_threads": 2}, "takes shared_threads"),
        ({"execution_providers": ["cuda"]}, r"\[gpu\]"),
        ({"execution_providers": []}, "'execution_providers': list should have at least 1"),
    ],
)
def test_wrong_options(loads: Loads, options: dict[str, object], says: str) -> None:
    if "cuda" in options.get("execution_providers", ()):  # type: ignore[operator]
        import onnxruntime

        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(LoadFailed, match=says.replace("?", r"\?")):
        loads(om.affine(), **options)


def test_threads_of_its_own(loads: Loads) -> None:
    session = loads(om.affine(), intra_op_threads=2)
    y = session.run({"x": np.ones((1, 3), np.float32)}, "serving_default", ("y",))["y"]
    assert y.tolist() == [[3, 3, 3]]


SHARED_POOL = """
import sys
from pathlib import Path
import numpy as np
from crossfade.runtimes import registry
from crossfade.runtimes.core.model import Artifact

def load(**options):
    artifact = Artifact(Path(sys.argv[1]), "model", 1, options=options)
    return registry.create("onnxruntime_onnx").load(artifact)

sessions = [load(), load(thread_pool="shared", shared_threads=2), load(thread_pool="shared")]
sessions += [load(), load(intra_op_threads=4)]
for session in sessions:
    y = session.run({"x": np.ones((1, 3), np.float32)}, "serving_default", ("y",))["y"]
    assert y.tolist() == [[3, 3, 3]], y
"""


def test_sessions_with_and_without_the_shared_pool_live_together(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(om.affine())
    done = subprocess.run(  # a process of its own: the shared pool stays until its end
        [sys.executable, "-c", SHARED_POOL, path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "the shared ONNX Runtime pool exists: intra_op_threads is ignored"
    assert done.stdout == ""


def test_a_missing_library_names_its_extra(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[onnx\]'"):
        loads(om.affine())


def test_a_broken_library_is_not_called_missing(
    loads: Loads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "onnxruntime.py").write_text("import libcudart_of_nobody")
    monkeypatch.delitem(sys.modules, "onnxruntime")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadFailed, match="onnxruntime is broken: No module named"):
        loads(om.affine())
    assert not isinstance(sys.modules.get("onnxruntime"), ModuleType)


class Library:
    """What ``prepare`` uses of a GPU build of onnxruntime."""

    preloads = 0

    def preload_dlls(self) -> None:
        self.preloads += 1
        print("Failed to load libcublas.so.13: cannot open shared object file")


@pytest.mark.parametrize(("wanted", "preloads"), [("cuda", 1), ("tensorrt", 1), ("cpu", 0)])
def test_libraries_of_cuda_are_loaded_for_cuda_alone(
    wanted: str,
    preloads: int,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    import onnxruntime

    there = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    library = Library()
    prepare(choose([wanted], there), onnxruntime.SessionOptions(), library)
    assert library.preloads == preloads
    said = [record.__dict__["reason"] for record in caplog.records]
    assert said == ["Failed to load libcublas.so.13: cannot open shared object file"] * preloads
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("first", "level"),
    [("CPUExecutionProvider", logging.INFO), ("CUDAExecutionProvider", logging.WARNING)],
)
def test_the_log_says_who_runs_which_share(
    first: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    caplog.set_level(logging.INFO)
    options = onnxruntime.SessionOptions()
    chosen = [(first, {}), ("AnotherProvider", {})]
    prepare([("AnotherProvider", {})], options, onnxruntime)
    session = onnxruntime.InferenceSession(
        om.convolution(), options, providers=["CPUExecutionProvider"]
    )
    report(chosen, session, "model")
    (record,) = caplog.records
    assert record.levelno == level
    assert record.__dict__["nodes"].keys() == {"CPUExecutionProvider"}
    assert sum(record.__dict__["nodes"].values()) >= 2
    report([("CPUExecutionProvider", {})], session, "model")
    assert len(caplog.records) == 1
