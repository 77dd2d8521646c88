"""The proof of a port as one document: what was carried over, and how alike the answers are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossfade.serving.repository.lineage import digest_folder
from crossfade.training.torch_port.coverage import coverage
from crossfade.training.torch_port.module import Ported, port
from crossfade.training.torch_port.parity import compare
from crossfade.training.torch_port.probes import picture_files, probes
from crossfade.training.torch_port.reference import (
    OnnxReference,
    Reference,
    SavedModelReference,
    TfliteReference,
)
from crossfade.training.weights.graph import Graph
from crossfade.training.weights.inventory import Inventory, digest


def prove(
    path: Path,
    graph: Graph,
    found: Inventory,
    *,
    signature: str = "",
    images: Path | None = None,
    side: int = 224,
    allow: Sequence[str] = (),
) -> dict[str, Any]:
    """Ports a graph and compares; raises as ``port`` and ``probes``.

    Args:
        path: where the graph was read from.
        graph: as it was read.
        found: its weights.
        signature: of a SavedModel.
        images: a folder of pictures, or one.
        side: of square pictures in pixels, where the graph leaves it open.
        allow: regular expressions of weights that may stay behind.
    """
    ported = port(graph)
    covered = coverage(found, ported.carried, allow)
    files = picture_files(images) if images is not None else []
    report = compare(ported, reference(path, graph, signature), probes(graph, files, side))
    return {
        "passed": report.passed and covered.complete,
        "source": {"format": graph.source, "sha256": digest_folder(path)},
        "module": {"sha256": digest_of_module(ported)},
        "coverage": covered.as_dict(),
        "parity": report.as_dict(),
    }


def reference(path: Path, graph: Graph, signature: str = "") -> Reference:
    """The export, run by its own library."""
    if graph.source == "savedmodel":
        return SavedModelReference(path, graph, signature)
    return OnnxReference(path, graph) if graph.source == "onnx" else TfliteReference(path, graph)


def digest_of_module(ported: Ported) -> str:
    """SHA-256 of all parameters and buffers with their names."""
    total = hashlib.sha256()
    for name, value in sorted(ported.state_dict().items()):
        total.update(name.encode() + digest(value.cpu().numpy()).encode())
    return total.hexdigest()
