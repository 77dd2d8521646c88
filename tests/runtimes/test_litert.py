"""LiteRT: batches, quantisation, refusals, and models made by others."""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossfade.runtimes.core.errors import (
    CrossfadeError,
    Internal,
    InvalidArgument,
    LoadFailed,
    MissingExtra,
)
from crossfade.runtimes.core.model import Session, TensorSpec

pytest.importorskip("ai_edge_litert")
from tests.runtimes import tflite_models as tm

Loads = Callable[..., Session]
Q = (0.5, 10)


@pytest.fixture
def loads(tmp_path: Path, load: Callable[..., Session]) -> Loads:
    def do(*graphs: tm.Graph, **options: Any) -> Session:
        path = tmp_path / "model.tflite"
        path.write_bytes(tm.build(*graphs))
        return load("tflite", path, **options)

    return do


def pixels(path: Path, side: int = 224) -> np.ndarray:
    """UINT8 [1, side, side, 3], resized bilinearly."""
    image = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image)[None]


def shapes(session: Session) -> list[tuple[int, ...] | None]:
    signature = session.signatures["serving_default"]
    return [spec.shape for spec in (*signature.inputs, *signature.outputs)]


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_batch_of_one_takes_any_number_of_rows(loads: Loads, dynamic: bool) -> None:
    session = loads(tm.affine(2, 1, dynamic=dynamic))
    assert session.signatures["serving_default"].batched
    assert shapes(session) == [(-1, 3)] * 3
    for rows in (1, 8, 8, 2, 1):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        y = session.run({"x": x}, "serving_default", ("y",))["y"]
        np.testing.assert_allclose(y, 2 * x + 1, rtol=1e-6)


def test_bytes_take_any_number_of_rows(loads: Loads) -> None:
    session = loads(tm.reshape([-1, 4], tm.STRING))
    assert session.signatures["serving_default"].inputs == (TensorSpec("x", "BYTES", (-1, 4)),)
    x = np.array([[b"", b"\xff\0", b"a", b"bcd"]] * 2, dtype=object)
    assert session.run({"x": x}, "serving_default", ())["y"].tolist() == x.tolist()


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (tm.reshape([1, 4]), "the batch is baked into a reshape"),
        (tm.centred(), "rows influence each other"),
        (tm.reshape([-1]), "the output has no batch dimension"),
    ],
)
def test_models_that_cannot_be_stacked_keep_their_shapes(
    loads: Loads, graph: tm.Graph, why: str
) -> None:
    session = loads(graph)
    assert not session.signatures["serving_default"].batched, why
    assert shapes(session)[0] == tuple(graph.tensors[0].shape)
    x = np.ones(graph.tensors[0].shape, np.float32)
    session.run({"x": x}, "serving_default", ())
    with pytest.raises(InvalidArgument, match="'x' has a shape the model does not take"):
        session.run({"x": np.concatenate([x, x])}, "serving_default", ())


def test_a_model_with_state_is_not_stacked_and_starts_afresh(
    loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    session = loads(tm.remembering())
    assert not session.signatures["serving_default"].batched
    assert "keeps state between requests" in caplog.text
    x = np.float32([[[1, 2]]])
    answers = [session.run({"x": x}, "serving_default", ())["y"].tolist() for _ in range(2)]
    assert answers == [[[[1, 2]]], [[[2, 4]]]]


def test_trying_can_be_switched_off(loads: Loads) -> None:
    session = loads(tm.affine(2, 1), resize_batch=False)
    assert shapes(session) == [(1, 3)] * 3
    assert not session.signatures["serving_default"].batched


def test_signatures(loads: Loads) -> None:
    session = loads(tm.affine(2, 1, "serving_default"), tm.affine(10, 0, "tens"))
    assert set(session.signatures) == {"serving_default", "tens"}
    x = np.ones((2, 3), np.float32)
    assert session.run({"x": x}, "tens", ("y",))["y"].tolist() == [[10] * 3] * 2
    assert session.run({"x": x}, "serving_default", ("y",))["y"].tolist() == [[3] * 3] * 2


def test_a_run_that_breaks_while_resizing_costs_only_itself(
    loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    lying = tm.reshape([1, 4])
    lying.tensors[0].dynamic = [-1, 4]
    session = loads(lying)
    assert shapes(session)[0] == (-1, 4)
    assert not session.signatures["serving_default"].batched
    x = np.ones((1, 4), np.float32)
    for _ in range(3):
        with pytest.raises(Internal, match="quote the id"):
            session.run({"x": np.ones((2, 4), np.float32)}, "serving_default", ())
        assert session.run({"x": x}, "serving_default", ())["y"].tolist() == x.tolist()
    assert "XNNPack" in caplog.text


def test_refused_values_are_the_requests_fault(loads: Loads) -> None:
    session = loads(tm.gather(3))
    with pytest.raises(InvalidArgument, match=r"index out of bounds$"):
        session.run({"x": np.int32([[0, 7]])}, "serving_default", ())
    with pytest.raises(InvalidArgument, match="dtype"):
        session.run({"x": np.int64([[0, 1]])}, "serving_default", ())
    answer = session.run({"x": np.int32([[0, 2]])}, "serving_default", ())
    assert answer["y"].tolist() == [[[0, 1], [4, 5]]]


def test_quantised_tensors_pass_as_they_are(loads: Loads) -> None:
    session = loads(tm.reshape([-1, 4], tm.UINT8, Q))
    assert session.signatures["serving_default"].inputs[0].dtype == "UINT8"
    assert session.quantization == {"x": Q, "y": Q}  # type: ignore[attr-defined]
    x = np.uint8([[0, 10, 11, 255]])
    assert session.run({"x": x}, "serving_default", ())["y"].tolist() == x.tolist()


def test_dequantised_tensors_are_real_numbers(loads: Loads) -> None:
    session = loads(tm.reshape([-1, 4], tm.UINT8, Q), dequantize=True)
    signature = session.signatures["serving_default"]
    assert {spec.dtype for spec in (*signature.inputs, *signature.outputs)} == {"FP32"}
    x = np.float32([[-1e9, -5, 0.74, 1e9]])
    y = session.run({"x": x}, "serving_default", ())["y"]
    assert y.dtype == np.float32
    assert y.tolist() == [[-5, -5, 0.5, 122.5]]
    with pytest.raises(InvalidArgument, match="'x' holds NaN"):
        session.run({"x": x * np.nan}, "serving_default", ())


@pytest.mark.parametrize(
    ("op", "says"),
    [
        ("edgetpu-custom-op", "compiled for the Edge TPU.*'device'.*CPU twin.*'fallback: cpu'"),
        ("FlexErf", r"select TensorFlow ops \(FlexErf\)"),
        ("MyOp", "the custom op 'MyOp'"),
    ],
)
def test_ops_that_are_missing(
    loads: Loads,
    tmp_path: Path,
    op: str,
    says: str,
    assert_clean: Callable[[CrossfadeError, Path], None],
) -> None:
    with pytest.raises(LoadFailed, match=says) as failed:
        loads(tm.custom(op))
    assert_clean(failed.value, tmp_path)


@pytest.mark.parametrize(
    ("delegate", "says"),
    [
        ("libnobody.so.1", "library cannot be loaded: libnobody.so.1"),
        ("libm.so.6", "holds no TFLite delegate"),
    ],
)
def test_delegates_that_are_none(loads: Loads, delegate: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        loads(tm.custom("edgetpu-custom-op"), delegate=delegate)


def test_wrong_options(loads: Loads) -> None:
    with pytest.raises(LoadFailed, match="'dequantise' is unknown; did you mean 'dequantize'"):
        loads(tm.affine(2, 1), dequantise=True)
    with pytest.raises(LoadFailed, match="'threads': input should be greater than"):
        loads(tm.affine(2, 1), threads=0)


def test_a_missing_library_names_its_extra(loads: Loads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[tflite\]'"):
        loads(tm.affine(2, 1))


def test_nothing_is_logged_for_a_bad_request(
    loads: Loads, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = loads(tm.affine(2, 1))
    with pytest.raises(InvalidArgument):
        session.run({"x": np.ones((1, 4), np.float32)}, "serving_default", ())
    assert not caplog.records


def test_automl_flowers_are_told_apart(shared: Path, load: Loads) -> None:
    export = shared / "automl-vision-edge/flowers"
    session = load("tflite", export / "model.tflite")
    assert session.signatures["serving_default"].inputs == (
        TensorSpec("image", "UINT8", (-1, 224, 224, 3)),
    )
    assert session.signatures["serving_default"].batched
    labels = (export / "dict.txt").read_text().split()
    images = sorted((export / "images").glob("*.jpg"))
    assert len(images) == 6
    batch = np.concatenate([pixels(image) for image in images])
    scores = session.run({"image": batch}, "serving_default", ())["scores"]
    for image, row in zip(images, scores, strict=True):
        assert labels[row.argmax()].startswith(image.name.split("_")[0])
    scale, zero_point = session.quantization["scores"]  # type: ignore[attr-defined]
    assert (scale, zero_point) == (1 / 256, 0)


def test_mobilenet_sees_a_cat(shared: Path, load: Loads) -> None:
    path = shared / "edgetpu/mobilenet_v2_1.0_224_quant.tflite"
    session = load("tflite", path, dequantize=True)
    # Its reshape has the batch baked in.
    assert not session.signatures["serving_default"].batched
    cat = (pixels(shared / "edgetpu/cat.bmp").astype(np.float32) - 128) / 128
    (scores,) = session.run({"input": cat}, "serving_default", ()).values()
    assert scores[0].argmax() == 286
    assert scores[0].max() == pytest.approx(0.79, abs=0.01)


def test_mobilenet_names_ten_photographs(shared: Path, load: Loads) -> None:
    session = load("tflite", shared / "edgetpu/mobilenet_v2_1.0_224_quant.tflite")
    listing = (shared / "images/client_python_resnet_input_images.txt").read_text()
    rows = list(csv.reader(listing.splitlines(), delimiter=" "))
    assert len(rows) == 10
    for path, label in rows:
        image = pixels(shared / "images" / Path(path).name)
        (scores,) = session.run({"input": image}, "serving_default", ()).values()
        assert scores[0].argmax() == int(label) + 1  # class 0 is the background


@pytest.mark.parametrize(
    "name", ["saved_model_half_plus_two_tflite", "saved_model_half_plus_two_tflite_with_sigdef"]
)
def test_half_plus_two(shared: Path, load: Loads, name: str) -> None:
    session = load("tflite", shared / "savedmodel" / name / "00000123/model.tflite")
    (given,) = session.signatures["serving_default"].inputs
    answer = session.run({given.name: np.float32([[1], [2], [5]])}, "serving_default", ())
    assert answer["y"].tolist() == [[2.5], [3], [4.5]]


def test_the_traffic_tracker_keeps_its_shapes_and_passes_its_state_on(
    shared: Path, load: Loads
) -> None:
    session = load("tflite", shared / "automl-video/traffic/traffic_model.tflite")
    signature = session.signatures["serving_default"]
    assert not signature.batched
    boxes, classes, scores, count, c, h = (spec.shape for spec in signature.outputs)
    assert (boxes, classes, scores, count) == ((1, 40, 4), (1, 40), (1, 40), (1,))
    assert c == h == (1, 8, 8, 320)
    frame, c_in, h_in = (spec.name for spec in signature.inputs)
    state = {name: np.zeros((1, 8, 8, 320), np.uint8) for name in (c_in, h_in)}
    best = []
    for number in ("0001", "0010"):
        image = pixels(shared / f"automl-video/traffic/{number}.bmp", 256)
        answer = session.run({frame: image, **state}, "serving_default", ())
        assert [array.shape for array in answer.values()] == [s.shape for s in signature.outputs]
        best.append(float(answer["TFLite_Detection_PostProcess:2"].max()))
        state = {c_in: answer["raw_outputs/lstm_c"], h_in: answer["raw_outputs/lstm_h"]}
    # Its state stays zero on these frames, with the reference kernels too.
    assert best == pytest.approx([0.41, 0.5], abs=0.02)


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("mobilenet_v2_1.0_224_quant_edgetpu.tflite", "compiled for the Edge TPU"),
        ("invalid_models/model_invoking_error.tflite", "the custom op 'fake-op-double'"),
    ],
)
def test_models_that_a_cpu_cannot_run(shared: Path, load: Loads, file: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        load("tflite", shared / "edgetpu" / file)
