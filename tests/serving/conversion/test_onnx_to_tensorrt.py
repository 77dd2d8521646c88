"""What the builder of engines is told, on a TensorRT that is made here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser
from PIL import Image

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.trt import build
from crossfade.runtimes.trt.libraries import Libraries
from crossfade.serving.conversion import onnx_to_tensorrt
from crossfade.serving.conversion.job import Job
from tests.runtimes.fake_cuda import FakeCuda
from tests.runtimes.fake_tensorrt import FakeTensorRt, ITensor, OnnxParser

MODEL = """
<ir_version: 9, opset_import: ["": 20]>
g (float[N, 3, 4, 4] x, int64[N, Q, 8] tokens) => (float[N, Q] y)
<int64[1] side = {1}, int64[1] last = {2}, int64[3] sides = {1, 2, 3}>
{
  mean = ReduceMean<keepdims = 0>(x, sides)
  column = Unsqueeze(mean, side)
  words = Cast<to = 1>(tokens)
  sum = ReduceSum<keepdims = 0>(words, last)
  y = Mul(sum, column)
}
"""


class RealFiles(OnnxParser):
    """Reads the inputs of ONNX files."""

    def parse_from_file(self, model: str) -> bool:
        self._network.inputs = [
            ITensor(i.name, [d.dim_value or -1 for d in i.type.tensor_type.shape.dim])
            for i in onnx.load(model).graph.input
        ]
        return True


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    cuda = FakeCuda()
    made = FakeTensorRt(cuda)
    made.OnnxParser = RealFiles
    monkeypatch.setattr(build, "find", lambda _: Libraries(made, cuda))
    monkeypatch.setattr(onnx_to_tensorrt, "check", lambda: None)
    return made


def job(folder: Path, text: str) -> Job:
    for name in ("version", "scratch"):
        (folder / name).mkdir()
    onnx.save(parser.parse_model(text), str(folder / "net.onnx"))
    told = Job("convert", "net", str(folder / "net.onnx"), "onnxruntime_onnx", {}, "tensorrt", "")
    return dataclasses.replace(told, stage=str(folder), max_rows=4)


def shapes(trt: FakeTensorRt) -> dict[str, list[list[int]]]:
    assert trt.last is not None
    (profile,) = trt.last.profiles
    return profile.shapes


def test_an_engine_is_tuned_for_the_sizes_of_the_data(trt: FakeTensorRt, tmp_path: Path) -> None:
    task = job(tmp_path, MODEL)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "a.png")
    asked = {"tokens": [np.ones((2, 8), int).tolist(), np.zeros((2, 8), int).tolist()]}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    task = dataclasses.replace(
        task,
        data=str(tmp_path / "pictures"),
        others=str(tmp_path / "asked.json"),
        value_range=(0.0, 1.0),
    )
    onnx_to_tensorrt.convert(task, lambda _: None)
    assert (tmp_path / "version" / "model.plan").read_bytes()
    assert shapes(trt) == {
        "x": [[1, 3, 4, 4], [4, 3, 4, 4], [4, 3, 4, 4]],
        "tokens": [[1, 1, 8], [4, 2, 8], [4, 33, 8]],
    }


def test_without_data_it_is_tuned_for_the_smallest(trt: FakeTensorRt, tmp_path: Path) -> None:
    onnx_to_tensorrt.convert(job(tmp_path, MODEL), lambda _: None)
    assert shapes(trt)["tokens"] == [[1, 1, 8], [4, 1, 8], [4, 33, 8]]


def test_texts_are_refused_before_anything_is_built(trt: FakeTensorRt, tmp_path: Path) -> None:
    text = "g (string[N] query) => (string[N] y) { y = Identity(query) }"
    task = job(tmp_path, f'<ir_version: 9, opset_import: ["": 20]> {text}')
    with pytest.raises(InvalidArgument, match="TensorRT has no texts, and 'query' is one"):
        onnx_to_tensorrt.convert(task, lambda _: None)
    assert trt.last is None
