"""Protobuf messages of the contracts, in a descriptor pool of their own.

A user may have tritonclient, kserve or TensorFlow in the same process; their generated modules
claim the same names in protobuf's default pool. Ours live in ``POOL``, so they never meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL: Final = descriptor_pool.DescriptorPool()
# protobuf's C code makes the class of a nested message when it is first met, and keeps it weakly:
# the garbage collector takes it apart while another message is being read, which is a crash.
_KEPT: Final[list[Any]] = []


def _fill() -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString(
        Path(__file__).with_name("wire.binpb").read_bytes()
    )
    for file in files.file:
        POOL.AddSerializedFile(file.SerializeToString())


_fill()


def names(proto: str) -> dict[str, Any]:
    """Returns the message classes and enum values of one ``.proto`` file, by name."""
    file = POOL.FindFileByName(proto)
    for message in file.message_types_by_name.values():
        _keep(message)
    found: dict[str, Any] = {
        name: message_factory.GetMessageClass(message)
        for name, message in file.message_types_by_name.items()
    }
    for enum in file.enum_types_by_name.values():
        found |= {value.name: value.number for value in enum.values}
    return found


def _keep(message: Any) -> None:
    """Holds on to the class of a message, and to those of all messages within."""
    _KEPT.extend((message, message_factory.GetMessageClass(message)))
    for nested in message.nested_types:
        _keep(nested)
