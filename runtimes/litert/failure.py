"""LiteRT's error texts, and what an administrator or a client can do about them."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from crossfade.runtimes.core.errors import CrossfadeError, Internal, InvalidArgument, LoadFailed
from crossfade.runtimes.reason import one_line

_log = logging.getLogger(__name__)
_UNRESOLVED: Final = re.compile(r"unresolved custom op: (.+?)\.(?:\s|$)")
_FLEX_NODE: Final = re.compile(r"\((Flex\w+)\)")
_VALUE: Final = re.compile(r"\bindex|out of (bounds|range)", re.IGNORECASE)


def of_load(error: Exception, path: Path) -> LoadFailed:
    """Explains why a model could not be opened."""
    text = str(error)
    if "Select TensorFlow op" in text:
        node = _FLEX_NODE.search(text)
        which = f" ({node[1]})" if node else ""
        return LoadFailed(
            f"the model needs select TensorFlow ops{which}, which LiteRT does not carry: convert "
            "it with built-in ops only, or serve the SavedModel it came from"
        )
    if found := _UNRESOLVED.search(text):
        if found[1] == "edgetpu-custom-op":
            return LoadFailed(
                "the model is compiled for the Edge TPU: name one with the option 'device' "
                "('usb', 'pci:0'), or serve its CPU twin, the file it was compiled from, by "
                "itself or with the option 'fallback: cpu'"
            )
        return LoadFailed(f"the model needs the custom op '{found[1]}', which LiteRT does not have")
    said = one_line(error, path) or "it needs more memory than there is"
    return LoadFailed(f"LiteRT cannot load the model: {said}")


def of_run(error: Exception) -> CrossfadeError:
    """Translates what a run raised; only a refused value is the request's fault."""
    text = str(error)
    if isinstance(error, ValueError) and text.startswith("Cannot set tensor"):
        return InvalidArgument("an input has a dtype or a shape that the model does not take")
    if isinstance(error, RuntimeError) and _VALUE.search(text):
        said = one_line(text.split("Node number", 1)[0])
        return InvalidArgument(f"the model refused a value: {said}")
    return Internal.hide(error, _log, "a LiteRT run")
