"""The Open Inference Protocol v2 of another server, over gRPC and over HTTP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

import orjson

from crossfade.runtimes.core.dtypes import NUMPY, name_of
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, Signature, TensorSpec
from crossfade.serving.frontends.open_inference import binary_body, infer_codec, json_codec
from crossfade.serving.remote.connecting import http_client
from crossfade.serving.remote.contract import Ask, Place, reading, writing
from crossfade.serving.remote.failures import too_late
from crossfade.serving.remote.grpc_client import GrpcClient
from crossfade.serving.remote.http_status import checked
from crossfade.serving.tensors.raw import RawTensor, wire_form
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.strict_json import loads
from crossfade.serving.tensors.validator import MAX_DIMENSIONS
from crossfade.serving.wire import open_inference as wire
from crossfade.serving.wire.fields import parse, varint_bytes, walk

_SERVICE: Final = "/inference.GRPCInferenceService"
_RAW_INPUT_TAG: Final = b"\x3a"  # field 7, length-delimited
_RAW_OUTPUT_TAG: Final = 0x32  # field 6, length-delimited
# An empty field of two bytes becomes an object of hundreds.
_MAX_FIELDS: Final = 16 * 1024
_MAX_HEAD_BYTES: Final = 1024 * 1024
_MAX_METADATA_BYTES: Final = 1024 * 1024
_NO_REGIONS: Final = SharedRegions(())
_JSON: Final = ("content-type", "application/json")


class OpenInferenceGrpc:
    """See ``Contract``. Tensors travel raw."""

    def __init__(self, place: Place) -> None:
        options = place.options
        self._place = place
        self._version = str(options.version or "")
        self._client = GrpcClient(options.url, options.tls, place.folder, options.max_answer_bytes)

    def describe(self, until_s: float) -> Mapping[str, Signature]:
        """See ``Contract.describe``; the protocol knows one signature."""
        request = wire.ModelMetadataRequest(name=self._place.model, version=self._version)
        data = self._call("ModelMetadata", request.SerializeToString(), until_s)
        with reading("the metadata"):
            _check_size(data, _MAX_METADATA_BYTES)
            found = parse(wire.ModelMetadataResponse, data)
            return _signatures(
                [(t.name, t.datatype, tuple(t.shape)) for t in found.inputs],
                [(t.name, t.datatype, tuple(t.shape)) for t in found.outputs],
            )

    def infer(self, ask: Ask) -> Sequence[RawTensor]:
        """See ``Contract.infer``."""
        head = wire.ModelInferRequest(model_name=self._place.model, model_version=self._version)
        parts: list[Any] = [b""]
        for name, array in ask.inputs.items():
            head.inputs.add(name=name, datatype=name_of(array.dtype), shape=array.shape)
            data = wire_form(array)
            parts += (_RAW_INPUT_TAG, varint_bytes(len(data)), data)
        for name in ask.outputs:
            head.outputs.add(name=name)
        parts[0] = head.SerializeToString()
        answer = self._call("ModelInfer", b"".join(parts), ask.until_s)
        with reading("the answer"):
            return _outputs(memoryview(answer))

    def close(self) -> None:
        """See ``Contract.close``."""
        self._client.close()

    def _call(self, method: str, message: bytes, until_s: float) -> bytes:
        headers = self._place.credentials.headers(until_s)
        return self._client.call(f"{_SERVICE}/{method}", message, headers, until_s)


def _outputs(answer: memoryview) -> list[RawTensor]:
    """The outputs of a ``ModelInferResponse``; raw ones are views on it."""
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    for tag, at, start, end in walk(answer, _MAX_FIELDS):
        if tag == _RAW_OUTPUT_TAG:
            raws.append(answer[start:end])
        else:
            rest.append(answer[at:end])
    head = parse(wire.ModelInferResponse, b"".join(rest))
    found: list[RawTensor] = []
    if not raws:
        for tensor in head.outputs:
            values = infer_codec.typed(tensor, tensor.datatype)
            found.append(RawTensor(tensor.name, tensor.datatype, _shape(tensor.shape), values))
        return found
    _check_size(b"".join(rest), _MAX_HEAD_BYTES)
    for tensor, data in zip(head.outputs, raws, strict=True):
        found.append(RawTensor(tensor.name, tensor.datatype, _shape(tensor.shape), data))
    return found


class OpenInferenceHttp:
    """See ``Contract``. Tensors travel as bytes behind the JSON where the server takes that."""

    def __init__(self, place: Place) -> None:
        options = place.options
        self._place = place
        version = f"/versions/{options.version}" if options.version else ""
        base = urlsplit(options.url).path.rstrip("/")
        self._path = f"{base}/v2/models/{quote(place.model, safe='')}{version}"
        self._client = http_client(options.url, options.tls, place.folder, options.max_answer_bytes)

    def describe(self, until_s: float) -> Mapping[str, Signature]:
        """See ``Contract.describe``; the protocol knows one signature."""
        headers = self._place.credentials.headers(until_s)
        body = checked(self._client.request("GET", self._path, headers, (), until_s))
        with reading("the metadata"):
            _check_size(body, _MAX_METADATA_BYTES)
            document = loads(body)
            return _signatures(_listed(document["inputs"]), _listed(document["outputs"]))

    def infer(self, ask: Ask) -> Sequence[RawTensor]:
        """See ``Contract.infer``; the server is told how long it has."""
        left_us = int((ask.until_s - time.monotonic()) * 1e6)
        if left_us <= 0:
            raise too_late()
        binary = self._place.options.binary_tensors
        inputs: list[dict[str, Any]] = []
        tail: list[bytes | memoryview] = []
        with writing():
            for name, array in ask.inputs.items():
                shape, dtype = list(array.shape), name_of(array.dtype)
                line: dict[str, Any] = {"name": name, "datatype": dtype, "shape": shape}
                if binary:
                    tail.append(wire_form(array))
                    line["parameters"] = {"binary_data_size": len(tail[-1])}
                else:
                    line["data"] = json_codec.values(name, array)
                inputs.append(line)
        wanted = {"parameters": {"binary_data": True}} if binary else {}
        document = {
            "inputs": inputs,
            "outputs": [{"name": name, **wanted} for name in ask.outputs],
            "parameters": {"timeout": left_us},
        }
        head = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        headers = [*self._place.credentials.headers(ask.until_s)]
        headers += [(binary_body.HEADER, str(len(head)))] if binary else [_JSON]
        answer = self._client.request(
            "POST", f"{self._path}/infer", headers, (head, *tail), ask.until_s
        )
        body = checked(answer)
        with reading("the answer"):
            json, rest = binary_body.split(body, answer.headers.get(binary_body.HEADER.lower()))
            found = loads(json)["outputs"]
            after = binary_body.Tail(rest)
            outputs = [json_codec.to_raw(tensor, after, _NO_REGIONS) for tensor in found]
            after.finish()
            return outputs

    def close(self) -> None:
        """See ``Contract.close``."""
        self._client.close()


_Listed = tuple[str, str, tuple[int, ...]]


def _listed(tensors: Sequence[Mapping[str, Any]]) -> list[_Listed]:
    return [(t["name"], t["datatype"], tuple(map(int, t["shape"]))) for t in tensors]


def _signatures(inputs: Sequence[_Listed], outputs: Sequence[_Listed]) -> Mapping[str, Signature]:
    if not (inputs and outputs):
        raise InvalidArgument("the model has no inputs, or no outputs")
    taken = [_spec(*listed) for listed in inputs]
    given = [_spec(*listed) for listed in outputs]
    return {DEFAULT_SIGNATURE: Signature.derive(taken, given)}


def _spec(name: str, dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    if dtype not in NUMPY or not isinstance(name, str) or not name:
        raise InvalidArgument(f"tensor {name!r} is {dtype!r}")
    if len(shape) > MAX_DIMENSIONS or any(size < -1 for size in shape):
        raise InvalidArgument(f"tensor {name!r} has no shape that can be")
    return TensorSpec(name, dtype, shape)


def _shape(sizes: Any) -> tuple[int, ...]:
    """Of a million dimensions no more than it takes to refuse them."""
    return tuple(sizes[: MAX_DIMENSIONS + 1])


def _check_size(data: bytes, limit: int) -> None:
    if len(data) > limit:
        raise InvalidArgument(f"it has more than {limit} bytes")
