"""``/infer`` over HTTP: JSON body to query, answer to JSON body."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from crossfade.runtimes.core.dtypes import NUMPY, name_of
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, escape
from crossfade.runtimes.core.model import InferResponse, ModelRef, Tensor
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.open_inference import classification, parameters
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.strict_json import loads, to_array
from crossfade.serving.transport.calls import HttpRequest

_PARAMETER = (bool, int, float, str)


def to_query(request: HttpRequest, ref: ModelRef) -> tuple[Query, list[tuple[str, int]]]:
    """Makes a query of a request's JSON body.

    Returns:
        The query, and the outputs that are to be classified with the number of classes.

    Raises:
        InvalidArgument: the body is not what the protocol says; the message says where.
    """
    document = loads(request.body)
    asked = parameters.read(_parameters(document, "the request"))
    outputs: list[str] = []
    classified: list[tuple[str, int]] = []
    for output in _objects(document, "outputs", required=False):
        name = _text(output, "name", "an output")
        outputs.append(name)
        count = parameters.classes(_parameters(output, f"output '{escape(name)}'"))
        if count:
            classified.append((name, count))
    limit_s = None if asked.timeout_s is None else time.monotonic() + asked.timeout_s
    query = Query(
        ModelRef(ref.name, ref.version, asked.version_label),
        [_input(tensor) for tensor in _objects(document, "inputs", required=True)],
        outputs,
        None,
        _text(document, "id", "the request") if "id" in document else "",
        limit_s,
        asked.priority,
        cancelled=request.cancelled,
    )
    return query, classified


def _input(tensor: Mapping[str, Any]) -> RawTensor:
    name = _text(tensor, "name", "an input")
    shown = escape(name)
    place = f"input '{shown}'"
    given = _parameters(tensor, place)
    parameters.refuse_shared_memory(given)
    if "binary_data_size" in given:
        raise InvalidArgument(f"{place}: binary tensor data is not supported; send 'data' as JSON")
    dtype = _text(tensor, "datatype", place)
    if dtype not in NUMPY:
        raise InvalidArgument(f"{place}: '{escape(dtype)}' is not a data-type")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise InvalidArgument(f"{place}: 'shape' must be a list of integers")
    if not isinstance(tensor.get("data"), list):
        raise InvalidArgument(f"{place}: 'data' must be a list")
    data = to_array(shown, dtype, tensor["data"], NUMPY[dtype])
    return RawTensor(name, dtype, tuple(shape), data)


def encode(
    response: InferResponse, request_id: str, classified: Sequence[tuple[str, int]]
) -> bytes:
    """Makes the JSON body of an answer.

    Raises:
        FailedPrecondition: an output holds what JSON cannot carry (NaN, bytes that are no text).
    """
    if classified:
        response = classification.apply(response, classified)
    outputs = [
        {
            "name": name,
            "datatype": name_of(array.dtype),
            "shape": list(array.shape),
            "data": _values(name, array),
        }
        for name, array in response.outputs.items()
    ]
    metadata = response.model
    body: dict[str, Any] = {
        "model_name": metadata.name,
        "model_version": str(metadata.version),
        "outputs": outputs,
    }
    if request_id:
        body["id"] = request_id
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _values(name: str, array: Tensor) -> Any:
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == np.object_:
        try:
            return [element.decode() for element in flat.tolist()]
        except UnicodeDecodeError:
            raise FailedPrecondition(
                f"output '{name}' holds bytes that are not UTF-8 text, which JSON cannot carry;"
                " ask for it over gRPC"
            ) from None
    if array.dtype.kind in "biu":
        return flat
    values = flat if array.dtype.kind == "f" else flat.astype(np.float32)  # BF16
    if not np.isfinite(values).all():
        raise FailedPrecondition(
            f"output '{name}' holds NaN or infinity, which JSON cannot carry; ask for it over gRPC"
        )
    return values


def _objects(document: Mapping[str, Any], key: str, required: bool) -> list[dict[str, Any]]:
    found = document.get(key, None if required else [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise InvalidArgument(f"'{key}' must be a list of objects")
    return found


def _text(document: Mapping[str, Any], key: str, place: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise InvalidArgument(f"{place}: '{key}' must be a string")
    return value


def _parameters(document: Mapping[str, Any], place: str) -> dict[str, Any]:
    found = document.get("parameters", {})
    if not isinstance(found, dict) or not all(isinstance(v, _PARAMETER) for v in found.values()):
        raise InvalidArgument(f"{place}: 'parameters' must be an object of plain values")
    return found
