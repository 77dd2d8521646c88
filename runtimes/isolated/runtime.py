"""Loads a version of any runtime in a worker process."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfade.runtimes import registry, trust
from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.core.model import Artifact
from crossfade.runtimes.isolated.process import Task
from crossfade.runtimes.isolated.session import IsolatedSession


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may take; as ``Task`` has them."""

    memory_bytes: int | None = None
    load_timeout_s: float = 300.0
    run_timeout_s: float | None = None


def task(
    platform: str,
    artifact: Artifact,
    limits: Limits,
    python: Path | None = None,
    *,
    trial: bool = False,
) -> Task:
    """What a worker has to do to load ``artifact``; its options are checked here.

    Raises:
        InvalidArgument: no runtime has that name.
        LoadFailed: an option is wrong.
    """
    options, are_checked = _checked(platform, artifact.options)
    return Task(
        registry.target(platform),
        artifact,
        options,
        are_checked,
        python,
        limits.memory_bytes,
        limits.load_timeout_s,
        limits.run_timeout_s,
        trial,
        trust.allowed(),
    )


def load(
    platform: str, artifact: Artifact, limits: Limits, python: Path | None = None
) -> IsolatedSession:
    """Loads a version in a worker process.

    Args:
        platform: canonical name of the runtime.
        artifact: what it loads; ``instances`` runs may go on in the worker at the same time.
        limits: what the worker may take.
        python: another interpreter, with packages of its own; ``None`` is this one.

    Raises:
        LoadFailed, MissingExtra: with the reason.
    """
    return IsolatedSession(task(platform, artifact, limits, python))


def _checked(platform: str, options: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """A runtime's options with their defaults, where it says what class checks them."""
    target = getattr(registry.create(platform), "options", "")
    if not target:
        return _as_json(options), False
    module, _, name = target.partition(":")
    checked = getattr(importlib.import_module(module), name).read(options)
    return checked.model_dump(mode="json"), True


def _as_json(options: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        same: Mapping[str, Any] = json.loads(json.dumps(dict(options)))
    except (TypeError, ValueError) as error:
        raise LoadFailed(
            "options of an isolated model may hold what JSON has: texts, numbers, lists, mappings"
        ) from error
    return same
