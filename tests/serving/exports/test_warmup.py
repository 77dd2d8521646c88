"""Recorded requests become values of ``model.yaml`` that a server can send."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.serving.config.model_config import parse
from crossfade.serving.exports.entry import yaml_of
from crossfade.serving.exports.record_file import write
from crossfade.serving.exports.warmup import FILE, MAX_REQUESTS, read, request
from crossfade.serving.wire import tf_framework, tf_serving
from tests.serving.exports.samples import field, predict_log

TEXT: Mapping[str, Any] = {"serving_default": {"inputs": {"s": {}}, "outputs": {}}}


def recorded(folder: Path, *records: bytes, tail: bytes = b"") -> Path:
    file = folder / FILE
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"".join(map(write, records)) + tail)
    return folder


def numeric(**inputs: Any) -> bytes:
    asked = tf_serving.PredictRequest()
    for name, tensor in inputs.items():
        asked.inputs[name].CopyFrom(tensor)
    return field(6, field(1, asked.SerializeToString()))


def tensor(dtype: int, shape: list[int], **values: Any) -> Any:
    built = tf_framework.TensorProto(dtype=dtype, **values)
    for size in shape:
        built.tensor_shape.dim.add(size=size)
    return built


def test_bytes_that_are_no_text_survive_model_yaml(tmp_path: Path) -> None:
    rows = [b"\xff\x00\x2a", b"plain", "猫".encode()]
    found, notes = read(recorded(tmp_path, *(predict_log({"s": [row]}) for row in rows)), TEXT)
    assert notes == []
    assert [each["inputs"] for each in found] == [{"s": [row]} for row in rows]
    config = parse(yaml_of({"warmup": found}), "model.yaml")
    assert [warmup.inputs["s"] for warmup in config.warmup] == [[row] for row in rows]


@pytest.mark.parametrize(
    ("proto", "values"),
    [
        (tensor(tf_framework.DT_FLOAT, [2], float_val=[1, 2.5]), [1.0, 2.5]),
        (tensor(tf_framework.DT_INT64, [2, 2], int64_val=[7]), [[7, 7], [7, 7]]),
        (tensor(tf_framework.DT_BOOL, [1], bool_val=[True]), [True]),
        (tensor(tf_framework.DT_HALF, [1], half_val=[0x3C00]), [1.0]),
        (tensor(tf_framework.DT_BFLOAT16, [1], half_val=[0x3F80]), [1.0]),
        (tensor(tf_framework.DT_UINT8, [2], tensor_content=b"\1\xff"), [1, 255]),
        (tensor(tf_framework.DT_DOUBLE, [], double_val=[0.5]), 0.5),
    ],
)
def test_numbers(proto: Any, values: Any) -> None:
    found = request(numeric(s=proto), TEXT)["inputs"]["s"]
    assert np.array_equal(found, values)
    assert (
        parse(yaml_of({"warmup": [{"inputs": {"s": found}}]}), "m").warmup[0].inputs["s"] == found
    )


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"", "neither predict"),
        (field(5, b""), "neither predict"),
        (b"\xff\xff\xff", "not a log"),
        (field(6, field(1, b"\xff\xff")), "not a request"),
        (predict_log({"s": [b"x"]}, "other"), "no signature 'other'"),
        (predict_log({"t": [b"x"]}), "not those of signature"),
        (predict_log({"s": [b"x" * 300_000]}), "larger than"),
        (numeric(s=tensor(tf_framework.DT_FLOAT, [3], float_val=[1, 2])), "number of values"),
        (numeric(s=tensor(tf_framework.DT_FLOAT, [1], tensor_content=b"123")), "number of bytes"),
        (numeric(s=tensor(tf_framework.DT_FLOAT, [2**40], float_val=[1])), "elements"),
        (numeric(s=tensor(tf_framework.DT_FLOAT, [-1], float_val=[1])), "no shape"),
        (numeric(s=tensor(tf_framework.DT_INT8, [1], int_val=[300])), "its type does not have"),
        (numeric(s=tensor(tf_framework.DT_RESOURCE, [1])), "no type"),
    ],
)
def test_what_is_left_out_says_why(tmp_path: Path, record: bytes, why: str) -> None:
    fine = predict_log({"s": [b"x"]})
    found, notes = read(recorded(tmp_path, record, fine, record), TEXT)
    assert len(found) == 1
    (note,) = notes
    assert "left out: 2" in note
    assert why in note


def test_classify_requests_become_examples(tmp_path: Path) -> None:
    asked = tf_serving.ClassificationRequest()
    example = asked.input.example_list.examples.add()
    example.features.feature["x"].float_list.value.append(2)
    record = field(2, field(1, asked.SerializeToString()))
    (found,), _ = read(recorded(tmp_path, record), TEXT)
    (packed,) = found["inputs"]["s"]
    assert tf_framework.Example.FromString(packed) == example


def test_the_count_is_capped_and_damage_ends_it(tmp_path: Path) -> None:
    many = [predict_log({"s": [b"x"]})] * (MAX_REQUESTS + 1)
    found, (note,) = read(recorded(tmp_path, *many), TEXT)
    assert len(found) == MAX_REQUESTS
    assert "only the first" in note
    found, (note,) = read(recorded(tmp_path, *many[:2], tail=b"garbage that is long"), TEXT)
    assert len(found) == 2
    assert "a length is wrong" in note
    assert read(tmp_path / "nowhere", TEXT) == ((), [])


@given(
    st.one_of(st.binary(max_size=80), st.binary(max_size=60).map(lambda b: field(6, field(1, b))))
)
def test_garbage(record: bytes) -> None:
    with contextlib.suppress(InvalidArgument):
        request(record, TEXT)
