"""SavedModels: what TensorFlow Serving's own test models answer, and what goes wrong elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.dtypes import NUMPY
from crossfade.runtimes.core.errors import CrossfadeError, InvalidArgument, LoadFailed, MissingExtra
from crossfade.runtimes.core.model import Session, TensorSpec
from crossfade.runtimes.savedmodel import library
from crossfade.runtimes.savedmodel.options import SavedModelOptions
from tests.runtimes import saved_models

# Looked for, not imported: collecting these tests must not take five seconds.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)

Clean = Callable[[CrossfadeError, Path], None]


@pytest.fixture
def serving(shared: Path, load: Callable[..., Session]) -> Callable[..., Session]:
    def do(name: str, version: str = "00000123", **options: Any) -> Session:
        return load("tensorflow_savedmodel", shared / "savedmodel" / name / version, **options)

    return do


@pytest.fixture(scope="module")
def many_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secret")
    saved_models.many(folder)
    return folder


@pytest.fixture
def many(many_folder: Path, load: Callable[..., Session]) -> Session:
    return load("tensorflow_savedmodel", many_folder)


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 1)


def examples(**features: float) -> np.ndarray:
    import tensorflow as tf

    example = tf.train.Example()
    for name, value in features.items():
        example.features.feature[name].float_list.value.append(value)
    return np.array([example.SerializeToString()], dtype=object)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("saved_model_half_plus_two_cpu", "00000123"),
        ("saved_model_half_plus_two_2_versions", "00000123"),
        ("saved_model_half_plus_two_2_versions", "00000124"),
    ],
)
def test_half_plus_two(serving: Callable[..., Session], name: str, version: str) -> None:
    session = serving(name, version)
    assert session.signatures["serving_default"].batched
    answer = session.run({"x": column(1, 2, 5)}, "serving_default", ())
    assert answer["y"].tolist() == [[2.5], [3], [4.5]]


def test_half_plus_two_of_tensorflow_2_takes_one_value_as_its_graph_says(
    serving: Callable[..., Session],
) -> None:
    session = serving("saved_model_half_plus_two_tf2_cpu")
    signature = session.signatures["serving_default"]
    # Its exporter gave x a default value, so that a request may leave it out.
    assert signature.inputs == (TensorSpec("x", "FP32", (1,), optional=True),)
    assert session.run({}, "serving_default", ())["y"].tolist() == [2]
    assert not signature.batched
    for given, wanted in ((1, 2.5), (2, 3), (5, 4.5)):
        answer = session.run({"x": np.float32([given])}, "serving_default", ())
        assert answer["y"].tolist() == [wanted]
    with pytest.raises(InvalidArgument, match="shape"):
        session.run({"x": np.float32([1, 2, 5])}, "serving_default", ())


def test_half_plus_three_has_the_shape_of_its_graph(serving: Callable[..., Session]) -> None:
    session = serving("saved_model_half_plus_three")
    signature = session.signatures["serving_default"]
    assert signature.inputs == (TensorSpec("x", "FP32", (-1, 1)),)
    answer = session.run({"x": column(1, 2, 5)}, "serving_default", ())
    assert answer["y"].tolist() == [[3.5], [4], [5.5]]
    assert session.signatures["tensorflow/serving/regress"].method == "regress"


def test_signatures_that_take_serialised_examples(serving: Callable[..., Session]) -> None:
    session = serving("saved_model_half_plus_two_cpu")
    methods = {name: signature.method for name, signature in session.signatures.items()}
    assert methods == {
        "classify_x_to_y": "classify",
        "regress_x2_to_y3": "regress",
        "regress_x_to_y": "regress",
        "regress_x_to_y2": "regress",
        "serving_default": "predict",
    }
    assert session.signatures["regress_x_to_y"].inputs == (TensorSpec("inputs", "BYTES", None),)
    answer = session.run({"inputs": examples(x=3)}, "regress_x_to_y", ())
    assert answer["outputs"].tolist() == [[3.5]]


@pytest.mark.parametrize("junk", [b"abc", b"\xff\xff\xff"])
def test_examples_that_cannot_be_parsed(
    serving: Callable[..., Session], shared: Path, junk: bytes, assert_clean: Clean
) -> None:
    session = serving("saved_model_half_plus_two_cpu")
    with pytest.raises(InvalidArgument, match="refused the inputs") as refused:
        session.run({"inputs": np.array([junk], dtype=object)}, "regress_x_to_y", ())
    assert_clean(refused.value, shared)
    assert "ParseExample/" not in refused.value.message
    assert "Node" not in refused.value.message


def test_what_is_not_a_savedmodel(serving: Callable[..., Session]) -> None:
    with pytest.raises(LoadFailed, match=r"not a SavedModel: no saved_model\.pb"):
        serving("bad_half_plus_two")


def test_an_input_called_in_and_a_reference_variable(
    load: Callable[..., Session], tmp_path: Path
) -> None:
    saved_models.graph_with_input(tmp_path / "model", "in")
    session = load("tensorflow_savedmodel", tmp_path / "model")
    answer = session.run({"in": np.float32([1, 2])}, "serving_default", ())
    assert answer["y"].tolist() == [2, 3]


def test_variables_that_are_there_twice(load: Callable[..., Session], tmp_path: Path) -> None:
    function = saved_models.keras_in_a_module(tmp_path / "model")
    session = load("tensorflow_savedmodel", tmp_path / "model")
    x = np.float32([[1, 2, 3, 4], [-1, 0, 5, 2]])
    answer = session.run({"x": x}, "serving_default", ())
    np.testing.assert_allclose(answer["y"], function(x)["y"].numpy(), rtol=1e-5, atol=1e-6)


def test_tables_are_initialised_and_bytes_stay_bytes(many: Session) -> None:
    s = np.array([b"b", b"\xff\0", b""], dtype=object)
    answer = many.run({"s": s}, "look", ())
    assert answer["i"].tolist() == [2, -1, -1]
    assert answer["echo"].tolist() == s.tolist()


def test_any_rank_and_scalars(many: Session) -> None:
    signature = many.signatures["any_rank"]
    assert signature.inputs == (TensorSpec("x", "FP32", None),)
    assert {spec.name: spec.shape for spec in signature.outputs} == {"s": (), "t": (), "y": None}
    assert not signature.batched
    for x in (np.array(3, np.float32), np.ones((2, 1, 2), np.float32)):
        answer = many.run({"x": x}, "any_rank", ("y", "t", "s"))
        assert list(answer) == ["y", "t", "s"]
        assert answer["y"].tolist() == (2 * x).tolist()
        assert answer["t"].tolist() == b"hi"
        assert all(isinstance(array, np.ndarray) for array in answer.values())
        assert answer["s"].shape == ()


def test_bf16(many: Session) -> None:
    assert many.signatures["half"].inputs == (TensorSpec("x", "BF16", (2, -1)),)
    x = np.array([[1.5], [2]], NUMPY["BF16"])
    y = many.run({"x": x}, "half", ())["y"]
    assert y.dtype == NUMPY["BF16"]
    assert y.tolist() == [[3], [4]]


def test_refused_values_tell_no_names_and_no_paths(
    many: Session, many_folder: Path, assert_clean: Clean
) -> None:
    with pytest.raises(InvalidArgument, match=r"indices\[0\] = 9 is not in \[0, 3\)") as refused:
        many.run({"x": np.array([9], np.int32)}, "gather", ())
    assert "node" not in refused.value.message.lower()
    assert_clean(refused.value, many_folder)
    with pytest.raises(InvalidArgument, match="assertion failed") as refused:
        many.run({"x": np.float32([-1])}, "positive", ())
    assert "secret" not in refused.value.message
    assert many.run({"x": np.float32([1])}, "positive", ())["y"].tolist() == [1]


def test_a_signature_that_no_protocol_can_carry_is_left_out(
    many_folder: Path, load: Callable[..., Session], caplog: pytest.LogCaptureFixture
) -> None:
    session = load("tensorflow_savedmodel", many_folder)
    assert "complicated" not in session.signatures
    assert "'complicated' ('x' is complex64)" in caplog.text


def _rewrite(folder: Path, change: Callable[[Any], None]) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    model.ParseFromString((folder / "saved_model.pb").read_bytes())
    change(model.meta_graphs[0])
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())


def test_ops_that_this_tensorflow_does_not_have(
    load: Callable[..., Session], tmp_path: Path
) -> None:
    def change(meta_graph: Any) -> None:
        meta_graph.graph_def.node[0].op = "DecodeProtoSparseV4"

    saved_models.strings(tmp_path / "model")
    _rewrite(tmp_path / "model", change)
    with pytest.raises(LoadFailed, match=r"the op 'DecodeProtoSparseV4'.*struct2tensor"):
        load("tensorflow_savedmodel", tmp_path / "model")


def test_tags(load: Callable[..., Session], tmp_path: Path) -> None:
    def change(meta_graph: Any) -> None:
        meta_graph.meta_info_def.tags.append("gpu")

    saved_models.strings(tmp_path / "model")
    _rewrite(tmp_path / "model", change)
    with pytest.raises(LoadFailed, match=r"no graph is tagged serve; there is: .*gpu.* 'tags'"):
        load("tensorflow_savedmodel", tmp_path / "model")
    load("tensorflow_savedmodel", tmp_path / "model", tags=["serve", "gpu"]).close()


def test_defaults_make_inputs_optional(load: Callable[..., Session], tmp_path: Path) -> None:
    import tensorflow as tf

    def change(meta_graph: Any) -> None:
        signature = meta_graph.signature_def["serving_default"]
        signature.defaults["in"].CopyFrom(tf.make_tensor_proto(np.float32([41])))

    saved_models.graph_with_input(tmp_path / "model", "in")
    _rewrite(tmp_path / "model", change)
    session = load("tensorflow_savedmodel", tmp_path / "model")
    assert session.signatures["serving_default"].inputs[0].optional
    assert session.run({}, "serving_default", ())["y"].tolist() == [42]
    assert session.run({"in": np.float32([1])}, "serving_default", ())["y"].tolist() == [2]


def test_no_signatures(load: Callable[..., Session], tmp_path: Path) -> None:
    saved_models.strings(tmp_path / "model")
    _rewrite(tmp_path / "model", lambda meta_graph: meta_graph.ClearField("signature_def"))
    with pytest.raises(LoadFailed, match="no signature"):
        load("tensorflow_savedmodel", tmp_path / "model")


def test_half_of_the_weights(
    serving: Callable[..., Session],
    load: Callable[..., Session],
    tmp_path: Path,
    assert_clean: Clean,
) -> None:
    saved_models.heavy(tmp_path / "model", 1)
    data = tmp_path / "model/variables/variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(LoadFailed, match="TensorFlow cannot load the model") as failed:
        load("tensorflow_savedmodel", tmp_path / "model")
    assert_clean(failed.value, tmp_path)


def test_the_first_model_sets_the_thread_pools(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "_pools", None)
    tf = library.tensorflow()
    first = library.session_config(tf, SavedModelOptions(intra_op_threads=3, inter_op_threads=2))
    assert (first.intra_op_parallelism_threads, first.inter_op_parallelism_threads) == (3, 2)
    assert first.gpu_options.allow_growth
    assert not caplog.text
    second = library.session_config(tf, SavedModelOptions(intra_op_threads=1))
    assert second == first
    assert "thread options are ignored" in caplog.text


def test_a_missing_library_names_its_extra(
    serving: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[tensorflow\]'"):
        serving("saved_model_half_plus_two_cpu")
