"""The first requests of a version, before it takes traffic: they warm it up and measure it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.runtimes.core.model import InferRequest, Model, Tensor, TensorSpec
from crossfade.serving.batching.leaf import Leaf
from crossfade.serving.batching.scheduler import Scheduled
from crossfade.serving.batching.tuning import choose, measure
from crossfade.serving.config.model_config import Batching, ModelConfig, Warmup
from crossfade.serving.lifecycle.warmup_inputs import given

_log = logging.getLogger(__name__)
# Rows that ``auto`` tries at most.
_AUTO_MAX_ROWS = 64


def warm_up(model: Model, warmups: Sequence[Warmup], folder: Path) -> None:
    """Answers the declared requests, which must pass, or else a request of zeros, which may fail.

    Raises:
        LoadFailed: a declared request is not for this model, or the model fails on it.
    """
    metadata = model.metadata
    if not warmups:
        signature = metadata.signatures[metadata.default_signature]
        if all(spec.dtype != "BYTES" for spec in signature.inputs):  # no text is as good as zero
            none = {s.name: zeros(s, 1) for s in signature.inputs if not s.optional}
            result = model.infer((InferRequest(none, metadata.default_signature),))[0]
            if isinstance(result, CrossfadeError):
                _log.warning(
                    "the model refuses a request of zeros; declare a warm-up request",
                    extra={"model": metadata.name, "reason": result.message},
                )
        return
    for warmup in warmups:
        chosen = metadata.signatures.get(warmup.signature)
        if chosen is None:
            raise LoadFailed(f"warmup: there is no signature '{warmup.signature}'")
        unknown = warmup.inputs.keys() - {spec.name for spec in chosen.inputs}
        if unknown:
            raise LoadFailed(f"warmup: there is no input '{min(unknown)}'")
        inputs = {
            spec.name: given(spec, warmup.inputs[spec.name], folder)
            if spec.name in warmup.inputs
            else zeros(spec, 1)
            for spec in chosen.inputs
            if not spec.optional or spec.name in warmup.inputs
        }
        for _ in range(warmup.count):
            result = model.infer((InferRequest(inputs, warmup.signature),))[0]
            if isinstance(result, CrossfadeError):
                raise LoadFailed(f"the warm-up request failed: {result.message}")


def set_batching(scheduled: Scheduled, leaf: Leaf, config: ModelConfig) -> None:
    """Has ``scheduled`` stack as configured, or as the latency curve of ``leaf`` says."""
    metadata = leaf.metadata
    if not metadata.max_batch_size:
        return
    batching = config.batching or Batching(auto=True)
    if not batching.auto:
        scheduled.max_rows = min(batching.max_size, metadata.max_batch_size)
        scheduled.max_delay_s = batching.max_delay_ms / 1000
        return
    name = metadata.default_signature
    signature = metadata.signatures[name]
    if not signature.batched:
        return

    def run(rows: int) -> None:
        inputs = {s.name: zeros(s, rows) for s in signature.inputs if not s.optional}
        result = leaf.infer((InferRequest(inputs, name, rows=rows),))[0]
        if isinstance(result, CrossfadeError):
            raise result

    try:
        curve = measure(run, min(_AUTO_MAX_ROWS, metadata.max_batch_size))
    except CrossfadeError:
        return  # zeros are no input for this model: its curve is not known, so nothing is stacked
    slo_s = config.slo.p99_ms / 1000 if config.slo else None
    chosen = choose(curve, slo_s)
    scheduled.max_rows, scheduled.max_delay_s, scheduled.crowd_rows = chosen
    _log.info(
        "auto batching",
        extra={
            "model": metadata.name,
            "version": metadata.version,
            "curve_ms": {rows: round(1000 * t, 3) for rows, t in curve.items()},
            "max_size": chosen.max_rows,
            "max_size_in_a_crowd": chosen.crowd_rows,
            "max_delay_ms": round(1000 * chosen.max_delay_s, 3),
        },
    )


def zeros(spec: TensorSpec, rows: int) -> Tensor:
    """Zeros (or empty strings) in the shape of ``spec``, with ``rows`` where it leads with -1."""
    shape = tuple(1 if size == -1 else size for size in spec.shape or ())
    if spec.shape and spec.shape[0] == -1:
        shape = (rows, *shape[1:])
    if spec.dtype == "BYTES":
        return np.full(shape, b"", dtype=np.object_)
    return np.zeros(shape, NUMPY[spec.dtype])
