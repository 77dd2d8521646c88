"""What ``options`` may hold for an ONNX model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from crossfade.runtimes.options import Options

Provider = str | dict[str, dict[str, Any]]
Threads = Annotated[int, pydantic.Field(ge=1, le=1024)]


class OrtOptions(Options):
    """Options of platform ``onnxruntime_onnx``.

    Attributes:
        execution_providers: best first: ``cpu``, ``cuda``, ``tensorrt`` or ONNX Runtime's own
            names; ``{tensorrt: {trt_fp16_enable: true}}`` passes options along. The CPU always
            ends the list.
        intra_op_threads: threads of a pool of this session's own; 1 is the calling thread alone.
        thread_pool: ``own``, or ``shared`` for the one pool of the process.
        shared_threads: size of the shared pool, set by the first model that asks for it;
            ``None`` is one a core.
    """

    execution_providers: list[Provider] = pydantic.Field(default=["cpu"], min_length=1)
    intra_op_threads: Threads = 1
    thread_pool: Literal["own", "shared"] = "own"
    shared_threads: Threads | None = None

    @pydantic.model_validator(mode="after")
    def _one_pool(self) -> OrtOptions:
        if self.thread_pool == "shared" and "intra_op_threads" in self.model_fields_set:
            raise ValueError("thread_pool 'shared' takes shared_threads, not intra_op_threads")
        return self
