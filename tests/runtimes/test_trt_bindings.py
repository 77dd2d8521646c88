"""The fake TensorRT and CUDA beside NVIDIA's own bindings: names and parameters are the same.

Runs where the bindings can be imported; that takes neither a GPU nor a driver, but TensorRT's
libraries: ``tensorrt``, or ``tensorrt_bindings`` alone with libraries on the loader's path.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import types
from collections.abc import Callable
from typing import Any

import pytest

from crossfade.runtimes.trt.failure import Said
from tests.runtimes import fake_cuda, fake_tensorrt


def _import(*names: str) -> Any:
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    pytest.skip(f"{' and '.join(names)} cannot be imported")


@pytest.fixture(scope="module")
def trt() -> Any:
    return _import("tensorrt", "tensorrt_bindings")


def parameters(function: Any) -> list[list[str]]:
    """Names of the parameters of each overload, out of what pybind11 or Cython document."""
    text = function.__doc__ or ""
    name = re.escape(function.__name__)
    lines = re.findall(rf"^(?:\d+\. )?{name}\((.*)\)(?: ->.*)?$", text, re.MULTILINE)
    return [re.findall(r"(?:^|, )(?:[\w ]+ )?(\w+)(?=:|,|$| =)", line) for line in lines]


def _public(kind: type) -> dict[str, Any]:
    return {n: v for n, v in vars(kind).items() if not n.startswith("_")}


CLASSES = [
    *("Runtime", "ICudaEngine", "IExecutionContext", "Builder", "IBuilderConfig"),
    *("IOptimizationProfile", "INetworkDefinition", "OnnxParser", "ITimingCache", "ParserError"),
    *("ITensor", "ILayer", "IInt8EntropyCalibrator2"),
]


@pytest.mark.parametrize("name", CLASSES)
def test_methods_and_their_parameters(trt: Any, name: str) -> None:
    fake, real = getattr(fake_tensorrt, name), getattr(trt, name, None)
    if real is None:
        assert (name, trt.__version__.split(".")[0]) == ("IInt8EntropyCalibrator2", "11")
        return
    for method, ours in _public(fake).items():
        if method == "set_calibration_profile" and not hasattr(real, method):
            continue  # calibration is TensorRT 10's
        theirs = getattr(real, method)
        if not isinstance(ours, types.FunctionType):
            assert isinstance(theirs, property), f"{name}.{method}"
            continue
        mine = [p for p in inspect.signature(ours).parameters if p != "self"]
        overloads = [[p for p in found if p != "self"] for found in parameters(theirs)]
        assert any(found[: len(mine)] == mine for found in overloads), (method, mine, overloads)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("Runtime", {"engine_host_code_allowed"}),
        (
            "ICudaEngine",
            {"num_io_tensors", "num_optimization_profiles", "device_memory_size_v2"},
        ),
        ("IBuilderConfig", {"hardware_compatibility_level"}),
        ("ITensor", {"name", "shape"}),
        ("ILayer", {"type"}),
    ],
)
def test_properties(trt: Any, name: str, attributes: set[str]) -> None:
    for attribute in attributes:
        assert isinstance(getattr(getattr(trt, name), attribute), property)


ENUMS = [
    *("DataType", "TensorIOMode", "TensorLocation", "TensorFormat", "MemoryPoolType"),
    *("HardwareCompatibilityLevel", "LayerType"),
]


@pytest.mark.parametrize("name", ENUMS)
def test_members_of_enumerations(trt: Any, name: str) -> None:
    for member in getattr(fake_tensorrt, name):
        real = getattr(getattr(trt, name), member.name)
        assert real.name == member.name


def test_flags_of_the_builder(trt: Any) -> None:
    major = trt.__version__.split(".")[0]
    for flag in getattr(fake_tensorrt, f"BuilderFlag{major}"):
        assert hasattr(trt.BuilderFlag, flag.name)
    assert hasattr(trt.BuilderFlag, "FP16") == (major == "10")


def test_dimensions_are_a_sequence(trt: Any) -> None:
    dims = trt.Dims((2, -1, 3))
    assert [dims[at] for at in range(len(dims))] == [2, -1, 3]


def test_our_logger_is_one_of_theirs(trt: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = Said(trt)
    for severity in ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"):
        text = f"{severity} at /a/path"
        said.logger.log(getattr(trt.ILogger, severity), text)
    assert [r.levelname for r in caplog.records] == ["ERROR", "ERROR", "WARNING", "DEBUG"]
    assert said.take() == ["INTERNAL_ERROR at /a/path", "ERROR at /a/path"]
    assert said.take() == []


@pytest.fixture(scope="module")
def cuda() -> Any:
    return _import("cuda.bindings.runtime")


CALLS = [n for n in vars(fake_cuda.FakeCuda) if n.startswith("cuda") and n[4].isupper()]


@pytest.mark.parametrize(
    "name", [n for n in CALLS if inspect.isfunction(vars(fake_cuda.FakeCuda)[n])]
)
def test_calls_of_cuda(cuda: Any, name: str) -> None:
    ours: Callable[..., Any] = vars(fake_cuda.FakeCuda)[name]
    mine = [p for p in inspect.signature(ours).parameters if p != "self"]
    assert mine in parameters(getattr(cuda, name))


@pytest.mark.parametrize(
    "name", ["cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode", "cudaDeviceAttr"]
)
def test_constants_of_cuda(cuda: Any, name: str) -> None:
    for member in getattr(fake_cuda, name):
        assert int(getattr(getattr(cuda, name), member.name)) == int(member)


def test_errors_of_cuda_come_as_tuples(cuda: Any) -> None:
    code, *_ = cuda.cudaGetDeviceCount()
    assert isinstance(code, cuda.cudaError_t)
    assert code.name.startswith("cuda")
