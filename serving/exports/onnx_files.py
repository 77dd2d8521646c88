"""Finds the files that an ONNX model keeps its weights in, without the library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, LoadFailed
from crossfade.serving.exports.unpack import inside
from crossfade.serving.wire.fields import walk

_MAX_FIELDS: Final = 5_000_000
# Field numbers of ModelProto, GraphProto, NodeProto, AttributeProto, TensorProto and its entries.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_NODE, _INITIALIZER = 1, 5
_FUNCTION_NODE = 7
_ATTRIBUTE = 5
_TENSOR, _GRAPH, _TENSORS, _GRAPHS = 5, 6, 10, 11
_EXTERNAL = 13
_KEY, _VALUE = 1, 2
_MAX_NESTING: Final = 64


def external(model: Path) -> set[str]:
    """Paths of the files with weights, relative to the model's folder.

    Raises:
        LoadFailed: it is no ONNX model, or a damaged one.
        InvalidArgument: a path leaves the model's folder.
    """
    try:
        content = memoryview(model.read_bytes())
    except OSError as error:
        raise LoadFailed(f"'{model.name}' cannot be read: {error.strerror}") from error
    if not content:
        raise LoadFailed(f"'{model.name}' is empty")
    return {str(inside(name)) for name in _of_model(content)}


def _of_model(view: memoryview) -> Iterator[str]:
    for graph in _all(view, _MODEL_GRAPH):
        yield from _of_graph(graph, 0)
    for function in _all(view, _MODEL_FUNCTION):
        for node in _all(function, _FUNCTION_NODE):
            yield from _of_node(node, 0)


def _of_graph(graph: memoryview, depth: int) -> Iterator[str]:
    if depth > _MAX_NESTING:
        raise InvalidArgument("the ONNX model's graphs are nested too deeply")
    for tensor in _all(graph, _INITIALIZER):
        yield from _of_tensor(tensor)
    for node in _all(graph, _NODE):
        yield from _of_node(node, depth)


def _of_node(node: memoryview, depth: int) -> Iterator[str]:
    for attribute in _all(node, _ATTRIBUTE):
        for field in (_TENSOR, _TENSORS):
            for tensor in _all(attribute, field):
                yield from _of_tensor(tensor)
        for field in (_GRAPH, _GRAPHS):
            for graph in _all(attribute, field):
                yield from _of_graph(graph, depth + 1)


def _of_tensor(tensor: memoryview) -> Iterator[str]:
    for entry in _all(tensor, _EXTERNAL):
        if b"location" in (bytes(key) for key in _all(entry, _KEY)):
            yield from (bytes(v).decode("utf-8", "replace") for v in _all(entry, _VALUE))


def _all(view: memoryview, field: int) -> Iterator[memoryview]:
    wanted = field << 3 | 2
    try:
        for tag, _, start, end in walk(view, _MAX_FIELDS):
            if tag == wanted:
                yield view[start:end]
    except (IndexError, CrossfadeError):
        raise LoadFailed("it is no ONNX model, or a damaged one") from None
