"""Reads Triton's ``config.pbtxt`` as it is, and refuses what is not implemented by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf import json_format, text_format

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, LoadFailed, escape
from crossfade.runtimes.registry import resolve
from crossfade.serving.config.model_config import ModelConfig, build
from crossfade.serving.repository import triton_sequences
from crossfade.serving.repository.triton_dtypes import dtype_of
from crossfade.serving.wire import model_config as wire

_OVERRIDE: Final = "load parameter 'config'"
_COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")  # 0 is Triton's word for the library's choice
_THREADS: Final = {"intra_op_thread_count": "intra_op_threads"}


def parse(text: str, file: str) -> ModelConfig:
    """Parses ``config.pbtxt``.

    Raises:
        LoadFailed: not text-format protobuf, or it asks for what this server does not do.
    """
    try:
        message = text_format.Parse(text, wire.ModelConfig())
    except text_format.ParseError as error:
        raise LoadFailed(f"{file}: {error}") from None
    return _built(message, file)


def from_json(document: dict[str, Any], name: str) -> ModelConfig:
    """Builds the configuration that a client sends with a load request, a ``ModelConfig`` as JSON.

    Args:
        document: the JSON, parsed.
        name: of the model that it is for.

    Raises:
        InvalidArgument: not a ``ModelConfig``, another model's, or it asks for what this server
            does not do.
    """
    try:
        message = json_format.ParseDict(document, wire.ModelConfig(), max_recursion_depth=100)
        if message.name not in ("", name):
            raise LoadFailed(f"the name in {_OVERRIDE} is not the model's")
        return _built(message, _OVERRIDE)
    except json_format.ParseError as error:
        reason = escape(str(error).partition(" Available Fields")[0])
    except CrossfadeError as error:
        reason = error.message
    raise InvalidArgument(f"{_OVERRIDE} is not one that can be used: {reason}")


def _built(message: Any, file: str) -> ModelConfig:
    if message.platform == "ensemble" or message.HasField("ensemble_scheduling"):
        return build(_pipeline(message, file), file)
    return build(_values(message, file), file)


def _values(message: Any, file: str) -> dict[str, Any]:
    values: dict[str, Any] = {"max_batch_size": message.max_batch_size}
    named = message.backend or message.platform
    if named == "python":
        raise LoadFailed(
            f"{file}: Triton's Python backend is not supported; rewrite model.py as a class Model"
            " of the platform python, and name that in a model.yaml"
        )
    if named and named != "ensemble":
        try:
            values["platform"] = resolve(named)
        except InvalidArgument as error:
            raise LoadFailed(f"{file}: {error.message}") from None
    if message.HasField("version_policy"):
        values["version_policy"] = _version_policy(message.version_policy)
    values["batching"] = _batching(message)
    count = sum(max(1, group.count) for group in message.instance_group)
    if count:
        values["instances"] = count
    if message.default_model_filename:
        values["default_filename"] = message.default_model_filename
    if message.dynamic_batching.HasField("default_queue_policy") or (
        message.dynamic_batching.priority_levels
    ):
        values["queue"] = _queue(message.dynamic_batching)
    if message.HasField("sequence_batching"):
        values["sequence"] = triton_sequences.read(message.sequence_batching, file)
    if message.response_cache.enable:
        values["cache"] = {}
    values["decoupled"] = message.model_transaction_policy.decoupled
    values["inputs"] = [_tensor(tensor) for tensor in message.input]
    values["outputs"] = [
        _tensor(tensor) | ({"labels_file": tensor.label_filename} if tensor.label_filename else {})
        for tensor in message.output
    ]
    values["options"] = {
        _THREADS[key]: int(parameter.string_value)
        for key, parameter in message.parameters.items()
        if key in _THREADS and _COUNT.fullmatch(parameter.string_value)
    }
    values["warmup"] = [_warmup(sample) for sample in message.model_warmup]
    return values


def _pipeline(message: Any, file: str) -> dict[str, Any]:
    """Triton's ensemble, which has no settings but its steps and its tensors."""
    steps = message.ensemble_scheduling.step
    if not steps:
        raise LoadFailed(f"{file}: the ensemble has no steps")
    names = [step.model_name for step in steps]
    pipeline = {
        "kind": "pipeline",
        "outputs": [tensor.name for tensor in message.output],
        "steps": [
            {
                "model": step.model_name,
                "name": _step_name(names, number),
                "inputs": dict(step.input_map),
                "outputs": dict(step.output_map),
                # -1, or nothing, is the latest
                **({"version": step.model_version} if step.model_version > 0 else {}),
            }
            for number, step in enumerate(steps)
        ],
    }
    values = _values(message, file)
    taken = ("max_batch_size", "version_policy", "inputs", "outputs", "warmup")
    return {"ensemble": pipeline, **{key: values[key] for key in taken if key in values}}


def _step_name(names: Sequence[str], number: int) -> str:
    name = names[number]
    return f"{name}#{number}" if names.count(name) > 1 else name


def _version_policy(policy: Any) -> dict[str, Any]:
    if policy.HasField("all"):
        return {"all": True}
    if policy.HasField("specific"):
        return {"specific": list(policy.specific.versions)}
    return {"latest": policy.latest.num_versions or 1}


def _batching(message: Any) -> dict[str, Any]:
    """Triton stacks only where ``dynamic_batching`` stands, or sequences of the oldest first."""
    if message.sequence_batching.HasField("oldest"):
        oldest = message.sequence_batching.oldest
        return {
            "max_size": max(message.max_batch_size, 1),
            "max_delay_ms": oldest.max_queue_delay_microseconds / 1000,
        }
    if not message.HasField("dynamic_batching"):
        return {"max_size": 1}
    dynamic = message.dynamic_batching
    return {
        "max_size": max([*dynamic.preferred_batch_size, message.max_batch_size, 1]),
        "max_delay_ms": dynamic.max_queue_delay_microseconds / 1000,
    }


def _queue(dynamic: Any) -> dict[str, Any]:
    policy = dynamic.default_queue_policy
    values: dict[str, Any] = {
        "priority_levels": dynamic.priority_levels,
        "default_priority": dynamic.default_priority_level,
    }
    if policy.max_queue_size:
        values["max_size"] = policy.max_queue_size
    if policy.default_timeout_microseconds:
        values["timeout_ms"] = policy.default_timeout_microseconds / 1000
    return values


def _tensor(tensor: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"name": tensor.name, "dims": list(tensor.dims)}
    if tensor.data_type != wire.TYPE_INVALID:
        values["dtype"] = dtype_of(tensor.data_type)
    if tensor.HasField("reshape"):
        values["reshape"] = list(tensor.reshape.shape)
    return values


def _warmup(sample: Any) -> dict[str, Any]:
    """Triton's warm-up data (zeros, random) is our default; its data files are not read."""
    return {"count": max(1, sample.count)}
