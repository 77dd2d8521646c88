"""How outputs are wanted: what their parameters say, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.serving.frontends.open_inference import wanted
from crossfade.serving.frontends.open_inference.wanted import Place
from crossfade.serving.tensors.shared_regions import SharedRegions

SIZE = 64
REGION = {"shared_memory_region": "a", "shared_memory_byte_size": SIZE}


@pytest.fixture
def regions() -> Iterator[SharedRegions]:
    path = Path("/dev/shm") / f"cf_client_{uuid.uuid4().hex}"
    path.write_bytes(bytes(SIZE))
    made = SharedRegions(("/cf_client_",), SIZE)
    made.register("a", f"/{path.name}", 0, SIZE)
    yield made
    path.unlink()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"binary_data": 1}, "INVALID_ARGUMENT"),
        ({"binary_data": "true"}, "INVALID_ARGUMENT"),
        ({"shared_memory_byte_size": SIZE}, "INVALID_ARGUMENT"),
        ({**REGION, "shared_memory_region": 1}, "INVALID_ARGUMENT"),
        ({**REGION, "shared_memory_region": "b"}, "NOT_FOUND"),
        ({**REGION, "shared_memory_offset": -1}, "INVALID_ARGUMENT"),
        ({**REGION, "shared_memory_offset": 1}, "INVALID_ARGUMENT"),
        ({**REGION, "shared_memory_offset": True}, "INVALID_ARGUMENT"),
        ({**REGION, "shared_memory_byte_size": 1.0}, "INVALID_ARGUMENT"),
        ({**REGION, "shared_memory_byte_size": 2**64}, "INVALID_ARGUMENT"),
        ({"shared_memory_region": "a"}, "INVALID_ARGUMENT"),
    ],
)
def test_refused(regions: SharedRegions, given: dict[str, Any], code: str) -> None:
    with pytest.raises(CrossfadeError) as caught:
        wanted.read("y", given, regions)
    assert caught.value.code.name == code


def test_an_output_overrides_the_request(regions: SharedRegions) -> None:
    assert wanted.read("y", {}, regions, binary=True).binary
    assert not wanted.read("y", {"binary_data": False}, regions, binary=True).binary
    assert wanted.read("y", {"binary_data": True, "classification": 2}, regions).classes == 2


def test_a_place_takes_what_fits(regions: SharedRegions) -> None:
    place = wanted.place_of(
        {**REGION, "shared_memory_offset": 60, "shared_memory_byte_size": 4}, regions
    )
    assert isinstance(place, Place)
    place.write("y", b"abc")
    assert regions.view("a", 60, 4) == b"abc\0"
    with pytest.raises(InvalidArgument, match=r"output 'y' \(4 bytes\) should be at least 5 bytes"):
        place.write("y", b"abcde")
    assert wanted.place_of({}, regions) is None
