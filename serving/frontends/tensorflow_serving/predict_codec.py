"""``Predict``: message to query, answer to message.

The tensors of a large message are not parsed: their bulk is cut out as views on the message. The
message of an answer is put together the same way.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Cancellation, InferResponse
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.tensorflow_serving import model_spec
from crossfade.serving.frontends.tensorflow_serving.tensor_codec import (
    NO_CUT,
    Cut,
    tensor_bytes,
    to_raw,
)
from crossfade.serving.transport.calls import Buffer
from crossfade.serving.wire import tf_framework as framework
from crossfade.serving.wire import tf_serving as wire
from crossfade.serving.wire.fields import parse, varint_bytes, walk

# Messages above this have their tensors cut out instead of parsed.
_CUT_ABOVE_BYTES: Final = 16 * 1024
# A field of two bytes becomes an object of hundreds; each string of a tensor is a field.
_MAX_INPUTS: Final = 16 * 1024
_MAX_FIELDS: Final = 64 * 1024
_MAX_SHAPE_BYTES: Final = 4096
_SPEC, _NAME, _LONG = 0x0A, 0x0A, 0x80
_INPUT: Final = 0x12  # PredictRequest.inputs, length-delimited
_KEY, _VALUE = 0x0A, 0x12  # of an entry of a map
_SHAPE: Final = 0x12
_BULK: Final = {0x22: 4, 0x2A: 5, 0x32: 6}  # tensor_content, float_val, double_val


@dataclasses.dataclass(slots=True)
class PredictMessage:
    """A parsed ``PredictRequest``; its inputs beside it, each with what was cut out of it."""

    head: Any
    inputs: Sequence[tuple[str, Any, Cut]]


def model_of(message: Buffer) -> str | None:
    """The model's name in a small message of the usual form, without parsing it."""
    if not 4 < len(message) <= _CUT_ABOVE_BYTES or message[0] != _SPEC or message[2] != _NAME:
        return None
    size = message[3]
    return (
        None if max(size, message[1]) >= _LONG else str(message[4 : 4 + size], "ascii", "replace")
    )


def decode(message: Buffer) -> PredictMessage:
    """Parses a ``PredictRequest``.

    Raises:
        InvalidArgument: these bytes are none.
    """
    if len(message) > _CUT_ABOVE_BYTES:
        try:
            return cut(memoryview(message))
        except IndexError:
            raise InvalidArgument("the request is of no form that clients use") from None
    head = parse(wire.PredictRequest, message)
    return PredictMessage(head, [(name, t, NO_CUT) for name, t in head.inputs.items()])


def cut(view: memoryview) -> PredictMessage:
    """As ``decode``, with the bulk of the tensors as views on the message.

    Raises:
        IndexError: the message is not of the form that serialisers write.
    """
    rest: list[memoryview] = []
    inputs: dict[str, tuple[str, Any, Cut]] = {}
    for tag, at, start, end in walk(view, _MAX_INPUTS):
        if tag == _INPUT:
            found = entry(view[start:end])
            inputs[found[0]] = found
        else:
            rest.append(view[at:end])
    return PredictMessage(parse(wire.PredictRequest, b"".join(rest)), list(inputs.values()))


def entry(view: memoryview) -> tuple[str, Any, Cut]:
    """Parses an entry of ``inputs``: its name, the tensor, and what was cut out of it.

    Raises:
        InvalidArgument: these bytes are none.
        IndexError: they are not of the form that serialisers write.
    """
    key = value = memoryview(b"")
    for tag, _, start, end in walk(view, _MAX_FIELDS):
        if tag == _KEY:
            key = view[start:end]
        elif tag == _VALUE:
            value = view[start:end]
    try:
        name = str(key, "utf-8")
    except UnicodeDecodeError:
        raise InvalidArgument("the name of an input is not UTF-8") from None
    return name, *_tensor(value)


def _tensor(view: memoryview) -> tuple[Any, Cut]:
    rest: list[memoryview] = []
    cut: dict[int, memoryview] = {}
    kept = shape_bytes = 0
    for tag, at, start, end in walk(view, _MAX_FIELDS):
        if tag == _SHAPE:
            shape_bytes += end - start
            if shape_bytes > _MAX_SHAPE_BYTES:
                raise InvalidArgument("an input has too many dimensions")
        field = _BULK.get(tag)
        if field is None or field in cut or start == end:
            continue
        rest.append(view[kept:at])
        cut[field] = view[start:end]
        kept = end
    rest.append(view[kept:])
    return parse(framework.TensorProto, b"".join(rest)), cut


def to_query(
    message: PredictMessage,
    deadline_s: float | None = None,
    cancelled: Cancellation | None = None,
) -> Query:
    """Makes a query of a message.

    Raises:
        InvalidArgument: the message contradicts itself.
    """
    head = message.head
    return Query(
        model_spec.to_ref(head),
        [to_raw(name, tensor, cut) for name, tensor, cut in message.inputs],
        tuple(head.output_filter),
        head.model_spec.signature_name or None,
        deadline_s=deadline_s,
        cancelled=cancelled,
        may_lack_one=True,
    )


def encode(response: InferResponse, signature: str) -> bytes:
    """Makes the bytes of a ``PredictResponse``."""
    parts: list[Any] = []
    for name, array in response.outputs.items():
        head, values = tensor_bytes(array)
        parts += (_entry_head(name, len(head) + len(values)), head, values)
    parts.append(_spec(response.model.name, response.model.version, signature))
    return b"".join(parts)


@functools.lru_cache(4096)
def _entry_head(name: str, size: int) -> bytes:
    """What stands before the tensor in an entry of ``outputs``, tags and lengths."""
    text = name.encode()
    key = b"\x0a" + varint_bytes(len(text)) + text + b"\x12" + varint_bytes(size)
    return b"\x0a" + varint_bytes(len(key) + size) + key


@functools.lru_cache(4096)
def _spec(name: str, version: int, signature: str) -> bytes:
    spec = model_spec.answered(name, version, signature)
    data: bytes = wire.PredictResponse(model_spec=spec).SerializeToString()
    return data
