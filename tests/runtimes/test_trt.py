"""TensorRT engines, on a TensorRT and a CUDA that are made here: what we tell them, and when."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    MissingExtra,
    ResourceExhausted,
    Unimplemented,
)
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.trt.libraries import Libraries
from crossfade.runtimes.trt.runtime import TensorRtRuntime, TensorRtSession
from tests.runtimes.fake_cuda import FakeCuda
from tests.runtimes.fake_tensorrt import FakeTensorRt, plan

SHAPES = [[1, 3], [4, 3], [8, 3]]


class Machine:
    """A GPU with TensorRT, and an engine's file."""

    def __init__(self, path: Path, **gpu: Any) -> None:
        self.path = path
        self.cuda = FakeCuda(**gpu)
        self.trt = FakeTensorRt(self.cuda)

    def load(self, content: bytes | None = None, instances: int = 1, **options: Any) -> Any:
        self.path.write_bytes(plan() if content is None else content)
        runtime = TensorRtRuntime(lambda: Libraries(self.trt, self.cuda))
        session = runtime.load(Artifact(self.path, "model", 1, instances, options))
        assert isinstance(session, TensorRtSession)
        return session


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "model.plan")


def ask(session: Any, rows: int, first: float = 0) -> None:
    """Runs once and checks the answer."""
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + np.float32(first)
    got = session.run({"x": x}, "serving_default", ())
    assert got["y"].tolist() == (2 * x + 1).tolist()
    assert got["m"].tolist() == (2 * x).tolist()


def test_signature_and_limits_come_from_the_engine(machine: Machine) -> None:
    session = machine.load()
    signature = session.signatures["serving_default"]
    assert [(s.name, s.dtype, s.shape) for s in signature.inputs] == [("x", "FP32", (-1, 3))]
    assert signature.batched
    assert session.max_rows == 8


def test_a_fixed_batch_is_no_batch(machine: Machine) -> None:
    session = machine.load(plan(profiles=[{"x": [[4, 3]] * 3}]))
    assert session.signatures["serving_default"].inputs[0].shape == (4, 3)
    assert not session.signatures["serving_default"].batched
    assert not hasattr(session, "max_rows")
    ask(session, 4)


def test_sizes_change_from_run_to_run(machine: Machine) -> None:
    session = machine.load()
    for rows in (1, 8, 1, 3, 8, 8, 2):
        ask(session, rows)


def test_the_profile_follows_the_shape(machine: Machine) -> None:
    small, large = {"x": [[1, 3], [1, 3], [2, 3]]}, {"x": [[2, 3], [16, 3], [32, 3]]}
    session = machine.load(plan(profiles=[small, large]))
    assert session.max_rows == 32
    for rows in (1, 32, 2, 1, 3):
        ask(session, rows)
    with pytest.raises(InvalidArgument, match=r"shape \[33, 3\].* or \[2, 3\] to \[32, 3\]"):
        ask(session, 33)
    ask(session, 1)


def test_a_closed_session_has_given_all_back(machine: Machine) -> None:
    session = machine.load(instances=3, cuda_graphs=True)
    for rows in (1, 1, 8, 8, 8, 2):
        ask(session, rows)
    assert machine.cuda.on_device
    session.close()
    gc.collect()
    cuda = machine.cuda
    assert (cuda.on_device, cuda.on_host, cuda.streams, cuda.recordings) == ({}, {}, {}, 0)


def test_graphs_are_recorded_once_and_replayed_while_shapes_stay(machine: Machine) -> None:
    session = machine.load(cuda_graphs=True)
    for first in range(5):
        ask(session, 2, first)
    # The first run settles the shapes, the second is recorded, and itself the first replay.
    assert (machine.cuda.recordings, machine.cuda.replays) == (1, 4)
    ask(session, 8)
    assert (machine.cuda.recordings, machine.cuda.replays) == (0, 4)
    for first in range(3):
        ask(session, 8, first)
    assert (machine.cuda.recordings, machine.cuda.replays) == (1, 7)


def test_an_engine_that_cannot_be_recorded_runs_without(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.trt.refuses.add("recording")
    session = machine.load(cuda_graphs=True)
    for first in range(4):
        ask(session, 2, first)
    assert machine.cuda.replays == 0
    assert sum("cannot be recorded" in r.message for r in caplog.records) == 1


def test_a_run_without_memory_leaves_the_next_ones_well(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "model.plan", total_bytes=16384)
    wide = {"x": [[1, 3], [4, 3], [10_000, 3]]}
    with pytest.raises(LoadFailed, match=r"instances need up to .* lower 'instances'"):
        machine.load(plan(profiles=[wide]), instances=2)
    session = machine.load()
    machine.cuda.total_bytes = machine.cuda.used_bytes + 512
    with pytest.raises(ResourceExhausted, match="not enough memory"):
        ask(session, 8)
    machine.cuda.total_bytes = 1 << 20
    ask(session, 8)


@pytest.mark.parametrize(
    ("refuses", "error", "says"),
    [
        ("execution", Internal, "quote the id"),
        ("out of memory", ResourceExhausted, "not enough memory"),
    ],
)
def test_a_run_that_fails_leaves_the_next_ones_well(
    machine: Machine, refuses: str, error: type[Exception], says: str
) -> None:
    session = machine.load(cuda_graphs=True)
    ask(session, 2)
    machine.trt.refuses.add(refuses)
    for _ in range(2):
        with pytest.raises(error, match=says):
            ask(session, 2)
    machine.trt.refuses.clear()
    for first in range(3):
        ask(session, 2, first)


OLD = plan(version="11.4.0")
TENSORS = {
    "x": {"mode": "INPUT", "dtype": "FLOAT", "shape": [-1, 3]},
    "y": {"mode": "OUTPUT", "dtype": "FLOAT", "shape": [-1, 3]},
}


def changed(tensor: str, **values: Any) -> bytes:
    return plan(tensors={**TENSORS, tensor: {**TENSORS[tensor], **values}})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "file is empty"),
        (b"ONNX", "no TensorRT engine"),
        (OLD, r"a newer TensorRT than the 10\.16\.1 here: build it again .* capability 9\.0"),
        (plan(compute="8.6"), r"built for GPUs of compute capability 8\.6, this one has 9\.0"),
        (plan(brings_runtime=True), "'trust_host_code'"),
        (changed("x", dtype="FP8"), "tensor 'x' is FP8, which cannot be served"),
        (changed("x", format="CHW32"), "'x' is not laid out row by row"),
        (changed("x", location="HOST"), "'x' holds a shape"),
        (changed("y", shape_inference=True), "'y' holds a shape"),
    ],
)
def test_engines_that_cannot_be_served(
    machine: Machine,
    content: bytes,
    says: str,
    tmp_path: Path,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    with pytest.raises(LoadFailed, match=says) as failed:
        machine.load(content)
    assert_clean(failed.value, tmp_path)


def test_an_older_engine_and_one_that_may_bring_its_runtime(machine: Machine) -> None:
    ask(machine.load(plan(brings_runtime=True), trust_host_code=True), 1)
    machine.trt = FakeTensorRt(machine.cuda, "11.4.0")
    with pytest.raises(LoadFailed, match="an older TensorRT"):
        machine.load(plan())
    ask(machine.load(OLD), 8)


@pytest.mark.parametrize(
    ("gpu", "options", "says"),
    [
        ({"devices": 0}, {}, "no usable NVIDIA GPU .*cudaErrorNoDevice.*nvidia-smi"),
        ({"devices": 2}, {"device_id": 2}, "no GPU 2; this machine has 2"),
        ({}, {"device": 1}, "'device' is unknown; did you mean 'device_id'"),
    ],
)
def test_devices_and_options_that_are_none(
    tmp_path: Path, gpu: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(LoadFailed, match=says):
        Machine(tmp_path / "model.plan", **gpu).load(**options)


def test_a_context_that_cannot_be_made_costs_nothing(machine: Machine) -> None:
    machine.trt.refuses.add("context")
    with pytest.raises(LoadFailed, match=r"no execution context.*out of memory"):
        machine.load()
    assert machine.cuda.streams == {}


def test_outputs_whose_size_depends_on_values(machine: Machine) -> None:
    session = machine.load(changed("y", data_dependent=True))
    with pytest.raises(Unimplemented, match="'y' depends on values"):
        session.run({"x": np.ones((1, 3), np.float32)}, "serving_default", ())


def test_the_log_says_what_memory_is_needed(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine.load(plan(device_bytes=64 << 20), instances=2)
    (record,) = [r for r in caplog.records if r.message == "memory on the GPU"]
    assert record.__dict__["contexts"] == 2
    assert record.__dict__["contexts_mib_at_most"] == 128


def test_without_tensorrt_the_extra_is_named(tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        path = tmp_path / "model.plan"
        path.write_bytes(plan())
        assert registry.detect(tmp_path) == ("tensorrt_plan", path)
        with pytest.raises(MissingExtra, match=r"crossfade\[tensorrt\]"):
            registry.create("tensorrt_plan").load(Artifact(path, "model", 1))
    else:
        pytest.skip("TensorRT is here")


@pytest.mark.gpu
def test_a_real_engine_answers_as_the_onnx_model(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt")
    from crossfade.runtimes.trt.build import Plan, build
    from tests.runtimes import onnx_models

    onnx = tmp_path / "model.onnx"
    onnx.write_bytes(onnx_models.affine())
    path = tmp_path / "model.plan"
    path.write_bytes(build(onnx, Plan(max_rows=8)))
    for graphs in (False, True):
        options = {"cuda_graphs": graphs}
        session = registry.create("tensorrt_plan").load(Artifact(path, "model", 1, 2, options))
        for rows in (1, 8, 8, 8, 3):
            ask(session, rows)
        session.close()
