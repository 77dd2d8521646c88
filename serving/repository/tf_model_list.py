"""TensorFlow Serving's list of models, as ``models.config`` and ``ReloadConfigRequest`` have it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.runtimes.registry import resolve
from crossfade.serving.repository.layout import check_name
from crossfade.serving.repository.places import Place
from crossfade.serving.wire import tf_model_server as wire

_log = logging.getLogger(__name__)
_TENSORFLOW: Final = "tensorflow"
_Kind = TypeVar("_Kind", bound=Message)


def read_text(file: Path, message: _Kind) -> _Kind:
    """Fills ``message`` with the text format in ``file``.

    Raises:
        InvalidArgument: the file cannot be read or parsed; TensorFlow Serving's words.
    """
    kind = message.DESCRIPTOR.full_name
    try:
        text_format.Parse(file.read_text("utf-8"), message)
    except OSError as error:
        raise InvalidArgument(f"'{file}' cannot be read: {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"Error parsing text-format {kind}: {error} ('{file}')") from None
    return message


def one_model(name: str, base_path: str) -> Any:
    """The list with one TensorFlow model, as ``--model_name`` and ``--model_base_path`` say it."""
    listed = wire.ModelServerConfig()
    listed.model_config_list.config.add(name=name, base_path=base_path, model_platform=_TENSORFLOW)
    return listed


def places(listed: Any) -> dict[str, Place]:
    """The places of the models in a ``ModelServerConfig``, by name.

    A model of platform ``tensorflow`` is whatever its files are, so that its successor may be of
    another format; any other platform has to be one of this server.

    Raises:
        InvalidArgument: an entry is not complete, or stands twice; or ``custom_model_config``.
    """
    if not listed.HasField("model_config_list"):
        found_kind = "custom_model_config" if listed.HasField("custom_model_config") else "nothing"
        raise InvalidArgument(f"{found_kind} is no list of models: give a model_config_list")
    found: dict[str, Place] = {}
    for entry in listed.model_config_list.config:
        name = check_name(entry.name)
        if name in found:
            raise InvalidArgument(f"Illegal to list model {name} multiple times in config list")
        found[name] = Place(_location(name, entry.base_path), _settings(name, entry))
    return found


def platforms(listed: Any) -> dict[str, str]:
    """The platform of each model in the list, as it is written there."""
    return {e.name: e.model_platform or _TENSORFLOW for e in listed.model_config_list.config}


def _location(name: str, base_path: str) -> str:
    if "://" not in base_path and not base_path.startswith("/"):
        raise InvalidArgument(
            f"Expected model {name} to have an absolute path or URI; got base_path()="
            f"{escape(base_path)}"
        )
    return base_path


def _settings(name: str, entry: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"version_policy": {}, "labels": {}}
    platform = entry.model_platform
    if entry.model_type == wire.OTHER:
        raise InvalidArgument(
            f"model {name}: model_type OTHER is not supported; set model_platform"
        )
    if platform and platform != _TENSORFLOW:
        settings["platform"] = resolve(escape(platform))
    if entry.HasField("logging_config"):
        _log.warning("logging_config has no effect: requests are not logged", extra={"model": name})
    policy = entry.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        settings["version_policy"] = {"all": True}
    elif kind == "specific":
        settings["version_policy"] = {"specific": _positive(name, policy.specific.versions)}
    elif kind == "latest":
        settings["version_policy"] = {"latest": policy.latest.num_versions or 1}
    labels = dict(entry.version_labels)
    _positive(name, labels.values())
    if any(not label for label in labels):
        raise InvalidArgument(f"model {name}: a version label is empty")
    return {**settings, "labels": labels}


def _positive(name: str, versions: Any) -> list[int]:
    numbers = [int(version) for version in versions]
    if not numbers or min(numbers) >= 1:
        return numbers
    raise InvalidArgument(f"model {name}: version {min(numbers)} is not a version; they begin at 1")
