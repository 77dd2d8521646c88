"""JSON from strangers: what the standard library reads is read alike, what is doubtful is not."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.tensors.strict_json import MAX_DEPTH, MAX_KEYS, MAX_LISTS, loads, to_array

INTEGERS = sorted(n for n, d in NUMPY.items() if d.kind in "iu")
FLOATS = ["FP16", "FP32", "FP64", "BF16"]
LARGEST = {"FP16": 65504.0, "FP32": float(np.finfo(np.float32).max), "FP64": 1.7e308, "BF16": 3e38}

# Text that looks like structure: quotes, backslashes, colons and brackets inside of strings.
TEXT = st.text(st.sampled_from('a"\\:[]{},\n\té€𝄞/') | st.characters(exclude_categories=["Cs"]))
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
DOCUMENTS = st.dictionaries(TEXT, JSON, max_size=5)


@given(document=DOCUMENTS, ascii_only=st.booleans(), spaced=st.booleans())
@example(document={'a:"': {'\\"{': ["}", '\\\\":']}}, ascii_only=True, spaced=False)
def test_agrees_with_the_standard_library(
    document: dict[str, Any], ascii_only: bool, spaced: bool
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=1 if spaced else None)
    assert loads(text.encode()) == json.loads(text) == document


def write(value: Any, names: list[str] | None = None) -> str:
    """JSON of ``value`` in which each pair of ``Pairs`` stands, even where a key repeats."""
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(k)}: {write(v)}" for k, v in value.pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(write(v) for v in value) + "]"
    return json.dumps(value)


class Pairs:
    """An object with its keys as they are written, so that one can stand twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs

    @property
    def doubled(self) -> bool:
        keys = [key for key, _ in self.pairs]
        return len(set(keys)) < len(keys) or any(doubled(v) for _, v in self.pairs)


def doubled(value: Any) -> bool:
    if isinstance(value, Pairs):
        return value.doubled
    return isinstance(value, list) and any(doubled(v) for v in value)


SOME_KEYS = st.sampled_from(["a", "a:", '"', '\\"', "{", "\u00e9", "\\", ""])
WITH_DOUBLES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(SOME_KEYS, inner), max_size=4).map(Pairs)
    ),
)


@given(pairs=st.lists(st.tuples(SOME_KEYS, WITH_DOUBLES), max_size=4).map(Pairs))
def test_a_key_that_stands_twice_is_refused_wherever_it_is(pairs: Pairs) -> None:
    text = write(pairs)
    if pairs.doubled:
        with pytest.raises(InvalidArgument, match="a key stands twice"):
            loads(text.encode())
    else:
        assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":{"b":1,"b":2}}',
        b'{"a":[1,[{"b":1},{"c":{"d":1,"d":1}}]]}',
        b'{"a":1,"\\u0061":2}',
        b'{"x":"\\\\","x":"\\""}',
        b'{"":1,"":2}',
    ],
)
def test_doubled_keys(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="a key stands twice"):
        loads(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting(opening: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}", b'[{"a":': b"}]"}[opening]
    levels = opening.count(b"[") + opening.count(b"{")
    fits = (MAX_DEPTH - 1) // levels
    body = b'{"x":' + opening * fits + b"1" + closing * fits + b"}"
    assert loads(body) == json.loads(body)
    for depth in (MAX_DEPTH // levels + levels, 100_000):
        body = b'{"x":' + opening * depth + b"1" + closing * depth + b"}"
        with pytest.raises(InvalidArgument, match=r"exceeds maximum allowed limit \(100\)"):
            loads(body)
        with pytest.raises(InvalidArgument):
            loads(b'{"x":' + opening * depth)


def test_a_body_may_not_say_more_than_a_request_needs() -> None:
    """Two bytes of it would become an object of sixty."""
    lists = b'{"a":[' + b"[]," * (MAX_LISTS - 2) + b"[]"
    assert len(loads(lists + b"]}")["a"]) == MAX_LISTS - 1
    with pytest.raises(InvalidArgument, match=f"more than {MAX_LISTS} JSON lists"):
        loads(lists + b",[]]}")
    objects = b'{"a":[' + b"{}," * (MAX_KEYS - 3) + b"{}"
    assert len(loads(objects + b"]}")["a"]) == MAX_KEYS - 2
    with pytest.raises(InvalidArgument, match=f"more than {MAX_KEYS} JSON objects and keys"):
        loads(objects + b",{}]}")


def test_brackets_in_strings_are_no_nesting() -> None:
    text = json.dumps({"[" * 300: '\\"' + "{[" * 300})
    assert loads(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"1", "must be a JSON object"),
        (b'"{}"', "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b'{"a":1', "not valid JSON"),
        (b'{"a":1}}', "not valid JSON"),
        (b'{"a":1} {"b":1}', "not valid JSON"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":Infinity}', "not valid JSON"),
        (b'{"a":-Infinity}', "not valid JSON"),
        (b'{"a":1e999}', "not valid JSON"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":+1}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b'{"a":1}//', "not valid JSON"),
        (b'{"a":"\x00"}', "not valid JSON"),
        (b'{"a":"\xff"}', "not valid JSON"),
        (b'{"a":"\\ud800"}', "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
)
def test_what_is_no_json_here(body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        loads(body)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b'\\"' * 2_000_000,
        b'{"a":"' + b"\\" * 4_000_000,
        b'"' * 4_000_001,
        b'{"a":"' + b"x" * 4_000_000 + b'"}',
        b'{"a":"' + b"\\n" * 2_000_000 + b'"}',
    ],
    ids=["escapes without end", "backslashes", "quotes", "one long text", "one long escaped text"],
)
def test_time_and_memory_grow_with_the_body_only(body: bytes) -> None:
    """A scan that starts again at each quote would take hours for these 4 MB."""
    tracemalloc.start()
    began_s = time.perf_counter()
    try:
        loads(body)
    except InvalidArgument:
        pass
    finally:
        taken_s = time.perf_counter() - began_s
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert taken_s < 3
    assert peak_bytes < 16 * len(body)  # orjson itself sets 12 aside


# -- arrays -------------------------------------------------------------------------------------


def nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    for size in reversed(shape[1:]):
        flat = [flat[at : at + size] for at in range(0, len(flat), size)]
    return flat


@given(
    dtype=st.sampled_from(INTEGERS),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    nested=st.booleans(),
    data=st.data(),
)
@example(dtype="UINT64", shape=(2,), nested=False, data=None)
def test_integers_arrive_unchanged(
    dtype: str, shape: tuple[int, ...], nested: bool, data: st.DataObject | None
) -> None:
    limits = np.iinfo(NUMPY[dtype])
    count = math.prod(shape)
    ranged = st.sampled_from([limits.min, limits.max]) | st.integers(limits.min, limits.max)
    flat = (
        data.draw(st.lists(ranged, min_size=count, max_size=count))
        if data
        else [2**63, 1]  # numpy alone makes floats of these two
    )
    values = json.loads(json.dumps(nest(flat, shape) if nested else flat))
    array = to_array("x", dtype, values, NUMPY[dtype])
    assert array.dtype == NUMPY[dtype]
    assert array.ravel().tolist() == flat
    if nested:
        assert array.shape == shape


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("step", [-1, 1])
def test_an_integer_that_does_not_fit_is_refused(dtype: str, step: int) -> None:
    limits = np.iinfo(NUMPY[dtype])
    over = limits.max + 1 if step > 0 else limits.min - 1
    for values in ([over], [0, over], [[0], [over]], [limits.min, limits.max, over]):
        document = loads(json.dumps({"data": values}).encode())
        with pytest.raises(InvalidArgument, match=f"input 'x' has a value that .*{dtype}"):
            to_array("x", dtype, document["data"], NUMPY[dtype])


@given(
    dtype=st.sampled_from(FLOATS), flat=st.lists(st.floats(-60000, 60000), min_size=1, max_size=6)
)
def test_floats_arrive_as_the_nearest_of_their_type(dtype: str, flat: list[float]) -> None:
    values = loads(json.dumps({"data": flat}).encode())["data"]
    array = to_array("x", dtype, values, NUMPY[dtype])
    expected = np.array(flat, dtype=np.float64).astype(NUMPY[dtype])
    assert array.dtype == NUMPY[dtype]
    assert array.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
def test_whole_numbers_are_floats_too(dtype: str) -> None:
    array = to_array("x", dtype, [1, 2.5, -3], NUMPY[dtype])
    assert array.astype(np.float64).tolist() == [1, 2.5, -3]


@pytest.mark.parametrize(("dtype", "value"), LARGEST.items())
def test_a_float_that_would_be_infinite_is_refused(dtype: str, value: float) -> None:
    assert np.isfinite(to_array("x", dtype, [value, -value], NUMPY[dtype]).astype(float)).all()
    if dtype == "FP64":
        return  # the parser refuses 1e999
    for over in (value * 2, -value * 2):
        with pytest.raises(InvalidArgument, match=f"has a value that {dtype} cannot hold"):
            to_array("x", dtype, [1.0, over], NUMPY[dtype])


WRONG: dict[str, Any] = {
    "a text": ["1"],
    "null": [None],
    "null among numbers": [1, None],
    "an object": [{}],
    "a text among numbers": [1, "2"],
    "a text in a row": [[1, 2], [3, "4"]],
    "no list": "1",
}


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, "BOOL"])
@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG.keys())
def test_values_of_another_kind_are_refused(dtype: str, values: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"input 'x' has a value that is not {dtype}"):
        to_array("x", dtype, values, NUMPY[dtype])


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("values", [[1.0], [1, 1.5], [[1], [2.0]], [1e300]])
def test_a_float_is_no_integer(dtype: str, values: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"has a value that is not {dtype}"):
        to_array("x", dtype, values, NUMPY[dtype])


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
@pytest.mark.parametrize("values", [[True], [True, 2], [[1, 0], [1, False]]])
def test_a_truth_value_is_no_number(dtype: str, values: Any) -> None:
    with pytest.raises(InvalidArgument, match=f"has a value that is not {dtype}"):
        to_array("x", dtype, values, NUMPY[dtype])


@pytest.mark.parametrize("values", [[0], [1], [True, 1], [1.0], [[True], [0]]])
def test_a_number_is_no_truth_value(values: Any) -> None:
    with pytest.raises(InvalidArgument, match="has a value that is not BOOL"):
        to_array("x", "BOOL", values, NUMPY["BOOL"])


def test_truth_values() -> None:
    array = to_array("x", "BOOL", [[True, False], [False, True]], NUMPY["BOOL"])
    assert array.dtype == np.bool_
    assert array.tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("values", [[[1, 2], [3]], [1, [2]], [[1], 2], [[[1]], [2]], [[], [1]]])
@pytest.mark.parametrize("dtype", ["INT32", "UINT64", "FP32", "BF16"])
def test_ragged_rows_are_refused(dtype: str, values: Any) -> None:
    with pytest.raises(InvalidArgument, match="input 'x' has rows of different lengths"):
        to_array("x", dtype, values, NUMPY[dtype])


@given(texts=st.lists(TEXT, min_size=1, max_size=6))
def test_texts_arrive_as_utf8_in_order(texts: list[str]) -> None:
    values = loads(json.dumps({"data": texts}).encode())["data"]
    array = to_array("x", "BYTES", values, NUMPY["BYTES"])
    assert array.dtype == object
    assert array.tolist() == [text.encode() for text in texts]
    nested = to_array("x", "BYTES", [[text] for text in values], NUMPY["BYTES"])
    assert nested.ravel().tolist() == array.tolist()


@pytest.mark.parametrize("values", [[1], ["a", None], [["a"], [True]], {"b64": "YQ=="}])
def test_what_is_no_text(values: Any) -> None:
    with pytest.raises(InvalidArgument, match="input 'x' has a value that is not a string"):
        to_array("x", "BYTES", values, NUMPY["BYTES"])


def test_tokens_that_json_does_not_have() -> None:
    found = loads(b'{"a": [NaN, Infinity, -Infinity, 1.5, "NaN"]}', nonfinite=True)["a"]
    assert found[0] != found[0]
    assert found[1:] == [float("inf"), float("-inf"), 1.5, "NaN"]
    for bad in (
        b"NaN",
        b'{"a": [NaN, 1e999]}',
        b'{"a": NaN, "a": 1}',
        b'{"a": NaN, "b": "\\ud800"}',
    ):
        with pytest.raises(InvalidArgument):
            loads(bad, nonfinite=True)
    with pytest.raises(InvalidArgument):
        loads(b'{"a": NaN}')
    with pytest.raises(InvalidArgument, match="depth"):
        loads(b'{"a": NaN, "b": ' + b"[" * 100 + b"]" * 100 + b"}", nonfinite=True)
