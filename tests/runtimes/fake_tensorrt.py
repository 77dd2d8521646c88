"""The part of ``tensorrt`` (10 and 11) that the product calls; engines are JSON, run by numpy.

Names and parameters are compared with the real bindings in ``test_trt_bindings.py``.
"""

from __future__ import annotations

import ctypes
import enum
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.runtimes.fake_cuda import FakeCuda

MAGIC = "fake engine"
VERSION_TAG = {"10.16.1": 241, "11.4.0": 300}
NUMPY = {"FLOAT": "f4", "HALF": "f2", "INT8": "i1", "INT32": "i4", "INT64": "i8", "UINT8": "u1"}


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    FP8 = 6
    BF16 = 7
    INT64 = 8


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class TensorLocation(enum.IntEnum):
    DEVICE = 0
    HOST = 1


class TensorFormat(enum.IntEnum):
    LINEAR = 0
    CHW32 = 5


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1


class BuilderFlag10(enum.IntEnum):
    FP16 = 0
    INT8 = 1
    VERSION_COMPATIBLE = 19


class BuilderFlag11(enum.IntEnum):
    VERSION_COMPATIBLE = 19


class LayerType(enum.IntEnum):
    CONVOLUTION = 0
    QUANTIZE = 42


class Dims(Sequence[int]):
    """As the real ones: no tuple, but a sequence."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self._shape = tuple(shape)

    def __len__(self) -> int:
        return len(self._shape)

    def __getitem__(self, at: Any) -> Any:
        return self._shape[at]


def plan(**changed: Any) -> bytes:
    """An engine: y = 2x + 1, m = 2x, x FP32 [1 to 8, 3], of this GPU and TensorRT 10.16.1."""
    tensors = {
        "x": {"mode": "INPUT", "dtype": "FLOAT", "shape": [-1, 3]},
        "y": {"mode": "OUTPUT", "dtype": "FLOAT", "shape": [-1, 3]},
        "m": {"mode": "OUTPUT", "dtype": "FLOAT", "shape": [-1, 3]},
    }
    content = {
        "magic": MAGIC,
        "version": "10.16.1",
        "compute": "9.0",
        "tensors": tensors,
        "profiles": [{"x": [[1, 3], [4, 3], [8, 3]]}],
        "device_bytes": 4096,
    }
    content |= changed
    profiles: Any = content["profiles"]
    (row,) = {tuple(p["x"][0]) for p in profiles if p["x"][0] == p["x"][2]} or {None}
    if row is not None and "tensors" not in changed:  # no profile lets the shape vary
        for tensor in tensors.values():
            tensor["shape"] = list(row)
    return json.dumps(content).encode()


def say(logger: ILogger, error: str) -> None:
    logger.log(Severity.ERROR, error)


class FakeTensorRt:
    """One of these in place of the module; ``refuses`` names what is to fail."""

    ILogger = ILogger
    DataType = DataType
    TensorIOMode = TensorIOMode
    TensorLocation = TensorLocation
    TensorFormat = TensorFormat
    MemoryPoolType = MemoryPoolType
    HardwareCompatibilityLevel = HardwareCompatibilityLevel
    LayerType = LayerType

    def __init__(self, cuda: FakeCuda, version: str = "10.16.1") -> None:
        self.__version__ = version
        self.cuda = cuda
        self.refuses: set[str] = set()
        self.last: IBuilderConfig | None = None
        self.calibrated: list[Any] = []
        self.Runtime = lambda logger: Runtime(self, logger)
        self.Builder = lambda logger: Builder(self, logger)
        self.OnnxParser = OnnxParser
        self.BuilderFlag: Any = BuilderFlag11
        if version.startswith("10."):
            self.BuilderFlag = BuilderFlag10
            self.IInt8EntropyCalibrator2 = IInt8EntropyCalibrator2


class Runtime:
    def __init__(self, trt: FakeTensorRt, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            content = json.loads(serialized_engine)
            wrong = self._wrong(content)
        except ValueError:
            wrong = (
                "Error Code 1: Serialization (Serialization assertion magicTagRead == magicTag "
                "failed.Magic tag does not match)"
            )
        if wrong:
            say(self._logger, f"IRuntime::deserializeCudaEngine: {wrong}")
            return None
        return ICudaEngine(self._trt, self._logger, content)

    def _wrong(self, content: Mapping[str, Any]) -> str | None:
        here = self._trt.__version__
        if content["version"] != here:
            return (
                "Error Code 1: Serialization (Serialization assertion stdVersionRead == "
                "kSERIALIZATION_VERSION failed.Version tag does not match. Note: Current Version: "
                f"{VERSION_TAG[here]}, Serialized Engine Version: "
                f"{VERSION_TAG[content['version']]})"
            )
        compute = "{}.{}".format(*self._trt.cuda.capability)
        if content["compute"] != compute:
            return (
                "Error Code 6: API Usage Error (The engine plan file is generated on an "
                f"incompatible device, expecting compute {compute} got compute "
                f"{content['compute']}, please rebuild.)"
            )
        if content.get("brings_runtime") and not self.engine_host_code_allowed:
            return "Error Code 3: API Usage Error (Engine has host code, which is not allowed)"
        return None


class ICudaEngine:
    def __init__(self, trt: FakeTensorRt, logger: ILogger, content: Mapping[str, Any]) -> None:
        self.trt, self.logger, self.content = trt, logger, content
        self._tensors: dict[str, Any] = content["tensors"]
        self.num_io_tensors = len(self._tensors)
        self.num_optimization_profiles = len(content["profiles"])
        self.device_memory_size_v2 = content["device_bytes"]

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self._tensors[name]["mode"]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self._tensors[name]["dtype"]]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self._tensors[name]["shape"])

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation[self._tensors[name].get("location", "DEVICE")]

    def get_tensor_format(self, name: str) -> TensorFormat:
        return TensorFormat[self._tensors[name].get("format", "LINEAR")]

    def is_shape_inference_io(self, name: str) -> bool:
        return bool(self._tensors[name].get("shape_inference", False))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        return [Dims(shape) for shape in self.content["profiles"][profile_index][name]]

    def create_execution_context(self) -> IExecutionContext | None:
        if "context" in self.trt.refuses:
            say(self.logger, "ICudaEngine: Error Code 2: OutOfMemory (out of memory)")
            return None
        return IExecutionContext(self)


class IExecutionContext:
    """Checks what the real one leaves to its caller: profiles, shapes and addresses."""

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._trt = engine, engine.trt
        self._profile = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def _refuse(self, why: str) -> bool:
        say(self._engine.logger, f"IExecutionContext: Error Code 3: Usage ({why})")
        return False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._profile = profile_index
        self._shapes.clear()
        return stream_handle in self._trt.cuda.streams

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._engine.content["profiles"][self._profile][name]
        if not all(a <= size <= b for a, size, b in zip(low, shape, high, strict=True)):
            return self._refuse("dimension outside of the profile")
        self._shapes[name] = tuple(shape)
        return True

    def infer_shapes(self) -> list[str]:
        tensors = self._engine.content["tensors"]
        return [n for n, t in tensors.items() if t["mode"] == "INPUT" and n not in self._shapes]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self._shape(name, self._shapes))

    def _shape(self, name: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
        if name in shapes:
            return shapes[name]
        tensor = self._engine.content["tensors"][name]
        first = next(iter(shapes.values()))
        if tensor.get("data_dependent"):
            return (-1, *first[1:])
        return tuple(first[at] if s == -1 else s for at, s in enumerate(tensor["shape"]))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory in self._trt.cuda.on_device

    def execute_async_v3(self, stream_handle: int) -> bool:
        for reason in ("execution", "out of memory"):
            if reason in self._trt.refuses:
                return self._refuse(reason)
        if missing := self._engine.content["tensors"].keys() - self._addresses.keys():
            return self._refuse(f"no address for {missing}")
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        record = "recording" not in self._trt.refuses
        self._trt.cuda.enqueue(stream_handle, lambda: self._run(shapes, addresses), record)
        return True

    def _run(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        (x,) = (self._on_device(n, shapes[n], addresses[n]) for n in shapes)
        for name, tensor in self._engine.content["tensors"].items():
            if tensor["mode"] == "OUTPUT":
                out = self._on_device(name, self._shape(name, shapes), addresses[name])
                out[...] = 2 * x + (1 if name == "y" else 0)

    def _on_device(self, name: str, shape: tuple[int, ...], address: int) -> Any:
        dtype = np.dtype(NUMPY[self._engine.content["tensors"][name]["dtype"]])
        size = math.prod(shape) * dtype.itemsize
        assert size <= len(self._trt.cuda.on_device[address]), "the buffer is too small"
        raw = (ctypes.c_uint8 * size).from_address(address)
        return np.frombuffer(memoryview(raw), dtype).reshape(shape)


class IHostMemory(bytes):
    pass


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self.content)


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self) -> None:
        self.flags_set: set[str] = set()
        self.pools: dict[Any, int] = {}
        self.profiles: list[IOptimizationProfile] = []
        self.calibration_profile: IOptimizationProfile | None = None
        self.int8_calibrator: Any = None
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self._cache: ITimingCache | None = None

    def set_flag(self, flag: Any) -> None:
        self.flags_set.add(flag.name)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        self.calibration_profile = profile
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and not cache.content.startswith(b"timings") and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class ITensor:
    def __init__(self, name: str, shape: Sequence[int]) -> None:
        self.name = name
        self.shape = Dims(shape)


class ILayer:
    def __init__(self, kind: LayerType) -> None:
        self.type = kind


class INetworkDefinition:
    def __init__(self) -> None:
        self.inputs: list[ITensor] = []
        self.layers: list[ILayer] = [ILayer(LayerType.CONVOLUTION)]

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> ITensor:
        return self.inputs[index]

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> ILayer:
        return self.layers[index]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    """Files are JSON here: ``{"x": [-1, 3]}``, and perhaps ``"quantized": true``."""

    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    def parse_from_file(self, model: str) -> bool:
        try:
            content = json.loads(Path(model).read_bytes())
        except ValueError:
            self._errors.append(ParserError(f"Could not parse {model}"))
            return False
        if content.pop("quantized", False):
            self._network.layers.append(ILayer(LayerType.QUANTIZE))
        self._network.inputs = [ITensor(name, shape) for name, shape in content.items()]
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


class IInt8EntropyCalibrator2:
    def get_batch_size(self) -> int:
        raise NotImplementedError

    def get_batch(self, names: Sequence[str]) -> list[int] | None:
        raise NotImplementedError

    def read_calibration_cache(self) -> bytes | None:
        raise NotImplementedError

    def write_calibration_cache(self, cache: bytes) -> None:
        raise NotImplementedError


class Builder:
    """Leaves what it was told in ``last`` and ``calibrated`` of the module."""

    def __init__(self, trt: FakeTensorRt, logger: ILogger) -> None:
        self._trt, self._logger = trt, logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        self._trt.last = config
        if "build" in self._trt.refuses:
            say(self._logger, "Error Code 10: Internal Error (Could not find any implementation)")
            return None
        if config.int8_calibrator is not None:
            self._trt.calibrated = list(self._calibrate(network, config.int8_calibrator))
        cache = config.get_timing_cache()
        if cache is not None:
            cache.content = (cache.content or b"timings") + b" more"
        fixed = {t.name: [list(t.shape)] * 3 for t in network.inputs}
        shapes = [p.shapes for p in config.profiles] or [fixed]
        return IHostMemory(plan(profiles=shapes, version=self._trt.__version__))

    def _calibrate(self, network: INetworkDefinition, calibrator: Any) -> Iterator[Any]:
        names = [t.name for t in network.inputs]
        calibrator.read_calibration_cache()
        while addresses := calibrator.get_batch(names):
            yield {
                name: ctypes.string_at(address, len(self._trt.cuda.on_device[address]))
                for name, address in zip(names, addresses, strict=True)
            }
        calibrator.write_calibration_cache(b"ranges")
