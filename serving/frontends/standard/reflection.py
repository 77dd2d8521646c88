"""Server reflection, so that grpcurl and its like can list and call what is here.

The answers come from grpcio-reflection's servicer, which needs nothing of grpcio's server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from google.protobuf.message import DecodeError

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.transport.calls import Access, Buffer, StreamCall, StreamRpc
from crossfade.serving.wire import POOL

SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"


def table(services: Sequence[str]) -> list[StreamRpc[Any, Any]]:
    """The RPC ``ServerReflectionInfo`` over the messages of ``services``."""
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    POOL.AddSerializedFile(reflection_pb2.DESCRIPTOR.serialized_pb)  # it describes itself, too
    servicer = reflection.ReflectionServicer((*services, SERVICE), pool=POOL)

    def answer(requests: Iterator[Any], _: StreamCall) -> Iterator[Any]:
        yield from servicer.ServerReflectionInfo(requests, None)

    def decode(message: Buffer) -> Any:
        try:
            return reflection_pb2.ServerReflectionRequest.FromString(bytes(message))
        except DecodeError:
            raise InvalidArgument("not a ServerReflectionRequest") from None

    return [
        StreamRpc(
            f"/{SERVICE}/ServerReflectionInfo",
            Access.READ,
            decode,
            answer,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
    ]
