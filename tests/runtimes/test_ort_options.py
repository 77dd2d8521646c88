"""ONNX Runtime: its options, its thread pools, and what happens where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from crossfade.runtimes.core.errors import LoadFailed, MissingExtra
from crossfade.runtimes.core.model import Session
from crossfade.runtimes.ort.providers import check, choose

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


@pytest.mark.hardware
def test_cuda(loads: Loads) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA")
    session = loads(om.affine(), execution_providers=["cuda"])
    y = session.run({"x": np.ones((2, 3), np.float32)}, "serving_default", ("y",))["y"]
    assert y.tolist() == [[3, 3, 3]] * 2
