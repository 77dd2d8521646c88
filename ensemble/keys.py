"""Whose request it is: the key by which a split is sticky."""

from __future__ import annotations

import dataclasses
import enum
from typing import Final

import numpy as np

from crossfade.runtimes.core.model import InferRequest

# See ``ModelMetadata.headers``.
HEADER: Final = "header:"


class KeySource(enum.Enum):
    """Where a key is found."""

    HEADER = "header"  # of HTTP, or metadata of gRPC
    PARAMETER = "parameter"  # of the request
    INPUT = "input"  # the first element of a tensor


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """A key by its source and its name there."""

    source: KeySource
    name: str

    @property
    def headers(self) -> tuple[str, ...]:
        """Names of the headers that it needs, in lower case."""
        return (self.name.lower(),) if self.source is KeySource.HEADER else ()

    def of(self, request: InferRequest) -> str | None:
        """The key of a request; ``None`` where it has none."""
        if self.source is KeySource.INPUT:
            array = request.inputs.get(self.name)
            return None if array is None or not array.size else _text(array.flat[0])
        name = self.name
        if self.source is KeySource.HEADER:
            name = HEADER + name.lower()
        value = request.parameters.get(name)
        return None if value is None else _text(value)


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value.item() if isinstance(value, np.generic) else value)
