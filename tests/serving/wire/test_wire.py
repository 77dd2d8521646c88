"""Our messages: made of the committed files, the same on the wire as those of the clients."""

from __future__ import annotations

import gc
import importlib.util
import subprocess
import sys
import textwrap
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from crossfade.serving.wire import POOL, health, model_config, names, open_inference

ROOT = Path(__file__).parents[3]
HERE = ROOT / "serving" / "wire"


def python(program: str, *arguments: str) -> str:
    """Runs a program in a process of its own, and returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- generated files ----------------------------------------------------------------------------


def test_the_committed_files_are_what_the_generator_makes(tmp_path: Path) -> None:
    if importlib.util.find_spec("grpc_tools") is None:
        pytest.skip("grpcio-tools is not installed (crossfade[dev])")
    # In a process of its own: beside TensorFlow, which brings another protobuf, protoc crashes.
    python(
        "import pathlib, sys\n"
        "from crossfade.serving.wire.generate import generate\n"
        "generate(pathlib.Path(sys.argv[1]))",
        str(tmp_path),
    )
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    protos = {path.stem for path in HERE.glob("*.proto")}
    assert made.keys() == {"wire.binpb", *(f"{name}.pyi" for name in protos)}
    stale = [name for name, content in made.items() if (HERE / name).read_bytes() != content]
    assert stale == [], "run `make proto`"


def test_every_proto_has_a_module() -> None:
    for path in HERE.glob("*.proto"):
        assert (HERE / f"{path.stem}.py").exists()
        assert POOL.FindFileByName(path.name).name == path.name


def test_names_are_messages_and_enum_values() -> None:
    found = names("model_config.proto")
    assert found["TYPE_BF16"] == 14
    assert issubclass(found["ModelConfig"], Message)
    assert "ModelInferRequest" not in found
    assert open_inference.ModelInferRequest.DESCRIPTOR.full_name == "inference.ModelInferRequest"
    assert model_config.TYPE_BF16 == 14
    assert health.HealthCheckRequest(service="x").service == "x"


def test_the_default_pool_is_left_alone() -> None:
    assert POOL is not descriptor_pool.Default()


# -- beside others in one process ---------------------------------------------------------------

OURS = "from crossfade.serving.wire import health, model_config, open_inference"
THEIRS = "import tritonclient.grpc; from grpc_health.v1 import health_pb2"
USE = """
from tritonclient.grpc import service_pb2
from grpc_health.v1 import health_pb2
sent = service_pb2.ModelInferRequest(model_name="m", raw_input_contents=[b"x"])
sent.inputs.add(name="a", datatype="FP32", shape=[1, 2])
got = open_inference.ModelInferRequest.FromString(sent.SerializeToString())
assert (got.model_name, got.inputs[0].shape[1], got.raw_input_contents[0]) == ("m", 2, b"x")
back = open_inference.ModelInferResponse(model_name="m", raw_output_contents=[b"y"])
assert service_pb2.ModelInferResponse.FromString(back.SerializeToString()).raw_output_contents
check = health.HealthCheckResponse(status=1)
assert health_pb2.HealthCheckResponse.FromString(check.SerializeToString()).status == 1
print("they live together")
"""


@pytest.mark.parametrize("order", ["ours first", "theirs first"])
def test_the_clients_own_modules_may_be_in_the_same_process(order: str) -> None:
    pytest.importorskip("tritonclient.grpc")
    pytest.importorskip("grpc_health.v1.health_pb2")
    imports = [OURS, THEIRS] if order == "ours first" else [THEIRS, OURS]
    program = "\n".join([*imports, textwrap.dedent(USE)])
    assert python(program) == "they live together\n"


# -- the same as theirs -------------------------------------------------------------------------


def pairs() -> list[tuple[str, str]]:
    """Our file, and the module that holds theirs."""
    return [
        ("open_inference.proto", "tritonclient.grpc.service_pb2"),
        ("model_config.proto", "tritonclient.grpc.model_config_pb2"),
        ("health.proto", "grpc_health.v1.health_pb2"),
    ]


def theirs(module: str) -> FileDescriptor:
    found: FileDescriptor = pytest.importorskip(module).DESCRIPTOR
    return found


@pytest.mark.parametrize(("ours", "module"), pairs())
def test_every_message_field_and_number_is_the_clients(ours: str, module: str) -> None:
    mine, other = POOL.FindFileByName(ours), theirs(module)
    assert mine.package == other.package
    messages = dict(all_messages(mine))
    others = dict(all_messages(other))
    assert others.keys() <= messages.keys()
    for name, message in others.items():
        assert shape(messages[name]) == shape(message), name
    mine_enums, their_enums = dict(all_enums(mine)), dict(all_enums(other))
    assert their_enums.items() <= mine_enums.items()
    assert len(others) > 1


@pytest.mark.parametrize(("ours", "module"), pairs())
def test_every_method_is_the_clients(ours: str, module: str) -> None:
    assert methods(theirs(module)).items() <= methods(POOL.FindFileByName(ours)).items()


def test_the_inference_service_has_the_methods_that_clients_call() -> None:
    (service,) = POOL.FindFileByName("open_inference.proto").services_by_name.values()
    assert {"ServerLive", "ModelInfer", "ModelStreamInfer", "RepositoryIndex"} <= {
        method.name for method in service.methods
    }


def all_messages(file: FileDescriptor) -> Iterator[tuple[str, Descriptor]]:
    pending = list(file.message_types_by_name.values())
    while pending:
        message = pending.pop()
        yield message.full_name, message
        pending += list(message.nested_types)


def all_enums(file: FileDescriptor) -> Iterator[tuple[str, dict[str, int]]]:
    for enum in file.enum_types_by_name.values():
        yield enum.full_name, numbers(enum)
    for _, message in all_messages(file):
        for enum in message.enum_types:
            yield enum.full_name, numbers(enum)


def numbers(enum: EnumDescriptor) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def shape(message: Descriptor) -> dict[str, tuple[object, ...]]:
    """All that the wire and the generated classes know of a message's fields."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.is_packed,
            field.has_presence,
            field.message_type.full_name if field.message_type else None,
            field.enum_type.full_name if field.enum_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
            field.json_name,
        )
        for field in message.fields
    }


def methods(file: FileDescriptor) -> dict[str, tuple[object, ...]]:
    return {
        method.full_name: (
            method.input_type.full_name,
            method.output_type.full_name,
            method.client_streaming,
            method.server_streaming,
        )
        for service in file.services_by_name.values()
        for method in service.methods
    }


@pytest.mark.parametrize(("ours", "module"), pairs())
def test_bytes_of_one_side_are_read_in_full_by_the_other(ours: str, module: str) -> None:
    other = pytest.importorskip(module)
    read = 0
    for name, mine in names(ours).items():
        if isinstance(mine, int) or not hasattr(other, name):
            continue
        read += 1
        sent = fill(getattr(other, name)())
        data = sent.SerializeToString(deterministic=True)
        got = mine.FromString(data)
        assert not list(_unknown(got)), name
        assert got.SerializeToString(deterministic=True) == data, name
    assert read > 1


def fill(message: Any, depth: int = 0) -> Any:
    """Sets every field (of a oneof, the last) to something that is not its default."""
    for field in message.DESCRIPTOR.fields:
        fill_field(message, field, depth)
    return message


def fill_field(message: Any, field: FieldDescriptor, depth: int) -> None:
    place = getattr(message, field.name)
    if field.message_type is not None:
        if depth > 5:
            return
        if field.message_type.GetOptions().map_entry:
            fill_map(place, field.message_type, depth)
        elif field.is_repeated:
            fill(place.add(), depth + 1)
        else:
            fill(place, depth + 1)
            place.SetInParent()
    elif field.is_repeated:
        place.append(sample(field))
    else:
        setattr(message, field.name, sample(field))


def fill_map(place: Any, entry: Descriptor, depth: int) -> None:
    key, value = sample(entry.fields_by_name["key"]), entry.fields_by_name["value"]
    if value.message_type is not None:
        fill(place[key], depth + 1)
    else:
        place[key] = sample(value)


def sample(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kinds = {
        FieldDescriptor.CPPTYPE_STRING: "text" if field.type == field.TYPE_STRING else b"bytes",
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_FLOAT: 1.5,
        FieldDescriptor.CPPTYPE_DOUBLE: 2.5,
    }
    return kinds.get(field.cpp_type, field.number + 100)


def _unknown(message: Any) -> Iterator[Any]:
    yield from list(UnknownFieldSet(message))  # type: ignore[call-overload]
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            inner = [v for v in value.values() if isinstance(v, Message)]
        else:
            inner = list(value) if field.is_repeated else [value]
        for one in inner:
            yield from _unknown(one)


def test_the_garbage_collector_takes_no_class_of_a_message_within() -> None:
    """It did, under load, and the server crashed in protobuf's C code."""
    request = open_inference.ModelInferRequest()
    kind = weakref.ref(type(request.inputs.add()))
    value = weakref.ref(type(request.parameters["x"]))
    del request
    gc.collect()
    assert kind() is not None
    assert value() is not None
