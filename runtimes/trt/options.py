"""What ``options`` may hold for a TensorRT engine."""

from __future__ import annotations

from typing import Annotated

import pydantic

from crossfade.runtimes.options import Options


class TensorRtOptions(Options):
    """Options of platform ``tensorrt_plan``.

    Attributes:
        device_id: the GPU, as CUDA counts them.
        cuda_graphs: record a run and replay it while shapes stay: saves the launches of many
            small kernels, and is no use where shapes change with every request.
        trust_host_code: let an engine bring its own runtime (a version-compatible engine does),
            which is code that runs in this process.
    """

    device_id: Annotated[int, pydantic.Field(ge=0, le=1023)] = 0
    cuda_graphs: bool = False
    trust_host_code: bool = False
