"""Reads one fact from an .onnx file that ONNX Runtime's Python interface hides.

It reports ``[]`` both for a scalar and for a value of unknown rank; the file says which.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# Field numbers of onnx.proto, stable since IR version 1.
_GRAPH, _INPUT, _OUTPUT = 7, 11, 12
_NAME, _TYPE, _TENSOR, _SHAPE = 1, 2, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def ranked(path: Path) -> frozenset[str]:
    """Returns the graph inputs and outputs whose shape, and so their rank, is in the file.

    Walks over the weights without reading them. To be called on a file that loaded.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return frozenset(
            data[start:end].decode()
            for graph in _fields(data, (0, len(data)), {_GRAPH})
            for value in _fields(data, graph, {_INPUT, _OUTPUT})
            if _has_shape(data, value)
            for start, end in _fields(data, value, {_NAME})
        )


def _has_shape(data: mmap.mmap, value: tuple[int, int]) -> bool:
    return any(
        True
        for kind in _fields(data, value, {_TYPE})
        for tensor in _fields(data, kind, {_TENSOR})
        for _ in _fields(data, tensor, {_SHAPE})
    )


def _fields(data: mmap.mmap, span: tuple[int, int], wanted: set[int]) -> Iterator[tuple[int, int]]:
    """Yields start and end of each length-delimited field that is wanted."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if key >> 3 in wanted:
                yield at, at + length
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        else:
            at += {_FIXED64: 8, _FIXED32: 4}[kind]


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
