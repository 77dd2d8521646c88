"""Builds an engine of an ONNX model, for the GPU and the TensorRT of this machine."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Tensors
from crossfade.runtimes.reason import one_line
from crossfade.runtimes.trt.calibration import calibrator
from crossfade.runtimes.trt.cuda import Cuda
from crossfade.runtimes.trt.failure import Said, reason
from crossfade.runtimes.trt.libraries import Libraries, find
from crossfade.runtimes.trt.shapes import Profile, Range, Shape

_log = logging.getLogger(__name__)
Precision = Literal["fp32", "fp16", "int8"]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How an engine is to be built.

    Attributes:
        precision: the lowest that layers may use; TensorRT 11 takes it from the model alone.
        max_rows: rows of the largest batch, where no profiles are given.
        profiles: shapes to build for; empty is one profile, of 1 to ``max_rows`` rows.
        workspace_bytes: what a layer may use to work; ``None`` is all there is.
        version_compatible: the engine brings its own runtime and works under later TensorRTs;
            larger, and to be loaded with ``trust_host_code``.
        hardware_compatible: it works on all GPUs from Ampere on; somewhat slower.
        timing_cache: a file of measurements, read and rewritten: a second build is quick.
        device_id: the GPU to build on.
    """

    precision: Precision = "fp32"
    max_rows: int = 8
    profiles: Sequence[Profile] = ()
    workspace_bytes: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    timing_cache: Path | None = None
    device_id: int = 0


def default_profile(inputs: Mapping[str, Shape], max_rows: int) -> Profile:
    """Returns the profile of inputs whose first dimension alone is dynamic: 1 to ``max_rows``.

    Raises:
        LoadFailed: another dimension is dynamic, so that its sizes must be said.
    """
    for name, shape in inputs.items():
        if -1 in shape[1:]:
            raise LoadFailed(
                f"input '{name}' is dynamic beyond its batch dimension ({list(shape)}): say the "
                "smallest, the usual and the largest shape"
            )

    def rows(shape: Shape, count: int) -> Shape:
        return (count, *shape[1:]) if shape[:1] == (-1,) else shape

    return {
        name: Range(rows(shape, 1), rows(shape, max_rows), rows(shape, max_rows))
        for name, shape in inputs.items()
    }


def build(
    onnx: Path,
    plan: Plan,
    calibration: Iterable[Tensors] | None = None,
    libraries: Libraries | None = None,
) -> bytes:
    """Builds an engine; takes minutes and the GPU.

    Args:
        onnx: the model's file.
        plan: what to build.
        calibration: inputs by name, all of the first profile's usual shape; INT8 on TensorRT 10
            needs them unless the model holds its own ranges (Q/DQ nodes).
        libraries: TensorRT and CUDA; imported if not given.

    Raises:
        MissingExtra: TensorRT is not installed.
        LoadFailed: the model cannot be built, with TensorRT's reason.
    """
    found = libraries or find("building a TensorRT engine")
    cuda = Cuda(found.cuda, plan.device_id)
    cuda.start()
    return _Build(found.trt, cuda, plan).run(onnx, calibration)


class _Build:
    """One build: TensorRT's objects refer to each other and must live until it is over."""

    def __init__(self, trt: Any, cuda: Cuda, plan: Plan) -> None:
        self._trt, self._cuda, self._plan = trt, cuda, plan
        self._said = Said(trt)
        self._builder = trt.Builder(self._said.logger)
        self._network = self._builder.create_network(0)
        self._config = self._builder.create_builder_config()

    def run(self, onnx: Path, calibration: Iterable[Tensors] | None) -> bytes:
        self._parse(onnx)
        profile = self._set_profiles()
        if self._plan.workspace_bytes is not None:
            pool = self._trt.MemoryPoolType.WORKSPACE
            self._config.set_memory_pool_limit(pool, self._plan.workspace_bytes)
        if self._plan.version_compatible:
            self._config.set_flag(self._trt.BuilderFlag.VERSION_COMPATIBLE)
        if self._plan.hardware_compatible:
            level = self._trt.HardwareCompatibilityLevel.AMPERE_PLUS
            self._config.hardware_compatibility_level = level
        self._read_timings()
        feeding = self._set_precision(calibration, profile)
        try:
            built = self._builder.build_serialized_network(self._network, self._config)
        finally:
            if feeding is not None:
                feeding.free()
        if built is None:
            said = reason(self._said.take()) or "TensorRT gives no reason"
            raise LoadFailed(f"TensorRT cannot build the engine: {said}")
        self._write_timings()
        return bytes(built)

    def _parse(self, onnx: Path) -> None:
        parser = self._trt.OnnxParser(self._network, self._said.logger)
        # By its path, as external weights lie beside it.
        if not parser.parse_from_file(str(onnx)):
            errors = [parser.get_error(at).desc() for at in range(parser.num_errors)]
            first = one_line(errors[0], onnx) if errors else reason(self._said.take())
            raise LoadFailed(f"TensorRT cannot read the ONNX model: {first}")
        self._parser = parser

    def _set_profiles(self) -> Any:
        """Adds the profiles; returns the first one as TensorRT has it, if shapes are dynamic."""
        tensors = [self._network.get_input(at) for at in range(self._network.num_inputs)]
        inputs = {t.name: tuple(int(t.shape[at]) for at in range(len(t.shape))) for t in tensors}
        if all(-1 not in shape for shape in inputs.values()):
            return None
        profiles = self._plan.profiles or [default_profile(inputs, self._plan.max_rows)]
        made: list[Any] = []
        for wanted in profiles:
            if missing := inputs.keys() - wanted.keys():
                raise LoadFailed(f"a profile says nothing of input '{min(missing)}'")
            profile = self._builder.create_optimization_profile()
            for name in inputs:
                shapes = wanted[name]
                profile.set_shape(name, shapes.smallest, shapes.best, shapes.largest)
            if self._config.add_optimization_profile(profile) < 0:
                raise LoadFailed(f"a profile does not fit: {reason(self._said.take())}")
            made.append(profile)
        return made[0]

    def _set_precision(self, calibration: Iterable[Tensors] | None, profile: Any) -> Any:
        """Allows lower precision; returns the calibrator that has to live through the build."""
        precision = self._plan.precision
        if precision == "fp32":
            return None
        flags = self._trt.BuilderFlag
        if not hasattr(flags, "FP16"):
            raise LoadFailed(
                f"TensorRT {self._trt.__version__} takes precision from the model: convert the "
                f"ONNX model to {precision} first ({_WAYS[precision]}), and build it as fp32 here"
            )
        self._config.set_flag(flags.FP16)  # layers that have no INT8 kernel still gain by it
        if precision == "fp16":
            return None
        self._config.set_flag(flags.INT8)
        if self._is_quantized():
            return None
        if calibration is None:
            raise LoadFailed("int8 needs calibration data, as the model holds no ranges (Q/DQ)")
        feeding = calibrator(self._trt, self._cuda, calibration)
        self._config.int8_calibrator = feeding
        if profile is not None:
            self._config.set_calibration_profile(profile)
        return feeding

    def _is_quantized(self) -> bool:
        layers = (self._network.get_layer(at) for at in range(self._network.num_layers))
        return any(layer.type == self._trt.LayerType.QUANTIZE for layer in layers)

    def _read_timings(self) -> None:
        path = self._plan.timing_cache
        if path is None:
            return
        content = path.read_bytes() if path.exists() else b""
        cache = self._config.create_timing_cache(content)
        if cache is None or not self._config.set_timing_cache(cache, False):
            _log.warning("the timing cache is of another GPU or TensorRT: it is made anew")
            self._config.set_timing_cache(self._config.create_timing_cache(b""), False)

    def _write_timings(self) -> None:
        path = self._plan.timing_cache
        cache = self._config.get_timing_cache() if path else None
        if path is None or cache is None:
            return
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_bytes(bytes(cache.serialize()))
        partial.replace(path)


_WAYS: Final = {
    "fp16": "weights and tensors as FLOAT16",
    "int8": "QuantizeLinear and DequantizeLinear nodes, as ONNX Runtime's quantisation writes",
}
