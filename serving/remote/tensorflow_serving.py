"""TensorFlow Serving's ``Predict`` of another server, over gRPC and over REST."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from google.protobuf import json_format

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.serving.frontends.tensorflow_serving.describe import SIGNATURE_DEF
from crossfade.serving.frontends.tensorflow_serving.predict_codec import entry
from crossfade.serving.frontends.tensorflow_serving.tensor_codec import (
    BY_NUMBER,
    tensor_bytes,
    to_raw,
)
from crossfade.serving.remote.connecting import http_client
from crossfade.serving.remote.contract import Ask, Place, b64, reading, texts
from crossfade.serving.remote.grpc_client import GrpcClient
from crossfade.serving.remote.http_status import checked
from crossfade.serving.tensors import json_values
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.tensors.validator import MAX_DIMENSIONS
from crossfade.serving.wire import POOL
from crossfade.serving.wire import tf_serving as wire
from crossfade.serving.wire.fields import parse, varint_bytes, walk

_SERVICE: Final = "/tensorflow.serving.PredictionService"
_OUTPUT: Final = 0x0A  # PredictResponse.outputs, length-delimited
_MAX_OUTPUTS: Final = 4096
_MAX_METADATA_BYTES: Final = 4 * 1024 * 1024
_METHOD: Final = "tensorflow/serving/"
_JSON: Final = ("content-type", "application/json")


class TensorflowServingGrpc:
    """See ``Contract``."""

    def __init__(self, place: Place) -> None:
        options = place.options
        self._place = place
        self._client = GrpcClient(options.url, options.tls, place.folder, options.max_answer_bytes)

    def describe(self, until_s: float) -> Mapping[str, Signature]:
        """See ``Contract.describe``."""
        request = wire.GetModelMetadataRequest(model_spec=self._spec())
        request.metadata_field.append(SIGNATURE_DEF)
        data = self._call("GetModelMetadata", request.SerializeToString(), until_s)
        with reading("the metadata"):
            _check_size(data)
            packed = parse(wire.GetModelMetadataResponse, data).metadata[SIGNATURE_DEF]
            found = parse(wire.SignatureDefMap, packed.value)
            return _signatures(found, self._place.options.signature)

    def infer(self, ask: Ask) -> Sequence[RawTensor]:
        """See ``Contract.infer``."""
        head = wire.PredictRequest(model_spec=self._spec(), output_filter=ask.outputs)
        head.model_spec.signature_name = ask.name
        parts: list[Any] = [head.SerializeToString()]
        for name, array in ask.inputs.items():
            tensor, values = tensor_bytes(array)
            size = len(tensor) + len(values)
            text = name.encode()
            key = b"\x0a" + varint_bytes(len(text)) + text + b"\x12" + varint_bytes(size)
            parts += (b"\x12" + varint_bytes(len(key) + size), key, tensor, values)
        answer = memoryview(self._call("Predict", b"".join(parts), ask.until_s))
        with reading("the answer"):
            return [
                to_raw(*entry(answer[start:end]))
                for tag, _, start, end in walk(answer, _MAX_OUTPUTS)
                if tag == _OUTPUT
            ]

    def close(self) -> None:
        """See ``Contract.close``."""
        self._client.close()

    def _spec(self) -> Any:
        spec = wire.ModelSpec(name=self._place.model)
        if self._place.options.version:
            spec.version.value = self._place.options.version
        return spec

    def _call(self, method: str, message: bytes, until_s: float) -> bytes:
        headers = self._place.credentials.headers(until_s)
        return self._client.call(f"{_SERVICE}/{method}", message, headers, until_s)


class TensorflowServingRest:
    """See ``Contract``; columns, not rows, so that any signature can be called."""

    def __init__(self, place: Place) -> None:
        options = place.options
        self._place = place
        version = f"/versions/{options.version}" if options.version else ""
        base = urlsplit(options.url).path.rstrip("/")
        self._path = f"{base}/v1/models/{quote(place.model, safe='')}{version}"
        self._client = http_client(options.url, options.tls, place.folder, options.max_answer_bytes)

    def describe(self, until_s: float) -> Mapping[str, Signature]:
        """See ``Contract.describe``."""
        headers = self._place.credentials.headers(until_s)
        path = f"{self._path}/metadata"
        body = checked(self._client.request("GET", path, headers, (), until_s))
        with reading("the metadata"):
            _check_size(body)
            found = wire.SignatureDefMap()
            try:
                json_format.ParseDict(
                    loads(body)["metadata"][SIGNATURE_DEF],
                    found,
                    ignore_unknown_fields=True,
                    descriptor_pool=POOL,
                )
            except json_format.ParseError as error:
                raise InvalidArgument(str(error)) from error
            return _signatures(found, self._place.options.signature)

    def infer(self, ask: Ask) -> Sequence[RawTensor]:
        """See ``Contract.infer``."""
        numbers = {n: a for n, a in ask.inputs.items() if a.dtype != object}
        inputs, odd = json_values.plain(numbers)
        inputs |= {n: texts(a, b64) for n, a in ask.inputs.items() if a.dtype == object}
        body = json_values.dumps({"signature_name": ask.name, "inputs": inputs}, odd)
        headers = [*self._place.credentials.headers(ask.until_s), _JSON]
        path = f"{self._path}:predict"
        found = checked(self._client.request("POST", path, headers, (body,), ask.until_s))
        with reading("the answer"):
            outputs = loads(found, nonfinite=True)["outputs"]
            specs = {spec.name: spec for spec in ask.signature.outputs}
            if len(specs) == 1:
                outputs = dict.fromkeys(specs, outputs)
            return [json_values.to_raw(specs[name], outputs[name]) for name in ask.outputs]

    def close(self) -> None:
        """See ``Contract.close``."""
        self._client.close()


def _signatures(found: Any, only: str | None) -> dict[str, Signature]:
    """Signatures that can be called with tensors, or the one that is wanted."""
    signatures = {
        name: Signature.derive(
            _specs(definition.inputs.items()),
            _specs(definition.outputs.items()),
            definition.method_name.removeprefix(_METHOD) or "predict",
        )
        for name, definition in found.signature_def.items()
        if definition.inputs and definition.outputs and only in (None, name)
    }
    if not signatures:
        named = f"signature '{only}'" if only else "signature"
        raise InvalidArgument(f"the model has no {named} with inputs and outputs")
    return signatures


def _specs(tensors: Iterable[tuple[str, Any]]) -> list[TensorSpec]:
    return [_spec(name, info) for name, info in sorted(tensors)]


def _spec(name: str, info: Any) -> TensorSpec:
    kind = BY_NUMBER.get(info.dtype)
    shape = info.tensor_shape
    if kind is None or len(shape.dim) > MAX_DIMENSIONS:
        raise InvalidArgument(f"tensor {name!r} is of a kind that is not supported")
    sizes = None if shape.unknown_rank else tuple(max(-1, dim.size) for dim in shape.dim)
    return TensorSpec(name, kind.dtype, sizes)


def _check_size(data: bytes) -> None:
    if len(data) > _MAX_METADATA_BYTES:
        raise InvalidArgument(f"it has more than {_MAX_METADATA_BYTES} bytes")
