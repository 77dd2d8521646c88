"""Imports a runtime's library the moment a model needs it, or says which extra brings it."""

from __future__ import annotations

import importlib
from typing import Any

from crossfade.runtimes.core.errors import LoadFailed, MissingExtra
from crossfade.runtimes.reason import one_line


def require(module: str, extra: str, needed_by: str) -> Any:
    """Imports ``module``; an optional library is untyped for its adapter, hence ``Any``.

    Raises:
        MissingExtra: it is not installed.
        LoadFailed: it is installed and broken.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module missing inside an installed library is a broken install, not a missing extra.
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise MissingExtra(extra, needed_by) from error
        raise LoadFailed(f"{needed_by}: {module} is broken: {one_line(error)}") from error
    except Exception as error:
        raise LoadFailed(f"{needed_by}: {module} is broken: {one_line(error)}") from error
