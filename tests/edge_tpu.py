"""An Edge TPU for tests: a delegate built from C, and whether there is a real one."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
from pathlib import Path

import pytest

from crossfade.runtimes.litert.edge_tpu import LIBRARY

SOURCE = Path(__file__).with_suffix(".c")


def build(folder: Path) -> Path:
    """Builds the delegate of ``edge_tpu.c``; skips without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the delegate with")
    built = folder / "libdelegate.so"
    flags = ("-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread")
    subprocess.run([compiler, *flags, "-o", built, SOURCE], check=True)
    return built


@functools.cache
def why_not() -> str | None:
    """Why tests cannot use a real Edge TPU here; ``None`` if they can."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"there is no {LIBRARY}"
    library.edgetpu_list_devices.restype = ctypes.c_void_p
    count = ctypes.c_size_t()
    devices = library.edgetpu_list_devices(ctypes.byref(count))
    if not devices:
        return "there is no Edge TPU"
    library.edgetpu_free_devices(ctypes.c_void_p(devices))
    return None
