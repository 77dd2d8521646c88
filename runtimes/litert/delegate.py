"""Loads a delegate (the Edge TPU's, say) for one interpreter."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.reason import one_line

_ENTRIES: Final = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


def load(interpreter_module: Any, library: str, options: Mapping[str, str]) -> Any:
    """Returns a delegate; each interpreter needs one of its own.

    Raises:
        LoadFailed: no such library, no delegate in it, or its device is missing.
    """
    # Asked first: load_delegate leaves a half-made object behind, whose __del__ fails.
    try:
        opened = ctypes.CDLL(library)
    except OSError as error:
        raise LoadFailed(
            f"the delegate's library cannot be loaded: {one_line(error)}; install it (the Edge "
            "TPU's is the package libedgetpu1-std), or name it with the option 'delegate'"
        ) from error
    if not all(hasattr(opened, entry) for entry in _ENTRIES):
        raise LoadFailed("the option 'delegate' names a library that holds no TFLite delegate")
    try:
        return interpreter_module.load_delegate(library, dict(options))
    except ValueError as error:
        raise LoadFailed(
            f"the delegate did not start (is its device plugged in?): {one_line(error)}"
        ) from error
