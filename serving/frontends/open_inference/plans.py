"""Recognises requests of a form that was seen before, byte by byte, without parsing them.

A client that asks the same model again sends the same bytes but for the tensors' and perhaps the
id's. Serialisers write fields in the order of their numbers, so the raw tensors, field 7, are the
end of the message: all before them is compared as one piece, and what was found out about it the
first time holds again.
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
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.transport.calls import Buffer
from crossfade.serving.wire.fields import varint_bytes

# Forms that are remembered; then all are forgotten, and learnt anew.
_MOST: Final = 1024
_RAW_INPUT_TAG: Final = b"\x3a"  # field 7, length-delimited


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
        layout = plan.layout
        return Query(
            plan.ref,
            [
                RawTensor(name, dtype, shape, raw)
                for (name, dtype, shape), raw in zip(layout.inputs, self.raws, strict=True)
            ],
            plan.outputs,
            id=self.id,
            deadline_s=call.deadline_s,
            cancelled=call.cancelled,
            layout=layout,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """One form.

    Attributes:
        before, after: what stands before and after the id; ``after`` goes to the first raw tensor.
        id: where the id is; empty without one.
        raws: where each raw tensor begins, what stands before it, and where it ends.
    """

    before: bytes
    id: slice
    after: bytes
    raws: tuple[tuple[int, bytes, int], ...]
    ref: ModelRef
    outputs: tuple[str, ...]
    layout: Layout

    def match(self, message: bytes) -> Known | None:
        """The request, if ``message``, which is as long as the first one was, has this form."""
        if not (message.startswith(self.before) and message.startswith(self.after, self.id.stop)):
            return None
        found: list[bytes] = []
        for start, prefix, end in self.raws:
            if not message.startswith(prefix, start - len(prefix)):
                return None
            found.append(message[start:end])
        try:
            return Known(self, str(message[self.id], "utf-8"), found)
        except UnicodeDecodeError:
            return None


class Plans:
    """The forms that were seen. Thread-safe: a form that two threads learn is learnt twice."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, int], Plan] = {}

    def decode(self, message: Buffer) -> InferMessage | Known:
        """Reads a ``ModelInferRequest``; raises InvalidArgument if these bytes are none."""
        name = model_of(message)
        if name is None or not isinstance(message, bytes):
            return decode(message)
        key = (name, len(message))
        plan = self._plans.get(key)
        known = plan.match(message) if plan else None
        if known is not None:
            return known
        parsed = decode(message)
        learnt = plan_of(message, parsed)
        if learnt is not None:
            if len(self._plans) >= _MOST:
                self._plans.clear()
            self._plans[key] = learnt
        return parsed


def plan_of(message: bytes, parsed: InferMessage) -> Plan | None:
    """The form of a message; ``None`` where a request needs a closer look each time."""
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
    prefixes = [_RAW_INPUT_TAG + varint_bytes(len(raw)) for raw in parsed.raws]
    first = len(message) - sum(map(len, prefixes)) - sum(map(len, parsed.raws))
    text = _id(head)
    raws = []
    end = first
    for prefix, raw in zip(prefixes, parsed.raws, strict=True):
        start = end + len(prefix)
        end = start + len(raw)
        raws.append((start, prefix, end))
    return Plan(
        message[: text.start],
        text,
        message[text.stop : first],
        tuple(raws),
        ref,
        tuple(output.name for output in head.outputs),
        Layout(tuple((t.name, t.datatype, tuple(t.shape)) for t in head.inputs)),
    )


def _id(head: Any) -> slice:
    """Where the id is; an empty piece without one."""
    if not head.id:
        return slice(0, 0)
    before = type(head)(model_name=head.model_name, model_version=head.model_version, id=head.id)
    end = before.ByteSize()
    return slice(end - len(head.id.encode()), end)
