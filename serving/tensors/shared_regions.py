"""System shared memory that clients on this machine register by name.

A region is mapped once, and tensors are views on the mapping. Whoever may write into a region may
also shrink it under the server, which would be a bus error: the size is looked at before each use,
and the feature is for clients that are trusted (it is off unless the operator asks for it).
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import re
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unimplemented,
    escape,
)

MAX_REGIONS: Final = 1024
_MAX_NAME: Final = 256
# shm_open(3) of Linux is this folder; Python has no public shm_open of its own that does not
# delete the region when the process ends.
_FOLDER: Final = Path("/dev/shm")
_KEY: Final = re.compile(r"/[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}")
_WRONG_BOUNDS: Final = "Invalid offset + byte size for shared memory region"


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """One region: ``size`` bytes of ``memory`` from ``start`` on are the client's."""

    name: str
    key: str
    offset: int
    size: int
    memory: mmap.mmap
    start: int


class SharedRegions:
    """The regions of one server. Thread-safe.

    A region that is unregistered while a request reads it is unmapped when that request is done.

    Args:
        prefixes: how a key must begin; none switch the feature off.
        max_bytes: for all regions together.
    """

    def __init__(self, prefixes: Sequence[str] = (), max_bytes: int = 0) -> None:
        self._prefixes = tuple(prefixes)
        self._max_bytes = max_bytes
        self._regions: dict[str, Region] = {}
        self._lock = threading.Lock()

    @property
    def enabled(self) -> bool:
        """Whether clients may use shared memory."""
        return bool(self._prefixes)

    def check_enabled(self) -> None:
        """Raises Unimplemented if clients may not use shared memory."""
        if not self.enabled:
            raise Unimplemented("Client shared memory is disabled on this server")

    def register(self, name: str, key: str, offset: int, size: int) -> None:
        """Maps ``size`` bytes from ``offset`` on of the region that the system knows as ``key``.

        Raises:
            Unimplemented: the feature is off.
            AlreadyExists: the name is taken.
            InvalidArgument: a key that is not allowed, or bounds outside of the region.
            NotFound: the system has no such region, or the server may not open it.
            ResourceExhausted: too many regions or bytes.
        """
        self.check_enabled()
        if not 0 < len(name) <= _MAX_NAME:
            raise InvalidArgument(
                f"a shared memory region needs a name of 1 to {_MAX_NAME} letters"
            )
        if not _KEY.fullmatch(key) or not key.startswith(self._prefixes):
            raise InvalidArgument("this shared memory key is not one that the server allows")
        if offset < 0 or size <= 0:
            raise InvalidArgument(_WRONG_BOUNDS)
        with self._lock:
            if name in self._regions:
                raise AlreadyExists(f"shared memory region '{escape(name)}' already in manager")
            used = sum(region.size for region in self._regions.values())
            if len(self._regions) >= MAX_REGIONS or size > self._max_bytes - used:
                raise ResourceExhausted("too much shared memory is registered")
            start = offset % mmap.ALLOCATIONGRANULARITY
            memory = _map(key, offset - start, start + size)
            self._regions[name] = Region(name, key, offset, size, memory, start)

    def unregister(self, name: str) -> None:
        """Forgets a region, or all of them (no name); an unknown one is forgotten already.

        Raises:
            Unimplemented: the feature is off.
        """
        self.check_enabled()
        with self._lock:
            if name:
                self._regions.pop(name, None)
            else:
                self._regions.clear()

    def status(self, name: str) -> list[Region]:
        """The region of that name, or all of them (no name).

        Raises:
            Unimplemented: the feature is off.
            NotFound: there is no such region.
        """
        self.check_enabled()
        return [self._of(name)] if name else list(self._regions.values())

    def view(self, name: str, offset: int, size: int) -> memoryview:
        """Returns ``size`` bytes of a region from its own ``offset`` on, writable, not copied.

        Raises:
            Unimplemented: the feature is off.
            NotFound: there is no such region.
            InvalidArgument: the bytes are not all inside of it.
        """
        self.check_enabled()
        region = self._of(name)
        is_inside = offset >= 0 and size > 0 and offset + size <= region.size
        # size() asks the system how large the region is now.
        end = region.offset + offset + size
        if not is_inside or end > region.memory.size():
            raise InvalidArgument(f"{_WRONG_BOUNDS}: '{escape(name)}'")
        first = region.start + offset
        return memoryview(region.memory)[first : first + size]

    def _of(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            raise NotFound(f"Unable to find shared memory region: '{escape(name)}'")
        return region


def _map(key: str, offset: int, size: int) -> mmap.mmap:
    """Maps part of an existing region; ``offset`` is a multiple of the system's granularity."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(_FOLDER / key[1:], flags)
    except OSError:
        raise NotFound("Unable to open shared memory region") from None
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0, closefd=True)):
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotFound("Unable to open shared memory region")
        if offset + size > found.st_size:
            raise InvalidArgument(_WRONG_BOUNDS)
        try:
            return mmap.mmap(descriptor, size, offset=offset)
        except (OSError, OverflowError, ValueError):
            raise ResourceExhausted("the shared memory region cannot be mapped") from None
