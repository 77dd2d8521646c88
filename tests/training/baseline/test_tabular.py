"""A small baseline: what it reaches, what it writes, what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument
from crossfade.serving.repository import lineage
from crossfade.training.baseline import metrics, split
from crossfade.training.baseline.jobs import ParityFailed, Progress
from crossfade.training.baseline.members import Linear, linked
from crossfade.training.baseline.search import loss
from crossfade.training.baseline.tabular import LocalTabularModel, LocalTabularTrainingJob
from crossfade.training.transforms.errors import UnknownTransform, WrongTable
from crossfade.training.transforms.table import Table

ROWS = 500


def table(kind: str) -> Table:
    rng = np.random.default_rng(0)
    size, colour = rng.normal(size=ROWS), rng.integers(0, 3, ROWS)
    score = size + colour + 0.1 * rng.normal(size=ROWS)
    target = {
        "regression": score.tolist(),
        "classification": [str(v) for v in np.digitize(score, [0.5, 1.5]) * 5],
    }[kind]
    return Table.of(
        {
            "size": [None if i % 11 == 0 else v for i, v in enumerate(size.tolist())],
            "colour": [("red", "grün", "")[c] for c in colour],
            "day": [f"2024-0{1 + i % 9}-11T10:00:00Z" for i in range(ROWS)],
            "name": [f"n{i}" for i in range(ROWS)],
            "one": ["same"] * ROWS,
            "target": target,
        }
    )


def trained(kind: Any, **options: Any) -> tuple[LocalTabularModel, list[Progress]]:
    told: list[Progress] = []
    job = LocalTabularTrainingJob("small", kind, report=told.append, **options)
    return job.run(table(kind), "target", budget_milli_node_hours=1), told


@pytest.fixture(scope="module")
def classifier() -> LocalTabularModel:
    return trained("classification")[0]


def test_a_regression(tmp_path: Path) -> None:
    model, told = trained("regression")
    evaluation = model.evaluate()
    assert evaluation.rows == 50
    assert evaluation.metrics["rSquared"].low > 0.8
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == 1
    assert model.export(tmp_path) == {
        "task": "regression",
        "table": {"instance": "instance.yaml", "prediction": "prediction_schema.yaml"},
    }
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert {i.name: (i.type, i.shape) for i in session.get_inputs()} == dict.fromkeys(
        ("size", "colour", "day", "name", "one"), ("tensor(string)", ["rows"])
    )
    row = Table.of(
        {
            "size": [0.25, None],
            "colour": ["red", "never seen"],
            "day": ["", "soon"],
            "name": ["n7", ""],
            "one": ["same", "other"],
        }
    )
    (answer,) = session.run(["value"], {n: row.texts(n) for n in row.columns})
    np.testing.assert_allclose(answer, model.predict(row)[:, 0], rtol=1e-5)


def test_a_classification_and_its_files(classifier: LocalTabularModel, tmp_path: Path) -> None:
    metrics_ = classifier.evaluate().metrics
    assert metrics_["accuracy"].low > metrics_["majorityAccuracy"].high
    assert classifier.trained.classes == ["0", "5", "10"]
    classifier.export(tmp_path)
    card = lineage.check(tmp_path)
    assert card.task == "tabular-baseline"
    assert card.data.counts == {"training": 450, "test": 50}
    assert card.metrics["test/accuracy"] == metrics_["accuracy"].value
    assert card.parity is not None
    assert card.parity.max_abs <= card.parity.tolerance == 1e-5
    schema = yaml.safe_load((tmp_path / "prediction_schema.yaml").read_text())
    assert schema["properties"]["classes"]["items"]["enum"] == ["0", "5", "10"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = {n: np.array([""] * 3, object) for n in ("size", "colour", "day", "name", "one")}
    classes, scores = session.run(["classes", "scores"], rows)
    assert classes.tolist() == [["0", "5", "10"]] * 3
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-6)


def test_a_column_without_anything_to_learn_from_is_an_input_and_said(
    classifier: LocalTabularModel, tmp_path: Path
) -> None:
    classifier.export(tmp_path)
    declared = yaml.safe_load((tmp_path / "instance.yaml").read_text())["properties"]
    assert list(declared) == ["size", "colour", "day", "name", "one"]
    said = [line for line in lineage.lines_of(lineage.check(tmp_path)) if "left out" in line]
    assert said == [
        "left out  name: no value comes twice, so there is nothing to learn from",
        "left out  one: its values are all the same, so there is nothing to learn from",
    ]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = {n: np.array(["0.5", "0.5"], object) for n in declared}
    rows["name"] = np.array(["n7", ""], object)
    (scores,) = session.run(["scores"], rows)
    assert (scores[0] == scores[1]).all()


def test_a_graph_that_answers_otherwise_is_not_written(tmp_path: Path) -> None:
    model, _ = trained("classification")
    found = model.trained.found
    ((_, member), *_) = [each for each in found.members if each[1].name == "trees"]
    true = member.raw
    member.raw = lambda features: true(features) * 1.01  # type: ignore[method-assign]
    with pytest.raises(ParityFailed, match="nothing was written"):
        model.export(tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_the_test_split_is_not_learned_from() -> None:
    rows = table("regression")
    words = np.array(["TRAIN"] * ROWS, object)
    words[::10] = "test"
    target = rows.columns["target"].copy()
    target[::10] = 1e6
    columns = {**rows.columns, "target": target, "use": words}
    job = LocalTabularTrainingJob("small", "regression")
    model = job.run(
        Table(columns),
        "target",
        predefined_split_column_name="use",
        budget_milli_node_hours=1,
    )
    assert model.trained.data.counts == {"training": 450, "test": 50}
    assert model.evaluate().metrics["meanAbsoluteError"].value > 9e5
    assert np.abs(model.predict(rows)).max() < 100
    assert [c.name for c in model.trained.columns] == ["size", "colour", "day", "name", "one"]


@pytest.mark.parametrize(
    ("change", "options", "error", "says"),
    [
        ({}, {"kind": "forecasting"}, InvalidArgument, "no prediction type 'forecasting'"),
        ({}, {"objective": "maximize-au-prc"}, InvalidArgument, "no objective"),
        ({}, {"specs": {"size": "text"}}, UnknownTransform, "'text'"),
        ({}, {"specs": {"height": "auto"}}, WrongTable, "no column 'height'"),
        ({}, {"target": "height"}, WrongTable, "no column 'height'"),
        ({}, {"split": "colour"}, InvalidArgument, "a split is TRAIN, VALIDATE or TEST"),
        ({"target": [""] + ["a", "b"] * 249 + ["a"]}, {}, WrongTable, "no value in 1 rows, row 1"),
        ({"target": ["a"] * ROWS}, {}, FailedPrecondition, "the same class, 'a'"),
        ({"target": ["a"] * 499 + ["b"]}, {}, FailedPrecondition, "class 'b' has 1 rows"),
        ({"target": [f"c{i}" for i in range(ROWS)]}, {}, InvalidArgument, "no rows for the test"),
        ({"target": ["x"] * ROWS}, {"kind": "regression"}, WrongTable, "no number in row 1: 'x'"),
        ({"target": [1.0] * ROWS}, {"kind": "regression"}, FailedPrecondition, "same target"),
    ],
)
def test_what_is_refused(
    change: dict[str, Any], options: dict[str, Any], error: type[Exception], says: str
) -> None:
    rows = Table({**table("classification").columns, **Table.of(change).columns})
    with pytest.raises(error, match=says):
        LocalTabularTrainingJob(
            "small",
            options.get("kind", "classification"),
            options.get("objective"),
            column_specs=options.get("specs"),
        ).run(
            rows,
            options.get("target", "target"),
            predefined_split_column_name=options.get("split"),
            budget_milli_node_hours=1,
        )


def test_a_table_without_enough_rows_is_refused() -> None:
    rows = table("regression").rows(np.arange(19))
    with pytest.raises(WrongTable, match="19 rows; 20 are the least"):
        LocalTabularTrainingJob("small", "regression").run(rows, "target")


def test_each_class_has_its_share_of_the_test() -> None:
    classes = np.array([0] * 90 + [1] * 10)
    rows = Table.of({"x": range(100)})
    held = split.test_rows(rows, (0.7, 0.1, 0.2), None, classes, 3)
    assert np.bincount(classes[held]).tolist() == [18, 2]
    assert (held == split.test_rows(rows, (0.7, 0.1, 0.2), None, classes, 3)).all()
    with pytest.raises(InvalidArgument, match="add up to 1"):
        split.test_rows(rows, (0.7, 0.1, 0.1), None, classes, 3)
    with pytest.raises(InvalidArgument, match="no rows for the test"):
        split.test_rows(rows, (0.9, 0.1, 0.0), None, classes, 3)


def test_objectives_and_links() -> None:
    target = np.array([0, 1, 1, 2])
    sure = np.eye(3)[target]
    assert loss("auc", target, sure) == 0
    assert loss("log_loss", target, np.full((4, 3), 1 / 3)) == pytest.approx(np.log(3))
    numbers = np.array([1.0, 2.0])
    assert loss("rmse", numbers, np.array([[1.0], [4.0]])) == pytest.approx(np.sqrt(2))
    assert loss("mae", numbers, np.array([[1.0], [4.0]])) == 1
    both = linked("classification", np.array([[1000.0], [-1000.0], [0.0]]))
    np.testing.assert_allclose(both, [[0, 1], [1, 0], [0.5, 0.5]])
    many = linked("classification", np.array([[1000.0, 0.0, -1000.0]]))
    np.testing.assert_allclose(many, [[1, 0, 0]])


def test_metrics_have_intervals() -> None:
    rng = np.random.default_rng(0)
    wanted = rng.integers(0, 3, 300)
    scores = np.eye(3)[wanted] * 0.6 + rng.dirichlet([1, 1, 1], 300) * 0.4
    found = metrics.classification(wanted, scores).metrics
    assert found["accuracy"].value == 1
    assert found["auRoc"].value == pytest.approx(1)
    assert found["majorityAccuracy"].low < 1 / 3 < found["majorityAccuracy"].high
    exact = metrics.regression(scores[:, 0], scores[:, 0]).metrics
    assert exact["rootMeanSquaredError"].high == 0
    assert exact["rSquared"].value == 1


def test_a_linear_member_writes_what_it_computes() -> None:
    import onnx

    ends = np.array([-5.0, -5.0]), np.array([5.0, 3.5])
    member = Linear(None, np.array([[1.0], [-2.0]]), np.array([0.5]), ends)  # type: ignore[arg-type]
    graph = onnx.helper.make_graph(
        member.nodes("x", "y"),
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 2])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])],
    )
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    x = np.array([[1, 2], [3, 4], [1e38, -1e38]], np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": x})[0], [[-2.5], [-3.5], [15.5]])
    np.testing.assert_allclose(member.raw(x), [[-2.5], [-3.5], [15.5]])
