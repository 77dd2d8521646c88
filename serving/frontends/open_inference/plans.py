"""Recognises ``ModelInferRequest``s of a form that was seen before, without parsing them.

Serialisers write fields in the order of their numbers, so the raw tensors, field 7, are the end of
the message, and the id is before them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from crossfade.runtimes.core.dtypes import ITEMSIZE
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.open_inference.infer_codec import (
    Asker,
    InferMessage,
    decode,
    model_of,
    version_of,
)
from crossfade.serving.tensors.layout import Layout
from crossfade.serving.transport.calls import Buffer
from crossfade.serving.wire.fields import varint_bytes
from crossfade.serving.wire.forms import Forms

_RAW_INPUT_TAG: Final = b"\x3a"  # field 7, length-delimited


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What requests of one form ask."""

    ref: ModelRef
    outputs: tuple[str, ...]
    layout: Layout


@dataclasses.dataclass(slots=True)
class Known:
    """A request of a known form.

    Attributes:
        raws: the bytes of each input.
    """

    plan: Plan
    id: str
    raws: list[bytes]

    def query(self, call: Asker) -> Query:
        """What it asks; see ``infer_codec.to_query``, without anything that may be wrong."""
        plan = self.plan
        return Query(
            plan.ref,
            plan.layout.filled(self.raws),
            plan.outputs,
            id=self.id,
            deadline_s=call.deadline_s,
            cancelled=call.cancelled,
            layout=plan.layout,
        )


class Plans:
    """The forms that were seen. Thread-safe."""

    def __init__(self) -> None:
        self._forms: Forms[Plan] = Forms()

    def decode(self, message: Buffer) -> InferMessage | Known:
        """Reads a ``ModelInferRequest``; raises InvalidArgument if these bytes are none."""
        name = model_of(message)
        if name is None or not isinstance(message, bytes):
            return decode(message)
        known = self._forms.find(name, message)
        if known is not None:
            plan, (text, *raws) = known
            try:
                return Known(plan, str(text, "utf-8"), raws)
            except UnicodeDecodeError:
                return decode(message)
        parsed = decode(message)
        plan_found = plan_of(message, parsed)
        if plan_found is not None:
            self._forms.learn(name, message, _holes(message, parsed), plan_found)
        return parsed


def plan_of(message: bytes, parsed: InferMessage) -> Plan | None:
    """What a message asks; ``None`` where a request needs a closer look each time."""
    head = parsed.head
    plain = not head.parameters and len(head.inputs) == len(parsed.raws)
    plain = plain and not any(t.parameters or t.HasField("contents") for t in head.inputs)
    plain = plain and not any(output.parameters for output in head.outputs)
    # The elements of BYTES have sizes of their own.
    if not plain or any(tensor.datatype not in ITEMSIZE for tensor in head.inputs):
        return None
    if head.SerializeToString() != message:  # fields twice, or in an order of their own
        return None
    try:
        ref = ModelRef(head.model_name, version_of(head.model_version))
    except InvalidArgument:
        return None
    return Plan(
        ref,
        tuple(output.name for output in head.outputs),
        Layout(tuple((t.name, t.datatype, tuple(t.shape)) for t in head.inputs)),
    )


def _holes(message: bytes, parsed: InferMessage) -> list[slice]:
    """Where the id is, an empty piece without one, and each raw tensor."""
    sizes = [len(raw) for raw in parsed.raws]
    at = len(message) - sum(sizes) - sum(len(_RAW_INPUT_TAG + varint_bytes(n)) for n in sizes)
    holes = [_id(parsed.head)]
    for size in sizes:
        at += len(_RAW_INPUT_TAG + varint_bytes(size))
        holes.append(slice(at, at + size))
        at += size
    return holes


def _id(head: Any) -> slice:
    if not head.id:
        return slice(0, 0)
    before = type(head)(model_name=head.model_name, model_version=head.model_version, id=head.id)
    end = before.ByteSize()
    return slice(end - len(head.id.encode()), end)
