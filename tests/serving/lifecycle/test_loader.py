"""From a version's files to a model that takes traffic: what is found, tried and refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crossfade.runtimes.core.errors import Code, InvalidArgument, LoadFailed
from crossfade.runtimes.core.model import InferRequest, InferResponse
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.lifecycle.loader import estimate, find_artifact, load
from crossfade.serving.lifecycle.served import Served
from crossfade.serving.repository.folders import read_folder
from tests.serving.processing.pictures import file_of, scene

ROWS = [{"name": "x", "dtype": "FP32", "shape": [-1, 3]}]


class Folder:
    """One model's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, file: str, text: str) -> None:
        place = self.path / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def fake(self, version: int = 1, **content: Any) -> None:
        self.write(f"{version}/fake.yaml", yaml.safe_dump({"inputs": ROWS, **content}))

    def configure(self, **config: Any) -> None:
        self.write("model.yaml", yaml.safe_dump(config))

    def load(self, version: int = 1) -> Served:
        files = read_folder("flowers", self.path)
        assert files.error is None
        found = files.versions[version]
        return load(files, found, self.path / found.folder)

    def fault(self, version: int = 1) -> str:
        with pytest.raises(LoadFailed) as caught:
            self.load(version)
        message = caught.value.message
        assert str(self.path) not in message
        assert str(self.path.parent) not in message
        return message


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "secret place" / "flowers")
    made.path.mkdir(parents=True)
    return made


def infer(served: Served, *rows: list[float]) -> Any:
    x = np.array(rows, np.float32)
    (found,) = served.model.infer((InferRequest({"x": x}, rows=len(rows)),))
    return found


# -- what is known of it ------------------------------------------------------------------------


def test_metadata(folder: Folder) -> None:
    folder.fake(7)
    served = folder.load(7)
    metadata = served.metadata
    assert (metadata.name, metadata.version, metadata.platform) == ("flowers", 7, "fake")
    assert metadata.signatures.keys() == {"serving_default"}
    assert metadata.max_batch_size == 4096, "derived: a free first dimension is a batch"
    assert served.queue.instances >= 1
    found = infer(served, [1, 2, 3])
    assert isinstance(found, InferResponse)
    assert found.outputs["x"].tolist() == [[1, 2, 3]]
    assert (served.statistics.success, served.statistics.rows) == (1, 1)


def test_a_model_without_a_batch(folder: Folder) -> None:
    folder.fake(inputs=[{"name": "x", "shape": [2, 3]}])
    assert folder.load().metadata.max_batch_size == 0


@pytest.mark.parametrize(("limit", "batched"), [(0, False), (5, True)])
def test_the_configuration_decides_about_the_batch(
    folder: Folder, limit: int, batched: bool
) -> None:
    folder.fake()
    folder.configure(max_batch_size=limit)
    metadata = folder.load().metadata
    assert metadata.max_batch_size == limit
    assert metadata.signatures["serving_default"].batched == batched


def test_instances_and_queue_are_those_of_the_configuration(folder: Folder) -> None:
    folder.fake()
    folder.configure(instances=3, queue={"max_size": 1})
    served = folder.load()
    assert served.queue.instances == 3
    assert served.config.queue.max_size == 1


# -- labels -------------------------------------------------------------------------------------

TWO_OUTPUTS = [
    {"name": "scores", "from": "x"},
    {"name": "other", "dtype": "FP32", "shape": [-1, 5], "value": 1},
]


@pytest.mark.parametrize("file", ["labels.txt", "dict.txt", "1/labels.txt", "1/dict.txt"])
@pytest.mark.parametrize("text", ["a\nb\nc", "a\nb\nc\n", "a\r\nb\r\nc\r\n"])
def test_labels_belong_to_the_output_with_as_many_scores(
    folder: Folder, file: str, text: str
) -> None:
    folder.fake(outputs=TWO_OUTPUTS)
    folder.write(file, text)
    assert folder.load().metadata.labels == {"scores": ["a", "b", "c"]}


def test_a_versions_own_labels_count_more_than_the_models(folder: Folder) -> None:
    folder.fake()
    folder.write("labels.txt", "old\nold\nold")
    folder.write("1/labels.txt", "a\nb\nc")
    assert folder.load().metadata.labels == {"x": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (TWO_OUTPUTS, "a\nb"),
        (TWO_OUTPUTS, ""),
        ([{"name": "p", "from": "x"}, {"name": "q", "from": "x"}], "a\nb\nc"),
        ([{"name": "text", "dtype": "BYTES", "shape": [-1, 3], "value": "t"}], "a\nb\nc"),
    ],
    ids=["no output has two", "no labels", "two outputs have three", "texts are no scores"],
)
def test_labels_that_fit_no_output_or_several_are_nobodys(
    folder: Folder, outputs: list[dict[str, Any]], text: str
) -> None:
    folder.fake(outputs=outputs)
    folder.write("labels.txt", text)
    assert folder.load().metadata.labels == {}


def test_configured_labels_count_more_than_files(folder: Folder) -> None:
    folder.fake(outputs=TWO_OUTPUTS)
    folder.write("labels.txt", "a\nb\nc")
    folder.write("mine.txt", "v\nw\nx\ny\nz")
    folder.configure(
        outputs=[
            {"name": "other", "labels_file": "mine.txt"},
            {"name": "scores", "labels": ["p", "q", "r"]},
        ]
    )
    metadata = folder.load().metadata
    assert {name: list(found) for name, found in metadata.labels.items()} == {
        "other": ["v", "w", "x", "y", "z"],
        "scores": ["p", "q", "r"],
    }
    assert metadata.max_batch_size == 4096, "labels say nothing about the batch"


def test_a_label_file_that_is_not_there(folder: Folder) -> None:
    folder.fake()
    folder.configure(outputs=[{"name": "x", "labels_file": "gone.txt"}])
    assert folder.fault() == "there is no label file 'gone.txt'"


# -- what cannot be loaded ----------------------------------------------------------------------


def test_a_folder_without_a_model(folder: Folder) -> None:
    folder.write("1/notes.md", "nothing")
    message = folder.fault()
    assert message.startswith("the version's folder holds no model: expected one of model.onnx")
    folder.configure(platform="fake")
    assert folder.fault() == "the version's folder holds no model: expected one of fake.yaml"


def test_the_reason_of_the_runtime(folder: Folder) -> None:
    folder.fake(behaviour="fail", fail={"at": "load", "message": "no such device"})
    assert folder.fault() == "no such device"


def test_a_reason_that_names_the_place_names_the_model_instead(folder: Folder) -> None:
    where = str(folder.path / "1")
    folder.fake(behaviour="fail", fail={"at": "load", "message": f"cannot open {where}/weights"})
    assert folder.fault() == "cannot open flowers/weights"


def test_options_that_the_runtime_does_not_know(folder: Folder) -> None:
    folder.write("1/model.onnx", "this is no model")
    folder.configure(options={"intra_op_thread": 1})
    assert "intra_op_thread" in folder.fault()


def test_a_configuration_that_contradicts_the_model(folder: Folder) -> None:
    folder.fake()
    folder.configure(inputs=[{"name": "y"}])
    assert folder.fault() == "the configuration declares the input 'y', but the model has ['x']"


def test_find_artifact(tmp_path: Path) -> None:
    (tmp_path / "fake.yaml").write_text("")
    (tmp_path / "net.bin").write_text("")
    (tmp_path / "other.onnx").write_text("")
    (tmp_path / "saved_model.pb").write_text("")
    fake = ModelConfig(platform="fake")
    assert find_artifact(fake, tmp_path) == ("fake", tmp_path / "fake.yaml")
    assert find_artifact(ModelConfig(), tmp_path) == ("onnxruntime_onnx", tmp_path / "other.onnx")
    both = ModelConfig(platform="onnx", default_filename="net.bin")
    assert find_artifact(both, tmp_path) == ("onnxruntime_onnx", tmp_path / "net.bin")
    with pytest.raises(LoadFailed, match=r"has no 'gone\.bin'"):
        find_artifact(ModelConfig(default_filename="gone.bin"), tmp_path)
    with pytest.raises(InvalidArgument, match="unknown platform 'abacus'"):
        find_artifact(ModelConfig(platform="abacus"), tmp_path)
    with pytest.raises(LoadFailed, match="expected one of"):
        find_artifact(ModelConfig(platform="tflite"), tmp_path)
    with pytest.raises(LoadFailed, match=r"no platform is known to open 'net\.bin'"):
        find_artifact(ModelConfig(default_filename="net.bin"), tmp_path)
    named = ModelConfig(default_filename="other.onnx")
    assert find_artifact(named, tmp_path) == ("onnxruntime_onnx", tmp_path / "other.onnx")
    saved = ModelConfig(default_filename="saved_model.pb")
    assert find_artifact(saved, tmp_path) == ("tensorflow_savedmodel", tmp_path)


# -- warm-up ------------------------------------------------------------------------------------


def test_without_a_warm_up_zeros_are_tried_and_may_fail(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    folder.fake(behaviour="fail", fail={"code": "INVALID_ARGUMENT", "message": "not zeros, please"})
    served = folder.load()
    assert served.queue.max_rows == 1, "its curve could not be measured"
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert "declare a warm-up request" in record.getMessage()
    assert vars(record)["reason"] == "not zeros, please"


def test_a_warm_up_is_no_traffic(folder: Folder) -> None:
    folder.fake()
    folder.configure(warmup=[{"count": 5}])
    served = folder.load()
    assert (served.statistics.success, served.statistics.runs) == (0, {})


def test_a_declared_warm_up_must_pass(folder: Folder) -> None:
    folder.fake(
        behaviour="fail",
        fail={"code": "UNAVAILABLE", "message": "too cold", "when": {"input": "x", "value": 13}},
    )
    folder.configure(warmup=[{"inputs": {"x": [[1, 2, 3]]}}])
    assert isinstance(infer(folder.load(), [1, 2, 3]), InferResponse)
    folder.configure(warmup=[{"inputs": {"x": [[1, 2, 3]]}}, {"inputs": {"x": [[1, 13, 3]]}}])
    assert folder.fault() == "the warm-up request failed: too cold"


def test_warm_up_bytes_that_are_no_text(folder: Folder) -> None:
    folder.fake(
        inputs=[{"name": "t", "dtype": "BYTES", "shape": [-1]}],
        behaviour="fail",
        fail={"when": {"input": "t", "value": "ä"}, "code": "INVALID_ARGUMENT", "message": "seen"},
    )
    folder.configure(warmup=[{"inputs": {"t": ["ä".encode()]}}])
    assert folder.fault() == "the warm-up request failed: seen"
    folder.configure(warmup=[{"inputs": {"t": [b"\xff\x00"]}}])
    folder.load()


def test_warm_up_inputs_that_are_left_out_are_zeros(folder: Folder) -> None:
    folder.fake(
        inputs=[*ROWS, {"name": "t", "dtype": "BYTES", "shape": [-1]}],
        behaviour="fail",
        fail={"when": {"input": "x", "value": 0}, "code": "INVALID_ARGUMENT", "message": "zeros"},
    )
    folder.configure(warmup=[{"inputs": {"t": ["ä"]}}])
    assert folder.fault() == "the warm-up request failed: zeros"
    folder.configure(warmup=[{"inputs": {"t": ["ä"], "x": [[1, 1, 1]]}}])
    folder.load()


@pytest.mark.parametrize(
    ("warmup", "message"),
    [
        ({"signature": "other"}, "warmup: there is no signature 'other'"),
        ({"inputs": {"z": [1]}}, "warmup: there is no input 'z'"),
        ({"inputs": {"x": ["a"]}}, "warmup: input 'x' is not FP32"),
        ({"inputs": {"x": [[1, 2], [3]]}}, "warmup: input 'x' is not FP32"),
        ({"inputs": {"x": {"a": 1}}}, "warmup: input 'x' is not FP32"),
    ],
)
def test_a_warm_up_that_is_not_for_this_model(
    folder: Folder, warmup: dict[str, Any], message: str
) -> None:
    folder.fake()
    folder.configure(warmup=[warmup])
    assert folder.fault() == message


PICTURE = [{"name": "pixels", "dtype": "UINT8", "shape": [-1, 4, 4, 3]}]


def test_a_model_with_processing(folder: Folder) -> None:
    """It takes files, is warmed up with one, and is never run on the network's own thread."""
    folder.fake(inputs=PICTURE)
    folder.configure(
        preprocess={"name": "image_bytes"},
        warmup=[{"inputs": {"image_bytes": [{"file": "a.png"}]}}],
    )
    (folder.path / "1" / "a.png").write_bytes(file_of(scene(4, 4)))
    served = folder.load()
    assert served.metadata.signatures["serving_default"].inputs[0].name == "image_bytes"
    assert (served.statistics.success, served.statistics.runs) == (0, {})
    files = np.array([file_of(scene(4, 4))], np.object_)
    for _ in range(3):
        (found,) = served.model.infer((InferRequest({"image_bytes": files}),))
        assert isinstance(found, InferResponse)
        np.testing.assert_array_equal(found.outputs["pixels"], scene(4, 4)[None])
    assert served.queue.is_quick
    assert not served.is_quick


def test_processing_of_a_model_with_declared_tensors(folder: Folder) -> None:
    """What is declared is what is processed: a layout the model itself does not have."""
    folder.fake(inputs=[{"name": "pixels", "dtype": "UINT8", "shape": [-1, 48]}])
    folder.configure(
        max_batch_size=4,
        inputs=[{"name": "pixels", "dtype": "UINT8", "dims": [4, 4, 3], "reshape": [48]}],
        outputs=[{"name": "pixels", "dims": [48]}],
        preprocess={},
    )
    served = folder.load()
    assert served.metadata.max_batch_size == 4
    files = np.array([file_of(scene(4, 4))], np.object_)
    (found,) = served.model.infer((InferRequest({"pixels": files}),))
    assert isinstance(found, InferResponse)
    np.testing.assert_array_equal(found.outputs["pixels"], scene(4, 4).reshape(1, 48))


def test_processing_that_contradicts_the_model_is_told(folder: Folder) -> None:
    folder.fake()
    folder.configure(preprocess={})
    assert "not exactly one input of four dimensions" in folder.fault()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([{"file": "b.png"}], "warmup: the version's folder has no file 'b.png'"),
        ([{"file": "../1/a.png"}], "warmup: a file is written as {file: NAME}, without folders"),
        ([{"file": ".."}], "warmup: the version's folder has no file '..'"),
        ([{"path": "a.png"}], "warmup: a file is written as {file: NAME}, without folders"),
        ([{"file": "fake.yaml"}], "the warm-up request failed: the image at index 0 of input"),
        (["text"], "the warm-up request failed: the image at index 0 of input"),
    ],
)
def test_a_warm_up_file_that_cannot_be_used(folder: Folder, value: Any, says: str) -> None:
    folder.fake(inputs=PICTURE)
    folder.configure(
        preprocess={"name": "image_bytes"}, warmup=[{"inputs": {"image_bytes": value}}]
    )
    (folder.path / "1" / "a.png").write_bytes(file_of(scene(4, 4)))
    assert folder.fault().startswith(says)


def test_a_failed_warm_up_closes_the_session(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from crossfade.runtimes.fake import FakeSession

    closed: list[FakeSession] = []

    def close(session: FakeSession) -> None:
        closed.append(session)

    monkeypatch.setattr(FakeSession, "close", close)
    folder.fake()
    folder.configure(warmup=[{"inputs": {"z": [1]}}])
    folder.fault()
    assert len(closed) == 1


# -- batching -----------------------------------------------------------------------------------


def test_batching_is_what_the_configuration_says(folder: Folder) -> None:
    folder.fake()
    folder.configure(batching={"max_size": 8, "max_delay_ms": 2.5})
    served = folder.load()
    assert (served.queue.max_rows, served.queue.max_delay_s) == (8, 0.0025)


def test_a_batch_has_no_more_rows_than_the_model_takes(folder: Folder) -> None:
    folder.fake()
    folder.configure(max_batch_size=4, batching={"max_size": 8})
    assert folder.load().queue.max_rows == 4


def test_a_model_without_a_batch_is_not_stacked(folder: Folder) -> None:
    folder.fake(inputs=[{"name": "x", "shape": [2, 3]}])
    folder.configure(batching={"max_size": 8, "max_delay_ms": 1})
    served = folder.load()
    assert (served.queue.max_rows, served.queue.max_delay_s) == (1, 0)


def test_auto_batching_finds_out_that_stacking_pays(folder: Folder) -> None:
    """The fake sleeps as long for many rows as for one: more is better, until the promise ends."""
    folder.fake(behaviour="sleep", delay_ms=2)
    folder.configure(batching="auto")
    served = folder.load()
    assert served.queue.max_rows >= 8
    assert served.queue.max_delay_s == 0
    folder.configure(batching="auto", slo={"p99_ms": 40})
    served = folder.load()
    assert served.queue.max_rows >= 8
    assert 0 < served.queue.max_delay_s < 0.010


def test_auto_batching_never_breaks_the_promise(folder: Folder) -> None:
    folder.fake(behaviour="sleep", delay_ms=5)
    folder.configure(batching="auto", slo={"p99_ms": 6})
    served = folder.load()
    assert (served.queue.max_rows, served.queue.max_delay_s) == (1, 0)


def test_auto_batching_tries_no_more_rows_than_the_model_takes(folder: Folder) -> None:
    folder.fake(behaviour="sleep", delay_ms=1)
    folder.configure(max_batch_size=4)
    assert 1 < folder.load().queue.max_rows <= 4


def test_errors_of_a_loaded_model_keep_their_code(folder: Folder) -> None:
    folder.fake(
        behaviour="fail",
        fail={"code": "RESOURCE_EXHAUSTED", "when": {"input": "x", "value": 13}},
    )
    served = folder.load()
    assert infer(served, [13, 0, 0]).code is Code.RESOURCE_EXHAUSTED
    assert served.statistics.failure == {"RESOURCE_EXHAUSTED": 1}


def test_a_decoupled_model_streams_as_it_is_declared(folder: Folder) -> None:
    inputs = [
        {"name": "x", "dtype": "FP32", "shape": [2, 3]},
        {"name": "n", "dtype": "INT32", "shape": [1]},
    ]
    folder.fake(inputs=inputs, repeat="n", outputs=[{"name": "y", "from": "x"}])
    declared = [{"name": "x", "dims": [6], "reshape": [2, 3]}, {"name": "n", "dims": [1]}]
    outputs = [{"name": "y", "dims": [6], "reshape": [2, 3]}]
    folder.configure(decoupled=True, inputs=declared, outputs=outputs)
    served = folder.load()
    assert served.streaming is not None
    x = np.arange(6, dtype=np.float32)
    request = InferRequest({"x": x, "n": np.int32([2])})
    answers = list(served.streaming.stream(request))
    assert len(answers) == 2
    for answer in answers:
        assert isinstance(answer, InferResponse)
        assert answer.outputs["y"].tolist() == x.tolist()
    assert served.statistics.success == 1


def test_a_platform_without_streams_has_no_decoupled_models(folder: Folder) -> None:
    folder.fake()
    folder.configure(decoupled=True)
    assert "gives one response to a request" in folder.fault()


# -- answers that are remembered ------------------------------------------------------------------


def test_a_response_cache_is_the_versions_own_and_its_memory_counts(folder: Folder) -> None:
    folder.fake(1)
    files = read_folder("flowers", folder.path)
    plain = estimate(files, files.versions[1], folder.path / "1")
    folder.configure(cache={"max_bytes": "1MiB"})
    served = folder.load()
    assert served.cache is not None
    first, again = infer(served, [1, 2, 3]), infer(served, [1, 2, 3])
    assert np.array_equal(first.outputs["x"], again.outputs["x"])
    assert (served.statistics.cache.hits, len(served.cache)) == (1, 1)
    files = read_folder("flowers", folder.path)
    assert estimate(files, files.versions[1], folder.path / "1") == plain + (1 << 20)
    assert isinstance(infer(folder.load(), [1, 2, 3]), InferResponse)  # another's own cache
