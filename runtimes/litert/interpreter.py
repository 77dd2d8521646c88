"""One interpreter of a model: not thread-safe, keeps the sizes of its last run.

Resizing an input costs 6 µs where nothing changes and a new memory plan where it does (measured:
10 ms more for an EfficientNet going from 1 row to 8 and back), so sizes stay until others come.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Tensor, Tensors, TensorSpec

Details = Mapping[str, Mapping[str, Any]]
Shape = tuple[int, ...]


class Call:
    """One signature of one interpreter.

    Attributes:
        inputs: LiteRT's details of each input by name, in the model's order.
        broken: a run with new sizes failed half-way; the interpreter is to be replaced.
    """

    def __init__(self, inputs: Details) -> None:
        self.inputs = inputs
        self.broken = False
        self._sizes = {name: tuple(map(int, d["shape"])) for name, d in inputs.items()}

    def outputs(self) -> Details:
        """LiteRT's details of each output by name; shapes are those of the last run."""
        raise NotImplementedError

    def __call__(self, inputs: Tensors, specs: Mapping[str, TensorSpec] | None) -> Tensors:
        """Runs once; the arrays returned are copies.

        Args:
            inputs: as the tensors are stored: quantised ones quantised.
            specs: what shapes are allowed; ``None`` allows any, to try them out.

        Raises:
            InvalidArgument: a shape that the model does not have; nothing was touched.
        """
        if inputs.keys() != self.inputs.keys():
            raise InvalidArgument(f"inputs must be {', '.join(self.inputs)}")
        sizes = {name: array.shape for name, array in inputs.items()}
        if sizes != self._sizes:
            for name, size in sizes.items():
                if specs is not None and not _fits(size, specs[name].shape):
                    raise InvalidArgument(f"input '{name}' has a shape the model does not take")
            self.broken = True
            self._resize(sizes)
        results = self._invoke(inputs)
        self._sizes, self.broken = sizes, False
        return results

    def _resize(self, sizes: Mapping[str, Shape]) -> None:
        raise NotImplementedError

    def _invoke(self, inputs: Tensors) -> Tensors:
        raise NotImplementedError


class WholeModel(Call):
    """A model without signatures: its inputs and outputs are ``serving_default``."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        interpreter.allocate_tensors()
        super().__init__(_by_name(interpreter.get_input_details(), "input"))
        self._input_indexes = [(name, d["index"]) for name, d in self.inputs.items()]
        self._output_indexes = [(name, d["index"]) for name, d in self.outputs().items()]

    def outputs(self) -> Details:
        """See ``Call.outputs``."""
        return _by_name(self._interpreter.get_output_details(), "output")

    def _resize(self, sizes: Mapping[str, Shape]) -> None:
        for name, index in self._input_indexes:
            self._interpreter.resize_tensor_input(index, sizes[name])
        self._interpreter.allocate_tensors()

    def _invoke(self, inputs: Tensors) -> Tensors:
        for name, index in self._input_indexes:
            self._interpreter.set_tensor(index, inputs[name])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(i) for name, i in self._output_indexes}


class NamedSignature(Call):
    """A signature that the converter wrote; its runner resizes by itself."""

    def __init__(self, interpreter: Any, key: str) -> None:
        self._runner = interpreter.get_signature_runner(key)
        super().__init__(self._runner.get_input_details())

    def outputs(self) -> Details:
        """See ``Call.outputs``."""
        details: Details = self._runner.get_output_details()
        return details

    def _resize(self, sizes: Mapping[str, Shape]) -> None:
        pass

    def _invoke(self, inputs: Tensors) -> Tensors:
        outputs: dict[str, Tensor] = self._runner(**inputs)
        return outputs


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """One interpreter.

    Attributes:
        calls: its signatures by name.
        again: opens another one of the same file in the same place.
        nodes: how many nodes run where, if a delegate has its share.
    """

    calls: Mapping[str, Call]
    again: Callable[[], Instance]
    nodes: Mapping[str, int] = dataclasses.field(default_factory=dict)


def calls(interpreter: Any) -> Mapping[str, Call]:
    """Returns an interpreter's signatures by name."""
    keys = interpreter.get_signature_list()
    if not keys:
        return {DEFAULT_SIGNATURE: WholeModel(interpreter)}
    interpreter.allocate_tensors()
    return {key: NamedSignature(interpreter, key) for key in keys}


def _by_name(details: list[dict[str, Any]], kind: str) -> Details:
    return {d["name"] or f"{kind}_{i}": d for i, d in enumerate(details)}


def _fits(size: Shape, allowed: Shape | None) -> bool:
    if allowed is None:
        return True
    return len(size) == len(allowed) and all(
        want in (-1, got) for got, want in zip(size, allowed, strict=True)
    )
