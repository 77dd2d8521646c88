"""ONNX Runtime's CUDA provider on a GPU; the contract itself is in test_contract.py."""

from __future__ import annotations

import ctypes
import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed, ResourceExhausted
from crossfade.runtimes.core.model import Session
from tests import gpu

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from tests.runtimes import onnx_models as om

pytestmark = pytest.mark.gpu
Loads = Callable[..., Session]
CUDA = "CUDAExecutionProvider"


@pytest.fixture
def loads(tmp_path: Path, load: Callable[..., Session]) -> Loads:
    def do(content: bytes, *providers: object) -> Session:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return load("onnxruntime_onnx", path, execution_providers=list(providers))

    return do


def images(rows: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(rows).normal(size=(rows, 3, 16, 16)).astype(np.float32)}


def test_every_node_runs_on_the_gpu_and_answers_as_on_the_cpu(
    loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    on_gpu = loads(om.convolution(), "cuda")
    (placed,) = [r.__dict__["nodes"] for r in caplog.records if "nodes" in r.__dict__]
    assert placed.keys() == {CUDA}
    on_cpu = loads(om.convolution(), "cpu")
    for rows in (1, 8, 3):
        inputs = images(rows)
        (got,), (expected,) = (
            session.run(inputs, "serving_default", ()).values() for session in (on_gpu, on_cpu)
        )
        # Products of TF32, which has ten bits of fraction, and their sums in FP32.
        np.testing.assert_allclose(got, expected, atol=2e-3)


def test_without_tf32_answers_are_the_cpus(loads: Loads) -> None:
    inputs = images(8)
    (got,), (expected,) = (
        loads(om.convolution(), provider).run(inputs, "serving_default", ()).values()
        for provider in ({"cuda": {"use_tf32": False}}, "cpu")
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_text_stays_on_the_cpu_and_the_log_warns(
    loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    session = loads(om.same(om.STRING), "cuda")
    (record,) = [r for r in caplog.records if "nodes" in r.__dict__]
    assert record.levelno == logging.WARNING
    texts = np.array([[b"a", b"b"]], dtype=object)
    assert session.run({"x": texts}, "serving_default", ())["y"].tolist() == texts.tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device_id": 99}, "Invalid device ID: 99"),
        ({"device_id": -3}, "Invalid device ID: -3"),
        ({"nonsense": 1}, 'Unknown provider option: "nonsense"'),
        ({"gpu_mem_limit": "much"}, 'provider option "gpu_mem_limit"'),
    ],
)
def test_what_a_provider_refuses_fails_the_load_and_harms_nobody(
    loads: Loads,
    tmp_path: Path,
    options: dict[str, object],
    says: str,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    with pytest.raises(LoadFailed, match=says) as failed:
        loads(om.convolution(), {"cuda": options})
    assert_clean(failed.value, tmp_path)
    assert not re.search(r"\.(cc|h):\d", failed.value.message)
    well = loads(om.convolution(), {"cuda": {"device_id": 0}})
    assert well.run(images(2), "serving_default", ())["y"].shape == (2, 8)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"gpu_mem_limit": 64 << 20}, [1 << 13, 1 << 13]), ({}, [1 << 19, 1 << 19])],
    ids=["the limit", "the device"],
)
def test_a_run_without_memory_leaves_the_next_ones_well(
    loads: Loads, options: dict[str, object], shape: list[int]
) -> None:
    session = loads(om.expand(), {"cuda": options})
    for _ in range(3):
        with pytest.raises(ResourceExhausted, match="not enough memory"):
            session.run({"n": np.array(shape)}, "serving_default", ())
        y = session.run({"n": np.array([2, 3])}, "serving_default", ())["y"]
        assert y.tolist() == [[1, 1, 1], [1, 1, 1]]


def test_closing_gives_the_memory_of_the_gpu_back(loads: Loads) -> None:
    inputs = {"x": np.ones((4, 256), np.float32)}
    session = loads(om.heavy(1), "cuda")  # the library's own share, which stays
    session.run(inputs, "serving_default", ())
    session.close()
    del session
    idle = gpu.used_mib()
    for _ in range(3):
        session = loads(om.heavy(256), "cuda")
        session.run(inputs, "serving_default", ())
        assert gpu.used_mib() >= idle + 256
        session.close()
        del session
        assert gpu.used_mib() <= idle + 32


def test_tensorrt_without_its_library_says_so(
    loads: Loads, tmp_path: Path, assert_clean: Callable[[CrossfadeError, Path], None]
) -> None:
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError:
        pass
    else:
        pytest.skip("TensorRT is here")
    with pytest.raises(LoadFailed, match="TensorRT") as failed:
        loads(om.convolution(), "tensorrt")
    assert_clean(failed.value, tmp_path)
