"""SavedModel to TFLite, with floats or calibrated to 8-bit integers, by TensorFlow's converter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Tensor
from crossfade.runtimes.reason import one_line
from crossfade.runtimes.savedmodel.library import tensorflow
from crossfade.serving.conversion import calibration, tensorflow_graph
from crossfade.serving.conversion.job import Job, Made
from crossfade.serving.conversion.savedmodel_source import Say, prepare
from crossfade.serving.conversion.targets import TARGETS
from crossfade.serving.conversion.versions import of

_REFUSED: Final = re.compile(r"\btf\.(\w+)\b")
_LISTED: Final = re.compile(r"(?:TF Select|Flex|Custom) ops: ([\w, ]+)")


def convert(job: Job, say: Say) -> Made:
    """Writes ``model.tflite``; inputs and outputs stay floats.

    Raises:
        InvalidArgument: see ``savedmodel_source.prepare``; no data for 8 bits.
        LoadFailed: the converter cannot do it; the message names the operations.
    """
    target = TARGETS[job.target]
    tf = tensorflow()
    prepared = prepare(job, say)
    folder = job.scratch / "constants"
    # Written again as constants: from the model itself the converter may leave variables
    # unfrozen, and write a file that answers NaN.
    tensorflow_graph.write(prepared.frozen, folder)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(folder), signature_keys=[DEFAULT_SIGNATURE]
    )
    origin = ""
    if target.quantised:
        rows = calibration.rows(job, prepared.signature, say)
        origin = rows.origin

        def representative() -> Iterator[dict[str, Tensor]]:
            for index in range(rows.count):
                yield dict(rows.batch(index, index + 1))

        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        sets = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if job.activation_bits == 16
            else sets.TFLITE_BUILTINS_INT8
        ]
    say(f"converting to {job.target} with TensorFlow's converter")
    try:
        content = converter.convert()
    except Exception as error:
        raise LoadFailed(f"the converter to TFLite failed: {_reason(error)}") from error
    (job.version_folder / target.file).write_bytes(content)
    return Made(prepared.name, prepared.cut, origin, of("tensorflow-cpu", "tensorflow"))


def _reason(error: Any) -> str:
    listed = _LISTED.search(str(error))
    if listed:
        return f"TFLite has no {listed[1].strip()}"
    found = sorted({name for name in _REFUSED.findall(str(error)) if name[0].isupper()})
    return f"TFLite has no {', '.join(found)}" if found else one_line(error)
