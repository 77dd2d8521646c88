"""Class names: one a line, or a label map in protobuf's text format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from crossfade.runtimes.core.errors import InvalidArgument, escape

_MAX_BYTES: Final = 4 << 20
_MAX_ID: Final = 100_000
_UNNAMED: Final = "???"  # what COCO's label maps write for ids that have no class


def read(path: Path) -> list[str]:
    """Reads either form from a file, by its suffix.

    Raises:
        InvalidArgument: see ``of_lines`` and ``of_label_map``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{path.name} cannot be read: {error.strerror}") from error
    return (of_label_map if path.suffix == ".pbtxt" else of_lines)(content, path.name)


def of_lines(content: bytes, name: str) -> list[str]:
    """Class names, one a line, in the order of the class ids; the last newline may be missing.

    Raises:
        InvalidArgument: it is not text, or too large to be labels.
    """
    return [line.strip() for line in _decoded(content, name).rstrip().splitlines()]


def of_label_map(content: bytes, name: str) -> list[str]:
    """Class names of a label map, in the order of the class ids that a model answers with.

    A label map counts from 1, a model from 0: the class that the map calls 1 is answered as 0.

    Raises:
        InvalidArgument: it is no label map, or it has an id below 1 or twice.
    """
    text = _decoded(content, name)
    try:
        parsed = text_format.Parse(text, _LabelMap(), allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name}: not a label map: {escape(str(error))}") from None
    names: dict[int, str] = {}
    for item in parsed.item:
        if not 1 <= item.id <= _MAX_ID or item.id in names:
            raise InvalidArgument(
                f"{name}: the ids of a label map are 1 to {_MAX_ID}, each once; it has {item.id}"
            )
        names[item.id] = item.display_name or item.name or _UNNAMED
    if not names:
        raise InvalidArgument(f"{name}: the label map is empty")
    return [names.get(number, _UNNAMED) for number in range(1, max(names) + 1)]


def _decoded(content: bytes, name: str) -> str:
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{name} is too large to be a list of labels")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not UTF-8 text") from None


def _message() -> Any:
    """The class of ``StringIntLabelMap``; what else its items may have is skipped."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="string_int_label_map.proto", syntax="proto2")
    item = file.message_type.add(name="StringIntLabelMapItem")
    for number, (field, kind) in enumerate(
        (
            ("name", kinds.TYPE_STRING),
            ("id", kinds.TYPE_INT32),
            ("display_name", kinds.TYPE_STRING),
        ),
        1,
    ):
        item.field.add(name=field, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    file.message_type.add(name="StringIntLabelMap").field.add(
        name="item",
        number=1,
        type=kinds.TYPE_MESSAGE,
        type_name=".StringIntLabelMapItem",
        label=kinds.LABEL_REPEATED,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("StringIntLabelMap"))


_LabelMap: Final = _message()
