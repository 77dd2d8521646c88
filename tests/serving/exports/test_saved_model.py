"""``saved_model.pb`` read without TensorFlow: TensorFlow's own files, and garbage."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.exports import operators
from crossfade.serving.exports.saved_model import parse, read
from crossfade.serving.wire import tf_framework
from tests.runtimes import saved_models
from tests.serving.exports.samples import STRUCT2TENSOR_OPS, saved_model, signature

SIGNATURE = signature(
    {"x": (tf_framework.DT_FLOAT, [-1, 3])}, {"y": (tf_framework.DT_STRING, [])}, "classify"
)


def test_ops_of_functions_count_and_functions_do_not() -> None:
    content = saved_model(
        ["Placeholder", "outer"], {"s": SIGNATURE}, {"outer": ["inner", "Mul"], "inner": ["Odd"]}
    )
    graph = parse(memoryview(content))
    assert graph.ops == {"Placeholder", "Mul", "Odd"}
    assert graph.signatures["s"] == {
        "inputs": {"x": {"dtype": "FP32", "shape": [-1, 3]}},
        "outputs": {"y": {"dtype": "BYTES", "shape": []}},
        "method": "classify",
    }


def test_the_graph_to_be_served_is_read() -> None:
    training = saved_model(["Train"], {}, tag="train")
    both = training + saved_model(["Serve"], {})
    assert parse(memoryview(both)).ops == {"Serve"}
    assert parse(memoryview(training)).tags == ("train",)


def test_the_fixtures(shared: Path) -> None:
    folder = shared / "savedmodel" / "saved_model_half_plus_three" / "00000123"
    graph = read(folder)
    assert graph is not None
    assert {"Mul", "ParseExample", "VariableV2"} <= graph.ops
    assert graph.signatures["tensorflow/serving/regress"]["method"] == "regress"
    assert operators.missing(graph.ops)[0] == []


def test_it_reads_what_tensorflow_reads(tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    saved_models.many(tmp_path)
    (meta,) = saved_model_pb2.SavedModel.FromString(
        (tmp_path / "saved_model.pb").read_bytes()
    ).meta_graphs
    functions = meta.graph_def.library.function
    ops = {node.op for node in meta.graph_def.node}
    ops |= {node.op for function in functions for node in function.node_def}
    graph = read(tmp_path)
    assert graph is not None
    assert graph.ops == ops - {function.signature.name for function in functions}
    assert graph.signatures.keys() == {n for n in meta.signature_def if n[0] != "_"}
    assert operators.missing(graph.ops)[0] == []


def test_text_format_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").write_text("saved_model_schema_version: 1")
    assert read(tmp_path) is None


@given(st.binary(max_size=200))
def test_garbage(content: bytes) -> None:
    with contextlib.suppress(LoadFailed):
        parse(memoryview(content))


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    content = bytearray(saved_model(["A", "f"], {"s": SIGNATURE}, {"f": ["B"]}))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(LoadFailed):
        parse(memoryview(content))


def test_missing_ops_by_the_registry_and_by_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    ops = {*STRUCT2TENSOR_OPS, "MatMul", "Addons>Resampler", "TFText>Utf8Binarize", "RougeL"}
    found, how = operators.missing(ops | {"NobodysOp"})
    assert "registry" in how
    pins = {op.op: (op.package, op.pin) for op in found}
    expected = dict.fromkeys(STRUCT2TENSOR_OPS, ("struct2tensor", "struct2tensor==0.48.1"))
    expected["Addons>Resampler"] = ("tensorflow-addons", "")
    expected |= dict.fromkeys(("TFText>Utf8Binarize", "RougeL"), ("tensorflow-text", ""))
    assert pins == {**expected, "NobodysOp": ("", "")}
    monkeypatch.setattr(operators, "_registered", lambda ops: None)
    found, how = operators.missing(ops | {"NobodysOp"})
    assert "not installed" in how
    assert {op.op for op in found} == expected.keys()  # what nobody knows cannot be told
