"""ONNX to a TensorRT engine, by the builder of this project's TensorRT runtime."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Final

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import InvalidArgument, Unimplemented
from crossfade.runtimes.core.model import Artifact, Signature, TensorSpec
from crossfade.runtimes.trt.shapes import Profile, Range
from crossfade.serving.conversion import calibration, onnx_graph, probes
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

    Other free dimensions may be 1 to 33, or what the given data have; it is tuned for those.

    Raises:
        Unimplemented: TensorRT is not installed.
        InvalidArgument: custom operations, texts, or data that do not fit.
        LoadFailed: TensorRT cannot build it.
    """
    check()
    path = source or Path(job.source)
    say("looking for operations that cannot be converted")
    onnx_graph.check_operations(onnx_graph.read(path))
    session = registry.create("onnxruntime_onnx").load(Artifact(path, job.name, 1))
    signature = next(iter(session.signatures.values()))
    session.close()
    texts = [spec.name for spec in (*signature.inputs, *signature.outputs) if spec.dtype == "BYTES"]
    if texts:
        raise InvalidArgument(
            f"TensorRT has no texts, and '{texts[0]}' is one: have another model of a pipeline make"
            " numbers of it, and convert the rest"
        )
    say("building a TensorRT engine; it takes minutes")
    builder = importlib.import_module(f"{_BUILDER}.build")
    content = builder.build(
        path, builder.Plan(max_rows=job.max_rows, profiles=_profiles(job, signature))
    )
    (job.version_folder / TARGETS["tensorrt"].file).write_bytes(content)
    return Made(job.made.signature, job.made.cut, versions={**job.made.versions, **of("tensorrt")})


def _profiles(job: Job, signature: Signature) -> list[Profile]:
    """One profile where more than the batch is free; otherwise the builder's own will do."""
    if all(-1 not in (spec.shape or ())[1:] for spec in signature.inputs):
        return []
    sizes = calibration.given(job, signature).sizes if job.data is not None else {}
    rows = job.max_rows

    def shape(spec: TensorSpec, rows: int, free: int, known: bool) -> tuple[int, ...]:
        return probes.shape_of(spec, rows, free, sizes.get(spec.name) if known else None)

    return [
        {
            spec.name: Range(
                shape(spec, 1, 1, known=False),
                usual := shape(spec, rows, 1, known=True),
                tuple(map(max, usual, shape(spec, rows, max(probes.SIZES), known=False))),
            )
            for spec in signature.inputs
        }
    ]
