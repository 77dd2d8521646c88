"""Facts of a session through JSON, and what no worker may say."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.runtimes.isolated.facts import Facts, plain, read

COUNTS = st.integers(1, 1 << 31)
NAMES = st.text(max_size=8)
STORED = st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.integers(-255, 255))
FACTS = st.builds(
    Facts,
    st.none() | COUNTS,
    st.none() | COUNTS,
    st.dictionaries(NAMES, STORED, max_size=3),
    st.dictionaries(NAMES, COUNTS, max_size=3),
)


@given(FACTS)
def test_they_come_through_unchanged(facts: Facts) -> None:
    assert read(json.loads(json.dumps(plain(facts)))) == facts


def test_a_session_that_says_nothing() -> None:
    assert read(plain(SimpleNamespace())) == Facts()


GOOD: dict[str, Any] = plain(SimpleNamespace())


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {**GOOD, "instances": 0},
        {**GOOD, "instances": True},
        {**GOOD, "max_rows": "8"},
        {**GOOD, "quantization": [1]},
        {**GOOD, "quantization": {"x": [1]}},
        {**GOOD, "quantization": {"x": [float("inf"), 0]}},
        {**GOOD, "nodes": {"cpu": -1}},
    ],
)
def test_what_is_none_is_refused(values: Any) -> None:
    with pytest.raises(LoadFailed, match="no way known here"):
        read(values)
