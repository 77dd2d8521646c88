"""How a picture becomes an input: what the files say of it, and what they do not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from crossfade.serving.exports import hosting, saved_model, tflite
from crossfade.serving.exports.kinds import Fact

METADATA: Final = "tflite_metadata.json"
_RESIZES: Final[Mapping[str, str]] = {
    "ResizeBilinear": "bilinear",
    "ResizeBicubic": "bicubic",
    "ResizeNearestNeighbor": "nearest",
    "ResizeArea": "area",
}
_DECODES: Final = frozenset({"DecodeImage", "DecodeJpeg", "DecodePng", "DecodeBmp", "DecodeGif"})
# Of Vertex AI's file; what else it says is in the graph, too.
_WRITTEN: Final = ("inferenceType", "outputTensorRepresentation", "maxDetections")


def of_tflite(graph: tflite.Graph, folder: Path) -> list[Fact]:
    """Facts of the inputs that look like pictures: [1, height, width, 1 or 3]."""
    facts: list[Fact] = []
    for tensor in graph.inputs:
        if len(tensor.shape) != 4 or tensor.shape[3] not in (1, 3):
            continue
        height, width, channels = tensor.shape[1:]
        of_shape = f"the shape of '{tensor.name}', {list(tensor.shape)}"
        facts += [
            Fact("width x height", f"{width} x {height}", of_shape),
            Fact("channels", channels, of_shape),
            _normalisation(tensor),
            Fact(
                "resize filter",
                None,
                "not in the export: take the one that the model was trained with; scores differ",
            ),
        ]
    document = hosting.read_json(folder / METADATA)
    facts += [Fact(key, document[key], METADATA) for key in _WRITTEN if key in document]
    return facts


def _normalisation(tensor: tflite.Tensor) -> Fact:
    if tensor.quantization is None:
        return Fact("normalisation", None, f"not in the export: '{tensor.name}' is not quantised")
    scale, zero = tensor.quantization
    low, high = (scale * (value - zero) for value in (0, 255))
    return Fact(
        "normalisation",
        f"pixels 0..255 as they are; the network sees {low:.3f}..{high:.3f}"
        if tensor.dtype == "UINT8"
        else f"real value / {scale:.8g} + {zero}",
        f"the quantisation of '{tensor.name}': {scale:.8g} * (value - {zero})",
    )


def of_graph(graph: saved_model.Graph) -> list[Fact]:
    """Facts of a SavedModel that takes encoded pictures: what its ops do."""
    decodes = sorted(graph.ops & _DECODES)
    if not decodes:
        return []
    facts = [Fact("decoding", "by the model: send JPEG or PNG bytes", f"op {', '.join(decodes)}")]
    resizes = sorted(graph.ops & _RESIZES.keys())
    if resizes:
        filters = ", ".join(_RESIZES[op] for op in resizes)
        facts.append(Fact("resize filter", f"{filters}, by the model", f"op {', '.join(resizes)}"))
    return facts


def softmax_or_logistic(graph: tflite.Graph) -> list[Fact]:
    """Whether scores share one sum, by the op that writes them."""
    said: Mapping[str, Any] = {
        "SOFTMAX": "one label a picture: scores sum to 1",
        "LOGISTIC": "any number of labels a picture: scores are independent",
    }
    return [
        Fact("labels a picture", said[op], f"the op that writes '{name}' is {op}")
        for name, op in graph.last_ops.items()
        if op in said
    ]
