"""The RPCs over a data plane of fakes: what travels together, examples, results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import (
    DEFAULT_SIGNATURE,
    InferResponse,
    ModelMetadata,
    Signature,
    TensorSpec,
)
from crossfade.serving.dataplane.door import DataPlane
from crossfade.serving.frontends.tensorflow_serving import (
    examples,
    json_examples,
    results,
    rpcs,
)
from crossfade.serving.lifecycle.manager import Manager
from crossfade.serving.metrics.tensorflow import TensorflowMetrics
from crossfade.serving.repository.source import open_source
from crossfade.serving.wire import tf_framework as framework
from crossfade.serving.wire import tf_serving as wire


class NobodyCalls:
    """A call of which only the message is known."""

    deadline_s = None
    cancelled = None


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    for name in ("one", "two"):
        (tmp_path / name / "1").mkdir(parents=True)
        text = "inputs: [{name: x, dtype: FP32, shape: [-1, 2]}]"
        (tmp_path / name / "1" / "fake.yaml").write_text(text)
    manager = Manager([open_source(str(tmp_path), tmp_path / "cache")])
    manager.start()
    yield DataPlane(manager)
    manager.close()


def predict(name: str, row: list[float]) -> Any:
    request = wire.PredictRequest()
    request.model_spec.name = name
    x = request.inputs["x"]
    x.dtype = framework.DT_FLOAT
    x.tensor_shape.dim.add(size=1)
    x.tensor_shape.dim.add(size=2)
    x.float_val.extend(row)
    return request


def test_requests_travel_together_and_fail_alone(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    infer = plane.infer
    monkeypatch.setattr(
        plane, "infer", lambda asked, *how: groups.append(len(asked)) or infer(asked, *how)
    )
    rpc = next(
        rpc for rpc in rpcs.table(plane, TensorflowMetrics()) if rpc.path.endswith("/Predict")
    )
    asked = [
        predict("one", [1, 2]),
        predict("", [1, 2]),
        predict("two", [3, 4]),
        predict("no", [1, 2]),
        predict("one", [1, 2, 3]),
        predict("one", [5, 6]),
    ]
    answers = rpc.handle([(rpc.decode(r.SerializeToString()), NobodyCalls()) for r in asked])  # type: ignore[misc]
    assert groups == [5]
    codes = [a.code.name if isinstance(a, CrossfadeError) else "OK" for a in answers]
    assert codes == ["OK", "INVALID_ARGUMENT", "OK", "NOT_FOUND", "INVALID_ARGUMENT", "OK"]
    last = wire.PredictResponse.FromString(answers[-1])
    assert list(last.outputs["x"].float_val) == [5, 6]


# -- examples -----------------------------------------------------------------------------------


def example(**features: Any) -> bytes:
    made = framework.Example()
    for name, (kind, values) in features.items():
        getattr(made.features.feature[name], kind).value.extend(values)
    return bytes(made.SerializeToString())


def inputs(*specs: TensorSpec) -> Signature:
    return Signature(specs, (TensorSpec("y", "FP32", (-1,)),))


def test_features_become_rows() -> None:
    signature = inputs(
        TensorSpec("image", "UINT8", (-1, 2, 2)),
        TensorSpec("weight", "FP32", (-1,)),
        TensorSpec("name", "BYTES", (-1, 1)),
        TensorSpec("extra", "FP32", (-1,), optional=True),
    )
    rows = [
        example(
            image=("int64_list", [0, 1, 2, 255]),
            weight=("float_list", [0.5]),
            name=("bytes_list", [b"a"]),
        ),
        example(
            image=("int64_list", [9, 8, 7, 6]),
            weight=("int64_list", [2]),
            name=("bytes_list", [b"b"]),
            unknown=("int64_list", [1]),
        ),
    ]
    found = {raw.name: raw for raw in examples.to_inputs(rows, signature, framework.Example)}
    assert found.keys() == {"image", "weight", "name"}
    assert np.asarray(found["image"].data).tolist() == [[[0, 1], [2, 255]], [[9, 8], [7, 6]]]
    assert np.asarray(found["image"].data).dtype == np.uint8
    assert np.asarray(found["weight"].data).tolist() == [0.5, 2]
    assert np.asarray(found["name"].data).tolist() == [[b"a"], [b"b"]]


@pytest.mark.parametrize(
    ("spec", "rows", "says"),
    [
        (("x", "UINT8", (-1, 1)), [("int64_list", [256])], "cannot hold"),
        (("x", "BOOL", (-1, 1)), [("int64_list", [2])], "cannot hold"),
        (("x", "INT64", (-1, 1)), [("float_list", [2])], "another kind"),
        (("x", "BYTES", (-1, 1)), [("int64_list", [2])], "another kind"),
        (("x", "FP32", (-1, 2)), [("float_list", [2])], "has 1 values"),
        (("x", "FP32", (-1, -1, -1)), [("float_list", [2, 3])], "no shape"),
        (("x", "FP32", (-1, -1)), [("float_list", [2]), ("float_list", [])], "lengths"),
    ],
)
def test_features_that_do_not_fit(spec: Any, rows: list[Any], says: str) -> None:
    serialized = [example(x=row) for row in rows]
    with pytest.raises(InvalidArgument, match=says):
        examples.to_inputs(serialized, inputs(TensorSpec(*spec)), framework.Example)


def test_a_model_that_parses_examples_gets_them_as_they_are() -> None:
    signature = inputs(TensorSpec("inputs", "BYTES", None))
    (raw,) = examples.to_inputs([b"a", b"b"], signature, framework.Example)
    assert (raw.shape, np.asarray(raw.data).tolist()) == ((2,), [b"a", b"b"])


@pytest.mark.parametrize(("count", "large"), [(1, False), (10_000, True), (20_000, True)])
def test_too_many_examples(count: int, large: bool) -> None:
    request = wire.ClassificationRequest()
    request.input.example_list.examples.extend([framework.Example()] * count)
    message = request.SerializeToString()
    assert (len(message) > 16 * 1024) is large
    if count > 16 * 1024:
        with pytest.raises(InvalidArgument, match="more than 16384"):
            examples.decode(wire.ClassificationRequest, message)
    else:
        found = examples.decode(wire.ClassificationRequest, message)
        assert len(examples.serialized(found.input)) == count


# -- results ------------------------------------------------------------------------------------


def response(labels: Any = None, **outputs: Any) -> InferResponse:
    specs = tuple(TensorSpec(name, "FP32", None) for name in outputs)
    signatures = {DEFAULT_SIGNATURE: Signature((), specs)}
    metadata = ModelMetadata("m", 1, "fake", signatures, labels or {})
    return InferResponse({n: np.array(v) for n, v in outputs.items()}, metadata)


def pairs(message: Any) -> list[list[tuple[str, float]]]:
    return [[(c.label, c.score) for c in line.classes] for line in message.classifications]


def test_labels_come_from_the_model_or_from_its_files() -> None:
    texts = np.array([[b"cat", b"dog"]], np.object_)
    made = results.CLASSIFY.result
    both = response(classes=texts, scores=[[0.25, 0.75]])
    assert pairs(made(both, ("classes", "scores"), 1)) == [[("cat", 0.25), ("dog", 0.75)]]
    assert pairs(made(both, ("classes",), 1)) == [[("cat", 0), ("dog", 0)]]
    labelled = response({"y": ["cat"]}, y=[[0.25, 0.75]])
    assert pairs(made(labelled, ("y",), 1)) == [[("cat", 0.25), ("", 0.75)]]


@pytest.mark.parametrize(
    ("method", "outputs"),
    [
        (results.CLASSIFY, {"scores": [0.5, 0.5]}),
        (results.CLASSIFY, {"scores": [[0.5], [0.5]]}),
        (results.CLASSIFY, {"classes": [[1.0]]}),
        (results.CLASSIFY, {"classes": np.array([[b"a"]], "O"), "scores": [[1, 2]]}),
        (results.REGRESS, {"outputs": [[1, 2]]}),
        (results.REGRESS, {"outputs": 1}),
    ],
)
def test_outputs_that_are_no_results(method: results.Method, outputs: Any) -> None:
    with pytest.raises(InvalidArgument):
        method.result(response(**outputs), tuple(outputs), 1)


# -- small things -------------------------------------------------------------------------------


def test_json_examples() -> None:
    document = {"examples": [{"i": 1, "f": [1, 2.5], "s": "é", "b": [{"b64": "/w=="}]}]}
    (made,) = json_examples.to_input(document).example_list_with_context.examples
    feature = made.features.feature
    assert list(feature["i"].int64_list.value) == [1]
    assert list(feature["f"].float_list.value) == [1, 2.5]
    assert list(feature["s"].bytes_list.value) == ["é".encode()]
    assert list(feature["b"].bytes_list.value) == [b"\xff"]
