"""ONNX to a TensorRT engine, by the builder of this project's TensorRT runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from crossfade.runtimes.core.errors import Unimplemented
from crossfade.serving.conversion import onnx_graph
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.savedmodel_source import Say


def check() -> None:
    """Whether an engine can be built here; raises Unimplemented with what to install."""
    if importlib.util.find_spec("tensorrt") is None:
        raise Unimplemented(
            "TensorRT engines are built by NVIDIA's TensorRT, which is not installed: pip install"
            " tensorrt --extra-index-url https://pypi.nvidia.com, on a machine with the GPU that"
            " will run them"
        )
    if importlib.util.find_spec("crossfade.runtimes.tensorrt") is None:
        raise Unimplemented("this version of crossfade does not build TensorRT engines")


def convert(job: Job, say: Say, source: Path | None = None) -> Made:
    """Writes ``model.plan``.

    Raises:
        Unimplemented: TensorRT is not installed.
        InvalidArgument: custom operations.
    """
    check()
    say("looking for operations that cannot be converted")
    onnx_graph.check_operations(onnx_graph.read(source or Path(job.source)))
    raise Unimplemented("this version of crossfade does not build TensorRT engines")
