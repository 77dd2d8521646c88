"""The keys of ``model.yaml`` that let clients of a TFLite model send image files.

Every value is read from the file but one, which the caller gives: the resize filter.
"""

from __future__ import annotations

from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports import edge, tflite
from crossfade.serving.exports.kinds import Export, Findings, Kind

# By the op that writes the scores.
_TASKS: Final = {"SOFTMAX": "classification", "LOGISTIC": "multi_label"}


def keys(export: Export, found: Findings, resize_filter: str) -> dict[str, Any]:
    """``task``, ``preprocess`` and ``postprocess``, with the names of AutoML's containers.

    Where the file does not say which task it is for, only ``preprocess``.

    Raises:
        InvalidArgument: it takes image files already, takes none, or does not say how a pixel
            becomes its input.
        LoadFailed, MissingExtra: the file cannot be read.
    """
    if export.kind in (Kind.CONTAINER_CLASSIFICATION, Kind.CONTAINER_DETECTION):
        raise InvalidArgument("--images: this model takes image files as it is")
    if export.platform != "tflite":
        raise InvalidArgument(
            "--images is for TFLite models; of others the file does not say how a pixel becomes"
            " their input: write preprocess into model.yaml (docs/preprocessing.md)"
        )
    graph = tflite.read(export.model)
    pictures = [t for t in graph.inputs if len(t.shape) == 4 and t.shape[3] in (1, 3)]
    if len(pictures) != 1:
        raise InvalidArgument("--images: the model has no input, or several, that is a picture")
    (picture,) = pictures
    if picture.dtype != "UINT8":
        raise InvalidArgument(
            f"--images: input '{picture.name}' is {picture.dtype}, and how a pixel becomes that is"
            " not in the file: write preprocess into model.yaml (docs/preprocessing.md)"
        )
    preprocess = {"name": "image_bytes", "key": "key", "resize": {"filter": resize_filter}}
    task = _task(export, found, graph)
    if task is None:
        return {"preprocess": preprocess}
    return {"task": task, "preprocess": preprocess, "postprocess": {}}


def _task(export: Export, found: Findings, graph: tflite.Graph) -> str | None:
    twin = edge.twin(export.model) if export.kind is Kind.EDGE_TPU else None
    said = tflite.read(twin) if twin is not None else graph
    if tflite.DETECTION_OP in said.custom:
        return "tracking" if found.sequence is not None else "detection"
    ops = list(said.last_ops.values())
    return _TASKS.get(ops[0]) if len(ops) == 1 else None
