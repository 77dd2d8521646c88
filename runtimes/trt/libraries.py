"""Imports TensorRT and CUDA's bindings the moment an engine needs them."""

from __future__ import annotations

import dataclasses
from typing import Any

from crossfade.runtimes.extras import require


@dataclasses.dataclass(frozen=True, slots=True)
class Libraries:
    """The modules; untyped, as neither carries types.

    Attributes:
        trt: ``tensorrt``, of version 10 or 11.
        cuda: ``cuda.bindings.runtime``.
    """

    trt: Any
    cuda: Any


def find(needed_by: str = "a TensorRT engine") -> Libraries:
    """Imports both.

    Raises:
        MissingExtra: one is not installed.
        LoadFailed: one is installed and broken: ``libnvinfer`` is not found, say.
    """
    trt = require("tensorrt", "tensorrt", needed_by)
    return Libraries(trt, require("cuda.bindings.runtime", "tensorrt", needed_by))
