"""Single- and multi-label classification: ``labels`` and ``scores``, as in AutoML's containers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Tensor, Tensors, TensorSpec
from crossfade.serving.config.processing_config import Postprocess
from crossfade.serving.processing.answer import Outputs
from crossfade.serving.processing.framing import Frame
from crossfade.serving.processing.scores import activate, best


class Classification:
    """See ``Answer``. Gives ``labels`` BYTES and ``scores`` FP32, [rows, classes or top_k]."""

    def __init__(self, config: Postprocess, outputs: Outputs, names: Sequence[str]) -> None:
        self._config = config
        self._outputs = outputs
        self._names = names
        self._texts = [name.encode() for name in names]
        self._source = outputs.only("scores", ("scores",))
        shape = self._source.shape
        count = -1 if shape is None or -1 in shape[1:] else math.prod(shape[1:])
        if names and count not in (-1, len(names)):
            raise LoadFailed(f"postprocess: there are {len(names)} labels for {count} classes")
        if config.top_k is not None:
            count = config.top_k if count == -1 else min(count, config.top_k)
        self.needs = (self._source.name,)
        self.outputs = (
            TensorSpec("labels", "BYTES", (-1, count)),
            TensorSpec("scores", "FP32", (-1, count)),
        )

    @property
    def labels(self) -> Mapping[str, Sequence[str]]:
        """See ``Answer``; the best ones are not in index order."""
        return {"scores": self._names} if self._names and self._config.top_k is None else {}

    def make(self, found: Tensors, _: Sequence[Frame] | None) -> dict[str, Tensor]:
        """See ``Answer``."""
        config, name = self._config, self._source.name
        values = self._outputs.real(name, found[name])
        scores = activate(values.reshape(len(values), -1), config.activation)
        texts, scores = best(scores, self._texts, config.top_k, config.threshold)
        return {"labels": texts, "scores": scores}
