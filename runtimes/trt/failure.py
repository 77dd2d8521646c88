"""What TensorRT says goes to a logger; this keeps it, and makes reasons of it."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any, Final

from crossfade.runtimes.reason import one_line

_log = logging.getLogger(__name__)
_DEVICE: Final = re.compile(r"expecting compute (\S+) got compute (\S+?),")
_LIBRARY: Final = re.compile(r"expecting library version (\S+) got (\S+?),")
_TAG: Final = re.compile(r"Current Version: (\d+), Serialized Engine Version: (\d+)")
_HOST_CODE: Final = re.compile(r"host.?code", re.IGNORECASE)
# "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (" before what matters.
_PREFIX: Final = re.compile(r"^.*?Error Code \d+: [\w ]+\((.*)\)\s*$", re.DOTALL)
_KEPT: Final = 20


class Said:
    """What TensorRT has said since it was last asked; thread-safe.

    ``logger`` is for TensorRT, which may call it from any thread; it lives as long as what was
    made with it.
    """

    def __init__(self, trt: Any) -> None:
        self._lock = threading.Lock()
        self._errors: list[str] = []
        levels = {
            trt.ILogger.INTERNAL_ERROR: logging.ERROR,
            trt.ILogger.ERROR: logging.ERROR,
            trt.ILogger.WARNING: logging.WARNING,
            trt.ILogger.INFO: logging.DEBUG,
        }
        said = self

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                level = levels.get(severity)
                if level is None:
                    return
                _log.log(level, "TensorRT: %s", one_line(msg))
                if level == logging.ERROR:
                    said._keep(msg)

        self.logger = Logger()

    def _keep(self, message: str) -> None:
        with self._lock:
            self._errors = [*self._errors[1 - _KEPT :], message]

    def take(self) -> list[str]:
        """Returns the errors since the last time, the first one first."""
        with self._lock:
            errors, self._errors = self._errors, []
        return errors


def of_engine(errors: list[str], version: str, capability: tuple[int, int]) -> str:
    """Says why an engine could not be deserialised, and what to do.

    Args:
        errors: what TensorRT said.
        version: of the TensorRT that runs here.
        capability: of the GPU.
    """
    text = "\n".join(errors)
    here = f"TensorRT {version} and a GPU of compute capability {capability[0]}.{capability[1]}"
    rebuild = f"build it again from its ONNX model with {here}"
    if found := _DEVICE.search(text):
        return (
            f"the engine was built for GPUs of compute capability {found[2]}, this one has "
            f"{found[1]}: {rebuild}"
        )
    if found := _LIBRARY.search(text):
        return f"the engine was built with TensorRT {found[2]}, here is {version}: {rebuild}"
    if found := _TAG.search(text):
        age = "an older" if int(found[2]) < int(found[1]) else "a newer"
        return f"the engine was built with {age} TensorRT than the {version} here: {rebuild}"
    if "Magic tag" in text or "magicTag" in text:
        return "the file is no TensorRT engine"
    if _HOST_CODE.search(text):
        return (
            "the engine brings a runtime of its own, which is code: if you trust it, set the "
            "option 'trust_host_code'"
        )
    said = reason(errors)
    return f"the engine cannot be deserialised with {here}: {said or 'TensorRT gives no reason'}"


def reason(errors: list[str]) -> str:
    """The first error, without TensorRT's names of functions and codes, fit for a message."""
    if not errors:
        return ""
    found = _PREFIX.match(errors[0])
    return one_line(found[1] if found else errors[0])
