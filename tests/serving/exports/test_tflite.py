"""TFLite files read without an interpreter."""

from __future__ import annotations

import contextlib
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.exports import tflite
from tests.runtimes import tflite_models


def test_the_flowers(shared: Path) -> None:
    graph = tflite.read(shared / "automl-vision-edge" / "flowers" / "model.tflite")
    (image,), (scores,) = graph.inputs, graph.outputs
    assert (image.name, image.dtype, image.shape) == ("image", "UINT8", (1, 224, 224, 3))
    assert image.quantization == (pytest.approx(1 / 127), 128)
    assert scores.quantization == (pytest.approx(1 / 256), 0)
    assert graph.last_ops["scores"] == "SOFTMAX"
    assert graph.custom == ()


def test_the_tracker_and_its_states(shared: Path) -> None:
    graph = tflite.read(shared / "automl-video" / "traffic" / "traffic_model.tflite")
    assert tflite.DETECTION_OP in graph.custom
    assert graph.missing == ()
    pairs = [(into.name, out.name) for into, out in tflite.states(graph)]
    assert pairs == [
        ("raw_inputs/init_lstm_c", "raw_outputs/lstm_c"),
        ("raw_inputs/init_lstm_h", "raw_outputs/lstm_h"),
    ]


def test_the_edge_tpu_and_custom_ops(shared: Path) -> None:
    graph = tflite.read(shared / "edgetpu" / "mobilenet_v2_1.0_224_quant_edgetpu.tflite")
    assert graph.custom == (tflite.EDGE_TPU_OP,)
    graph = tflite.parse(tflite_models.build(tflite_models.custom("FlexErf")))
    assert graph.missing == ("FlexErf",)


def test_states_have_one_name_type_and_shape() -> None:
    def tensor(name: str, shape: tuple[int, ...] = (1, 2)) -> tflite.Tensor:
        return tflite.Tensor(name, "UINT8", shape, (0.5, 3))

    def pairs(into: tflite.Tensor, out: tflite.Tensor) -> int:
        return len(tflite.states(tflite.Graph((into,), (out,), {}, ())))

    assert pairs(tensor("a/init_c"), tensor("b/c")) == 1
    assert pairs(tensor("a/init_c"), tensor("b/c", (1, 3))) == 0
    assert pairs(tensor("a/init_c"), tensor("b/h")) == 0
    assert pairs(tensor("a/c"), tensor("b/c")) == 0


def test_labels_packed_behind_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite_models.build(tflite_models.affine(2, 1)))
    assert tflite.packed_labels(path) is None
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("labelmap.txt", "cat\ndog")
    assert tflite.packed_labels(path) == ("labelmap.txt", b"cat\ndog")
    assert tflite.read(path).inputs[0].name == "x"


@given(st.binary(max_size=100), st.booleans())
def test_garbage(content: bytes, marked: bool) -> None:
    with contextlib.suppress(LoadFailed):
        tflite.parse(b"\x20\0\0\0TFL3" + content if marked else content)


MODEL = tflite_models.build(tflite_models.custom("Odd"))


@given(st.data())
def test_damage(data: st.DataObject) -> None:
    content = bytearray(MODEL)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(LoadFailed):
        tflite.parse(bytes(content))
