"""``/infer`` over HTTP: body to query, answer to body; JSON, with or without bytes behind it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from crossfade.runtimes.core.dtypes import NUMPY, name_of
from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, escape
from crossfade.runtimes.core.model import InferResponse, ModelRef, Tensor
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.open_inference import binary_body, parameters, wanted
from crossfade.serving.frontends.open_inference.wanted import Wanted
from crossfade.serving.tensors.raw import RawTensor, wire_form
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.strict_json import loads, to_array
from crossfade.serving.transport.calls import HttpRequest, HttpResponse

_PARAMETER = (bool, int, float, str)


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """What an answer is to look like.

    Attributes:
        binary: outputs that are not in ``outputs`` are bytes behind the JSON.
        outputs: those that the client has named.
    """

    binary: bool = False
    outputs: Sequence[Wanted] = ()


def to_query(request: HttpRequest, ref: ModelRef, regions: SharedRegions) -> tuple[Query, Form]:
    """Makes a query of a request's body.

    Raises:
        InvalidArgument: the body is not what the protocol says; the message says where.
        NotFound: a shared-memory region is unknown.
        Unimplemented: shared memory is off.
    """
    head, rest = binary_body.split(request.body, request.headers.get(binary_body.HEADER.lower()))
    document = loads(head)
    asked = parameters.read(_parameters(document, "the request"))
    outputs: list[Wanted] = []
    for output in _objects(document, "outputs", required=False):
        name = _text(output, "name", "an output")
        given = _parameters(output, f"output '{escape(name)}'")
        outputs.append(wanted.read(name, given, regions, asked.binary_data_output))
    tail = binary_body.Tail(rest)
    inputs = [to_raw(tensor, tail, regions) for tensor in _objects(document, "inputs", True)]
    tail.finish()
    deadline_s = request.deadline_s
    if asked.timeout_s is not None:
        limit_s = time.monotonic() + asked.timeout_s
        deadline_s = limit_s if deadline_s is None else min(deadline_s, limit_s)
    query = Query(
        ModelRef(ref.name, ref.version, asked.version_label),
        inputs,
        [output.name for output in outputs],
        None,
        _text(document, "id", "the request") if "id" in document else "",
        deadline_s,
        asked.priority,
        asked.passed,
        cancelled=request.cancelled,
        caller=request,
    )
    return query, Form(asked.binary_data_output, outputs)


def to_raw(tensor: Mapping[str, Any], tail: binary_body.Tail, regions: SharedRegions) -> RawTensor:
    """Makes a tensor of its JSON and what follows the JSON; raises as ``to_query``."""
    name = _text(tensor, "name", "an input")
    shown = escape(name)
    place = f"input '{shown}'"
    given = _parameters(tensor, place)
    dtype = _text(tensor, "datatype", place)
    if dtype not in NUMPY:
        raise InvalidArgument(f"{place}: '{escape(dtype)}' is not a data-type")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise InvalidArgument(f"{place}: 'shape' must be a list of integers")
    memory = wanted.place_of(given, regions)
    if sum((memory is not None, "binary_data_size" in given, "data" in tensor)) > 1:
        raise InvalidArgument(f"{place}: its data is given in more than one way")
    data: memoryview | Tensor
    if memory:
        data = memory.memory.toreadonly()
    elif "binary_data_size" in given:
        data = tail.take(given["binary_data_size"], place)
    elif isinstance(tensor.get("data"), list):
        data = to_array(shown, dtype, tensor["data"], NUMPY[dtype])
    else:
        raise InvalidArgument(f"{place}: 'data' must be a list")
    return RawTensor(name, dtype, tuple(shape), data)


def encode(response: InferResponse, request_id: str, form: Form) -> HttpResponse:
    """Makes the answer: JSON, and behind it the outputs that are wanted as bytes.

    Raises:
        FailedPrecondition: an output holds what JSON cannot carry (NaN, bytes that are no text).
        InvalidArgument: an output does not fit where it is to go, or has no classes.
    """
    response = wanted.classified(response, form.outputs)
    named = {output.name: output for output in form.outputs}
    outputs: list[dict[str, Any]] = []
    tail: list[bytes | memoryview] = []
    for name, array in response.outputs.items():
        line: dict[str, Any] = {
            "name": name,
            "datatype": name_of(array.dtype),
            "shape": list(array.shape),
        }
        asked = named.get(name)
        if asked and asked.place:
            line["parameters"] = _written(asked.place, name, wire_form(array))
        elif asked.binary if asked else form.binary:
            data = wire_form(array)
            line["parameters"] = {"binary_data_size": len(data)}
            tail.append(data)
        else:
            line["data"] = values(name, array)
        outputs.append(line)
    metadata = response.model
    body: dict[str, Any] = {
        "model_name": metadata.name,
        "model_version": str(metadata.version),
        "outputs": outputs,
    }
    if request_id:
        body["id"] = request_id
    if response.parameters:
        body["parameters"] = dict(response.parameters)
    head = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tail:
        return HttpResponse(body=head, compressible=True)
    return HttpResponse(
        body=b"".join((head, *tail)),
        content_type="application/octet-stream",
        headers=((binary_body.HEADER, str(len(head))),),
        compressible=True,
    )


def _written(place: wanted.Place, name: str, data: bytes | memoryview) -> dict[str, Any]:
    """Writes an output into shared memory; returns the parameters that say where it is."""
    place.write(name, data)
    where = {"shared_memory_region": place.region, "shared_memory_byte_size": len(data)}
    return {**where, "shared_memory_offset": place.offset} if place.offset else where


def values(name: str, array: Tensor) -> Any:
    """The elements as ``orjson`` writes them; raises FailedPrecondition for what JSON lacks."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == np.object_:
        try:
            return [element.decode() for element in flat.tolist()]
        except UnicodeDecodeError:
            raise FailedPrecondition(
                f"output '{name}' holds bytes that are not UTF-8 text, which JSON cannot carry;"
                " ask for it as binary data"
            ) from None
    if array.dtype.kind in "biu":
        return flat
    floats = flat if array.dtype.kind == "f" else flat.astype(np.float32)  # BF16
    if not np.isfinite(floats).all():
        raise FailedPrecondition(
            f"output '{name}' holds NaN or infinity, which JSON cannot carry; ask for it as binary"
            " data"
        )
    return floats


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
