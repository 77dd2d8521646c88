"""Opens a backbone of an export's file, once it is shown that its port is the export."""

from __future__ import annotations

from pathlib import Path

from crossfade.runtimes.core.errors import FailedPrecondition
from crossfade.training.backbones.backbone import Backbone, Pixels
from crossfade.training.backbones.cutting import cut
from crossfade.training.torch_port.module import port
from crossfade.training.torch_port.parity import compare
from crossfade.training.torch_port.probes import probes
from crossfade.training.torch_port.proof import reference
from crossfade.training.weights.read import read


def open_backbone(
    path: Path, signature: str, place: str, pixels: str, *, moving_statistics: bool = False
) -> Backbone:
    """The features of an export.

    Args:
        path: SavedModel, TFLite or ONNX.
        signature: of a SavedModel; "" is its default.
        place: a tensor's or node's name to cut at; "" finds it by structure.
        pixels: range of an export that does not say it; "" for others.
        moving_statistics: as ``Backbone``.

    Raises:
        FailedPrecondition: a layer answers otherwise.
        InvalidArgument: it has no features, is not of pictures, or cannot be ported.
    """
    graph = read(path, signature)
    found = cut(graph, place)
    report = compare(port(graph), reference(path, graph, signature), probes(graph, side=96))
    if not report.passed:
        wrong = report.wrong[0] if report.wrong else "first choices"
        raise FailedPrecondition(
            f"the export cannot be carried over: '{wrong}' differs (crossfade weights --parity)"
        )
    return Backbone(found, Pixels.of(found, pixels), moving_statistics=moving_statistics)
