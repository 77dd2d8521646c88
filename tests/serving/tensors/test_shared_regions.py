"""Shared memory that clients register: what is mapped, and what is not."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.tensors.raw import RawTensor
from crossfade.serving.tensors.shared_regions import MAX_REGIONS, SharedRegions
from crossfade.serving.tensors.validator import Validator

PREFIX = "/cf_client_"
SIZE = 10_000


@pytest.fixture(scope="module")
def memory() -> Iterator[SharedMemory]:
    made = SharedMemory(f"cf_client_{uuid.uuid4().hex}", create=True, size=SIZE)
    yield made
    made.close()
    made.unlink()


@pytest.fixture
def key(memory: SharedMemory) -> str:
    return f"/{memory.name.lstrip('/')}"


def regions(max_bytes: int = 2**20) -> SharedRegions:
    return SharedRegions((PREFIX,), max_bytes)


def code(function: object, *arguments: object) -> str:
    with pytest.raises(CrossfadeError) as caught:
        function(*arguments)  # type: ignore[operator]
    assert "cf_client_" not in caught.value.message
    return caught.value.code.name


def test_a_view_is_the_memory(memory: SharedMemory, key: str) -> None:
    found = regions()
    found.register("a", key, 4099, 64)
    view = found.view("a", 3, 4)
    memory.buf[4102:4106] = b"rose"
    assert view == b"rose"
    view[:] = b"tuli"
    assert bytes(memory.buf[4102:4106]) == b"tuli"
    found.unregister("a")
    assert view == b"tuli"  # still mapped for the request that reads it
    assert code(found.view, "a", 0, 1) == "NOT_FOUND"


def test_names(key: str) -> None:
    found = regions()
    found.register("a", key, 0, 64)
    assert code(found.register, "a", key, 0, 64) == "ALREADY_EXISTS"
    assert [(r.name, r.offset, r.size) for r in found.status("")] == [("a", 0, 64)]
    assert code(found.status, "b") == "NOT_FOUND"
    found.unregister("b")
    found.register("b", key, 64, 64)
    found.unregister("")
    assert found.status("") == []
    for name in ("", "n" * 257):
        assert code(found.register, name, key, 0, 64) == "INVALID_ARGUMENT"


def test_off_is_off(key: str) -> None:
    found = SharedRegions()
    assert not found.enabled
    assert code(found.register, "a", key, 0, 1) == "UNIMPLEMENTED"
    assert code(found.view, "a", 0, 1) == "UNIMPLEMENTED"
    assert code(found.status, "") == "UNIMPLEMENTED"
    assert code(found.unregister, "") == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "cf_client_x",
        "/../x",
        "/cf_client_/../x",
        "/cf_client_/x",
        "/cf_client_x\0",
        "/cf_client_x\n",
        "/triton_python_backend_shm_region_1",
        "//cf_client_x",
        "/cf_client_" + "x" * 300,
    ],
)
def test_keys_that_are_not_allowed(bad: str) -> None:
    assert code(regions().register, "a", bad, 0, 64) == "INVALID_ARGUMENT"


def test_what_is_no_region() -> None:
    assert code(regions().register, "a", "/cf_client_nobody", 0, 64) == "NOT_FOUND"
    link = Path("/dev/shm") / f"cf_client_{uuid.uuid4().hex}"
    link.symlink_to("/etc/passwd")
    pipe = link.with_name(link.name + "p")
    os.mkfifo(pipe)
    try:
        assert code(regions().register, "a", f"/{link.name}", 0, 64) == "NOT_FOUND"
        assert code(regions().register, "a", f"/{pipe.name}", 0, 64) == "NOT_FOUND"
    finally:
        link.unlink()
        pipe.unlink()


def test_limits(key: str) -> None:
    found = regions(100)
    assert code(found.register, "a", key, 0, 101) == "RESOURCE_EXHAUSTED"
    found.register("a", key, 0, 60)
    assert code(found.register, "b", key, 0, 41) == "RESOURCE_EXHAUSTED"
    found.register("b", key, 0, 40)
    many = regions(MAX_REGIONS)
    for number in range(MAX_REGIONS):
        many.register(str(number), key, 0, 1)
    many_more = code(many.register, "more", key, 0, 1)
    assert many_more == "RESOURCE_EXHAUSTED"


BOUNDS = st.integers(-10, SIZE + 10) | st.sampled_from([2**31, 2**62, 2**63, 2**64 - 1, 2**64])


def test_bounds(key: str) -> None:
    found = SharedRegions((PREFIX,), 2**70)

    @given(BOUNDS, BOUNDS, BOUNDS, BOUNDS)
    @example(2**64 - 4096, 8192, 0, 1)
    @example(0, SIZE, 2**64 - 1, 2)
    @example(0, SIZE, SIZE, 1)
    def check(offset: int, size: int, inner: int, length: int) -> None:
        found.unregister("")
        if offset < 0 or size <= 0 or offset + size > SIZE:
            assert code(found.register, "a", key, offset, size) == "INVALID_ARGUMENT"
            return
        found.register("a", key, offset, size)
        if inner < 0 or length <= 0 or inner + length > size:
            assert code(found.view, "a", inner, length) == "INVALID_ARGUMENT"
        else:
            assert len(found.view("a", inner, length)) == length

    check()


def test_a_region_that_has_shrunk_is_not_read() -> None:
    path = Path("/dev/shm") / f"cf_client_{uuid.uuid4().hex}"
    path.write_bytes(bytes(SIZE))
    try:
        found = regions()
        found.register("a", f"/{path.name}", 0, SIZE)
        os.truncate(path, 16)
        assert code(found.view, "a", 0, SIZE) == "INVALID_ARGUMENT"
        assert len(found.view("a", 0, 16)) == 16
    finally:
        path.unlink()


def test_the_way_to_the_runtime_copies_nothing(memory: SharedMemory, key: str) -> None:
    found = regions()
    found.register("a", key, 0, SIZE)
    view = found.view("a", 64, 64)
    spec = TensorSpec("x", "FP32", (-1, 4))
    signature = Signature.derive([spec], [spec])
    metadata = ModelMetadata("m", 1, "fake", {DEFAULT_SIGNATURE: signature}, max_batch_size=8)
    tensor = RawTensor("x", "FP32", (4, 4), view.toreadonly())
    arrays, _ = Validator(metadata, DEFAULT_SIGNATURE).inputs([tensor])
    assert np.shares_memory(arrays["x"], np.frombuffer(view, np.uint8))
    assert not arrays["x"].flags.writeable
