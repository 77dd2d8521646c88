"""Our subset of TensorFlow's and TensorFlow Serving's messages, held against their own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from crossfade.serving.wire import POOL

pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving")
FILES = ("tf_framework.proto", "tf_error.proto", "tf_model_server.proto", "tf_serving.proto")


@pytest.fixture(scope="module")
def theirs() -> Any:
    for name in ("prediction_service", "model_service"):
        importlib.import_module(f"tensorflow_serving.apis.{name}_pb2")
    return descriptor_pool.Default()


def messages(file: str) -> Iterator[Descriptor]:
    pending = list(POOL.FindFileByName(file).message_types_by_name.values())
    while pending:
        message = pending.pop()
        yield message
        pending += message.nested_types


def kind(field: FieldDescriptor) -> tuple[object, ...]:
    """All that the wire knows of a field."""
    other = field.message_type or field.enum_type
    name = other.full_name if other else None
    return field.name, field.type, field.is_repeated, field.is_packed, name


@pytest.mark.parametrize("file", FILES)
def test_every_field_is_theirs(theirs: Any, file: str) -> None:
    for message in messages(file):
        other = theirs.FindMessageTypeByName(message.full_name)
        for field in message.fields:
            assert kind(field) == kind(other.fields_by_number[field.number]), message.full_name
        for enum in message.enum_types:
            assert values(enum) == values(other.enum_types_by_name[enum.name])


@pytest.mark.parametrize("file", FILES)
def test_every_enum_value_is_theirs(theirs: Any, file: str) -> None:
    for enum in POOL.FindFileByName(file).enum_types_by_name.values():
        assert values(enum).items() <= values(theirs.FindEnumTypeByName(enum.full_name)).items()


def test_every_method_is_theirs(theirs: Any) -> None:
    for service in POOL.FindFileByName("tf_serving.proto").services_by_name.values():
        other = theirs.FindServiceByName(service.full_name)
        assert methods(service) == methods(other)


def values(enum: Any) -> dict[str, int]:
    return {value.name: value.number for value in enum.values}


def methods(service: Any) -> dict[str, tuple[str, str]]:
    return {m.name: (m.input_type.full_name, m.output_type.full_name) for m in service.methods}
