"""Regression: the number in its own unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from crossfade.runtimes.core.model import Tensor, Tensors, TensorSpec
from crossfade.serving.config.processing_config import Postprocess
from crossfade.serving.processing.answer import Outputs
from crossfade.serving.processing.framing import Frame


class Regression:
    """See ``Answer``. Gives ``value`` FP32 in the shape of the model's output."""

    labels: Mapping[str, Sequence[str]] = {}

    def __init__(self, config: Postprocess, outputs: Outputs) -> None:
        self._config = config
        self._outputs = outputs
        self._source = outputs.only("value", ("value",))
        shape = self._source.shape
        self.needs = (self._source.name,)
        self.outputs = (TensorSpec("value", "FP32", None if shape is None else (-1, *shape[1:])),)

    def make(self, found: Tensors, _: Sequence[Frame] | None) -> dict[str, Tensor]:
        """See ``Answer``."""
        config, name = self._config, self._source.name
        value = self._outputs.real(name, found[name]).astype(np.float64)
        value = value * config.scale + config.offset
        if config.minimum is not None or config.maximum is not None:
            value = np.clip(value, config.minimum, config.maximum)
        return {"value": value.astype(np.float32)}
