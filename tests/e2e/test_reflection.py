"""Reflection, as grpcurl uses it: list, describe, and call what was never compiled in."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tests.conftest import ServerProcess

V2 = "inference.GRPCInferenceService"
SERVICES = {
    "crossfade.Fading",
    "crossfade.Feedback",
    V2,
    "tensorflow.serving.PredictionService",
    "tensorflow.serving.ModelService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}


def test_a_client_that_knows_nothing(triton_server: ServerProcess) -> None:
    with grpc.insecure_channel(triton_server.grpc) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) == SERVICES
        pool = descriptor_pool.DescriptorPool(database)
        for name in SERVICES:
            assert pool.FindServiceByName(name).methods
        method = pool.FindServiceByName(V2).methods_by_name["ModelInfer"]
        request, response = map(
            message_factory.GetMessageClass, (method.input_type, method.output_type)
        )
        # As typed behind ``grpcurl -d``.
        tensor = {"datatype": "INT32", "shape": [1, 16], "contents": {"int_contents": [1] * 16}}
        inputs = [{**tensor, "name": name} for name in ("INPUT0", "INPUT1")]
        document = {"model_name": "simple", "inputs": inputs}
        call = channel.unary_unary(
            f"/{V2}/{method.name}",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer = call(json_format.ParseDict(document, request()), timeout=10)
        assert [output.name for output in answer.outputs] == ["OUTPUT0", "OUTPUT1"]
        assert answer.raw_output_contents[0] == (2).to_bytes(4, "little") * 16
        ready = pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Check"]
        assert ready.output_type.enum_types_by_name["ServingStatus"].values_by_number[1]


def test_what_is_not_there(triton_server: ServerProcess) -> None:
    with grpc.insecure_channel(triton_server.grpc) as channel:
        pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        for name in ("nobody.Service", "../etc", "inference.ModelInferRequest.nothing"):
            with pytest.raises(KeyError):
                pool.FindServiceByName(name)
