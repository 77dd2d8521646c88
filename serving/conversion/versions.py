"""Versions of the packages that take part in a conversion."""

from __future__ import annotations

import contextlib
import importlib.metadata


def of(*distributions: str) -> dict[str, str]:
    """The versions of those that are installed, by name."""
    found = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
