"""Request parameters that gRPC and HTTP share: which are known, and what they mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from crossfade.runtimes.core.errors import InvalidArgument, escape
from crossfade.serving.tensors.validator import MAX_ELEMENTS

_RESERVED: Final = "triton_"
_SEQUENCE_ID: Final = "sequence_id"
_MAX_ID_LENGTH: Final = 128
EMPTY_FINAL: Final = "triton_enable_empty_final_response"
_KNOWN: Final = frozenset(
    {"priority", "timeout", "version_label", "binary_data_output", EMPTY_FINAL}
    | {_SEQUENCE_ID, "sequence_start", "sequence_end"}
)


@dataclasses.dataclass(frozen=True, slots=True)
class RequestParameters:
    """What a request's parameters ask for.

    Attributes:
        priority: 1 is served first; 0 is the model's default.
        timeout_s: how long the request may take; ``None`` is no limit of its own.
        version_label: names the version instead of a number.
        binary_data_output: over HTTP, outputs are bytes unless they say otherwise.
        passed: what the model gets, by parameter's name: the sequence that the request belongs to,
            and all that means nothing here.
    """

    priority: int = 0
    timeout_s: float | None = None
    version_label: str | None = None
    binary_data_output: bool = False
    passed: Mapping[str, Any] = dataclasses.field(default_factory=dict)


NO_PARAMETERS: Final = RequestParameters()
_FIELDS: Final = {
    bool: "bool_param",
    int: "int64_param",
    float: "double_param",
    str: "string_param",
}


def write(message: Any, said: Mapping[str, Any]) -> None:
    """Puts what a model says beside its outputs into the ``parameters`` of a message."""
    for name, value in said.items():
        setattr(message[name], _FIELDS[type(value)], value)


def read(parameters: Mapping[str, Any]) -> RequestParameters:
    """Reads a request's parameters.

    Raises:
        InvalidArgument: a reserved name, or a value of the wrong kind.
    """
    for name in parameters:
        if name.startswith(_RESERVED) and name != EMPTY_FINAL:
            raise InvalidArgument(
                f"parameter names that start with '{_RESERVED}' are reserved: '{escape(name)}'"
            )
    timeout_us = integer(parameters, "timeout")
    label = parameters.get("version_label")
    if label is not None and not isinstance(label, str):
        raise InvalidArgument("parameter 'version_label' must be a string")
    flags = [parameters.get(name, False) for name in ("binary_data_output", EMPTY_FINAL)]
    if not all(isinstance(flag, bool) for flag in flags):
        raise InvalidArgument(
            f"parameters 'binary_data_output' and '{EMPTY_FINAL}' must be booleans"
        )
    return RequestParameters(
        integer(parameters, "priority"),
        timeout_us / 1e6 if timeout_us else None,
        label,
        flags[0],
        {**_others(parameters), **_sequence(parameters)},
    )


def _others(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in _KNOWN}


def _sequence(parameters: Mapping[str, Any]) -> dict[str, Any]:
    flags = {flag: parameters.get(flag, False) for flag in ("sequence_start", "sequence_end")}
    if not all(isinstance(value, bool) for value in flags.values()):
        raise InvalidArgument("parameters 'sequence_start' and 'sequence_end' must be booleans")
    if _SEQUENCE_ID not in parameters:
        return {}
    name = parameters[_SEQUENCE_ID]
    if isinstance(name, str):
        if len(name) > _MAX_ID_LENGTH:
            raise InvalidArgument(
                f"parameter '{_SEQUENCE_ID}' must have at most {_MAX_ID_LENGTH} characters"
            )
    elif isinstance(name, bool) or not isinstance(name, int) or not 0 <= name < 2**64:
        raise InvalidArgument(f"parameter '{_SEQUENCE_ID}' must be an integer or a string")
    return {_SEQUENCE_ID: name, **flags}


def classes(parameters: Mapping[str, Any]) -> int:
    """Returns an output's ``classification`` parameter; 0 where there is none.

    Raises:
        InvalidArgument: it is not a positive integer, or no output has so many elements.
    """
    if "classification" not in parameters:
        return 0
    count = integer(parameters, "classification")
    if not 0 < count <= MAX_ELEMENTS:
        raise InvalidArgument("parameter 'classification' must be a positive integer below 2^31")
    return count


def integer(parameters: Mapping[str, Any], name: str) -> int:
    """Returns a parameter that counts something; 0 where it is absent.

    Raises:
        InvalidArgument: it is not an integer between 0 and 2^63.
    """
    value = parameters.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise InvalidArgument(f"parameter '{name}' must be an integer that is not negative")
    return value
