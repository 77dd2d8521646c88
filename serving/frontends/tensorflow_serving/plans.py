"""Recognises ``PredictRequest``s of a form that was seen before, without parsing them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import ModelRef
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.tensorflow_serving import predict_codec
from crossfade.serving.frontends.tensorflow_serving.predict_codec import PredictMessage
from crossfade.serving.tensors.layout import Layout
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.transport.calls import Buffer, Call
from crossfade.serving.wire.forms import Forms


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What requests of one form ask."""

    ref: ModelRef
    outputs: tuple[str, ...]
    signature: str | None
    layout: Layout


@dataclasses.dataclass(slots=True)
class Known:
    """A request of a known form; ``raws`` are the bytes of each input."""

    plan: Plan
    raws: list[bytes]

    def query(self, call: Call) -> Query:
        """See ``predict_codec.to_query``, without anything that may be wrong."""
        plan = self.plan
        return Query(
            plan.ref,
            plan.layout.filled(self.raws),
            plan.outputs,
            plan.signature,
            deadline_s=call.deadline_s,
            cancelled=call.cancelled,
            layout=plan.layout,
            may_lack_one=True,
        )


class Plans:
    """The forms that were seen. Thread-safe."""

    def __init__(self) -> None:
        self._forms: Forms[Plan] = Forms()

    def decode(self, message: Buffer) -> PredictMessage | Known:
        """Reads a ``PredictRequest``; raises InvalidArgument if these bytes are none."""
        name = predict_codec.model_of(message)
        if name is None or not isinstance(message, bytes):
            return predict_codec.decode(message)
        known = self._forms.find(name, message)
        if known is not None:
            return Known(*known)
        parsed = predict_codec.decode(message)
        found = _learn(message, parsed)
        if found is not None:
            self._forms.learn(name, message, *found)
        return parsed


def _learn(message: bytes, parsed: PredictMessage) -> tuple[list[slice], Plan] | None:
    """Where the tensors are and what is asked; ``None`` where each request needs a closer look.

    What the parser made of the message has to be what lies in the holes: of fields that are there
    twice only the last one counts, or both.
    """
    try:
        asked = predict_codec.to_query(parsed)
        cut = predict_codec.to_query(predict_codec.cut(memoryview(message)))
    except (CrossfadeError, IndexError):
        return None
    views = [raw.data for raw in cut.inputs if isinstance(raw.data, memoryview)]
    if len(views) < len(cut.inputs) or _content(asked) != _content(cut):
        return None
    layout = Layout(tuple((raw.name, raw.dtype, raw.shape) for raw in cut.inputs))
    plan = Plan(asked.ref, tuple(asked.outputs), asked.signature, layout)
    begin = _address(message)
    starts = [_address(view) - begin for view in views]
    return [slice(at, at + len(view)) for at, view in zip(starts, views, strict=True)], plan


def _content(query: Query) -> Any:
    return (
        query.ref,
        query.outputs,
        query.signature,
        {raw.name: (raw.dtype, raw.shape, _bytes(raw)) for raw in query.inputs},
    )


def _bytes(raw: RawTensor) -> bytes:
    return raw.data.tobytes() if isinstance(raw.data, np.ndarray) else bytes(raw.data)


def _address(data: bytes | memoryview) -> int:
    address: int = np.frombuffer(data, np.uint8).ctypes.data
    return address
