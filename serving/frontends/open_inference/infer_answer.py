"""An answer to the bytes of a ``ModelInferResponse``, put together without copying its tensors."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from crossfade.runtimes.core.dtypes import name_of
from crossfade.runtimes.core.model import InferResponse
from crossfade.serving.frontends.open_inference import parameters, wanted
from crossfade.serving.frontends.open_inference.wanted import Place, Wanted
from crossfade.serving.tensors.raw import wire_form
from crossfade.serving.wire import open_inference as wire
from crossfade.serving.wire.fields import varint_bytes

_RAW_OUTPUT_TAG: Final = b"\x32"  # field 6, length-delimited
_Written = tuple[str, int, int] | None  # region, offset and bytes, if it is in shared memory
_Output = tuple[str, str, tuple[int, ...], _Written]


def encode(response: InferResponse, request_id: str, special: Sequence[Wanted]) -> bytes:
    """Makes the bytes of a ``ModelInferResponse``; every output is raw, or in shared memory.

    Raises:
        InvalidArgument: an output does not fit where it is to go, or has no classes.
    """
    places: dict[str, Place] = {}
    if special:
        response = wanted.classified(response, special)
        places = {output.name: output.place for output in special if output.place}
    metadata = response.model
    names: list[_Output] = []
    parts: list[Any] = [b"", b""]
    for name, array in response.outputs.items():
        data = wire_form(array)
        written: _Written = None
        if place := places.get(name):
            place.write(name, data)
            written = (place.region, place.offset, len(data))
            data = b""  # clients count on an entry for each output
        names.append((name, name_of(array.dtype), array.shape, written))
        parts += (_raw_prefix(len(data)), data)
    parts[0] = _head(metadata.name, metadata.version, tuple(names))
    if request_id or response.parameters:
        own = wire.ModelInferResponse(id=request_id)
        parameters.write(own.parameters, response.parameters)
        parts[1] = own.SerializeToString()
    return b"".join(parts)


@functools.lru_cache(4096)
def _head(model: str, version: int, outputs: tuple[_Output, ...]) -> bytes:
    """Everything of an answer that is the same for all requests of one form."""
    head = wire.ModelInferResponse(model_name=model, model_version=str(version))
    for name, dtype, shape, written in outputs:
        output = head.outputs.add(name=name, datatype=dtype, shape=shape)
        if written:
            region, offset, size = written
            output.parameters["shared_memory_region"].string_param = region
            output.parameters["shared_memory_byte_size"].int64_param = size
            if offset:
                output.parameters["shared_memory_offset"].int64_param = offset
    data: bytes = head.SerializeToString()
    return data


@functools.lru_cache(4096)
def _raw_prefix(size: int) -> bytes:
    """Tag and length of a raw output."""
    return _RAW_OUTPUT_TAG + varint_bytes(size)
