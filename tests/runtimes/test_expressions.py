"""Which expressions of sizes may be evaluated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.exported_program.expressions import is_harmless


@pytest.mark.parametrize(
    "text",
    [
        "s77",
        "Symbol('s77', positive=True, integer=True)",
        "Add(Mul(Integer(2), Symbol('s0')), Integer(-1))",
        "FloorDiv(Symbol('s0', integer=True), Integer(2))",
        "Pow(Symbol('s0'), Integer(2))",
        "2*s0 + 1",
        "s0 <= 4",
        "Max(1, u3)",
        "-s1 // 2",
    ],
)
def test_what_exporters_write(text: str) -> None:
    assert is_harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        "exec('1')",
        "__import__('os').system('true')",
        "().__class__",
        "Symbol('s0').name",
        "Symbol('__import__')",
        "Symbol('s0', cls=open)",
        "open",
        "lambda: 1",
        "[x for x in (1,)]",
        "(s0 := 3)",
        "'text'",
        "f'{1}'",
        "9 ** 9 ** 9",
        "Pow(9, 99)",
        "Pow(9, s0)",
        "Max(1, exec)",
        "Max(*s0)",
        "Integer('3')",
        "1; 2",
        "",
        "s0 +",
        "(" * 3000,
        "s0+" * 2000 + "1",
        "await s0",
        "S0",
        "sqrt(2)",
    ],
)
def test_what_they_do_not(text: str) -> None:
    assert not is_harmless(text)


@given(st.text(alphabet="s0123(),.'_ab*[]=\"\\x", max_size=40))
def test_nothing_with_an_attribute_an_index_or_a_text_passes(text: str) -> None:
    if is_harmless(text):
        assert "__" not in text
        assert "[" not in text
        assert '"' not in text
