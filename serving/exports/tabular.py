"""What lies around the graph of a tabular export: its environment, its instances, its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.exports.kinds import Column, Findings

ENVIRONMENT: Final = "environment.json"
INSTANCE: Final = "instance.yaml"
PREDICTION: Final = "prediction_schema.yaml"
# The environment that has the ops of these exports.
_ENVIRONMENT_NAME: Final = "automl-tabular"
_LEGACY_CONTAINER: Final = "gcr.io/cloud-automl-tables-public/model_server"
_MAX_BYTES: Final = 4 << 20


def environment(folder: Path) -> tuple[str, Mapping[str, str]]:
    """The container and the package versions that ``environment.json`` names; empty without it.

    Raises:
        InvalidArgument: the file is no JSON object.
    """
    content = _read(folder / ENVIRONMENT)
    if content is None:
        return "", {}
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{ENVIRONMENT} is no JSON object")
    versions = {str(k): str(v) for k, v in document.items() if isinstance(v, str | int | float)}
    return versions.pop("container_uri", ""), versions


def columns(folder: Path) -> Sequence[Column]:
    """The features of an instance, as ``instance.yaml`` (an OpenAPI object) declares them.

    Raises:
        InvalidArgument: the file is no OpenAPI object.
    """
    return [
        Column(
            name,
            str(declared.get("type", "string")),
            declared.get("nullable") is True,
            None if declared.get("example") is None else str(declared["example"]),
        )
        for name, declared in _properties(folder / INSTANCE).items()
    ]


def prediction_fields(folder: Path) -> Sequence[str]:
    """The fields of an answer in ``prediction_schema.yaml``; raises as ``columns``."""
    return list(_properties(folder / PREDICTION))


def config(found: Findings) -> Mapping[str, Any]:
    """What ``model.yaml`` says so that the graph finds its ops: a process of its own.

    Raises:
        FailedPrecondition: this server has no such processes; the message says what is missing
            and which container has it.
    """
    if "isolation" in ModelConfig.model_fields:
        return {"isolation": {"process": True, "environment": _ENVIRONMENT_NAME}}
    raise FailedPrecondition(reason(found))


def reason(found: Findings) -> str:
    """Why a tabular export does not run here as it is, and what has what it lacks."""
    ops = ", ".join(missing.op for missing in found.missing)
    pins = sorted({missing.pin or missing.package or "?" for missing in found.missing})
    versions = ", ".join(f"{name} {version}" for name, version in found.environment.items())
    container = found.container or _LEGACY_CONTAINER
    return (
        f"its graph needs ops that TensorFlow does not have ({ops or 'not known'}): they come with"
        f" {', '.join(pins) or 'struct2tensor'} in an environment of its own"
        + (f" (it was made with {versions})" if versions else "")
        + f"; until then run Google's container, with the export mounted: {container}"
    )


def _properties(path: Path) -> Mapping[str, Any]:
    content = _read(path)
    if content is None:
        return {}
    try:
        document = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError):
        document = None
    properties = document.get("properties") if isinstance(document, dict) else None
    if not isinstance(properties, dict):
        raise InvalidArgument(f"{path.name} is no OpenAPI object with properties")
    return {str(k): v if isinstance(v, dict) else {} for k, v in properties.items()}


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidArgument(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise InvalidArgument(f"{path.name} has more than {_MAX_BYTES} bytes")
    return content
