"""``sequence_batching`` of Triton's ``ModelConfig``, read and written."""

from __future__ import annotations

from typing import Any, Final

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import Sequencing
from crossfade.serving.repository.triton_dtypes import WIRE_DTYPES, dtype_of

# Triton's own: sequences without a request for so long are forgotten.
_IDLE_US: Final = 1_000_000
# Controls in the order of the protocol's numbers.
_KINDS: Final = ("start", "ready", "end", "corrid")
_FALSE_TRUE: Final = {
    "INT32": "int32_false_true",
    "FP32": "fp32_false_true",
    "BOOL": "bool_false_true",
}
_VALUES: Final = {"INT32": int, "FP32": float, "BOOL": bool}


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
    if control.kind >= len(_KINDS):
        raise LoadFailed(f"{file}: control_input '{entry.name}' has no kind of control")
    values: dict[str, Any] = {"input": entry.name, "kind": _KINDS[control.kind]}
    if values["kind"] == "corrid":
        if control.data_type:
            values["dtype"] = dtype_of(control.data_type)
        return values
    given = [
        (dtype, list(getattr(control, field)))
        for dtype, field in _FALSE_TRUE.items()
        if getattr(control, field)
    ]
    if len(given) != 1 or len(given[0][1]) != 2:
        raise LoadFailed(
            f"{file}: control_input '{entry.name}' must have one of"
            f" {', '.join(_FALSE_TRUE.values())}, with two values"
        )
    dtype, pair = given[0]
    return {**values, "dtype": dtype, "false_true": [float(value) for value in pair]}


def write(sequence: Sequencing, message: Any, max_rows: int) -> None:
    """Fills a ``ModelSequenceBatching`` of what a configuration says.

    Args:
        sequence: the configuration.
        message: where it goes.
        max_rows: so many sequences may be stacked.
    """
    if max_rows > 1:
        message.oldest.max_candidate_sequences = sequence.max_sequences
        message.oldest.preferred_batch_size.append(max_rows)
    message.max_sequence_idle_microseconds = round(sequence.max_idle_ms * 1000)
    for control in sequence.controls:
        line = message.control_input.add(name=control.input).control.add(
            kind=_KINDS.index(control.kind)
        )
        if control.kind == "corrid":
            line.data_type = WIRE_DTYPES.get(control.dtype or "", 0)
            continue
        dtype = control.dtype if control.dtype in _FALSE_TRUE else "FP32"
        values = getattr(line, _FALSE_TRUE[dtype])
        values.extend(_VALUES[dtype](value) for value in control.false_true)
    for state in sequence.states:
        message.state.add(input_name=state.input, output_name=state.output)


def _state(state: Any, file: str) -> dict[str, Any]:
    if any(initial.data_file for initial in state.initial_state):
        raise LoadFailed(
            f"{file}: the state '{state.input_name}' starts from a file, which is not supported by"
            " this server; zero_data is"
        )
    return {"input": state.input_name, "output": state.output_name}
