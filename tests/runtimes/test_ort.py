"""ONNX Runtime: element types, signatures, errors, and models made by others."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfade.runtimes import registry
from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    ResourceExhausted,
)
from crossfade.runtimes.core.model import Artifact, Session, Signature, TensorSpec
from crossfade.runtimes.ort import failure

pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
from onnx import TensorProto, helper

from tests.runtimes import onnx_models as om

Loads = Callable[..., Session]
ONNX_KINDS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


@pytest.fixture
def loads(tmp_path: Path, load: Callable[..., Session]) -> Loads:
    def do(content: bytes, **options: object) -> Session:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return load("onnxruntime_onnx", path, **options)

    return do


def texts(*elements: bytes) -> np.ndarray:
    return np.array([elements], dtype=object)


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_every_dtype_goes_in_and_out(loads: Loads, dtype: str, rows: int) -> None:
    session = loads(om.same(ONNX_KINDS[dtype]))
    assert session.signatures["serving_default"].inputs == (TensorSpec("x", dtype, (-1, 2)),)
    if dtype == "BYTES":
        x = np.array([[b"", "ü\0\n".encode()]] * rows, dtype=object).reshape(rows, 2)
    else:
        edges = [0, 1] if dtype == "BOOL" else [0, 200 if dtype[0] == "U" else -3]
        x = np.array([edges] * rows).reshape(rows, 2).astype(NUMPY[dtype])
    y = session.run({"x": x}, "serving_default", ())["y"]
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    assert y.tolist() == x.tolist()


def test_bytes_that_are_not_utf8_are_refused(loads: Loads) -> None:
    session = loads(om.same(om.STRING))
    with pytest.raises(InvalidArgument, match="'x' holds bytes that are not UTF-8"):
        session.run({"x": texts(b"\xff", b"a")}, "serving_default", ())


def test_bytes_and_bf16_together_are_refused_at_load(loads: Loads) -> None:
    mixed = om.model(
        [om.node("Identity", "x", "y"), om.node("Identity", "s", "t")],
        [om.value("x", om.BF16, ["n"]), om.value("s", om.STRING, ["n"])],
        [om.value("y", om.BF16, ["n"]), om.value("t", om.STRING, ["n"])],
    )
    with pytest.raises(LoadFailed, match="BYTES and BF16"):
        loads(mixed)


@pytest.mark.parametrize(
    ("declared", "shape", "batched"),
    [
        (["n", 3], (-1, 3), True),
        ([None, 3], (-1, 3), True),
        ([2, "width"], (2, -1), False),
        ([], (), False),
        (None, None, False),
    ],
)
def test_shapes(
    loads: Loads, declared: list[object] | None, shape: tuple[int, ...] | None, batched: bool
) -> None:
    signature = loads(om.same(om.FLOAT, declared)).signatures["serving_default"]
    assert signature.inputs[0].shape == shape
    assert signature.batched is batched


@pytest.mark.parametrize(
    ("leading", "batched"),
    [("n", True), ("detections", False), ("unk__7", True), (None, True)],
)
def test_only_one_and_the_same_leading_dimension_is_a_batch(
    loads: Loads, leading: str | None, batched: bool
) -> None:
    pair = om.model(
        [om.node("Identity", "x", "y")],
        [om.value("x", om.FLOAT, ["n", 3])],
        [om.value("y", om.FLOAT, [leading, 3])],
    )
    assert loads(pair).signatures["serving_default"].batched is batched


def test_scalars(loads: Loads) -> None:
    y = loads(om.same(om.FLOAT, [])).run({"x": np.array(2, np.float32)}, "serving_default", ())
    assert y["y"].shape == ()


def test_a_client_cannot_overwrite_weights(loads: Loads) -> None:
    overridable = om.model(
        [om.node("Add", "x w", "y")],
        [om.value("x", om.FLOAT, ["n"]), om.value("w", om.FLOAT, [1])],
        [om.value("y", om.FLOAT, ["n"])],
        [om.weight("w", np.float32([1]))],
    )
    assert [s.name for s in loads(overridable).signatures["serving_default"].inputs] == ["x"]


def test_outputs_that_are_no_tensors(loads: Loads, caplog: pytest.LogCaptureFixture) -> None:
    inputs = [om.value("x", om.FLOAT, ["n"])]
    pair = om.node("SequenceConstruct", "x x", "y")
    sequence = helper.make_tensor_sequence_value_info("y", om.FLOAT, None)
    session = loads(
        om.model(
            [pair, om.node("Neg", "x", "z")], inputs, [sequence, om.value("z", om.FLOAT, ["n"])]
        )
    )
    assert "'y' (seq(tensor(float)))" in caplog.text
    answer = session.run({"x": np.float32([1])}, "serving_default", ())
    assert {name: array.tolist() for name, array in answer.items()} == {"z": [-1]}
    with pytest.raises(LoadFailed, match="zipmap"):
        loads(om.model([pair], inputs, [sequence]))


def test_inputs_of_a_kind_that_no_protocol_has(loads: Loads) -> None:
    with pytest.raises(LoadFailed, match=r"input 'x' is tensor\(float8e4m3fn\)"):
        loads(om.same(TensorProto.FLOAT8E4M3FN, opset=19))


def test_refused_values_are_the_requests_fault(loads: Loads) -> None:
    table = om.model(
        [om.node("Gather", "t x", "y", name="inner/secret_node")],
        [om.value("x", om.INT64, ["n"])],
        [om.value("y", om.FLOAT, ["n"])],
        [om.weight("t", np.float32([1, 2]))],
    )
    session = loads(table)
    with pytest.raises(InvalidArgument, match="out of data bounds, idx=9") as refused:
        session.run({"x": np.array([9])}, "serving_default", ())
    assert "secret" not in refused.value.message


def _sum(second: str) -> bytes:
    return om.model(
        [om.node("Add", "a b", "y")],
        [om.value("a", om.FLOAT, ["n"]), om.value("b", om.FLOAT, [second])],
        [om.value("y", om.FLOAT, [None])],
    )


def test_shapes_that_break_inside_the_graph(loads: Loads) -> None:
    inputs = {"a": np.ones(4, np.float32), "b": np.ones(5, np.float32)}
    with pytest.raises(InvalidArgument, match="'b' has a dimension of 5, expected 4"):
        loads(_sum("n")).run(inputs, "serving_default", ())
    with pytest.raises(Internal, match=r"quote the id \w+") as hidden:
        loads(_sum("m")).run(inputs, "serving_default", ())
    assert "broadcast" not in hidden.value.message


def test_a_run_without_memory_leaves_the_next_ones_well(
    loads: Loads, tmp_path: Path, assert_clean: Callable[[CrossfadeError, Path], None]
) -> None:
    session = loads(om.expand())
    with pytest.raises(ResourceExhausted, match="not enough memory") as refused:
        session.run({"n": np.array([1 << 40, 1 << 18])}, "serving_default", ())
    assert_clean(refused.value, tmp_path)
    y = session.run({"n": np.array([2, 3])}, "serving_default", ())["y"]
    assert y.tolist() == [[1, 1, 1], [1, 1, 1]]


# As ONNX Runtime 1.31 words them.
CUDA_FAILURE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:129 std::conditional_t<true, "
    "void, onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, SUCCTYPE) "
    "[with ERRTYPE = cudaError; bool THRW = true] CUDA failure 101: invalid device ordinal ; "
    "GPU=-1 ; hostname=secret ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/"
    "cuda_execution_provider.cc ; line=302 ; expr=cudaSetDevice(info_.device_id); "
)
NO_TENSORRT = (
    "/onnxruntime_src/onnxruntime/python/onnxruntime_pybind_state.cc:729 void "
    "onnxruntime::python::RegisterTensorRTPluginsAsCustomOps(PySessionOptions&, const "
    "onnxruntime::ProviderOptions&) Please install TensorRT libraries, make sure (all of) them."
)
NO_SUCH_DEVICE = (
    "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static "
    "onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::"
    "FromProviderOptions(const onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : "
    'provider_options_utils.h:187 Parse Failed to parse provider option "device_id": '
    "cuda_execution_provider_info.cc:71 operator() Invalid device ID: 99, must be between 0 "
    "(inclusive) and 1 (exclusive).\n"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            NO_SUCH_DEVICE,
            'Failed to parse provider option "device_id": Invalid device ID: 99, '
            "must be between 0 (inclusive) and 1 (exclusive).",
        ),
        (CUDA_FAILURE, "CUDA failure 101: invalid device ordinal"),
        (NO_TENSORRT, "Please install TensorRT libraries, make sure (all of) them."),
        ("[ONNXRuntimeError] : 1 : FAIL : Load model failed: x", "Load model failed: x"),
    ],
)
def test_an_error_is_said_without_its_place_in_the_source(text: str, says: str) -> None:
    assert failure.plain(RuntimeError(text)) == says


@pytest.mark.parametrize(
    "text",
    [
        "Available memory of 1024 is smaller than requested bytes of 4096",
        "CUDA failure 2: out of memory ; GPU=0 ; hostname=secret",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    ],
)
def test_the_memory_of_a_gpu_is_told_by_its_words(text: str) -> None:
    error = failure.of_run(RuntimeError(text), {}, Signature((), ()), {})
    assert isinstance(error, ResourceExhausted)
    assert "secret" not in error.message


def test_what_is_wrong_with_a_graph_is_said(
    loads: Loads, tmp_path: Path, assert_clean: Callable[[CrossfadeError, Path], None]
) -> None:
    shapes = [om.value("x", om.FLOAT, ["n"])], [om.value("y", om.FLOAT, ["n"])]
    unknown = om.model(
        [om.node("Foo", "x", "y", domain="my.ops")], *shapes, domains=[("my.ops", 1)]
    )
    with pytest.raises(LoadFailed, match=r"my\.ops:Foo") as failed:
        loads(unknown)
    assert_clean(failed.value, tmp_path)


def test_weights_beside_the_model(
    load: Loads, tmp_path: Path, assert_clean: Callable[[CrossfadeError, Path], None]
) -> None:
    import onnx

    path = tmp_path / "model.onnx"
    built = onnx.load_from_string(om.heavy(1))
    onnx.save(built, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load("onnxruntime_onnx", path).close()
    runtime = registry.create("onnxruntime_onnx")
    assert runtime.estimate(Artifact(path, "model", 1)) > 2 * (1 << 20) + (32 << 20)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LoadFailed, match=r"weights\.bin") as failed:
        load("onnxruntime_onnx", path)
    assert_clean(failed.value, tmp_path)


def test_nothing_is_printed_for_a_bad_request(
    loads: Loads, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    session = loads(om.affine())
    with pytest.raises(InvalidArgument):
        session.run({"x": np.ones((1, 4), np.float32)}, "serving_default", ())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_mnist_reads_ten_digits(shared: Path, load: Loads) -> None:
    session = load("onnxruntime_onnx", shared / "onnx/mnist/mnist.onnx")
    assert session.signatures["serving_default"].inputs[0].shape == (1, 1, 28, 28)
    assert not session.signatures["serving_default"].batched
    for digit in range(10):
        image = Image.open(shared / f"onnx/mnist/digits/{digit}.png").convert("L")
        x = np.asarray(image, np.float32).reshape(1, 1, 28, 28)
        (scores,) = session.run({"Input3": x}, "serving_default", ()).values()
        assert scores.argmax() == digit


@pytest.mark.parametrize(
    ("model", "dtype"), [("simple", "INT32"), ("simple_int8", "INT8"), ("simple_string", "BYTES")]
)
def test_tritons_simple_models(shared: Path, load: Loads, model: str, dtype: str) -> None:
    path = shared / "triton/model_repository" / model / "1/model.onnx"
    session = load("onnxruntime_onnx", path)
    signature = session.signatures["serving_default"]
    assert {spec.dtype for spec in (*signature.inputs, *signature.outputs)} == {dtype}
    assert signature.batched
    a, b = np.arange(32).reshape(2, 16), np.full((2, 16), 3)
    if dtype == "BYTES":
        inputs = {
            name: np.array([[str(n).encode() for n in row] for row in array], dtype=object)
            for name, array in (("INPUT0", a), ("INPUT1", b))
        }
    else:
        inputs = {"INPUT0": a.astype(NUMPY[dtype]), "INPUT1": b.astype(NUMPY[dtype])}
    answer = session.run(inputs, "serving_default", ())
    assert answer["OUTPUT0"].astype(int).tolist() == (a + b).tolist()
    assert answer["OUTPUT1"].astype(int).tolist() == (a - b).tolist()
