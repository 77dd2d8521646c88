"""The NumPy side and the ONNX graph give the same features, bit for bit but for the logarithm."""

from __future__ import annotations

import datetime
import random
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.training.transforms import evaluate, graph
from crossfade.training.transforms.spec import PARTS, TransformSpec, make
from crossfade.training.transforms.table import Table

ROWS = 10_000
WORDS = ["", "NEAR BAY", "日本", "e\u0301", "\u00e9", "a\0b", "😀", " x ", "x", "\ufeff", "a\x1fb"]
EXTREMES = [0.0, -0.0, 1e308, -1e308, 5e-324, 1e-300, 3.5e38, -3.5e38, 1e16 + 2, 0.1, -1.0, 2.5]
SPEC: dict[str, Any] = {
    "columns": [
        {"name": "x", "kind": "number"},
        {"name": "when_ms", "kind": "number"},
        {"name": "a", "kind": "text"},
        {"name": "b", "kind": "text"},
        {"name": "t", "kind": "timestamp"},
    ],
    "derived": [
        {"derive": "bucket", "name": "x bucket", "column": "x", "boundaries": [-1.0, 0.0, 2.5]},
        {"derive": "cross", "name": "a x b", "columns": ["a", "b", "x bucket"]},
    ],
    "transforms": [
        {"transform": "identity", "column": "x"},
        {"transform": "standardize", "column": "x", "mean": 0.3, "std": 1.7, "missing": 0.3},
        {"transform": "standardize", "column": "x", "mean": 1e300, "std": 1e-300},
        {"transform": "min_max", "column": "x", "minimum": -3.0, "maximum": 7.1, "clip": True},
        {"transform": "min_max", "column": "x", "minimum": -3.0, "maximum": 7.1, "missing": 0.0},
        {"transform": "log", "column": "x", "shift": -5.0, "mean": 1.1, "std": 0.7},
        {"transform": "missing_flag", "column": "x"},
        {"transform": "missing_flag", "column": "a"},
        {"transform": "missing_flag", "column": "t"},
        {"transform": "one_hot", "column": "a", "categories": WORDS[:5]},
        {"transform": "one_hot", "column": "b", "categories": WORDS[4:], "unknown": "feature"},
        {"transform": "ordinal", "column": "b", "categories": WORDS[::2]},
        {
            "transform": "target_encoding",
            "column": "a",
            "categories": WORDS[1:4],
            "values": [[0.1, 1e9], [0.2, 3.0], [1 / 3, 4.0]],
            "default": [0.5, -7.0],
        },
        {"transform": "embedding", "column": "a x b", "categories": ["x\x1fx\x1f0", "\x1f\x1f"]},
        {"transform": "hash", "column": "a x b", "buckets": 1009, "seed": 7},
        {"transform": "hash", "column": "a", "buckets": 16},
        {"transform": "embedding", "column": "a", "categories": WORDS},
        {"transform": "timestamp", "column": "t", "parts": list(PARTS)},
        {"transform": "timestamp", "column": "t", "parts": list(PARTS), "cyclic": True},
        {"transform": "timestamp", "column": "when_ms", "unit": "ms", "parts": list(PARTS)},
        {
            "transform": "timestamp",
            "column": "x",
            "unit": "s",
            "parts": ["year", "day"],
            "missing": -1.0,
        },
    ],
}
LOG = "the logarithm's last bit is the library's"


def session(spec: TransformSpec, numbers: graph.Numbers) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = graph.build(spec, numbers=numbers).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


SPECIFICATION = make(**SPEC)
SESSION = session(SPECIFICATION, "float64")
SESSION_OF_TEXTS = session(SPECIFICATION, "text")


def stamp(rng: random.Random) -> str:
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(
            ["", "soon", "2023-02-29", "1900-02-29T00:00:00Z", "0000-01-01", "T", " "]
        )
    moment = datetime.datetime(1, 1, 1) + datetime.timedelta(
        days=rng.randrange(2, 3_652_055), microseconds=rng.randrange(86_400_000_000)
    )
    if kind == 1:
        return moment.date().isoformat()
    zone = rng.choice(
        [
            None,
            datetime.UTC,
            datetime.timezone(datetime.timedelta(minutes=rng.randrange(-1439, 1440))),
        ]
    )
    text = moment.replace(tzinfo=zone).isoformat(
        rng.choice("T "), rng.choice(["minutes", "seconds", "milliseconds", "microseconds"])
    )
    return text.replace("+00:00", rng.choice(["Z", "+00:00"]))


def table(seed: int) -> Table:
    rng = random.Random(seed)

    def number() -> float:
        kind = rng.randrange(4)
        if kind == 0:
            return rng.choice([float("nan"), float("inf"), -float("inf"), *EXTREMES])
        return rng.gauss(0, 10.0 ** rng.randrange(-3, 6))

    def word() -> str:
        return rng.choice(WORDS) if rng.random() < 0.8 else chr(rng.randrange(0x20, 0xD7FF)) * 3

    def objects(values: list[str]) -> Any:
        made = np.empty(ROWS, object)
        made[:] = values
        return made

    return Table(
        {
            "x": np.array([number() for _ in range(ROWS)]),
            "when_ms": np.array([rng.uniform(-7e13, 3e14) for _ in range(ROWS)]),
            "a": objects([word() for _ in range(ROWS)]),
            "b": objects([word() for _ in range(ROWS)]),
            "t": objects([stamp(rng) for _ in range(ROWS)]),
        }
    )


def log_columns(spec: TransformSpec) -> list[int]:
    found, place = [], 0
    for each in spec.transforms:
        found += range(place, place + len(each.dense)) if each.transform == "log" else []
        place += len(each.dense)
    return found


def assert_same(spec: TransformSpec, wanted: tuple[Any, Any], answer: list[Any]) -> None:
    dense, ids = answer
    logs = log_columns(spec)
    exact = [i for i in range(dense.shape[1]) if i not in logs]
    assert np.array_equal(dense[:, exact], wanted[0][:, exact], equal_nan=True)
    np.testing.assert_allclose(dense[:, logs], wanted[0][:, logs], rtol=2e-7, err_msg=LOG)
    assert np.array_equal(ids, wanted[1])


@pytest.mark.parametrize("seed", [0, 1])
def test_ten_thousand_rows(seed: int) -> None:
    rows = table(seed)
    wanted = evaluate.transform(SPECIFICATION, rows)
    assert wanted[0].shape == (ROWS, len(SPECIFICATION.dense_names))
    assert np.isnan(wanted[0][:, 0]).any()
    assert not np.isinf(wanted[0]).any()
    assert_same(SPECIFICATION, wanted, SESSION.run(None, dict(rows.columns)))


def test_numbers_as_texts() -> None:
    rows = table(2)
    rng = random.Random(3)
    odd = [
        "",
        "1e400",
        "1e-400",
        "nan",
        "inf",
        "0x10",
        "1_0",
        " 1",
        "1 ",
        "+5",
        ".5",
        "5.",
        "-",
        "\u0661",
        "1e250",
    ]
    texts = dict(rows.columns)
    for name in ("x", "when_ms"):
        column = rows.texts(name).copy()
        places = rng.sample(range(ROWS), 2000)
        column[places] = [rng.choice(odd) for _ in places]
        texts[name] = column
    of_texts = Table(texts)
    wanted = evaluate.transform(SPECIFICATION, of_texts)
    assert_same(SPECIFICATION, wanted, SESSION_OF_TEXTS.run(None, texts))


@given(
    x=st.lists(st.floats(width=64), min_size=1, max_size=1),
    a=st.text(max_size=8),
    b=st.text(max_size=8),
    t=st.one_of(
        st.text(alphabet="0123456789-+:T Z.", max_size=30),
        st.datetimes(timezones=st.timezones()).map(lambda d: d.isoformat()),
    ),
    when=st.floats(width=64),
)
@settings(max_examples=300, deadline=None)
def test_any_row(x: list[float], a: str, b: str, t: str, when: float) -> None:
    row = Table(
        {
            "x": np.array(x),
            "when_ms": np.array([when]),
            "a": np.array([a], object),
            "b": np.array([b], object),
            "t": np.array([t], object),
        }
    )
    wanted = evaluate.transform(SPECIFICATION, row)
    assert_same(SPECIFICATION, wanted, SESSION.run(None, dict(row.columns)))
