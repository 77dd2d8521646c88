"""What a worker process does to itself before anything else: limits, and not to outlive its server.

Standard library only, and no numpy: a library maps memory when it is imported.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with(parent: int) -> None:
    """Has the kernel kill this process when the thread that started it ends.

    Where the kernel cannot, the end of the control socket says the same, later.

    Args:
        parent: the server's process id; it may have died before this was asked for.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def limit(memory_bytes: int | None) -> None:
    """Forbids core dumps and, if given, more private memory than ``memory_bytes``.

    RLIMIT_DATA counts what a process may write and shares with nobody: heap, threads' stacks,
    anonymous maps. RLIMIT_AS would count libraries' files, the tensors' shared memory and
    addresses that are only reserved, too (CUDA reserves more than any machine has).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
