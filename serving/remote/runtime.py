"""Opens ``remote.yaml``, or a ``model.yaml`` whose platform is ``remote``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

import yaml

from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Artifact, Session, Signature
from crossfade.serving.remote.contract import Contract, Place
from crossfade.serving.remote.credentials import credentials
from crossfade.serving.remote.open_inference import OpenInferenceGrpc, OpenInferenceHttp
from crossfade.serving.remote.options import RemoteOptions
from crossfade.serving.remote.session import RemoteSession
from crossfade.serving.remote.tensorflow_serving import (
    TensorflowServingGrpc,
    TensorflowServingRest,
)
from crossfade.serving.remote.vertex import Vertex

_CONTRACTS: Final[Mapping[str, Callable[[Place], Contract]]] = {
    "open_inference_grpc": OpenInferenceGrpc,
    "open_inference_http": OpenInferenceHttp,
    "tensorflow_serving_grpc": TensorflowServingGrpc,
    "tensorflow_serving_rest": TensorflowServingRest,
    "vertex": Vertex,
}


class RemoteRuntime:
    """Makes sessions of models that other servers have."""

    platform: ClassVar[str] = "remote"

    def estimate(self, artifact: Artifact) -> int:
        """0 bytes: the weights are elsewhere."""
        return 0

    def load(self, artifact: Artifact) -> Session:
        """Asks the server what the model takes and gives, unless that is declared."""
        if artifact.path.is_dir():
            options, folder = RemoteOptions.read(artifact.options), artifact.path
        else:
            options, folder = _read(artifact), artifact.path.parent
        model = options.model or artifact.name
        place = Place(options, model, folder, credentials(options, folder))
        contract = _CONTRACTS[options.protocol](place)
        try:
            return RemoteSession(artifact.name, options, contract, _declared(options))
        except CrossfadeError as error:
            contract.close()
            raise LoadFailed(
                f"the metadata of '{model}' cannot be read: {error.message}; with inputs and"
                " outputs declared it is not needed"
            ) from error


def _read(artifact: Artifact) -> RemoteOptions:
    name = artifact.path.name
    if artifact.options:
        raise LoadFailed(f"options are given both in {name} and in the model's configuration")
    try:
        raw: Any = yaml.safe_load(artifact.path.read_bytes())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise LoadFailed(f"{name} is not YAML that can be read") from error
    if not isinstance(raw, dict):
        raise LoadFailed(f"{name} must be a mapping of keys to values")
    return RemoteOptions.read(raw, name)


def _declared(options: RemoteOptions) -> Mapping[str, Signature] | None:
    if not options.inputs:
        return None
    inputs = [declared.spec() for declared in options.inputs]
    outputs = [declared.spec() for declared in options.outputs]
    name = options.signature or DEFAULT_SIGNATURE
    return {name: Signature.derive(inputs, outputs)}
