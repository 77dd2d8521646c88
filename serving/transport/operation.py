"""What is published of an HTTP route."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """What is published of a route; schemas are JSON Schema, as OpenAPI 3.1 has it.

    Attributes:
        name: the operation's id, unique among all routes.
        body: the schema of a JSON body; ``None`` where none is read.
        optional_body: whether the body may be left out.
        answer: the schema of the JSON answer; ``None`` where it has no body.
        media: schemas of other bodies that are read, by media type.
        answer_media: schemas of other answers, by media type.
        errors: statuses that this operation may have beside those that all may have.
        also: schemas of the answers of other statuses that are no errors.
        parameters: what more its paths or headers have, as OpenAPI's parameter objects.
    """

    name: str
    summary: str
    body: Mapping[str, Any] | None = None
    optional_body: bool = False
    answer: Mapping[str, Any] | None = None
    media: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    answer_media: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    errors: Sequence[int] = ()
    also: Mapping[int, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    parameters: Sequence[Mapping[str, Any]] = ()
