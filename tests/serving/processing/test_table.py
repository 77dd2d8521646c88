"""Rows in, declared answers out: what the model inside is asked, and what the client gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format, struct_pb2

from crossfade.runtimes.core.errors import CrossfadeError, LoadFailed
from crossfade.runtimes.core.model import InferRequest, TensorSpec
from crossfade.serving.processing.processed import Processed
from tests.serving.processing.models import Inner, processed, specs, texts

INSTANCE = """\
properties:
  age: {type: string, nullable: true}
  sex: {type: string, nullable: true}
  tags: {type: array, items: {type: string}, nullable: true}
"""
CLASSES = """\
properties:
  classes: {type: array, items: {type: string, enum: [no, yes]}}
  scores: {type: array, items: {type: number}}
"""
REGRESSION = """\
properties:
  lower_bound: {type: number}
  value: {type: number}
"""
PACKED = specs(inputs=("BYTES", (-1,)))
ANSWER = specs(classes=("BYTES", (-1, -1)), scores=("FP32", (-1, -1)), key=("INT64", (-1,)))


def rows_of(inputs: Any) -> list[Any]:
    packed = inputs["inputs"].tolist()
    return [json_format.MessageToDict(struct_pb2.Value.FromString(row)) for row in packed]


def classify(inputs: Any) -> dict[str, Any]:
    """Its classes are in another order in every second row."""
    count = len(next(iter(inputs.values())))
    classes = np.array([[b"yes", b"no"], [b"no", b"yes"]] * count, np.object_)[:count]
    scores = np.array([[0.9, 0.1], [0.2, 0.8]] * count, np.float32)[:count]
    return {"classes": classes, "scores": scores, "key": np.arange(count)}


def table(
    folder: Path,
    run: Any = classify,
    outputs: Any = ANSWER,
    prediction: str = CLASSES,
    instance: str = INSTANCE,
    *,
    inputs: Any = PACKED,
    file: Any = None,
    more: Any = None,
) -> tuple[Inner, Processed]:
    (folder / "instance.yaml").write_text(instance)
    (folder / "prediction.yaml").write_text(prediction)
    inner = Inner(inputs, outputs, run)
    says = {"instance": "instance.yaml"}
    if prediction:
        says["prediction"] = "prediction.yaml"
    config = {"table": {**says, **(file or {})}, **(more or {})}
    return inner, processed(inner, folder=folder, **config)


def ask(model: Processed, rows: int = 1, **inputs: Any) -> Any:
    (result,) = model.infer((InferRequest(inputs, rows=rows),))
    if isinstance(result, CrossfadeError):
        raise result
    return result


def test_the_signature_that_clients_see(tmp_path: Path) -> None:
    _, model = table(tmp_path)
    signature = model.metadata.signatures["serving_default"]
    assert signature.inputs == (
        TensorSpec("age", "BYTES", (-1,), True, cells=True),
        TensorSpec("sex", "BYTES", (-1,), True, cells=True),
        TensorSpec("tags", "BYTES", (-1, -1), True, cells=True),
        TensorSpec("inputs", "BYTES", (-1,), True),
    )
    assert [spec.name for spec in signature.outputs] == ["classes", "scores"]
    assert signature.batched
    assert model.metadata.labels == {"scores": ("no", "yes")}
    assert model.metadata.max_batch_size == 4096


def test_columns_are_packed_and_packed_rows_pass(tmp_path: Path) -> None:
    inner, model = table(tmp_path)
    tags = np.array([[b"a", b"b"], [b"c", b""]], np.object_)
    ask(model, 2, age=texts(b"3", b""), tags=tags)
    assert rows_of(inner.asked[-1].inputs) == [
        {"age": "3", "tags": ["a", "b"]},
        {"age": None, "tags": ["c"]},
    ]
    ask(model)
    assert rows_of(inner.asked[-1].inputs) == [{}]
    own = texts(b"anything")
    ask(model, inputs=own)
    assert inner.asked[-1].inputs["inputs"] is own
    with pytest.raises(CrossfadeError, match="'inputs' holds whole rows"):
        ask(model, inputs=own, age=texts(b"3"))
    with pytest.raises(CrossfadeError, match="not UTF-8"):
        ask(model, age=texts(b"\xff"))


def test_one_bad_request_fails_no_neighbour(tmp_path: Path) -> None:
    _, model = table(tmp_path)
    requests = [InferRequest({"age": texts(cell)}) for cell in (b"1", b"\xff", b"2")]
    first, bad, last = model.infer(requests)
    assert isinstance(bad, CrossfadeError)
    assert not isinstance(first, CrossfadeError)
    assert not isinstance(last, CrossfadeError)


def test_classes_are_answered_in_the_declared_order(tmp_path: Path) -> None:
    _, model = table(tmp_path)
    answer = ask(model, 3, age=texts(b"1", b"2", b"3")).outputs
    assert answer["classes"].tolist() == [[b"no", b"yes"]] * 3
    np.testing.assert_allclose(answer["scores"], [[0.1, 0.9], [0.2, 0.8], [0.1, 0.9]])


def test_other_classes_than_the_declared_ones_are_refused(tmp_path: Path) -> None:
    _, model = table(tmp_path, prediction=CLASSES.replace("yes", "maybe"))
    with pytest.raises(CrossfadeError, match="other classes than those declared"):
        ask(model, age=texts(b"1"))


@pytest.mark.parametrize("name", ["value", "outputs"])
def test_a_regression_is_a_number_a_row(tmp_path: Path, name: str) -> None:
    outputs = (TensorSpec(name, "FP32", (-1, 1)),)
    _, model = table(
        tmp_path, lambda i: {name: np.ones((len(i["inputs"]), 1))}, outputs, REGRESSION
    )
    (seen,) = model.metadata.signatures["serving_default"].outputs
    assert (seen.name, seen.shape) == ("value", (-1,))
    assert ask(model, 2, age=texts(b"1", b"2")).outputs["value"].tolist() == [1.0, 1.0]


def test_several_numbers_for_one_are_refused(tmp_path: Path) -> None:
    outputs = specs(value=("FP32", (-1, -1)))
    _, model = table(tmp_path, lambda _: {"value": np.ones((1, 2))}, outputs, REGRESSION)
    with pytest.raises(CrossfadeError, match="several values for 'value'"):
        ask(model, age=texts(b"1"))


def test_without_a_prediction_the_answer_is_the_models(tmp_path: Path) -> None:
    _, model = table(tmp_path, prediction="")
    assert list(ask(model, age=texts(b"1")).outputs) == ["classes", "scores", "key"]


def test_without_a_prediction_postprocess_makes_the_answer(tmp_path: Path) -> None:
    outputs = specs(scores=("FP32", (-1, 2)))
    best = {"top_k": 1, "labels": ["no", "yes"]}
    _, model = table(
        tmp_path,
        lambda i: {"scores": classify(i)["scores"]},
        outputs,
        "",
        more={"task": "classification", "postprocess": best},
    )
    answer = ask(model, 2, age=texts(b"1", b"2")).outputs
    assert answer["labels"].tolist() == [[b"no"], [b"yes"]]


def test_a_model_of_one_row_a_run(tmp_path: Path) -> None:
    inputs = specs(inputs=("BYTES", (1,)))
    outputs = specs(value=("FP32", (1, 1)))
    inner, model = table(
        tmp_path, lambda _: {"value": np.ones((1, 1))}, outputs, REGRESSION, inputs=inputs
    )
    assert ask(model, 2, age=texts(b"1", b"2")).outputs["value"].tolist() == [1.0, 1.0]
    assert [rows_of(asked.inputs) for asked in inner.asked] == [[{"age": "1"}], [{"age": "2"}]]


def test_a_column_may_be_called_as_the_models_input(tmp_path: Path) -> None:
    inner, model = table(tmp_path, inputs=specs(age=("BYTES", (-1,))))
    signature = model.metadata.signatures["serving_default"]
    assert [spec.name for spec in signature.inputs] == ["age", "sex", "tags"]
    ask(model, age=texts(b"3"))
    (packed,) = inner.asked[-1].inputs["age"].tolist()
    value = struct_pb2.Value.FromString(packed)
    assert json_format.MessageToDict(value) == {"age": "3"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"instance": "none.yaml"}, "table.instance: the version's folder has no 'none.yaml'"),
        ({"prediction": "none.yaml"}, "table.prediction: the version's folder has no 'none.yaml'"),
        ({"input": "other"}, "table.input"),
        ({"inputs": specs(x=("FP32", (-1,)))}, "one input of strings"),
        ({"inputs": specs(a=("BYTES", (-1,)), b=("BYTES", (-1,)))}, r"it has \['a', 'b'\]"),
        (
            {"inputs": specs(x=("BYTES", (-1,)), age=("FP32", (-1,)))},
            "'age' is a column and an input",
        ),
        ({"prediction": "instance.yaml"}, r"it declares \['age', 'sex', 'tags'\]"),
    ],
)
def test_what_contradicts_the_model_is_refused(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    says_more = {key: change[key] for key in change if key != "inputs"}
    with pytest.raises(LoadFailed, match=says):
        table(tmp_path, inputs=change.get("inputs", PACKED), file=says_more)


COLUMNS = """\
required: [sex]
properties:
  age: {type: number, nullable: true}
  sex: {type: string}
"""


def test_a_model_with_an_input_for_each_column(tmp_path: Path) -> None:
    inputs = specs(age=("BYTES", (-1,)), sex=("BYTES", (-1,)), scale=("FP32", (-1,)))
    outputs = specs(value=("FP32", (-1,)))

    def run(given: Any) -> dict[str, Any]:
        return {"value": np.zeros(len(given["sex"]), np.float32)}

    inner, model = table(tmp_path, run, outputs, REGRESSION, COLUMNS, inputs=inputs)
    assert model.metadata.signatures["serving_default"].inputs == (
        TensorSpec("age", "BYTES", (-1,), True, cells=True),
        TensorSpec("sex", "BYTES", (-1,), True, cells=True),
        TensorSpec("scale", "FP32", (-1,)),
    )
    scale = np.ones(2, np.float32)
    ask(model, 2, sex=texts(b"male", b"\xe6\x97\xa5"), scale=scale)
    (asked,) = inner.asked
    assert asked.inputs["age"].tolist() == [b"", b""]
    assert asked.inputs["sex"].tolist() == [b"male", b"\xe6\x97\xa5"]
    assert asked.inputs["scale"] is scale
    for wrong, message in (
        ({"age": texts(b"1", b"2")}, "'sex' is missing"),
        ({"sex": texts(b"a", b"b"), "age": texts(b"1", b"x")}, "row 1 is no number"),
        ({"sex": texts(b"a", b"\xff")}, "row 1 is not UTF-8"),
        ({"sex": texts(b"a", b"")}, "row 1, and must have one"),
    ):
        with pytest.raises(CrossfadeError, match=message):
            ask(model, 2, scale=scale, **wrong)
