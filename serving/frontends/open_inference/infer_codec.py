"""``ModelInfer``: message to query.

A large message is not parsed as a whole: its raw tensors are cut out as views first, so that their
bytes are not copied; what is left is small. ``infer_answer`` goes the other way.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import numpy as np

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import Cancellation, ModelRef, Tensor
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.open_inference import parameters, wanted
from crossfade.serving.frontends.open_inference.parameters import NO_PARAMETERS
from crossfade.serving.frontends.open_inference.wanted import Wanted
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.validator import MAX_DIMENSIONS
from crossfade.serving.transport.calls import Buffer
from crossfade.serving.wire import open_inference as wire
from crossfade.serving.wire.fields import parse, varint

# Messages above this have their raw tensors cut out instead of parsed.
_CUT_ABOVE_BYTES: Final = 16 * 1024
_NAME_TAG: Final = 0x0A  # field 1, length-delimited
_RAW_INPUT_TAG: Final = 0x3A  # field 7, length-delimited
_ONE_BYTE_TAGS: Final = 0x80
# An empty field of two bytes becomes an object of hundreds: so many are allowed in a large message,
# and only up to this size may a message be of a form that ``cut`` leaves to the parser.
_MAX_FIELDS: Final = 16 * 1024
_MAX_ODD_BYTES: Final = 1024 * 1024

# The typed field of InferTensorContents for each dtype; FP16 and BF16 have none.
_CONTENTS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


class Asker(Protocol):
    """Who waits for an answer, and for how long; a ``Call`` is one."""

    @property
    def deadline_s(self) -> float | None:
        """``time.monotonic()`` value after which the caller has gone."""
        ...

    @property
    def cancelled(self) -> Cancellation:
        """Set when the caller cancels or disconnects."""
        ...


@dataclasses.dataclass(slots=True)
class InferMessage:
    """A parsed ``ModelInferRequest`` with its raw tensors beside it."""

    head: Any
    raws: Sequence[bytes | memoryview]


def decode(message: Buffer) -> InferMessage:
    """Parses a ``ModelInferRequest``.

    Raises:
        InvalidArgument: these bytes are none.
    """
    if len(message) > _CUT_ABOVE_BYTES:
        return cut(message)
    head = parse(wire.ModelInferRequest, message)
    return InferMessage(head, head.raw_input_contents)


def model_of(message: Buffer) -> str | None:
    """The model's name in a small message of the usual form, without parsing it."""
    if not 2 < len(message) <= _CUT_ABOVE_BYTES or message[0] != _NAME_TAG:
        return None
    size = message[1]
    return str(message[2 : 2 + size], "ascii", "replace") if size < _ONE_BYTE_TAGS else None


def cut(message: Buffer) -> InferMessage:
    """As ``decode``, with the raw tensors as views on ``message``."""
    view = memoryview(message)
    size = len(view)
    rest: list[memoryview] = []
    raws: list[memoryview] = []
    at = kept = 0
    try:
        for _ in range(_MAX_FIELDS + 1):
            if at == size:
                break
            tag = view[at]
            if tag & 7 != 2 or tag >= _ONE_BYTE_TAGS:  # none of the fields that we know
                raise IndexError
            length, start = varint(view, at + 1)
            end = start + length
            if end > size:
                raise IndexError
            if tag == _RAW_INPUT_TAG:
                rest.append(view[kept:at])
                raws.append(view[start:end])
                kept = end
            at = end
        else:
            raise InvalidArgument(f"the request has more than {_MAX_FIELDS} fields")
    except IndexError:  # not of the usual form: let the parser say what it is
        if size > _MAX_ODD_BYTES:
            raise InvalidArgument("the request is of no form that clients use") from None
        head = parse(wire.ModelInferRequest, message)
        return InferMessage(head, head.raw_input_contents)
    rest.append(view[kept:])
    return InferMessage(parse(wire.ModelInferRequest, b"".join(rest)), raws)


def to_query(
    message: InferMessage, call: Asker, regions: SharedRegions
) -> tuple[Query, list[Wanted]]:
    """Makes a query of a message.

    Returns:
        The query, and the outputs about which more is said than their names.

    Raises:
        InvalidArgument: the message contradicts itself.
        NotFound: a shared-memory region is unknown.
        Unimplemented: shared memory is off.
    """
    head = message.head
    asked = parameters.read(plain(head.parameters)) if head.parameters else NO_PARAMETERS
    outputs: list[str] = []
    special: list[Wanted] = []
    for output in head.outputs:
        outputs.append(output.name)
        if output.parameters:
            special.append(wanted.read(output.name, plain(output.parameters), regions))
    deadline_s = call.deadline_s
    if asked.timeout_s is not None:
        limit_s = time.monotonic() + asked.timeout_s
        deadline_s = limit_s if deadline_s is None else min(deadline_s, limit_s)
    query = Query(
        ModelRef(head.model_name, version_of(head.model_version), asked.version_label),
        _inputs(head, message.raws, regions),
        outputs,
        None,
        head.id,
        deadline_s,
        asked.priority,
        asked.passed,
        cancelled=call.cancelled,
    )
    return query, special


def version_of(text: str) -> int | None:
    """Returns a version's number; ``None`` for the empty text, which means the latest.

    Raises:
        InvalidArgument: the text is not a positive integer of 64 bits with a sign.
    """
    if not text:
        return None
    is_number = text.isascii() and text.isdigit() and len(text) <= 19
    if not is_number or not 1 <= int(text) < 2**63:
        raise InvalidArgument(
            f"failed to get model version from specified version string '{escape(text)}'"
        )
    return int(text)


def plain(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a message as plain values; raises InvalidArgument for one without a value."""
    values: dict[str, Any] = {}
    for name, parameter in params.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidArgument(f"parameter '{escape(name)}' has no value")
        values[name] = getattr(parameter, kind)
    return values


def _inputs(
    head: Any, raws: Sequence[bytes | memoryview], regions: SharedRegions
) -> list[RawTensor]:
    found: list[RawTensor] = []
    taken = 0
    for tensor in head.inputs:
        place = None
        if tensor.parameters:
            place = wanted.place_of(plain(tensor.parameters), regions)
        dtype = tensor.datatype
        # Of a million dimensions no more are copied than it takes to refuse them.
        shape = tuple(tensor.shape[: MAX_DIMENSIONS + 1])
        data: bytes | memoryview | Tensor
        if not (raws or place):
            data = typed(tensor, dtype)
        elif tensor.HasField("contents"):
            raise InvalidArgument(
                f"contents field must not be specified when using"
                f" {'shared memory' if place else 'raw_input_contents'} for"
                f" '{escape(tensor.name)}'"
            )
        elif place:
            data = place.memory.toreadonly()
        else:
            data = raws[taken] if taken < len(raws) else b""
            taken += 1
        found.append(RawTensor(tensor.name, dtype, shape, data))
    if raws and taken != len(raws):
        raise InvalidArgument(
            f"expected {taken} raw input contents, one for each input that is not in shared memory,"
            f" but got {len(raws)}"
        )
    return found


def typed(tensor: Any, dtype: str) -> Tensor:
    """The typed values of a tensor as a flat array; raises InvalidArgument if they are not its."""
    name = escape(tensor.name)
    field = _CONTENTS.get(dtype)
    if field is None:
        why = "must be sent raw" if dtype in NUMPY else "is not a data-type"
        raise InvalidArgument(f"input '{name}': '{escape(dtype)}' {why}")
    for other in tensor.contents.ListFields():
        if other[0].name != field:
            raise InvalidArgument(f"input '{name}' is {dtype}, but has {other[0].name}")
    values = list(getattr(tensor.contents, field))
    if dtype == "BYTES":
        elements = np.empty(len(values), dtype=np.object_)
        elements[:] = values
        return elements
    try:
        return np.array(values, dtype=NUMPY[dtype])
    except OverflowError:
        raise InvalidArgument(f"input '{name}' has a value that {dtype} cannot hold") from None
