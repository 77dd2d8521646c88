"""Which ops of a graph stock TensorFlow does not have, and what brings them.

TensorFlow's own registry knows, where it is installed. Without it there is the list below: the
ops that the packages themselves register, read off their wheels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.savedmodel import library
from crossfade.serving.exports.kinds import MissingOp

STRUCT2TENSOR: Final = "struct2tensor"
# Its ops are these in 0.48.1, which brings TensorFlow 2.17; they do not load into a newer one.
_STRUCT2TENSOR_OPS: Final = frozenset(
    {
        *("DecodeProtoMap", "DecodeProtoMapV2"),
        *("DecodeProtoSparseV2", "DecodeProtoSparseV3", "DecodeProtoSparseV4"),
        *("EquiJoinAnyIndices", "EquiJoinIndices", "ParquetDataset", "RunLengthBefore"),
    }
)
# tensorflow-text 2.17; its newer ops begin with TFText>.
_TEXT_OPS: Final = frozenset(
    {
        *("CaseFoldUTF8", "ConstrainedSequence", "FastBertNormalize", "FindSourceOffsets"),
        *("FastWordpieceTokenizeWithOffsets", "MaxSpanningTree", "NormalizeUTF8"),
        *("NormalizeUTF8WithOffsetsMap", "PhraseTokenize", "RegexSplitWithOffsets", "RougeL"),
        *("SentenceFragments", "SentenceFragmentsV2", "SentencepieceDetokenizeOp"),
        *("SentencepieceIdToStringOp", "SentencepieceOp", "SentencepieceStringToIdOp"),
        *("SentencepieceTokenizeOp", "SentencepieceTokenizeWithOffsetsOp"),
        *("SentencepieceVocabSizeOp", "SplitMergeTokenizeWithOffsets", "TokenizerFromLogits"),
        *("UnicodeScriptTokenizeWithOffsets", "WhitespaceTokenizeWithOffsets"),
        "WordpieceTokenizeWithOffsets",
    }
)
_PREFIXES: Final[Mapping[str, str]] = {"Addons>": "tensorflow-addons", "TFText>": "tensorflow-text"}
_PINS: Final[Mapping[str, str]] = {STRUCT2TENSOR: "struct2tensor==0.48.1"}


def missing(ops: Collection[str]) -> tuple[Sequence[MissingOp], str]:
    """Which of a graph's ops stock TensorFlow does not have, and how that is known.

    Args:
        ops: of the whole graph, without its own functions.
    """
    known = _registered(ops)
    if known is None:
        foreign = {op for op in ops if package_of(op)}
        source = "a list of known packages, since TensorFlow is not installed"
    else:
        # An installed package may have registered its ops: they are foreign all the same.
        foreign = {op for op in ops if op not in known or package_of(op)}
        source = "the op registry of the TensorFlow installed here"
    found = [(op, package_of(op)) for op in sorted(foreign)]
    return [MissingOp(op, package, _PINS.get(package, "")) for op, package in found], source


def package_of(op: str) -> str:
    """The distribution that brings an op; empty for stock ops and unknown ones."""
    if op in _STRUCT2TENSOR_OPS:
        return STRUCT2TENSOR
    if op in _TEXT_OPS:
        return "tensorflow-text"
    return next((name for prefix, name in _PREFIXES.items() if op.startswith(prefix)), "")


def _registered(ops: Collection[str]) -> frozenset[str] | None:
    if importlib.util.find_spec("tensorflow") is None:
        return None
    try:
        return library.registered_ops(ops)
    except CrossfadeError:  # it is installed and broken
        return None
