"""Columns and fields as OpenAPI objects declare them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.processing.table_schema import Column, Field, columns, fields

INSTANCE = """\
type: object
required: [yes, 1e3]
properties:
  yes: {type: string, nullable: true}
  1e3: {type: integer}
  tags: {type: array, items: {type: string}, nullable: true}
  when: {type: string, format: date-time, example: 2026-01-01}
nullable: true
example: {yes: no, 1e3: 007}
"""


def test_columns_are_text_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(INSTANCE)
    assert columns(path) == [
        Column("yes", "string", nullable=True, required=True, example="no"),
        Column("1e3", "integer", required=True, example="007"),
        Column("tags", "string", array=True, nullable=True),
        Column("when", "string", example="2026-01-01"),
    ]
    assert columns(tmp_path / "none.yaml") == []


def test_fields_and_their_classes(tmp_path: Path) -> None:
    path = tmp_path / "prediction_schema.yaml"
    path.write_text(
        "properties:\n  classes: {type: array, items: {type: string, enum: ['0', 1, no]}}\n"
        "  scores: {type: array, items: {type: number}}\n  value: {type: number}\n"
    )
    assert fields(path) == [
        Field("classes", True, ("0", "1", "no")),
        Field("scores", True),
        Field("value", False),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [", "no OpenAPI object"),
        ("[1]", "no OpenAPI object"),
        ("properties: 3", "no OpenAPI object"),
        ("[" * 3000, "no OpenAPI object"),
        ("properties: {a: {type: object}}", "column 'a' is of type 'object'"),
        ("properties: {a: {type: array, items: {type: array}}}", "column 'a' is of type 'array'"),
        ("x" * (5 << 20), "more than"),
    ],
)
def test_what_declares_nothing_is_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(content)
    with pytest.raises(InvalidArgument, match=says):
        columns(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
        st.tuples(st.sampled_from(["string", "number", "integer", "boolean"]), st.booleans()),
        min_size=1,
    )
)
def test_what_a_yaml_library_writes_is_read(
    tmp_path: Path, declared: dict[str, tuple[str, bool]]
) -> None:
    path = tmp_path / "instance.yaml"
    properties = {name: {"type": t, "nullable": n} for name, (t, n) in declared.items()}
    path.write_text(yaml.safe_dump({"type": "object", "properties": properties}))
    found = {column.name: (column.type, column.nullable) for column in columns(path)}
    assert found == declared
