"""``ModelSpec``: which model is meant, and which one answered."""

from __future__ import annotations

from typing import Any

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, NotFound, escape
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.wire import tf_serving as wire


def to_ref(request: Any) -> ModelRef:
    """Reads the ``model_spec`` of any request.

    Raises:
        InvalidArgument: there is none, or it names no model, or both a version and a label.
    """
    if not request.HasField("model_spec"):
        raise InvalidArgument("Missing ModelSpec")
    spec = request.model_spec
    if not spec.name:
        raise InvalidArgument("ModelSpec has no name specified.")
    # No version is 0; OpenVINO's client writes it where it means the latest.
    version = (spec.version.value or None) if spec.HasField("version") else None
    label = spec.version_label or None
    if version is not None and label is not None:
        raise InvalidArgument("ModelSpec has both a version and a version label.")
    return ModelRef(spec.name, version, label)


def answered(name: str, version: int, signature: str) -> Any:
    """The ``ModelSpec`` of an answer."""
    spec = wire.ModelSpec(name=name, signature_name=signature)
    spec.version.value = version
    return spec


def facts(plane: DataPlane, ref: ModelRef) -> Served:
    """The version that is meant, without holding a lease: only its facts are read.

    Raises:
        NotFound: no such model or version.
        InvalidArgument: no such label.
        Unavailable: not now.
    """
    try:
        return plane.facts(ref)
    except NotFound as error:
        raise not_found(error, ref) from None


def not_found(error: CrossfadeError, ref: ModelRef) -> CrossfadeError:
    """Says in TensorFlow Serving's words that a model is not there; other errors stay."""
    if not isinstance(error, NotFound):
        return error
    if ref.label is not None:
        return InvalidArgument(f"Unrecognized servable version label: {escape(ref.label)}")
    name = escape(ref.name)
    what = f"Latest({name})" if ref.version is None else f"Specific({name}, {ref.version})"
    return NotFound(f"Servable not found for request: {what}")
