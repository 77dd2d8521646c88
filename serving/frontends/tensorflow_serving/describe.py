"""What is known of models: their signatures and the states of their versions."""

from __future__ import annotations

from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, NotFound, escape
from crossfade.runtimes.core.model import ModelRef, TensorSpec
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.tensorflow_serving import model_spec
from crossfade.serving.frontends.tensorflow_serving.tensor_codec import BY_DTYPE
from crossfade.serving.lifecycle.versions import IndexEntry
from crossfade.serving.wire import tf_error, tf_framework
from crossfade.serving.wire import tf_serving as wire

SIGNATURE_DEF: Final = "signature_def"


def metadata(plane: DataPlane, ref: ModelRef) -> Any:
    """The ``GetModelMetadataResponse``; raises as ``model_spec.facts`` does."""
    served = model_spec.facts(plane, ref)
    found = wire.SignatureDefMap()
    for name, signature in served.metadata.signatures.items():
        definition = found.signature_def[name]
        definition.method_name = f"tensorflow/serving/{signature.method}"
        for spec in signature.inputs:
            definition.inputs[spec.name].CopyFrom(_info(spec))
        for spec in signature.outputs:
            definition.outputs[spec.name].CopyFrom(_info(spec))
    response = wire.GetModelMetadataResponse(
        model_spec=model_spec.answered(served.metadata.name, served.metadata.version, "")
    )
    response.metadata[SIGNATURE_DEF].Pack(found)
    return response


def check_fields(fields: Any) -> None:
    """Raises InvalidArgument unless exactly what there is was asked for."""
    if not fields:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in fields:
        if field != SIGNATURE_DEF:
            raise InvalidArgument(f"Metadata field {escape(field)} is not supported")


def status(plane: DataPlane, ref: ModelRef) -> Any:
    """The ``GetModelStatusResponse`` of one version or of all, the newest first.

    Raises:
        InvalidArgument: no such label.
        NotFound: no such model or version.
    """
    version = ref.version
    if ref.label is not None:
        version = model_spec.facts(plane, ref).metadata.version
    lines = plane.manager.states(ref.name)
    response = wire.GetModelStatusResponse()
    for line in sorted(lines, key=lambda line: line.version or 0, reverse=True):
        if line.version is not None and version in (None, line.version):
            _add(response, line)
    if not response.model_version_status:
        name = escape(ref.name)
        what = f"version {version}" if version is not None else "any versions"
        raise NotFound(f"Could not find {what} of model {name}")
    return response


def _add(response: Any, line: IndexEntry) -> None:
    state = line.state.name if line.state else "START"
    found = response.model_version_status.add(
        version=line.version, state=getattr(wire.ModelVersionStatus, state)
    )
    found.status.SetInParent()
    if line.failed:
        found.status.error_code = tf_error.INTERNAL
        found.status.error_message = line.reason


def _info(spec: TensorSpec) -> Any:
    """A ``TensorInfo``; names within a graph are nobody's business, so it has the alias."""
    info = tf_framework.TensorInfo(name=spec.name, dtype=BY_DTYPE[spec.dtype].number)
    info.tensor_shape.unknown_rank = spec.shape is None
    for size in spec.shape or ():
        info.tensor_shape.dim.add(size=size)
    return info
