"""A program of ``torch.export`` (``.pt2``) to ONNX, by PyTorch's own exporter."""

from __future__ import annotations

from pathlib import Path

from crossfade.runtimes import registry
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line
from crossfade.serving.conversion import onnx_graph
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.savedmodel_source import Say
from crossfade.serving.conversion.savedmodel_to_onnx import OPSET
from crossfade.serving.conversion.targets import TARGETS
from crossfade.serving.conversion.versions import of


def convert(job: Job, say: Say) -> Made:
    """Writes ``model.onnx``, with the names that the model is served under.

    Which sizes are free is written in the program: it must have been exported with a batch of at
    least 2, or the exporter takes the batch for a constant.

    Raises:
        LoadFailed: it is no such program, or the exporter has no rule for an operation.
    """
    torch = require("torch", "torch", "converting PyTorch models")
    require("onnxscript", "convert", "converting PyTorch models")
    onnx = require("onnx", "convert", "converting to ONNX")
    path = Path(job.source)
    session = registry.create(job.platform).load(Artifact(path, job.name, 1, 1, job.options))
    signature = next(iter(session.signatures.values()))
    session.close()
    result = job.version_folder / TARGETS["onnx"].file
    say("exporting to ONNX with PyTorch")
    try:
        program = torch.onnx.export(
            torch.export.load(str(path)),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            verbose=False,
        )
        program.save(str(result), external_data=False)
    except OSError:
        raise
    except Exception as error:
        raise LoadFailed(f"PyTorch cannot export the model: {one_line(error, path)}") from error
    model = onnx_graph.read(result)
    onnx_graph.describe(model, signature)
    onnx.save(model, str(result))
    return Made(versions=of("torch", "onnxscript", "onnx-ir", "onnx"))
