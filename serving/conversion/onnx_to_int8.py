"""ONNX to 8-bit integers: static QDQ, calibrated, by ONNX Runtime."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact, Signature, Tensor
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line
from crossfade.serving.conversion import calibration, onnx_graph
from crossfade.serving.conversion.data import Rows
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.savedmodel_source import Say
from crossfade.serving.conversion.targets import TARGETS
from crossfade.serving.conversion.versions import of

# Older ones have no scales by channel.
_OPSET: Final = 13


def convert(job: Job, say: Say, source: Path | None = None) -> Made:
    """Writes ``model.onnx``; inputs and outputs stay floats.

    Args:
        job: the conversion.
        say: takes progress.
        source: the ONNX file; the job's source, if not given.

    Raises:
        InvalidArgument: no data, or custom operations.
        LoadFailed: it is no ONNX model, or cannot be quantised.
    """
    path = source or Path(job.source)
    require("onnxruntime", "onnx", "converting to 8 bits")
    model = onnx_graph.read(path)
    say("looking for operations that cannot be converted")
    onnx_graph.check_operations(model)
    onnx = require("onnx", "convert", "converting to 8 bits")
    quantization = require("onnxruntime.quantization", "convert", "converting to 8 bits")
    shapes = require("onnxruntime.quantization.shape_inference", "convert", "converting to 8 bits")
    session = registry.create("onnxruntime_onnx").load(Artifact(path, job.name, 1))
    signature = next(iter(session.signatures.values()))
    session.close()
    rows = calibration.rows(job, signature, say)
    fresh, prepared = job.scratch / "fresh.onnx", job.scratch / "prepared.onnx"
    result = job.version_folder / TARGETS["onnx-int8"].file
    try:
        say("folding constants and batch normalisation")
        onnx.save(onnx_graph.renewed(model, _OPSET), str(fresh))
        shapes.quant_pre_process(
            str(fresh), str(prepared), skip_symbolic_shape=True, auto_merge=True
        )
        names = _chosen(onnx, prepared) if _decides(signature) else []
        say(f"quantising {len(names)} operations" if names else "quantising")
        ask = functools.partial(
            _quantise, quantization, prepared, result, rows, names=names, bits=job.activation_bits
        )
        try:
            ask(per_channel=True)
        except ValueError:  # ONNX Runtime 1.32 stumbles over the biases of some small models
            say("quantising with one scale a tensor")
            ask(per_channel=False)
    except OSError:
        raise
    except Exception as error:
        raise LoadFailed(f"ONNX Runtime cannot quantise the model: {one_line(error)}") from error
    versions = {**job.made.versions, **of("onnxruntime", "onnx")}
    return dataclasses.replace(job.made, calibration=rows.origin, versions=versions)


def _decides(signature: Signature) -> bool:
    """Whether it reads texts, or answers whole numbers: counts, indexes, yes or no."""
    whole = any(spec.dtype.startswith(("INT", "UINT", "BOOL")) for spec in signature.outputs)
    return whole or any(spec.dtype == "BYTES" for spec in signature.inputs)


def _chosen(onnx: Any, file: Path) -> list[str]:
    """The operations to quantise of a model that decides: convolutions, and what is between them.

    What is made of texts, and what decides, is left as it is: it is small, and scores that are
    rounded decide otherwise.
    """
    model = onnx.load(str(file))
    names = onnx_graph.between_convolutions(model)
    onnx.save(model, str(file))
    return names


def _quantise(
    quantization: Any,
    source: Path,
    result: Path,
    rows: Rows,
    *,
    names: list[str],
    bits: int,
    per_channel: bool,
) -> None:
    types = quantization.QuantType
    quantization.quantize_static(
        str(source),
        str(result),
        _Reader(rows),
        nodes_to_quantize=names,
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=types.QUInt16 if bits == 16 else types.QInt8,
        calibrate_method=quantization.CalibrationMethod.MinMax,
    )


class _Reader:
    """Gives one row after the other, as ONNX Runtime's calibration asks for them."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._next = 0

    def get_next(self) -> dict[str, Tensor] | None:
        if self._next == self._rows.count:
            return None
        self._next += 1
        return dict(self._rows.batch(self._next - 1, self._next))
