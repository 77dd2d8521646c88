"""ONNX to a TensorRT engine, by the builder of this project's TensorRT runtime."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import Unimplemented
from crossfade.serving.conversion import onnx_graph
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.savedmodel_source import Say
from crossfade.serving.conversion.targets import TARGETS
from crossfade.serving.conversion.versions import of

_BUILDER: Final = "crossfade.runtimes.trt"


def check() -> None:
    """Whether an engine can be built here; raises Unimplemented with what to install."""
    if importlib.util.find_spec("tensorrt") is None:
        raise Unimplemented(
            "TensorRT engines are built by NVIDIA's TensorRT, which is not installed: pip install"
            " tensorrt --extra-index-url https://pypi.nvidia.com, on a machine with the GPU that"
            " will run them"
        )
    if importlib.util.find_spec(_BUILDER) is None:
        raise Unimplemented("this version of crossfade does not build TensorRT engines")


def convert(job: Job, say: Say, source: Path | None = None) -> Made:
    """Writes ``model.plan``, of single precision, for batches of up to ``job.max_rows``.

    Raises:
        Unimplemented: TensorRT is not installed.
        InvalidArgument: custom operations.
        LoadFailed: TensorRT cannot build it.
    """
    check()
    path = source or Path(job.source)
    say("looking for operations that cannot be converted")
    onnx_graph.check_operations(onnx_graph.read(path))
    say("building a TensorRT engine; it takes minutes")
    builder = importlib.import_module(f"{_BUILDER}.build")
    content = builder.build(path, builder.Plan(max_rows=job.max_rows))
    (job.version_folder / TARGETS["tensorrt"].file).write_bytes(content)
    return Made(job.made.signature, job.made.cut, versions={**job.made.versions, **of("tensorrt")})
