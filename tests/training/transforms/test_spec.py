"""What a specification refuses, by name, and that JSON keeps it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.errors import NotFound
from crossfade.training.transforms import graph, plan
from crossfade.training.transforms.errors import (
    InvalidSpec,
    UnknownTransform,
    UnknownVersion,
    WrongTable,
)
from crossfade.training.transforms.spec import TransformSpec, make
from crossfade.training.transforms.table import Table, parse_csv, read_csv

NUMBER = {"name": "x", "kind": "number"}
TEXT = {"name": "a", "kind": "text"}
SCALED = {"transform": "standardize", "column": "x", "mean": 1.0, "std": 2.0}


def spec(*transforms: Any, columns: Any = (NUMBER, TEXT), derived: Any = ()) -> str:
    return json.dumps({"columns": columns, "derived": derived, "transforms": transforms})


def test_json_keeps_a_specification() -> None:
    read = TransformSpec.from_json(spec(SCALED))
    assert TransformSpec.from_json(read.to_json()) == read
    assert read.dense_names == ["x"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (spec({"transform": "quantile", "column": "x"}), UnknownTransform, "no 'quantile'"),
        (
            spec(SCALED, derived=[{"derive": "sum", "name": "s", "columns": ["x", "x"]}]),
            UnknownTransform,
            "no 'sum'",
        ),
        (json.dumps({"version": 2}), UnknownVersion, "version 2; this release reads version 1"),
        ("[1]", InvalidSpec, "no JSON object"),
        ("{", InvalidSpec, "no JSON object"),
        ("[" * 100_000, InvalidSpec, "no JSON object"),
        (spec({**SCALED, "std": 0.0}), InvalidSpec, "std"),
        (spec({**SCALED, "std": "2"}), InvalidSpec, "std"),
        (spec({**SCALED, "mean": float("nan")}), InvalidSpec, "mean"),
        (spec({**SCALED, "scale": 1}), InvalidSpec, "scale"),
        (spec({**SCALED, "column": "y"}), InvalidSpec, "reads column 'y', which is not there"),
        (spec({**SCALED, "column": "a"}), InvalidSpec, "reads number, and 'a' is text"),
        (spec(SCALED, columns=[NUMBER, NUMBER]), InvalidSpec, "'x' stands twice"),
        (
            spec({"transform": "min_max", "column": "x", "minimum": 1, "maximum": 1}),
            InvalidSpec,
            "'maximum' has to be above",
        ),
        (
            spec({"transform": "one_hot", "column": "a", "categories": ["b", "b"]}),
            InvalidSpec,
            "stands twice",
        ),
        (
            spec({"transform": "one_hot", "column": "a", "categories": ["\ud800"]}),
            InvalidSpec,
            "",
        ),
        (
            spec(
                {
                    "transform": "target_encoding",
                    "column": "a",
                    "categories": ["b"],
                    "values": [[1.0, 2.0]],
                    "default": [0.0],
                }
            ),
            InvalidSpec,
            "as many numbers as 'default'",
        ),
        (
            spec(
                SCALED,
                derived=[
                    {"derive": "bucket", "name": "b", "column": "x", "boundaries": [2.0, 1.0]}
                ],
            ),
            InvalidSpec,
            "have to increase",
        ),
        (
            spec(SCALED, derived=[{"derive": "cross", "name": "c", "columns": ["a", "x"]}]),
            InvalidSpec,
            "'cross' reads text",
        ),
        (
            spec({"transform": "timestamp", "column": "a", "parts": ["year"]}),
            InvalidSpec,
            "reads timestamp or number",
        ),
        (
            spec({"transform": "timestamp", "column": "x", "parts": ["century"]}),
            InvalidSpec,
            "parts",
        ),
    ],
)
def test_what_is_wrong_has_a_name(text: str, error: type[InvalidSpec], says: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        TransformSpec.from_json(text)
    assert type(caught.value) is error
    assert says in caught.value.message
    assert caught.value.message.isascii()


def test_a_column_cannot_be_called_as_an_output() -> None:
    named = make(
        columns=[{"name": "dense", "kind": "number"}],
        transforms=[{"transform": "identity", "column": "dense"}],
    )
    with pytest.raises(InvalidSpec, match="rename it"):
        graph.build(named)


TABLE = Table.of(
    {
        "age": [1.5, None, 3],
        "class": ["1", "2", "1"],
        "when": ["2024-01-01", "", "2024-01-01T10:00:00+02:00"],
        "name": ["a", "b", "c"],
        "rooms": [1, 2, 3],
    }
)


def test_kinds_are_told_by_values() -> None:
    kinds = {column.name: column.kind for column in plan.infer(TABLE, target="name")}
    assert kinds == {"age": "number", "class": "text", "when": "timestamp", "rooms": "text"}


def test_the_transformations_of_a_training_job() -> None:
    planned = plan.of_transformations(
        [
            {"numeric": {"column_name": "rooms"}},
            {"auto": {"columnName": "age"}},
            {"categorical": {"column_name": "when"}},
        ],
        TABLE,
    )
    assert [(c.name, c.kind) for c in planned] == [
        ("rooms", "number"),
        ("age", "number"),
        ("when", "text"),
    ]


@pytest.mark.parametrize(
    ("transformation", "error"),
    [
        ({"text": {"column_name": "name"}}, UnknownTransform),
        ({"repeated_numeric": {"column_name": "age"}}, UnknownTransform),
        ({"numeric": {"column_name": "height"}}, WrongTable),
        ({"timestamp": {"column_name": "when", "time_format": "%Y"}}, InvalidSpec),
        ({"numeric": {}}, InvalidSpec),
        ({"numeric": {"column_name": "age"}, "auto": {}}, InvalidSpec),
    ],
)
def test_no_transformation_is_left_out_silently(transformation: Any, error: type) -> None:
    with pytest.raises(error):
        plan.of_transformations([transformation], TABLE)


def test_an_export_says_which_columns_are_categories(tmp_path: Path) -> None:
    assets = tmp_path / "predict" / "001" / "assets"
    assets.mkdir(parents=True)
    (assets / "age_vocab").write_text("1.5\n3\n\n3\n", "utf-8")
    planned = plan.of_export(tmp_path, {"age": "string", "rooms": "string"}, TABLE)
    assert [(c.name, c.kind, list(c.categories)) for c in planned] == [
        ("age", "text", ["1.5", "3"]),
        ("rooms", "text", []),
    ]
    assert planned[0].source == "age_vocab"
    with pytest.raises(UnknownTransform, match="array of string"):
        plan.of_export(tmp_path, {"tags": "array of string"}, TABLE)
    with pytest.raises(WrongTable, match="no column 'height'"):
        plan.of_export(tmp_path, {"height": "string"}, TABLE)
    with pytest.raises(NotFound):
        plan.of_export(tmp_path / "none", {}, TABLE)


def test_csv_becomes_texts_without_spaces_and_missing_words() -> None:
    table = parse_csv('\ufeffa, b\r\n1," x, y "\r\nNA,\r\n\r\n2,null\n'.lstrip("\ufeff"), "t")
    assert table.texts("a").tolist() == ["1", "", "2"]
    assert table.texts("b").tolist() == ["x, y", "", ""]
    np.testing.assert_array_equal(table.numbers("a"), [1, np.nan, 2])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows"),
        ("a,a\n1,2\n", "two columns are called 'a'"),
        ("a,\n1,2\n", "column 2 has no name"),
        ("a,b\n1,2\n1\n", "line 3: 1 cells, and the header has 2"),
        ('a,b\n1,"2\n', "line 2"),
    ],
)
def test_csv_that_is_none(text: str, says: str) -> None:
    with pytest.raises(WrongTable, match=says):
        parse_csv(text, "t.csv")


def test_csv_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no file t\.csv"):
        read_csv(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"a\nx\n")
    assert read_csv(str(tmp_path / "t.csv")).texts("a").tolist() == ["x"]
    (tmp_path / "t.csv").write_bytes(b"a\nx\n\xff\n")
    with pytest.raises(WrongTable, match="line 3: not UTF-8"):
        read_csv(tmp_path / "t.csv")


def test_a_category_that_is_a_number_is_the_same_text_in_a_file_and_in_python() -> None:
    made = Table.of({"class": [3, 1, None], "x": [0.5, 3.0, 1e300]})
    assert made.texts("class").tolist() == ["3", "1", ""]
    assert made.texts("x").tolist() == ["0.5", "3", "1e+300"]
    with pytest.raises(WrongTable, match="differ in length"):
        Table.of({"a": [1], "b": [1, 2]})
