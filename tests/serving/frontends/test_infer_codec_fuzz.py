"""Properties of the ``ModelInfer`` codec on messages that nobody meant to write."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.frontends.open_inference import infer_codec
from crossfade.serving.tensors.shared_regions import SharedRegions
from crossfade.serving.tensors.validator import Validator
from crossfade.serving.wire import open_inference as wire

EXAMPLES = settings(max_examples=400, derandomize=True, deadline=None)
Fields = tuple[bytes, list[bytes]]


class NobodyCalls:
    """A call of which only the message is known."""

    deadline_s = None
    cancelled = None


def spec(name: str, dtype: str) -> TensorSpec:
    return TensorSpec(name, dtype, (-1, 4))


SIGNATURE = Signature.derive(
    [spec("number", "INT32"), spec("text", "BYTES"), spec("half", "FP16")],
    [spec("out", "FP32"), spec("back", "BYTES")],
)
VALIDATOR = Validator(
    ModelMetadata("model", 1, "fake", {DEFAULT_SIGNATURE: SIGNATURE}, max_batch_size=8),
    DEFAULT_SIGNATURE,
)


def request(**fields: Any) -> Any:
    made = wire.ModelInferRequest(model_name="model", model_version="1", id="id", **fields)
    made.parameters["priority"].int64_param = 1
    made.outputs.add(name="out").parameters["classification"].int64_param = 2
    made.outputs.add(name="back")
    return made


def raw() -> bytes:
    made = request()
    for name, dtype in (("number", "INT32"), ("text", "BYTES"), ("half", "FP16")):
        made.inputs.add(name=name, datatype=dtype, shape=[1, 4])
    texts = b"".join(bytes([len(e), 0, 0, 0]) + e for e in (b"", b"a", b"bc", b"def"))
    made.raw_input_contents.extend([np.arange(4, dtype=np.int32).tobytes(), texts, bytes(8)])
    return bytes(made.SerializeToString())


def typed() -> bytes:
    made = request()
    number = made.inputs.add(name="number", datatype="INT32", shape=[1, 4])
    number.contents.int_contents.extend([1, -1, 2**31 - 1, 0])
    text = made.inputs.add(name="text", datatype="BYTES", shape=[1, 4])
    text.contents.bytes_contents.extend([b"a", b"", b"\xff", b"bcd"])
    return bytes(made.SerializeToString())


GOOD = (raw(), typed())


def varint(value: int, padding: int = 0) -> bytes:
    """A varint with ``padding`` bytes more than it needs."""
    out = bytearray()
    while value > 127 or padding:
        if value <= 127:
            padding -= 1
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def outcome(kind: Any, message: bytes | memoryview) -> Fields | str:
    """What a way to read a message makes of it: the head and the raws, or the refusal's code."""
    try:
        found = kind(message)
    except InvalidArgument as error:
        return error.code.name
    raws = [bytes(tensor) for tensor in found.raws]
    head = wire.ModelInferRequest.FromString(found.head.SerializeToString())
    head.ClearField("raw_input_contents")
    return head.SerializeToString(deterministic=True), raws


def plain_parse(message: bytes | memoryview) -> infer_codec.InferMessage:
    head = infer_codec.parse(wire.ModelInferRequest, message)
    return infer_codec.InferMessage(head, head.raw_input_contents)


def check(message: bytes) -> None:
    expected = outcome(plain_parse, message)
    assert outcome(infer_codec.cut, message) == expected
    assert outcome(infer_codec.decode, memoryview(message)) == expected
    if isinstance(expected, str):
        return
    for read in (infer_codec.decode, infer_codec.cut):
        try:
            query, special = infer_codec.to_query(read(message), NobodyCalls(), SharedRegions())  # type: ignore[arg-type]
            VALIDATOR.outputs(query.outputs)
            arrays, rows = VALIDATOR.inputs(query.inputs)
        except CrossfadeError:
            continue
        assert rows in range(1, 9)
        assert all(output.classes >= 0 for output in special)
        assert {name: a.shape for name, a in arrays.items()} == dict.fromkeys(arrays, (rows, 4))


def mutate(message: bytes, chance: random.Random) -> bytes:
    """Changes, repeats, moves, cuts and adds bytes."""
    data = bytearray(message)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randrange(12))
        piece = bytes(data[at:end])
        how = chance.randrange(6)
        if how == 0 and at < len(data):
            data[at] = chance.choice([0, 1, 0x3A, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        elif how == 1:
            del data[at:end]
        elif how == 2:
            data[at:at] = piece * chance.randrange(3)
        elif how == 3:
            where = chance.randrange(len(data) + 1)
            data[where:where] = piece
        elif how == 4:
            data[at:at] = chance.randbytes(chance.randrange(8))
        elif at < len(data):
            data[at] ^= 1 << chance.randrange(8)
    return bytes(data)


@pytest.mark.parametrize("good", GOOD, ids=["raw", "typed"])
def test_good(good: bytes) -> None:
    check(good)
    query, _ = infer_codec.to_query(infer_codec.decode(good), NobodyCalls(), SharedRegions())  # type: ignore[arg-type]
    assert {r.name for r in query.inputs} <= {"number", "text", "half"}


@pytest.mark.parametrize("good", GOOD, ids=["raw", "typed"])
def test_mutations(good: bytes) -> None:
    chance = random.Random(20_000)
    for _ in range(15_000):
        check(mutate(good, chance))


@pytest.mark.parametrize("good", GOOD, ids=["raw", "typed"])
def test_cut_short_and_doubled(good: bytes) -> None:
    for at in range(len(good)):
        check(good[:at])
        check(good[at:])
        check(good + good[at:])


FIELD = st.tuples(
    st.integers(0, 20) | st.sampled_from([100, 2**28, 2**29 - 1, 2**29]),
    st.sampled_from([0, 1, 2, 2, 2, 2, 3, 4, 5, 6, 7]),
    st.binary(max_size=12) | st.sampled_from(GOOD),
    st.integers(0, 9) | st.just(0),
    st.integers(0, 9) | st.just(0),
)


def field(number: int, kind: int, value: bytes, tag_padding: int, length_padding: int) -> bytes:
    tag = varint(number << 3 | kind, tag_padding)
    if kind == 0:
        return tag + varint(int.from_bytes(value[:8]), length_padding)
    if kind in (1, 5):
        return tag + value.ljust(8)[: 8 if kind == 1 else 4]
    if kind == 2:
        return tag + varint(len(value), length_padding) + value
    return tag


@EXAMPLES
@given(st.lists(FIELD, max_size=8), st.sampled_from([b"", *GOOD]), st.integers(0, 8))
def test_unusual_fields(fields: Sequence[Any], good: bytes, place: int) -> None:
    """Unknown, repeated, of the wrong type, and with more bytes in their numbers than needed."""
    parts = [field(*f) for f in fields]
    check(b"".join([*parts[:place], good, *parts[place:]]))


@EXAMPLES
@given(st.binary(max_size=64))
def test_noise(message: bytes) -> None:
    check(message)


@pytest.mark.parametrize("padding", range(12))
@pytest.mark.parametrize("number", [1, 5, 7, 15])
def test_lengths_with_padding(number: int, padding: int) -> None:
    """How long a length may be is the parser's to say, also for what is cut out."""
    for value in (b"", b"ab", b"\x0a\x01a"):
        check(varint(number << 3 | 2) + varint(len(value), padding) + value)
        check(varint(number << 3 | 2) + varint(len(value) + 2**64, padding) + value)


def test_a_large_message_agrees() -> None:
    large = np.arange(20_000, dtype=np.float32).tobytes()
    made = request()
    made.raw_input_contents.extend([large, b"", large[:7]])
    message = bytes(made.SerializeToString())
    check(message)
    found = infer_codec.decode(message)
    assert [bytes(r) for r in found.raws] == [large, b"", large[:7]]
    assert isinstance(found.raws[0], memoryview)  # cut out, not copied


def test_so_many_fields_and_no_more() -> None:
    empty = b"\x3a\x00"
    assert len(infer_codec.cut(empty * 16_384).raws) == 16_384
    with pytest.raises(InvalidArgument, match="more than 16384 fields"):
        infer_codec.cut(empty * 16_385)
