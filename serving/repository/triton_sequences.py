"""Reads ``sequence_batching`` of Triton's ``config.pbtxt``."""

from __future__ import annotations

from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed

# Triton's own: sequences without a request for so long are forgotten.
_IDLE_US: Final = 1_000_000
# Controls in the order of the protocol's numbers.
_KINDS: Final = ("start", "ready", "end", "corrid")
_FALSE_TRUE: Final = ("int32_false_true", "fp32_false_true", "bool_false_true")


def read(message: Any, file: str) -> dict[str, Any]:
    """The values of ``model_config.Sequencing`` for a ``ModelSequenceBatching``.

    Raises:
        LoadFailed: it asks for what this server does not do.
    """
    if message.iterative_sequence:
        raise LoadFailed(f"{file}: iterative sequences are not supported by this server")
    values: dict[str, Any] = {
        "max_idle_ms": (message.max_sequence_idle_microseconds or _IDLE_US) / 1000,
        "controls": [_control(entry, file) for entry in message.control_input],
        "states": [_state(state, file) for state in message.state],
    }
    if message.oldest.max_candidate_sequences:
        values["max_sequences"] = message.oldest.max_candidate_sequences
    return values


def _control(entry: Any, file: str) -> dict[str, Any]:
    if len(entry.control) != 1:
        raise LoadFailed(f"{file}: control_input '{entry.name}' must have one control")
    (control,) = entry.control
    values: dict[str, Any] = {"input": entry.name, "kind": _KINDS[control.kind]}
    given = [list(getattr(control, field)) for field in _FALSE_TRUE if getattr(control, field)]
    if values["kind"] != "corrid":
        if len(given) != 1 or len(given[0]) != 2:
            raise LoadFailed(
                f"{file}: control_input '{entry.name}' must have one of {', '.join(_FALSE_TRUE)},"
                " with two values"
            )
        values["false_true"] = [float(value) for value in given[0]]
    return values


def _state(state: Any, file: str) -> dict[str, Any]:
    if any(initial.data_file for initial in state.initial_state):
        raise LoadFailed(
            f"{file}: the state '{state.input_name}' starts from a file, which is not supported by"
            " this server; zero_data is"
        )
    return {"input": state.input_name, "output": state.output_name}
