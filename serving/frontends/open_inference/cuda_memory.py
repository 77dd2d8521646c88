"""CUDA shared memory, where no runtime takes tensors from a GPU.

Nothing can be registered, so that nothing is: the list is empty, and to unregister is to have done
it. Triton without a GPU answers the same, and its clients clean up without asking first.
"""

from __future__ import annotations

from typing import NoReturn

from crossfade.runtimes.core.errors import NotFound, Unimplemented, escape


def register() -> NoReturn:
    """Raises Unimplemented."""
    raise Unimplemented("failed to register CUDA shared memory region: GPUs not supported")


def status(name: str) -> None:
    """Raises NotFound for a region's name; all regions (no name) are none."""
    if name:
        raise NotFound(f"Unable to find cuda shared memory region: '{escape(name)}'")
