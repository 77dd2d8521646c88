"""What an engine is: its tensors, its profiles, the memory it takes. Read once, at load."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.runtimes.trt.shapes import Profile, Range, Shape, max_rows, offered, size_bytes

_DTYPES: Final = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "BF16": "BF16",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "BOOL": "BOOL",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """One input or output tensor, as the engine declares it (-1 is dynamic)."""

    name: str
    dtype: str
    shape: Shape

    @property
    def numpy(self) -> np.dtype[Any]:
        """The element type on the host."""
        return NUMPY[self.dtype]


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """An engine's inputs, outputs and profiles."""

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]
    profiles: tuple[Profile, ...]

    def signature(self) -> Signature:
        """Derives the signature; a size that no profile varies is not -1."""
        ins = [
            TensorSpec(s.name, s.dtype, offered(s.shape, self.profiles, s.name))
            for s in self.inputs
        ]
        outs = [TensorSpec(s.name, s.dtype, s.shape) for s in self.outputs]
        return Signature.derive(ins, outs)

    def max_rows(self) -> int:
        """Rows of the largest batch; only for a signature that is batched."""
        return max_rows(self.profiles)

    def input_bytes(self) -> int:
        """Bytes of the inputs' buffers at the largest shapes of any profile."""
        return sum(
            max(
                size_bytes(p[slot.name].largest, slot.numpy.itemsize, slot.name)
                for p in self.profiles
            )
            for slot in self.inputs
        )


def read(engine: Any, trt: Any) -> Layout:
    """Reads an ``ICudaEngine``.

    Raises:
        LoadFailed: it has a tensor that cannot be served.
    """
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    modes = {name: engine.get_tensor_mode(name) for name in names}
    slots = {name: _slot(engine, trt, name) for name in names}
    inputs = tuple(slots[n] for n in names if modes[n] == trt.TensorIOMode.INPUT)
    outputs = tuple(slots[n] for n in names if modes[n] == trt.TensorIOMode.OUTPUT)
    profiles = tuple(
        {slot.name: _range(engine, slot, index) for slot in inputs}
        for index in range(engine.num_optimization_profiles)
    )
    return Layout(inputs, outputs, profiles)


def memory_bytes(engine: Any, layout: Layout, plan_bytes: int, instances: int) -> int:
    """Bytes of GPU memory for so many contexts: weights once, the rest for each.

    Outputs count as much as inputs: their sizes are known only for shapes that were set.
    """
    each = int(engine.device_memory_size_v2) + 2 * layout.input_bytes()
    return plan_bytes + instances * each


def _slot(engine: Any, trt: Any, name: str) -> Slot:
    kind = engine.get_tensor_dtype(name).name
    if kind not in _DTYPES:
        raise LoadFailed(f"tensor '{name}' is {kind}, which cannot be served")
    if (
        engine.is_shape_inference_io(name)
        or engine.get_tensor_location(name) != trt.TensorLocation.DEVICE
    ):
        raise LoadFailed(
            f"tensor '{name}' holds a shape, not data: build the engine with that shape fixed"
        )
    if engine.get_tensor_format(name) != trt.TensorFormat.LINEAR:
        raise LoadFailed(f"tensor '{name}' is not laid out row by row: build it in LINEAR format")
    return Slot(name, _DTYPES[kind], _dims(engine.get_tensor_shape(name)))


def _range(engine: Any, slot: Slot, index: int) -> Range:
    return Range(*(_dims(d) for d in engine.get_tensor_profile_shape(slot.name, index)))


def _dims(dims: Sequence[int]) -> Shape:
    return tuple(int(dims[at]) for at in range(len(dims)))
