"""How a client wants an output: its classes, as bytes, in shared memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.core.model import InferResponse
from crossfade.serving.frontends.open_inference import classification, parameters
from crossfade.serving.tensors.shared_regions import SharedRegions

_SHARED_MEMORY: Final = "shared_memory_"


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a shared-memory region.

    Attributes:
        memory: its bytes, which others may change at any time.
    """

    region: str
    offset: int
    memory: memoryview

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Copies the output ``name`` here; raises InvalidArgument if it does not fit."""
        if len(data) > len(self.memory):
            raise InvalidArgument(
                f"shared memory size specified with the request for output '{escape(name)}'"
                f" ({len(self.memory)} bytes) should be at least {len(data)} bytes to hold the"
                " results"
            )
        self.memory[: len(data)] = data


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One output that the client has named.

    Attributes:
        classes: how many of the best classes instead of the scores; 0 is the scores.
        place: where it goes; ``None`` is into the answer.
        binary: over HTTP, as bytes behind the JSON instead of as values in it.
    """

    name: str
    classes: int = 0
    place: Place | None = None
    binary: bool = False


def read(
    name: str, given: Mapping[str, Any], regions: SharedRegions, binary: bool = False
) -> Wanted:
    """Reads the parameters of an output.

    Args:
        name: the output's.
        given: its parameters.
        regions: what the client may write to.
        binary: what the request says of all its outputs.

    Raises:
        InvalidArgument: a value that makes no sense.
        NotFound: no such region.
        Unimplemented: shared memory is off.
    """
    chosen = given.get("binary_data", binary)
    if not isinstance(chosen, bool):
        raise InvalidArgument("parameter 'binary_data' must be a boolean")
    return Wanted(name, parameters.classes(given), place_of(given, regions), chosen)


def place_of(given: Mapping[str, Any], regions: SharedRegions) -> Place | None:
    """The place that a tensor's parameters name; raises as ``read`` does."""
    if not any(name.startswith(_SHARED_MEMORY) for name in given):
        return None
    regions.check_enabled()
    region = given.get("shared_memory_region")
    if not isinstance(region, str):
        raise InvalidArgument("parameter 'shared_memory_region' must be a string")
    offset = parameters.integer(given, "shared_memory_offset")
    size = parameters.integer(given, "shared_memory_byte_size")
    return Place(region, offset, regions.view(region, offset, size))


def classified(response: InferResponse, outputs: Sequence[Wanted]) -> InferResponse:
    """Replaces scores by classes where they are wanted."""
    counts = [(wanted.name, wanted.classes) for wanted in outputs if wanted.classes]
    return classification.apply(response, counts) if counts else response
