"""A request that is recognised is read as if it had been parsed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import DEFAULT_SIGNATURE, ModelMetadata, Signature, TensorSpec
from crossfade.serving.dataplane.door import Query
from crossfade.serving.frontends.open_inference import infer_codec
from crossfade.serving.frontends.open_inference.plans import Known, Plans
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.validator import Validator
from crossfade.serving.wire import forms
from crossfade.serving.wire import open_inference as wire

SIGNATURE = Signature.derive(
    [TensorSpec("a", "INT32", (-1, 4)), TensorSpec("b", "FP16", (-1, 2))],
    [TensorSpec("out", "FP32", (-1, 4))],
)
VALIDATOR = Validator(
    ModelMetadata("model", 1, "fake", {DEFAULT_SIGNATURE: SIGNATURE}, max_batch_size=8),
    DEFAULT_SIGNATURE,
)


class NobodyCalls:
    deadline_s = None
    cancelled = None


def request(rows: int = 1, **fields: Any) -> Any:
    made = wire.ModelInferRequest(**{"model_name": "model", **fields})
    made.inputs.add(name="a", datatype="INT32", shape=[rows, 4])
    made.inputs.add(name="b", datatype="FP16", shape=[rows, 2])
    made.raw_input_contents.append(np.arange(rows * 4, dtype=np.int32).tobytes())
    made.raw_input_contents.append(np.arange(rows * 2).astype(np.float16).tobytes())
    return made


def query(message: infer_codec.InferMessage | Known) -> Query:
    if isinstance(message, Known):
        return message.query(NobodyCalls())  # type: ignore[arg-type]
    return infer_codec.to_query(message, NobodyCalls(), SharedRegions())[0]  # type: ignore[arg-type]


def outcome(decode: Any, message: bytes) -> Any:
    """Everything that the data plane would see, or why not."""
    try:
        asked = query(decode(message))
        arrays, rows = VALIDATOR.inputs(asked.inputs, asked.layout)
    except CrossfadeError as error:
        return error.code, error.message
    values = {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}
    return asked.ref, tuple(asked.outputs), asked.id, asked.priority, values, rows


def is_known(found: Plans, message: Any) -> bool:
    return isinstance(found.decode(message.SerializeToString()), Known)


def test_the_second_of_a_form_is_known() -> None:
    found = Plans()
    assert not is_known(found, request())
    assert is_known(found, request())
    other = request()
    other.raw_input_contents[0] = bytes(16)
    assert is_known(found, other)
    assert not is_known(found, request(2))
    assert is_known(found, request(2))
    assert is_known(found, request())


def test_ids_may_differ() -> None:
    found = Plans()
    for fields in ({}, {"model_version": "1"}):
        assert not is_known(found, request(id="aé", **fields))
        known = found.decode(request(id="xyz", **fields).SerializeToString())
        assert isinstance(known, Known)
        assert known.id == "xyz"


def _parameter(made: Any) -> None:
    made.parameters["priority"].int64_param = 1


def _region(made: Any) -> None:
    made.inputs[0].parameters["shared_memory_region"].string_param = "r"


def _typed(made: Any) -> None:
    made.ClearField("raw_input_contents")
    made.inputs[0].contents.int_contents.extend(range(4))
    made.inputs[1].datatype = "INT32"
    made.inputs[1].contents.int_contents.extend(range(2))


def _text(made: Any) -> None:
    made.inputs[0].datatype = "BYTES"


def _classes(made: Any) -> None:
    made.outputs.add(name="out").parameters["classification"].int64_param = 1


def _version(made: Any) -> None:
    made.model_version = "latest"


@pytest.mark.parametrize("change", [_parameter, _region, _typed, _text, _classes, _version])
def test_what_needs_a_closer_look_each_time(change: Any) -> None:
    found, made = Plans(), request()
    change(made)
    for _ in range(3):
        assert not is_known(found, made)


def test_two_ids() -> None:
    """The last one counts, whatever the first one says."""
    good = request(id="one").SerializeToString()
    at = good.index(b"\x1a\x03one")
    twice = good[:at] + b"\x1a\x03one" + good[at:]
    found = Plans()
    for message in (twice, twice.replace(b"one", b"two", 1)):
        assert outcome(found.decode, message) == outcome(infer_codec.decode, message)


def test_forms_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "_MOST", 3)
    found = Plans()
    for turn in range(20):
        name = "m" * (turn % 5 + 1)
        message = request(model_name=name).SerializeToString()
        assert query(found.decode(message)).ref.name == name


MESSAGES = st.builds(
    lambda rows, version, name, outputs: request(
        rows,
        model_version=version,
        id=name,
        outputs=[wire.ModelInferRequest.InferRequestedOutputTensor(name=o) for o in outputs],
    ).SerializeToString(),
    st.integers(1, 9),
    st.sampled_from(["", "1", "12", "x"]),
    st.text(max_size=8),
    st.lists(st.sampled_from(["out", "none"]), max_size=2),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_it_is_the_same_as_parsing(messages: list[bytes], chance: random.Random) -> None:
    """Also of bytes that were bent: those of a form that is known are the likeliest to deceive."""
    found = Plans()
    for _ in range(12):
        message = bytearray(chance.choice(messages))
        for _ in range(chance.choice((0, 0, 1, 2))):
            message[chance.randrange(len(message))] = chance.randrange(256)
        assert outcome(found.decode, bytes(message)) == outcome(infer_codec.decode, bytes(message))
