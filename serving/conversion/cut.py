"""Where a graph can be cut so that what a converter cannot do stays in front of it. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Final

# Operations on files, texts and protobufs, which no other format has.
DECODERS: Final = frozenset(
    {
        *("DecodeImage", "DecodeJpeg", "DecodePng", "DecodeGif", "DecodeBmp", "DecodeWebP"),
        *("DecodeAndCropJpeg", "DecodeWav", "DecodeRaw", "DecodePaddedRaw", "DecodeCSV"),
        *("DecodeBase64", "DecodeCompressed", "DecodeJSONExample", "DecodeProtoV2"),
        *("ExtractJpegShape", "ReadFile"),
    }
)
IMPOSSIBLE: Final = DECODERS | {
    *("ParseExample", "ParseExampleV2", "ParseSingleExample", "ParseTensor"),
    *("PyFunc", "PyFuncStateless", "EagerPyFunc"),
    *("HashTable", "HashTableV2", "LookupTableFind", "LookupTableFindV2"),
    *("StringSplit", "StringSplitV2", "RegexReplace", "StaticRegexReplace", "StringToNumber"),
    *("StringToHashBucketFast", "StringToHashBucket", "StringToHashBucketStrong"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node of a graph.

    Attributes:
        operations: its own, and those of the functions that it runs.
        inputs: tensors it reads, as ``name:index``.
    """

    operations: frozenset[str]
    inputs: tuple[str, ...]


def tensor_name(text: str) -> str:
    """A ``GraphDef``'s spelling of an input as a tensor's name: ``x`` is ``x:0``."""
    return text if ":" in text else f"{text}:0"


def needed(
    nodes: Mapping[str, Node], outputs: Iterable[str], cut: frozenset[str] = frozenset()
) -> set[str]:
    """Nodes that outputs (tensors) need, not looking behind the tensors of ``cut``."""
    waiting = [tensor for tensor in outputs if tensor not in cut]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().partition(":")[0]
        if name not in seen and name in nodes:
            seen.add(name)
            waiting += [tensor for tensor in nodes[name].inputs if tensor not in cut]
    return seen


def impossible(nodes: Mapping[str, Node], names: Iterable[str]) -> set[str]:
    """Operations among these nodes that no converter can do."""
    return {op for name in names for op in nodes[name].operations & IMPOSSIBLE}


def find_cut(
    nodes: Mapping[str, Node],
    inputs: Iterable[str],
    outputs: Iterable[str],
    fits: Callable[[str], bool],
) -> str | None:
    """The earliest tensor after which everything can be converted, and which alone is enough.

    Args:
        nodes: the graph by node name.
        inputs: tensors that come before the cut.
        outputs: tensors that must not need the inputs any more once the cut is fed.
        fits: whether a tensor can be a model's input.

    Returns:
        A tensor's name, or ``None``: there is no such place.
    """
    wanted, starts = list(outputs), {name.partition(":")[0] for name in inputs}
    for name in _in_order(nodes, wanted):
        tensor = f"{name}:0"
        if name in starts or tensor in wanted or not needed(nodes, [tensor]) & starts:
            continue
        if not fits(tensor):
            continue
        rest = needed(nodes, wanted, frozenset({tensor}))
        if not rest & starts and not impossible(nodes, rest):
            return tensor
    return None


def _in_order(nodes: Mapping[str, Node], outputs: Iterable[str]) -> list[str]:
    """Nodes that outputs need, each after those that it needs."""
    order: list[str] = []
    done: set[str] = set()
    stack = [(tensor.partition(":")[0], False) for tensor in outputs]
    while stack:
        name, left = stack.pop()
        if left:
            order.append(name)
        elif name not in done and name in nodes:
            done.add(name)
            stack.append((name, True))
            stack += [(tensor.partition(":")[0], False) for tensor in nodes[name].inputs]
    return order
