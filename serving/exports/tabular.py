"""What lies around the graph of a tabular export: its environment, its instances, its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.exports.kinds import Column, Findings, MissingOp
from crossfade.serving.processing import table_schema
from crossfade.serving.processing.table_schema import Field

ENVIRONMENT: Final = "environment.json"
INSTANCE: Final = "instance.yaml"
PREDICTION: Final = "prediction_schema.yaml"
# The environment that has the ops of these exports.
ENVIRONMENT_NAME: Final = "automl-tabular"
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
        InvalidArgument: the file is no OpenAPI object, or has a feature of an unknown type.
    """
    return [
        Column(
            each.name,
            f"array of {each.type}" if each.array else each.type,
            each.nullable,
            each.example,
        )
        for each in table_schema.columns(folder / INSTANCE)
    ]


def prediction(folder: Path) -> Sequence[Field]:
    """The fields of an answer in ``prediction_schema.yaml``; raises as ``columns``."""
    return table_schema.fields(folder / PREDICTION)


def classes(fields: Sequence[Field]) -> Sequence[str]:
    """The classes that an answer may have, in their order; none of a regression."""
    return next((field.classes for field in fields if field.classes), ())


def config(found: Findings) -> Mapping[str, Any]:
    """What ``model.yaml`` says of a tabular export: what rows and answers are, and where it runs.

    A graph of stock ops alone needs no process of its own.
    """
    says: dict[str, Any] = {}
    if "classes" in found.prediction:
        says["task"] = "classification"
    elif "value" in found.prediction:
        says["task"] = "regression"
    if found.instance:
        says["table"] = {"instance": INSTANCE}
        if found.prediction:
            says["table"]["prediction"] = PREDICTION
    if found.missing:
        says["isolation"] = {"process": True, "environment": ENVIRONMENT_NAME}
    return says


def reason(found: Findings, lacking: Sequence[MissingOp]) -> str:
    """Why a tabular export does not run here, and what has what it lacks.

    Args:
        found: what is known of it.
        lacking: ops that the environment does not have either.
    """
    ops = ", ".join(f"{op.op} ({op.package or 'of an unknown package'})" for op in lacking)
    versions = ", ".join(f"{name} {version}" for name, version in found.environment.items())
    container = found.container or _LEGACY_CONTAINER
    return (
        f"its graph needs ops that neither TensorFlow nor the environment '{ENVIRONMENT_NAME}' has:"
        f" {ops}"
        + (f" (it was made with {versions})" if versions else "")
        + f"; run Google's container, with the export mounted: {container}"
    )


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
