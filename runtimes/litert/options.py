"""What ``options`` may hold for a TFLite model."""

from __future__ import annotations

from typing import Annotated

import pydantic

from crossfade.runtimes.options import Options


class LiteRtOptions(Options):
    """Options of platform ``tflite``.

    Attributes:
        threads: threads of one interpreter; ``instances`` interpreters run side by side.
        dequantize: quantised inputs and outputs become FP32, with the tensor's own parameters.
        resize_batch: try at load whether the batch may grow; off keeps the model's shapes.
        delegate: a shared library (``libedgetpu.so.1``) that takes over parts of the graph.
        delegate_options: passed to it, all text.
    """

    threads: Annotated[int, pydantic.Field(ge=1, le=1024)] = 1
    dequantize: bool = False
    resize_batch: bool = True
    delegate: str | None = None
    delegate_options: dict[str, str] = pydantic.Field(default_factory=dict)
