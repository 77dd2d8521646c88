"""PyTorch's error texts, and what an administrator or a client can do about them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    ResourceExhausted,
)
from crossfade.runtimes.reason import one_line

_log = logging.getLogger(__name__)
_SHAPES: Final = re.compile(
    r"Expected input |Guard failed|must match the size|shapes cannot be multiplied|size mismatch"
    r"|index out of range|out of bounds",
    re.IGNORECASE,
)
_MEMORY: Final = re.compile(r"can't allocate memory|not enough memory", re.IGNORECASE)
_MISSING: Final = re.compile(r"(torch\.ops\.\w+\.\w+(?:\.\w+)?)")


def of_load(error: Exception, path: Path) -> LoadFailed:
    """Explains why a program could not be opened."""
    text = str(error)
    if "schema version" in text:
        return LoadFailed(
            f"{path.name} was saved by another version of PyTorch than this one reads: export the"
            " model again with the installed version"
        )
    if "is not a valid op" in text or "Unsupported target type" in text:
        op = _MISSING.search(text)
        return LoadFailed(f"the program needs the operator {op[1] if op else one_line(text)}")
    return LoadFailed(f"PyTorch cannot load the program: {one_line(error, path)}")


def of_run(error: Exception) -> CrossfadeError:
    """Translates what a run raised; only a refused value is the request's fault."""
    text = str(error)
    if _MEMORY.search(text):
        return ResourceExhausted("the run needs more memory than there is", retry_after_s=1.0)
    if isinstance(error, (RuntimeError, IndexError, AssertionError)) and _SHAPES.search(text):
        return InvalidArgument(f"the program refused a value: {one_line(text)}")
    return Internal.hide(error, _log, "a PyTorch run")
