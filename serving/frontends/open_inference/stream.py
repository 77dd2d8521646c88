"""``ModelStreamInfer``: requests one after the other, each answered in its turn.

A request that fails is answered with its error's text and the stream goes on: that is what the
protocol's clients expect. A request has one answer, which is its final one; a decoupled model gives
any number of them, and then an empty final one, if the request asks for that.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Final

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import Cancellation
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.open_inference import infer_answer
from crossfade.serving.frontends.open_inference.infer_codec import InferMessage, decode, to_query
from crossfade.serving.frontends.open_inference.parameters import EMPTY_FINAL
from crossfade.serving.frontends.open_inference.rpcs import SERVICE
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.transport.calls import Access, Buffer, Caller, StreamCall, StreamRpc
from crossfade.serving.wire import open_inference as wire
from crossfade.serving.wire.fields import varint_bytes


@functools.cache
def _flag(final: bool) -> bytes:
    """A response that says only whether it is the last one of its request.

    Two messages of protobuf one after the other are one message with the fields of both.
    """
    response = wire.ModelInferResponse()
    response.parameters["triton_final_response"].bool_param = final
    data: bytes = response.SerializeToString()
    return data


def _wants_end(request: InferMessage) -> bool:
    given = request.head.parameters
    return EMPTY_FINAL in given and bool(given[EMPTY_FINAL].bool_param)


_RESPONSE_TAG: Final = b"\x12"  # field 2, length-delimited


@dataclasses.dataclass(frozen=True, slots=True)
class _InStream:
    """Who asks in a stream: its end is all the deadline that a request has."""

    call: Caller
    cancelled: Cancellation
    deadline_s: None = None


def table(
    plane: DataPlane, regions: SharedRegions
) -> list[StreamRpc[InferMessage | CrossfadeError, bytes]]:
    """The RPC over ``plane``."""

    def stream(
        requests: Iterator[InferMessage | CrossfadeError], call: StreamCall
    ) -> Iterator[bytes]:
        for request in requests:
            yield from answers(request, _InStream(call, call.cancelled))

    def answers(request: InferMessage | CrossfadeError, asker: _InStream) -> Iterator[bytes]:
        if isinstance(request, CrossfadeError):
            yield _failed(request, "")
            return
        try:
            query, special = to_query(request, asker, regions)
            query.caller = asker.call
            for result in plane.stream(query, "open_inference"):
                if isinstance(result, CrossfadeError):
                    yield _failed(result, query.id or "")
                elif result is not None:
                    data = infer_answer.encode(result, query.id or "", special)
                    yield _framed(data, _flag(result.final))
                elif _wants_end(request):
                    end = wire.ModelInferResponse(
                        model_name=query.ref.name,
                        model_version=request.head.model_version,
                        id=query.id or "",
                    )
                    yield _framed(end.SerializeToString(), _flag(True))
        except CrossfadeError as error:
            yield _failed(error, request.head.id)

    return [StreamRpc(f"/{SERVICE}/ModelStreamInfer", Access.INFER, _decoded, stream, bytes)]


def _decoded(message: Buffer) -> InferMessage | CrossfadeError:
    """A message, or what is wrong with it: raised here, it would end the stream."""
    try:
        return decode(message)
    except CrossfadeError as error:
        return error


def _framed(*parts: bytes) -> bytes:
    """A ``ModelStreamInferResponse`` of the bytes of a response."""
    return b"".join((_RESPONSE_TAG, varint_bytes(sum(map(len, parts))), *parts))


def _failed(error: CrossfadeError, request_id: str) -> bytes:
    response: Any = wire.ModelStreamInferResponse(error_message=error.message)
    response.infer_response.id = request_id
    response.infer_response.parameters["triton_final_response"].bool_param = True
    data: bytes = response.SerializeToString()
    return data
