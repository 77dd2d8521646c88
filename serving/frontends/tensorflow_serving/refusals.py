"""Refusals in TensorFlow Serving's codes and words.

The door refuses in the words of another protocol. Only when it has refused is the request looked at
again, so that good requests pay nothing for it.
"""

from __future__ import annotations

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
from crossfade.serving.tensors import names


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
        names.check_inputs(signature, [raw.name for raw in query.inputs])
        names.check_outputs(signature, query.outputs)
    except CrossfadeError as better:
        return better
    return error
