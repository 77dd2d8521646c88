"""Names that a request gives, checked against a signature; in TensorFlow Serving's words."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Final

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Signature
from crossfade.serving.tensors import cells

_MAX_TEXT: Final = 1024
_MAX_NAMES: Final = 256


def check_inputs(signature: Signature, sent: Iterable[str]) -> None:
    """Raises InvalidArgument unless the inputs are those of the signature."""
    others = {s.alternative.name: s.name for s in signature.inputs if s.alternative}
    names = {others.get(name, name) for name in sent}
    known = {spec.name for spec in signature.inputs}
    missing = {spec.name for spec in signature.inputs if not spec.optional} - names
    columns = {spec.name for spec in signature.inputs if spec.cells}
    if columns and names - known:
        raise cells.unknown(min(names - known), columns)
    if names - known or missing:
        raise _invalid(
            f"input size does not match signature: {len(names)}!={len(known)}"
            f" len({_set(names)}) != len({_set(known)})."
            f" Sent extra: {_set(names - known)}. Missing but required: {_set(missing)}."
        )


def check_outputs(signature: Signature, wanted: Iterable[str]) -> None:
    """Raises InvalidArgument if an output is unknown or wanted twice."""
    known = {spec.name for spec in signature.outputs}
    for name, times in collections.Counter(wanted).items():
        if name not in known:
            raise _invalid(
                f"output tensor alias not found in signature: {escape(name)} Outputs expected to"
                f" be in the set {_set(known)}."
            )
        if times > 1:
            raise InvalidArgument(f"duplicate output tensor alias: {escape(name)}")


def _invalid(text: str) -> InvalidArgument:
    """Cut as TensorFlow Serving cuts it: gRPC sends messages as headers, which have a limit."""
    return InvalidArgument(text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}...TRUNCATED")


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(escape(name) for name in sorted(names)[:_MAX_NAMES]) + "}"
