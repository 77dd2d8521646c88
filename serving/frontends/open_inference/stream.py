"""``ModelStreamInfer``: requests one after the other, each answered in its turn.

A request that fails is answered with its error's text and the stream goes on: that is what the
protocol's clients expect. Each request has one answer, which is its final one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import Cancellation
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.open_inference import infer_answer
from crossfade.serving.frontends.open_inference.infer_codec import InferMessage, decode, to_query
from crossfade.serving.frontends.open_inference.rpcs import SERVICE
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.transport.calls import Access, Buffer, StreamRpc
from crossfade.serving.wire import open_inference as wire
from crossfade.serving.wire.fields import varint_bytes


def _final() -> bytes:
    response = wire.ModelInferResponse()
    response.parameters["triton_final_response"].bool_param = True
    data: bytes = response.SerializeToString()
    return data


# Two messages of protobuf one after the other are one message with the fields of both.
_FINAL: Final = _final()
_RESPONSE_TAG: Final = b"\x12"  # field 2, length-delimited


@dataclasses.dataclass(frozen=True, slots=True)
class _InStream:
    """Who asks in a stream: its end is all the deadline that a request has."""

    cancelled: Cancellation
    deadline_s: None = None


def table(
    plane: DataPlane, regions: SharedRegions
) -> list[StreamRpc[InferMessage | CrossfadeError, bytes]]:
    """The RPC over ``plane``."""

    def stream(
        requests: Iterator[InferMessage | CrossfadeError], cancelled: Cancellation
    ) -> Iterator[bytes]:
        for request in requests:
            yield answer(request, _InStream(cancelled))

    def answer(request: InferMessage | CrossfadeError, asker: _InStream) -> bytes:
        if isinstance(request, CrossfadeError):
            return _failed(request, "")
        try:
            query, special = to_query(request, asker, regions)
            result = plane.infer((query,))[0]
            if isinstance(result, CrossfadeError):
                return _failed(result, query.id)
            data = infer_answer.encode(result, query.id, special)
        except CrossfadeError as error:
            return _failed(error, request.head.id)
        size = varint_bytes(len(data) + len(_FINAL))
        return b"".join((_RESPONSE_TAG, size, data, _FINAL))

    return [StreamRpc(f"/{SERVICE}/ModelStreamInfer", Access.INFER, _decoded, stream, bytes)]


def _decoded(message: Buffer) -> InferMessage | CrossfadeError:
    """A message, or what is wrong with it: raised here, it would end the stream."""
    try:
        return decode(message)
    except CrossfadeError as error:
        return error


def _failed(error: CrossfadeError, request_id: str) -> bytes:
    response: Any = wire.ModelStreamInferResponse(error_message=error.message)
    response.infer_response.id = request_id
    response.infer_response.parameters["triton_final_response"].bool_param = True
    data: bytes = response.SerializeToString()
    return data
