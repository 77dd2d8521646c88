"""Raw mode: one input, of which only the bytes are known."""

from __future__ import annotations

import pytest

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Signature, TensorSpec
from crossfade.serving.frontends.open_inference.raw_request import only_input


def signature(dtype: str, *shape: int) -> Signature:
    return Signature.derive([TensorSpec("x", dtype, shape)], [TensorSpec("y", dtype, (-1, 4))])


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "found"),
    [
        ("FP32", (-1, 4), 16, (1, 4)),
        ("FP32", (-1, -1), 16, (1, 4)),
        ("INT8", (3, -1), 12, (3, 4)),
        ("FP32", (-1, 2, -1), 0, (1, 2, 1)),
    ],
)
def test_shape_of_bytes(dtype: str, shape: tuple[int, ...], size: int, found: tuple[int]) -> None:
    tensor = only_input(signature(dtype, *shape), bytes(size))
    assert (tensor.shape, len(tensor.data)) == (found, size)


def test_text_is_one_element() -> None:
    tensor = only_input(signature("BYTES", -1, 1), b"rose")
    assert tensor.shape == (1, 1)
    assert list(tensor.data) == [b"rose"]


def test_what_the_size_does_not_tell_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not known"):
        only_input(signature("FP32", -1, -1, -1), b"")
    two = Signature.derive([TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))], [])
    with pytest.raises(InvalidArgument, match="one input"):
        only_input(two, b"")
