"""SavedModel to ONNX, by tf2onnx."""

from __future__ import annotations

import logging
import re
from typing import Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.extras import require
from crossfade.runtimes.reason import one_line
from crossfade.serving.conversion import onnx_graph, tensorflow_graph
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.savedmodel_source import Say, prepare
from crossfade.serving.conversion.targets import TARGETS
from crossfade.serving.conversion.versions import of

OPSET: Final = 18
_REFUSED: Final = re.compile(r"Tensorflow op \[[^:\]]*: (\w+)\]|[Tt]ensor[Ff]low op (\w+) is not")


class _Refused(logging.Handler):
    """Collects the operations that tf2onnx says it has no rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        for names in _REFUSED.findall(record.getMessage()):
            self.operations |= {name for name in names if name}


def convert(job: Job, say: Say) -> Made:
    """Writes ``model.onnx``.

    Raises:
        InvalidArgument: see ``savedmodel_source.prepare``.
        LoadFailed: tf2onnx cannot do it; the message names the operations.
    """
    tf2onnx = require("tf2onnx.convert", "convert", "converting to ONNX")
    onnx = require("onnx", "convert", "converting to ONNX")
    prepared = prepare(job, say)
    graph, inputs, outputs = tensorflow_graph.definition(prepared.frozen)
    say("converting to ONNX with tf2onnx")
    refused = _Refused()
    logging.getLogger("tf2onnx").addHandler(refused)
    try:
        model, _ = tf2onnx.from_graph_def(
            graph,
            name=job.name,
            input_names=list(inputs.values()),
            output_names=list(outputs.values()),
            opset=OPSET,
        )
    except Exception as error:
        named = ", ".join(sorted(refused.operations))
        reason = f"it has no rule for {named}" if named else one_line(error)
        raise LoadFailed(f"tf2onnx cannot convert the model: {reason}") from error
    finally:
        logging.getLogger("tf2onnx").removeHandler(refused)
    names = {tensor: name for name, tensor in (*inputs.items(), *outputs.items())}
    onnx_graph.rename(model, names)
    onnx_graph.describe(model, prepared.signature)
    onnx.save(model, str(job.version_folder / TARGETS["onnx"].file))
    versions = of("tf2onnx", "onnx", "tensorflow-cpu", "tensorflow")
    return Made(prepared.name, prepared.cut, versions=versions)
