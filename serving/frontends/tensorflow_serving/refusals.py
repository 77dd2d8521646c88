"""Refusals in TensorFlow Serving's codes and words.

The door refuses in the words of another protocol. Only when it has refused is the request looked at
again, so that good requests pay nothing for it.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Final

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    escape,
)
from crossfade.runtimes.core.model import Signature
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.tensorflow_serving import model_spec
from crossfade.serving.lifecycle.served import Served

_MAX_TEXT: Final = 1024
_MAX_NAMES: Final = 256


def signature_of(served: Served, name: str | None) -> tuple[str, Signature]:
    """The signature that is meant, and its name.

    Raises:
        FailedPrecondition: the model has none of that name.
    """
    chosen = name or served.default_signature
    found = served.metadata.signatures.get(chosen)
    if found is None:
        raise FailedPrecondition(f'Serving signature key "{escape(chosen)}" not found.')
    return chosen, found


def explain(error: CrossfadeError, plane: DataPlane, query: Query) -> CrossfadeError:
    """The error as TensorFlow Serving would have it."""
    if isinstance(error, NotFound):
        return model_spec.not_found(error, query.ref)
    if not isinstance(error, InvalidArgument):
        return error
    try:
        _, signature = signature_of(model_spec.facts(plane, query.ref), query.signature)
        check_inputs(signature, [raw.name for raw in query.inputs])
        _check_filter(signature, query.outputs)
    except CrossfadeError as better:
        return better
    return error


def check_inputs(signature: Signature, sent: Iterable[str]) -> None:
    """Raises InvalidArgument unless the inputs are those of the signature."""
    names = set(sent)
    known = {spec.name for spec in signature.inputs}
    missing = {spec.name for spec in signature.inputs if not spec.optional} - names
    if names - known or missing:
        raise _invalid(
            f"input size does not match signature: {len(names)}!={len(known)}"
            f" len({_set(names)}) != len({_set(known)})."
            f" Sent extra: {_set(names - known)}. Missing but required: {_set(missing)}."
        )


def _check_filter(signature: Signature, wanted: Iterable[str]) -> None:
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
