"""A tensor as a message carries it, and the wire form of BYTES tensors."""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

import numpy as np

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.core.model import Tensor

_LENGTH: Final = struct.Struct("<I")
# Up to here a copy is cheaper than a view.
_COPIED_BYTES: Final = 16 * 1024


@dataclasses.dataclass(slots=True)
class RawTensor:
    """One input, not yet validated.

    Attributes:
        dtype: the protocol's name of the element type, whatever the client wrote.
        data: row-major little-endian bytes, or an array that a front end made of typed values
            (of any shape; only the number of its elements has to fit).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview | Tensor


def decode_bytes(data: bytes | memoryview, count: int, name: str) -> Tensor:
    """Cuts ``count`` length-prefixed elements apart.

    Returns:
        An object array of ``bytes``, shape [count].

    Raises:
        InvalidArgument: the data does not hold exactly that many elements.
    """
    size = len(data)
    if count * 4 > size:  # before anything of that many elements is made
        raise InvalidArgument(
            f"unexpected end of BYTES input '{name}': {count} elements need at least {count * 4}"
            f" bytes, got {size}"
        )
    elements = np.empty(count, dtype=np.object_)
    at = 0
    for index in range(count):
        if at + 4 > size:
            raise InvalidArgument(f"unexpected end of BYTES input '{name}': {count} elements due")
        (length,) = _LENGTH.unpack_from(data, at)
        at += 4
        if length > size - at:
            raise InvalidArgument(
                f"element {index} of BYTES input '{name}' is said to have {length} bytes, but"
                f" {size - at} are left"
            )
        elements[index] = bytes(data[at : at + length])
        at += length
    if at != size:
        raise InvalidArgument(f"BYTES input '{name}' has {size - at} bytes after its last element")
    return elements


def wire_form(array: Tensor) -> bytes | memoryview:
    """The bytes of a tensor as every binary form of the protocol has them: a view if it can be."""
    if array.dtype.kind in "OSU":
        return encode_bytes(array)
    if array.nbytes < _COPIED_BYTES:
        return array.tobytes()
    flat: memoryview = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    return flat


def encode_bytes(array: Tensor) -> bytes:
    """The wire form of an object array of ``bytes``, row-major."""
    pack = _LENGTH.pack
    return b"".join([part for e in array.ravel().tolist() for part in (pack(len(e)), e)])
