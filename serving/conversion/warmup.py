"""Declared warm-up requests as rows: somebody who knows the model wrote them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Signature, Tensor, TensorSpec
from crossfade.serving.conversion.data import Rows, is_stacked
from crossfade.serving.conversion.job import Job


def rows(job: Job, signature: Signature) -> Rows | None:
    """The warm-up requests of this signature that give every input; ``None`` without any.

    Raises:
        InvalidArgument: a value is not of the input's dtype.
    """
    needed = [spec for spec in signature.inputs if not spec.optional]
    found = [
        {spec.name: _array(spec, inputs[spec.name]) for spec in needed}
        for name, inputs in job.warmups
        if name == job.made.signature and inputs.keys() >= {spec.name for spec in needed}
    ]
    stacked = is_stacked(signature)
    if not found:
        return None
    try:
        join = np.concatenate if stacked else np.stack
        inputs = {spec.name: join([each[spec.name] for each in found]) for spec in needed}
    except ValueError:
        return None  # of different sizes: no rows of one table
    result = Rows(inputs, f"{len(found)} declared warm-up requests", False, stacked=stacked)
    return result if result.count else None


def files(value: object) -> Iterator[str]:
    """The files of a version's folder that warm-up values name, as ``{file: NAME}``."""
    if isinstance(value, Mapping):
        named = value.get("file")
        if isinstance(named, str) and Path(named).name == named:
            yield named
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from files(inner)


def _array(spec: TensorSpec, value: object) -> Tensor:
    try:
        if spec.dtype == "BYTES":
            texts = np.asarray(value, dtype=np.object_)
            encoded: Tensor = np.vectorize(lambda v: str(v).encode(), otypes=[object])(texts)
            return encoded
        return np.asarray(value, dtype=NUMPY[spec.dtype])
    except (ValueError, TypeError, OverflowError):
        raise InvalidArgument(f"warmup: input '{spec.name}' is not {spec.dtype}") from None
