"""SavedModels over TensorFlow Serving's API, beside TensorFlow's own answers to the same requests.

TensorFlow runs the graph in this process as TensorFlow Serving's session does: feeds and fetches by
the names in the signature. Values and dtypes must be the same over gRPC and REST; where TensorFlow
refuses, or the request is not one that the signature takes, the status is TensorFlow Serving's.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.conftest import SHARED, ServerProcess
from tests.e2e.test_tensorflow_serving_rest import call as rest
from tests.runtimes import saved_models

tf = pytest.importorskip("tensorflow")
pytest.importorskip("tensorflow_serving")

from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402

KINDS = saved_models.KINDS
HALVES = (
    "saved_model_half_plus_two_cpu",
    "saved_model_half_plus_two_2_versions",
    "saved_model_half_plus_two_tf2_cpu",
    "saved_model_half_plus_three",
)
Inputs = Mapping[str, Any]


class Oracle:
    """TensorFlow's session over one SavedModel."""

    def __init__(self, folder: Path) -> None:
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        self.signatures = {
            name: found
            for name, found in meta.signature_def.items()
            if not name.startswith("__saved_model")
        }

    def run(self, signature: str, inputs: Inputs) -> dict[str, Any] | None:
        """The outputs, or None where TensorFlow refuses."""
        found = self.signatures[signature]
        if inputs.keys() != found.inputs.keys():
            return None
        feeds = {found.inputs[name].name: value for name, value in inputs.items()}
        for name, value in inputs.items():
            if value.dtype != tf.as_dtype(found.inputs[name].dtype).as_numpy_dtype:
                return None  # numpy would cast it
        fetches = {name: info.name for name, info in found.outputs.items()}
        try:
            return dict(self._session.run(fetches, feeds))
        except (ValueError, TypeError, tf.errors.InvalidArgumentError):
            return None


class Both:
    """The server, and TensorFlow beside it."""

    def __init__(self, server: ServerProcess, folders: Mapping[str, Path]) -> None:
        self.server = server
        self.oracles = {name: Oracle(folder) for name, folder in folders.items()}
        self._channel = grpc.insecure_channel(server.grpc)
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self) -> None:
        self._channel.close()

    def call(self, request: Any) -> tuple[str, dict[str, Any]]:
        """Status and outputs over gRPC."""
        try:
            answer = self.predictions.Predict(request, timeout=20)
        except grpc.RpcError as error:
            return error.code().name, {}
        assert answer.model_spec.signature_name
        return "OK", {name: tf.make_ndarray(t) for name, t in answer.outputs.items()}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    root = tmp_path_factory.mktemp("differential")
    (root / "zoo").mkdir()
    saved_models.every_dtype(root / "zoo" / "1")
    folders = {"zoo": root / "zoo" / "1"}
    if SHARED.is_dir():
        for name in HALVES:
            (root / name).symlink_to(SHARED / "savedmodel" / name)
            folders[name] = max((root / name).iterdir())
    server = ServerProcess("--model-repository", str(root))
    pair = Both(server, folders)
    yield pair
    pair.close()
    assert server.stop() == 0


def array(kind: str, shape: Sequence[int], seed: int = 0) -> Any:
    """Values that a dtype can hold, its limits and some odd ones among them."""
    dtype = tf.as_dtype(kind).as_numpy_dtype
    count = int(np.prod(shape))
    if kind == "string":
        texts = [b"", b"text", "\u00e9\U0001f40d".encode(), b'a"\\\n']
        return np.array([texts[(i + seed) % 4] for i in range(count)], object).reshape(shape)
    if kind == "bool":
        return (np.arange(count) % 3 == seed % 3).reshape(shape)
    if "int" in kind:
        limits = np.iinfo(dtype)
        few = [limits.min, limits.max, 0, 1, 100]
        return np.array([few[(i + seed) % 5] for i in range(count)], dtype).reshape(shape)
    few = [0.1, -2.5, 0.0, 1e4, 3.0]
    return np.array([few[(i + seed) % 5] for i in range(count)]).astype(dtype).reshape(shape)


GOOD: list[tuple[str, str, Inputs]] = [
    *[
        ("zoo", f"of_{kind}", {"x": array(kind, [rows, 2], seed)})
        for kind in KINDS
        for rows, seed in ((1, 0), (2, 1), (7, 2))
    ],
    *[
        (
            "zoo",
            "serving_default",
            {"a": array("float32", [rows, 3], seed), "b": np.arange(rows, dtype=np.int64) - seed},
        )
        for rows, seed in ((1, 0), (3, 1), (64, 2))
    ],
    *[("zoo", "any_rank", {"x": array("float32", shape)}) for shape in ([], [3], [2, 2], [1] * 8)],
    *[("zoo", "scalar", {"x": np.array(n, np.int32)}) for n in (1, 5)],
    ("zoo", "roots", {"x": np.float32([0, 2, 1e30])}),
    ("zoo", "gather", {"x": np.int32([2, 0, 1, 1])}),
    ("zoo", "odd", {"x": np.float32([0, -1, 1])}),
    ("zoo", "lengths", {"s_bytes": np.array([b"\xff\x00", b""], object)}),
    *[
        (name, "serving_default", {"x": array("float32", shape)})
        for name in HALVES
        for shape in ([[1]] if "tf2" in name else [[1, 1], [5, 1]])
    ],
]
# Right dtype, wrong place; values that the graph refuses; shapes that it does not take.
BAD: list[tuple[str, str, Inputs]] = [
    *[
        ("zoo", f"of_{kind}", {"x": array(other, [1, 2])})
        for kind, other in itertools.permutations(KINDS, 2)
    ],
    *[
        ("zoo", f"of_{kind}", {"x": array(kind, shape)})
        for kind in KINDS
        for shape in ([2], [1, 3], [1, 2, 1], [])
    ],
    ("zoo", "scalar", {"x": np.int32([1])}),
    ("zoo", "roots", {"x": np.float32([1, -1])}),
    ("zoo", "gather", {"x": np.int32([3])}),
    ("zoo", "gather", {"x": np.int32([-1])}),
    ("zoo", "serving_default", {"a": array("float32", [2, 3]), "b": array("int64", [3])}),
    ("zoo", "serving_default", {"a": array("float32", [2, 3])}),
    ("zoo", "serving_default", {"b": array("int64", [3])}),
    ("zoo", "serving_default", {}),
    ("zoo", "of_int32", {"y": array("int32", [1, 2])}),
    ("zoo", "of_int32", {"x": array("int32", [1, 2]), "y": array("int32", [1, 2])}),
    *[(name, "serving_default", {"x": array("float32", [2, 2])}) for name in HALVES[:3]],
    *[(name, "serving_default", {"x": array("int32", [2, 1])}) for name in HALVES],
]


def label(case: tuple[str, str, Inputs]) -> str:
    model, signature, inputs = case
    shown = "-".join(f"{n}.{v.dtype}{list(v.shape)}" for n, v in inputs.items())
    return f"{model}-{signature}-{shown or 'nothing'}".replace(" ", "")


def cases(listed: list[tuple[str, str, Inputs]]) -> list[Any]:
    return [pytest.param(*case, id=f"{n}-{label(case)}") for n, case in enumerate(listed)]


def asking(model: str, signature: str, inputs: Inputs, typed: bool) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        tensor = request.inputs[name]
        tensor.CopyFrom(tf.make_tensor_proto(value))
        if typed and tensor.tensor_content:
            tensor.CopyFrom(_typed(tensor, value))
    return request


def _typed(tensor: Any, value: Any) -> Any:
    """The same tensor with its values in the field of its dtype, one by one."""
    fields = {
        "float32": "float_val", "float64": "double_val", "int64": "int64_val", "bool": "bool_val",
        "uint32": "uint32_val", "uint64": "uint64_val", "float16": "half_val",
        "bfloat16": "half_val",
    }  # fmt: skip
    kind = value.dtype.name
    flat = value.view(np.uint16) if kind in ("float16", "bfloat16") else value
    made = type(tensor)(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
    getattr(made, fields.get(kind, "int_val")).extend(flat.ravel().tolist())
    return made


def same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, wanted in theirs.items():
        got, expected = ours[name], np.asarray(wanted)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape), name
        if expected.dtype == object:
            assert got.tolist() == expected.tolist(), name
        else:  # to the bit, NaN too
            assert got.tobytes() == expected.tobytes(), name


def known(both: Both, model: str) -> Oracle:
    if model not in both.oracles:
        pytest.skip("the shared fixtures are not here")
    return both.oracles[model]


@pytest.mark.parametrize("typed", [False, True], ids=["content", "typed"])
@pytest.mark.parametrize(("model", "signature", "inputs"), cases(GOOD))
def test_grpc(both: Both, model: str, signature: str, inputs: Inputs, typed: bool) -> None:
    wanted = known(both, model).run(signature, inputs)
    assert wanted is not None
    status, got = both.call(asking(model, signature, inputs, typed))
    assert status == "OK"
    same(got, wanted)


@pytest.mark.parametrize(("model", "signature", "inputs"), cases(GOOD))
def test_output_filter(both: Both, model: str, signature: str, inputs: Inputs) -> None:
    wanted = known(both, model).run(signature, inputs)
    assert wanted is not None
    for name, expected in wanted.items():
        request = asking(model, signature, inputs, False)
        request.output_filter.append(name)
        status, got = both.call(request)
        assert status == "OK"
        same(got, {name: expected})


@pytest.mark.parametrize(("model", "signature", "inputs"), cases(BAD))
def test_grpc_refusal(both: Both, model: str, signature: str, inputs: Inputs) -> None:
    assert known(both, model).run(signature, inputs) is None
    assert both.call(asking(model, signature, inputs, False))[0] == "INVALID_ARGUMENT"


def plain(value: Any, name: str) -> Any:
    """An array as TensorFlow Serving's JSON has it."""
    if value.dtype == object:
        flat = value.ravel().tolist()
        coded = [
            {"b64": base64.b64encode(e).decode()} if name.endswith("_bytes") else e.decode()
            for e in flat
        ]
        shaped = np.empty(len(coded), object)
        shaped[:] = coded
        return shaped.reshape(value.shape).tolist()
    wide = value.astype(np.float64) if value.dtype.name == "bfloat16" else value
    return wide.tolist()


def posted(both: Both, model: str, signature: str, document: Any) -> tuple[int, Any]:
    """Posts JSON that may hold NaN and infinity."""
    body = json.dumps({"signature_name": signature, **document}).encode()
    return rest(both.server, f"/v1/models/{model}:predict", body)


def agree(found: Any, wanted: Any, name: str) -> None:
    """A JSON value and what TensorFlow answered: an array, or one element of it."""
    expected = np.asarray(wanted, object if isinstance(wanted, bytes) else None)
    if expected.dtype == object:
        assert found == plain(expected, name)
        return
    got = np.array(found, object).astype(expected.dtype)
    assert got.shape == expected.shape
    assert np.array_equal(got, expected, equal_nan=expected.dtype.kind == "f")


@pytest.mark.parametrize(("model", "signature", "inputs"), cases(GOOD))
def test_rest_columns(both: Both, model: str, signature: str, inputs: Inputs) -> None:
    wanted = known(both, model).run(signature, inputs)
    assert wanted is not None
    document = {"inputs": {name: plain(value, name) for name, value in inputs.items()}}
    status, found = posted(both, model, signature, document)
    assert status == 200, found
    outputs = found["outputs"] if len(wanted) > 1 else dict.fromkeys(wanted, found["outputs"])
    assert outputs.keys() == wanted.keys()
    for name, value in wanted.items():
        agree(outputs[name], value, name)


@pytest.mark.parametrize(("model", "signature", "inputs"), cases(GOOD))
def test_rest_rows(both: Both, model: str, signature: str, inputs: Inputs) -> None:
    wanted = known(both, model).run(signature, inputs)
    assert wanted is not None
    rows = {len(value) if value.ndim else 0 for value in inputs.values()}
    rows |= {len(np.asarray(v)) if np.asarray(v).ndim else 0 for v in wanted.values()}
    columns = {name: plain(value, name) for name, value in inputs.items()}
    if len(rows) > 1 or 0 in rows:  # no rows: TensorFlow Serving says that it has none, too
        instances: list[Any] = [columns]
        status, found = posted(both, model, signature, {"instances": instances})
        assert (status, list(found)) == (400, ["error"])
        return
    (count,) = rows
    instances = [{name: column[row] for name, column in columns.items()} for row in range(count)]
    if len(inputs) == 1:  # which may stand alone, too
        instances = [next(iter(instance.values())) for instance in instances]
    status, found = posted(both, model, signature, {"instances": instances})
    assert status == 200, found
    for row, prediction in enumerate(found["predictions"]):
        shown = prediction if len(wanted) > 1 else dict.fromkeys(wanted, prediction)
        for name, value in wanted.items():
            agree(shown[name], value[row], name)


# JSON has no dtypes, so that a wrong one is no mistake there, where the values can be right.
NO_JSON = [
    *(case for case in BAD if case[0] == "zoo" and not case[1].startswith("of_")),
    *(
        (model, signature, inputs)
        for model, signature, inputs in BAD
        if signature in ("of_string", "of_bool", "of_float32", "of_int32")
        and any(f"of_{value.dtype}" == signature for value in inputs.values())
    ),
    *(
        ("zoo", f"of_{kind}", {"x": array(other, [1, 2])})
        for kind, other in (
            ("string", "bool"), ("string", "int32"), ("bool", "string"), ("bool", "int32"),
            ("int32", "string"), ("int32", "float32"), ("int32", "bool"), ("uint8", "int32"),
            ("int8", "int64"), ("float32", "string"), ("float32", "bool"), ("uint64", "int8"),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "signature", "inputs"), cases(NO_JSON))
def test_rest_refusal(both: Both, model: str, signature: str, inputs: Inputs) -> None:
    assert known(both, model).run(signature, inputs) is None
    document = {"inputs": {name: plain(value, name) for name, value in inputs.items()}}
    status, found = posted(both, model, signature, document)
    assert (status, list(found)) == (400, ["error"])


FINE = ("zoo", "of_int32", {"x": array("int32", [1, 2])})


@pytest.mark.parametrize(
    ("change", "code", "status"),
    [
        ({"name": "nobody"}, "NOT_FOUND", 404),
        ({"version": 7}, "NOT_FOUND", 404),
        ({"version": 1}, "OK", 200),
        ({"label": "none"}, "INVALID_ARGUMENT", 400),
        ({"signature": "none"}, "FAILED_PRECONDITION", 400),
        ({"filter": ["none"]}, "INVALID_ARGUMENT", None),
        ({"filter": ["same", "same"]}, "INVALID_ARGUMENT", None),
        ({"filter": ["same", "twice"]}, "OK", None),
    ],
)
def test_statuses(both: Both, change: dict[str, Any], code: str, status: int | None) -> None:
    """Those of TensorFlow Serving's own source for what a signature never sees."""
    request = asking(*FINE, False)
    spec = request.model_spec
    spec.name, spec.signature_name = change.get("name", "zoo"), change.get("signature", "of_int32")
    path = f"/v1/models/{spec.name}"
    if "version" in change:
        spec.version.value = change["version"]
        path += f"/versions/{change['version']}"
    if "label" in change:
        spec.version_label = change["label"]
        path += f"/labels/{change['label']}"
    request.output_filter.extend(change.get("filter", ()))
    assert both.call(request)[0] == code
    if status is not None:
        body = {"signature_name": spec.signature_name, "inputs": {"x": [[1, 2]]}}
        assert rest(both.server, f"{path}:predict", body)[0] == status


# Examples: the signature parses them itself, so that TensorFlow can be asked with their bytes.

EXAMPLES = [
    ("numbers", [{"x": 1.0}, {"x": -2.5}, {"x": 1e30}]),
    ("one", [{"x": 0.1}]),
    ("many", [{"x": n / 3} for n in range(100)]),
    ("more-features", [{"x": 1.0, "other": 7.0}]),
    ("missing", [{"other": 1.0}]),  # the signature has a default, or not
    ("some-missing", [{"x": 1.0}, {}]),
    ("integer", [{"x": 3}]),  # of a kind that the signature does not parse
    ("text", [{"x": "a"}]),
]
TASKS = {
    "regress_x_to_y": ("Regress", "regress"),
    "regress_x_to_y2": ("Regress", "regress"),
    "classify_x_to_y": ("Classify", "classify"),
}


def example(features: Mapping[str, Any]) -> Any:
    made = tf.train.Example()
    for name, value in features.items():
        feature = made.features.feature[name]
        if isinstance(value, str):
            feature.bytes_list.value.append(value.encode())
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return made


@pytest.mark.parametrize("signature", TASKS)
@pytest.mark.parametrize("rows", [e[1] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES])
@pytest.mark.parametrize("model", HALVES[:2])
def test_examples(both: Both, model: str, rows: list[Any], signature: str) -> None:
    from tensorflow_serving.apis import classification_pb2, regression_pb2

    oracle = known(both, model)
    examples = [example(row) for row in rows]
    serialized = np.array([e.SerializeToString() for e in examples], object)
    wanted = oracle.run(signature, {"inputs": serialized})
    method, verb = TASKS[signature]
    kind = (
        classification_pb2.ClassificationRequest
        if method == "Classify"
        else regression_pb2.RegressionRequest
    )
    request = kind()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.example_list.examples.extend(examples)
    call = getattr(both.predictions, method)
    document = {"signature_name": signature, "examples": rows}
    path = f"/v1/models/{model}:{verb}"
    status, found = rest(both.server, path, json.dumps(document).encode())
    if wanted is None:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=20)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert status == 400
        return
    (values,) = wanted.values()
    result = call(request, timeout=20).result
    got = (
        [line.value for line in result.regressions]
        if method == "Regress"
        else [[c.score for c in line.classes] for line in result.classifications]
    )
    assert np.float32(got).ravel().tolist() == values.ravel().tolist()
    assert status == 200
    shown = found["results"]
    over_rest = shown if method == "Regress" else [[score for _, score in row] for row in shown]
    assert np.float32(over_rest).ravel().tolist() == values.ravel().tolist()
