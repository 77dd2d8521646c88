"""``sequence_batching``: what is read of it can be written again."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from crossfade.serving.config.model_config import Sequencing
from crossfade.serving.repository.triton_sequences import read, write
from crossfade.serving.wire import model_config as wire

DIRECT = """
max_sequence_idle_microseconds: 5000000
control_input { name: "S" control { int32_false_true: 0 int32_false_true: 1 } }
control_input { name: "E" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [-1, 0.5] } }
control_input { name: "R" control { kind: CONTROL_SEQUENCE_READY bool_false_true: [false, true] } }
control_input { name: "C" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } }
state { input_name: "h" output_name: "h_next" }
"""
OLDEST = "oldest { max_candidate_sequences: 4 preferred_batch_size: 8 } " + DIRECT


@pytest.mark.parametrize(("text", "max_rows"), [(DIRECT, 1), (OLDEST, 8)])
def test_there_and_back(text: str, max_rows: int) -> None:
    message = text_format.Parse(text, wire.ModelSequenceBatching())
    sequence = Sequencing.model_validate(read(message, "config.pbtxt"))
    again = wire.ModelSequenceBatching()
    write(sequence, again, max_rows)
    assert again == message


@pytest.mark.parametrize("dtype", [None, "INT64"])
def test_controls_of_another_file(dtype: str | None) -> None:
    """``model.yaml`` may say of a control what Triton cannot, or nothing."""
    controls = [{"input": "S", "kind": "start", "dtype": dtype}]
    sequence = Sequencing.model_validate({"controls": controls})
    message = wire.ModelSequenceBatching()
    write(sequence, message, 1)
    (control,) = message.control_input[0].control
    assert list(control.fp32_false_true) == [0, 1]
