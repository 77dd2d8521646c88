"""Shared memory that one run's tensors lie in: an anonymous file that both processes map.

It has no name, so that nothing is left when either side is killed; it is sealed against
shrinking, so that a worker cannot take pages away under a server that reads them.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from crossfade.runtimes.core.dtypes import ITEMSIZE, NUMPY, name_of
from crossfade.runtimes.core.model import Tensor, Tensors

_ALIGNMENT: Final = 64  # what vector instructions like
_SMALLEST: Final = 1 << 20
# What an arena keeps between two runs; the pages above go back to the system.
_KEEP_BYTES: Final = 32 << 20

# Name, dtype, shape, offset, bytes.
Place = list[Any]


class Misplaced(Exception):
    """A place that lies outside the arena, or that is no place."""


class Arena:
    """One such memory, as one process sees it. Used by one thread at a time."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._size = 0

    @classmethod
    def create(cls) -> Arena:
        """Makes one; the descriptor is passed to the worker."""
        descriptor = os.memfd_create("crossfade", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _SMALLEST)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        return cls(descriptor)

    def write(self, tensors: Tensors, start: int = 0) -> tuple[list[Place], int]:
        """Copies tensors in, behind ``start``.

        Returns:
            Where each lies, and where the last one ends.

        Raises:
            KeyError: a dtype has no name in the protocol.
        """
        ready: list[tuple[str, str, Tensor | bytes, Sequence[int], int]] = []
        for name, array in tensors.items():
            dtype = name_of(array.dtype)
            content = _pack(array) if dtype == "BYTES" else array
            size = len(content) if isinstance(content, bytes) else array.size * ITEMSIZE[dtype]
            ready.append((name, dtype, content, array.shape, size))
        places: list[Place] = []
        at = start
        for name, dtype, _, shape, size in ready:
            at = -(-at // _ALIGNMENT) * _ALIGNMENT
            places.append([name, dtype, list(shape), at, size])
            at += size
        memory = self._at_least(at)
        for (_, dtype, content, shape, size), place in zip(ready, places, strict=True):
            offset = place[3]
            if isinstance(content, bytes):
                memory[offset : offset + size] = content
            elif size:
                np.ndarray(shape, NUMPY[dtype], memory, offset)[...] = content
        return places, at

    def read(self, places: Iterable[Place], *, copy: bool) -> dict[str, Tensor]:
        """Returns tensors by name, in their order.

        Args:
            places: as ``write`` returned them, from whoever sent them.
            copy: the arrays are the caller's own; else they are views, good until the next write
                by anybody.

        Raises:
            Misplaced: a place is outside, or says what cannot be.
        """
        return {str(place[0]): self._read(place, copy) for place in map(_checked, places)}

    def trim(self) -> None:
        """Gives pages that only a large run needed back to the system."""
        if self._map is not None and self._size > _KEEP_BYTES:
            self._map.madvise(mmap.MADV_REMOVE, _KEEP_BYTES, self._size - _KEEP_BYTES)

    def close(self) -> None:
        """Unmaps and closes it; views that are still out keep their pages."""
        self._map = None
        os.close(self.descriptor)

    def _read(self, place: Place, copy: bool) -> Tensor:
        _, dtype, shape, offset, size = place
        memory = self._reaching(offset + size)
        if dtype == "BYTES":
            return _unpack(memory[offset : offset + size], shape)
        if size == 0:
            return np.empty(shape, NUMPY[dtype])
        view: Tensor = np.ndarray(shape, NUMPY[dtype], memory, offset)
        return view.copy() if copy else view

    def _at_least(self, size: int) -> mmap.mmap:
        """Grows the memory, if need be."""
        if size > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, 1 << (size - 1).bit_length())
        return self._reaching(size)

    def _reaching(self, size: int) -> mmap.mmap:
        """The map up to ``size`` at least; the other side may have grown the memory."""
        if self._map is None or size > self._size:
            actual = os.fstat(self.descriptor).st_size
            if size > actual:
                raise Misplaced(f"{size} bytes of {actual}")
            self._map, self._size = mmap.mmap(self.descriptor, actual), actual
        return self._map


def _checked(place: Any) -> Place:
    """A place as the other side told it; it is not believed."""
    if not isinstance(place, list) or len(place) != 5:
        raise Misplaced("no place")
    name, dtype, shape, offset, size = place
    numbers = [offset, size, *shape] if isinstance(shape, list) else [None]
    if not isinstance(name, str) or dtype not in NUMPY:
        raise Misplaced("an unknown dtype")
    if any(type(n) is not int or n < 0 for n in numbers):
        raise Misplaced("a size that is no number")
    if dtype != "BYTES" and math.prod(shape) * ITEMSIZE[dtype] != size:
        raise Misplaced("a size that does not fit the shape")
    return place


def _pack(array: Tensor) -> bytes:
    """BYTES elements: how many bytes each has, as uint32, then all of them."""
    elements = [_bytes(element) for element in array.reshape(-1).tolist()]
    return b"".join((struct.pack(f"<{len(elements)}I", *map(len, elements)), *elements))


def _bytes(element: Any) -> bytes:
    return element if isinstance(element, bytes) else str(element).encode()


def _unpack(content: bytes, shape: Sequence[int]) -> Tensor:
    count = math.prod(shape)
    if len(content) < 4 * count:
        raise Misplaced("fewer strings than the shape says")
    array = np.empty(count, dtype=np.object_)
    at = 4 * count
    for index, size in enumerate(struct.unpack_from(f"<{count}I", content)):
        array[index] = content[at : at + size]
        at += size
    if at != len(content):
        raise Misplaced("strings that do not fit their lengths")
    return array.reshape(shape)
