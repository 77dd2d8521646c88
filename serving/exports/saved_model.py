"""Reads ``saved_model.pb`` without TensorFlow: its ops, its signatures, its tags.

Only the fields that are wanted are visited, so that the weights of a frozen graph are stepped over
and no depth of nesting costs anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError

from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.serving.wire import tf_framework as wire
from crossfade.serving.wire.fields import walk

FILES: Final = ("saved_model.pb", "saved_model.pbtxt")
DTYPES: Final[Mapping[int, str]] = {
    wire.DT_FLOAT: "FP32",
    wire.DT_DOUBLE: "FP64",
    wire.DT_HALF: "FP16",
    wire.DT_BFLOAT16: "BF16",
    wire.DT_INT8: "INT8",
    wire.DT_INT16: "INT16",
    wire.DT_INT32: "INT32",
    wire.DT_INT64: "INT64",
    wire.DT_UINT8: "UINT8",
    wire.DT_UINT16: "UINT16",
    wire.DT_UINT32: "UINT32",
    wire.DT_UINT64: "UINT64",
    wire.DT_BOOL: "BOOL",
    wire.DT_STRING: "BYTES",
}
_MAX_FIELDS: Final = 5_000_000
# Field numbers of the public messages.
_META_GRAPH = 2  # SavedModel
_META_INFO, _GRAPH, _SIGNATURE = 1, 2, 5  # MetaGraphDef
_TAG = 4  # MetaInfoDef
_NODE, _LIBRARY = 1, 2  # GraphDef
_FUNCTION = 1  # FunctionDefLibrary
_FUNCTION_SIGNATURE, _FUNCTION_NODE = 1, 3  # FunctionDef
_NAME = 1  # OpDef
_OP = 2  # NodeDef
_KEY, _VALUE = 1, 2  # an entry of a map


@dataclasses.dataclass(frozen=True, slots=True)
class Graph:
    """What a SavedModel's graph says.

    Attributes:
        ops: names of all ops, those in functions too, without the functions themselves.
        signatures: inputs, outputs and method by name, as they are declared.
    """

    ops: frozenset[str]
    signatures: Mapping[str, Any]
    tags: tuple[str, ...]


def is_folder_of(folder: Path) -> bool:
    """Whether a SavedModel lies directly in the folder."""
    return any((folder / name).is_file() for name in FILES)


def read(folder: Path) -> Graph | None:
    """Reads the graph to be served; ``None`` where it is in text format, which is not read.

    Raises:
        LoadFailed: it is no SavedModel, or a damaged one.
    """
    file = folder / FILES[0]
    if not file.is_file():
        return None
    try:
        content = memoryview(file.read_bytes())
    except OSError as error:
        raise LoadFailed(f"saved_model.pb cannot be read: {error.strerror}") from error
    return parse(content)


def parse(content: memoryview) -> Graph:
    """Reads the bytes of ``saved_model.pb``; raises as ``read``."""
    graphs = [_meta_graph(view) for view in _all(content, _META_GRAPH)]
    if not graphs:
        raise LoadFailed("the SavedModel holds no graph")
    return next((graph for graph in graphs if "serve" in graph.tags), graphs[0])


def _meta_graph(view: memoryview) -> Graph:
    tags = tuple(_text(tag) for info in _all(view, _META_INFO) for tag in _all(info, _TAG))
    ops: set[str] = set()
    functions: set[str] = set()
    for graph in _all(view, _GRAPH):
        ops.update(map(_op, _all(graph, _NODE)))
        for library in _all(graph, _LIBRARY):
            for function in _all(library, _FUNCTION):
                for signature in _all(function, _FUNCTION_SIGNATURE):
                    functions.update(map(_text, _all(signature, _NAME)))
                ops.update(map(_op, _all(function, _FUNCTION_NODE)))
    signatures = dict(_signature(entry) for entry in _all(view, _SIGNATURE))
    served = {n: signatures[n] for n in sorted(signatures) if not n.startswith("__saved_model")}
    return Graph(frozenset(ops - functions - {""}), served, tags)


def _op(node: memoryview) -> str:
    return next(map(_text, _all(node, _OP)), "")


def _signature(entry: memoryview) -> tuple[str, dict[str, Any]]:
    name = next(map(_text, _all(entry, _KEY)), "")
    definition = wire.SignatureDef()
    try:
        for value in _all(entry, _VALUE):
            definition.MergeFromString(bytes(value))
    except DecodeError:
        raise _damaged() from None
    return name, {
        "inputs": _tensors(definition.inputs),
        "outputs": _tensors(definition.outputs),
        "method": definition.method_name.rpartition("/")[2] or "predict",
    }


def _tensors(infos: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {
            "dtype": DTYPES.get(infos[name].dtype, f"type {infos[name].dtype}"),
            "shape": None
            if infos[name].tensor_shape.unknown_rank
            else [dim.size for dim in infos[name].tensor_shape.dim],
        }
        for name in sorted(infos)
    }


def _all(view: memoryview, field: int) -> Iterator[memoryview]:
    """The contents of every occurrence of a message or text field."""
    tag_wanted = field << 3 | 2
    try:
        for tag, _, start, end in walk(view, _MAX_FIELDS):
            if tag == tag_wanted:
                yield view[start:end]
    except (IndexError, CrossfadeError):
        raise _damaged() from None


def _text(view: memoryview) -> str:
    return bytes(view).decode("utf-8", "replace")


def _damaged() -> LoadFailed:
    return LoadFailed("saved_model.pb is no SavedModel, or a damaged one")
