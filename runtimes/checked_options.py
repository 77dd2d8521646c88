"""Options that have been checked in another process, for one that cannot check them.

A worker process may run in an environment without pydantic, so that a runtime asks here for its
options: checked by its own class, or as they came if the server has done that.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any


class CheckedOptions(dict[str, Any]):
    """All options of a runtime, defaults among them, as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def options_of(values: Mapping[str, Any], target: str) -> Any:
    """Returns the options of a runtime.

    Args:
        values: what an artifact carries.
        target: the class that checks them, as ``package.module:Class``; not imported if they are
            ``CheckedOptions``.

    Raises:
        LoadFailed: they are wrong, and how.
    """
    if isinstance(values, CheckedOptions):
        return values
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name).read(values)
