"""What a task makes of a model's outputs: the interface, and what all tasks share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Tensor, Tensors, TensorSpec
from crossfade.serving.config.processing_config import Postprocess, Role
from crossfade.serving.processing.framing import Frame

Parameters = tuple[float, int]
Quantized = Mapping[str, Parameters]
_STORED: Final = frozenset({"UINT8", "INT8", "UINT16", "INT16", "INT32"})


class Answer(Protocol):
    """Makes a task's answer. Thread-safe."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The model's outputs that it looks at."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it gives; the first dimension is -1, the rows."""
        ...

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Class names of outputs whose last dimension is in index order."""
        ...

    def make(self, found: Tensors, frames: Sequence[Frame] | None) -> dict[str, Tensor]:
        """Makes the answer.

        Args:
            found: the model's outputs, the first dimension of each the rows.
            frames: how the picture of each row lies in the model's input; ``None`` where the
                client sent that itself.
        """
        ...


class Outputs:
    """The model's outputs by what they are, with stored integers made real."""

    def __init__(
        self, config: Postprocess, outputs: Sequence[TensorSpec], quantized: Quantized
    ) -> None:
        self._given = config.outputs
        self._specs = {spec.name: spec for spec in outputs}
        for name in (*config.outputs.values(), *config.quantization):
            if name not in self._specs:
                raise LoadFailed(
                    f"postprocess: the model has no output '{name}', but {sorted(self._specs)}"
                )
        own = {n: (q.scale, q.zero_point) for n, q in config.quantization.items()}
        self._stored = {
            name: parameters
            for name, parameters in {**quantized, **own}.items()
            if name in self._specs and self._specs[name].dtype in _STORED
        }

    def find(self, role: Role, known: Sequence[str] = ()) -> TensorSpec | None:
        """The output that is configured for ``role``, or has one of the ``known`` names."""
        given = self._given.get(role)
        named = known if given is None else (given,)
        return next((self._specs[name] for name in named if name in self._specs), None)

    def only(self, role: Role, known: Sequence[str] = ()) -> TensorSpec:
        """As ``find``, or else the model's only output of numbers.

        Raises:
            LoadFailed: it has several.
        """
        found = self.find(role, known)
        numeric = [spec for spec in self._specs.values() if spec.dtype != "BYTES"]
        if found is None and len(numeric) == 1:
            found = numeric[0]
        if found is None:
            raise LoadFailed(
                f"postprocess: which output is '{role}' is not known; set postprocess.outputs, for"
                f" the model has {sorted(self._specs)}"
            )
        if found.dtype == "BYTES":
            raise LoadFailed(f"postprocess: output '{found.name}' is text, and not '{role}'")
        return found

    def real(self, name: str, array: Tensor) -> Tensor:
        """An output as FP32."""
        stored = self._stored.get(name)
        if stored is None:
            return array.astype(np.float32)
        step, zero_point = stored
        return (array.astype(np.int32) - zero_point).astype(np.float32) * np.float32(step)
