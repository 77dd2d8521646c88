"""Configurations that contradict the model are refused when it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossfade.runtimes.core.errors import LoadFailed
from crossfade.serving.config.model_config import ModelConfig
from crossfade.serving.processing.build import around
from tests.serving.processing.models import Inner, processed, specs

IMAGE = ("UINT8", (-1, 8, 8, 3))
SCORES = ("FP32", (-1, 5))


def fault(inputs: Any = None, outputs: Any = None, names: Any = (), **config: Any) -> str:
    inner = Inner(specs(**(inputs or {"x": IMAGE})), specs(**(outputs or {"y": SCORES})), dict)
    with pytest.raises(LoadFailed) as caught:
        processed(inner, None, names, **config)
    return caught.value.message


@pytest.mark.parametrize(
    ("inputs", "preprocess", "says"),
    [
        ({"x": ("UINT8", (-1, 8))}, {}, "not exactly one input of four dimensions"),
        ({"x": IMAGE, "z": IMAGE}, {}, "set preprocess.input"),
        ({"x": IMAGE}, {"input": "q"}, "no input 'q'"),
        ({"x": ("BYTES", (-1, 8, 8, 3))}, {}, "not exactly one input"),
        ({"x": ("UINT8", (-1, 8, 8, 4))}, {}, "does not say where its channels are"),
        ({"x": ("UINT8", (-1, 3, 8, 3))}, {}, "set layout"),
        ({"x": ("UINT8", (-1, 8, 8, 4))}, {"layout": "nhwc"}, "has 4 channels"),
        ({"x": IMAGE}, {"color": "gray"}, "has 3 channels, which is not gray"),
        ({"x": ("UINT8", (-1, -1, 8, 3))}, {}, "set resize.height"),
        ({"x": IMAGE}, {"resize": {"width": 9}}, "the width of input 'x' is 8, and not 9"),
        ({"x": IMAGE}, {"mean": [1, 2]}, "preprocess.mean: 2 numbers for 3 channels"),
        ({"x": IMAGE}, {"scale": 0.5}, "set preprocess.quantization"),
        ({"x": IMAGE}, {"quantization": {"scale": 1}}, "is for normalised values"),
        ({"x": IMAGE, "z": ("FP32", (-1, 2))}, {"name": "z"}, "another input 'z'"),
        ({"x": IMAGE}, {"key": "x"}, "preprocess.key: the model has"),
        ({"x": IMAGE}, {"name": "i", "key": "x"}, "preprocess.key: the model has"),
        ({"x": IMAGE}, {"key": "y"}, "preprocess.key: the model has"),
    ],
)
def test_preprocess(inputs: Any, preprocess: Any, says: str) -> None:
    assert says in fault(inputs, preprocess=preprocess)


@pytest.mark.parametrize(
    ("outputs", "task", "postprocess", "says"),
    [
        ({"y": SCORES, "z": SCORES}, "classification", {}, "which output is 'scores' is not known"),
        ({"y": ("BYTES", (-1,))}, "classification", {}, "which output is 'scores'"),
        (
            {"y": ("BYTES", (-1,))},
            "classification",
            {"outputs": {"scores": "y"}},
            "is text, and not 'scores'",
        ),
        ({"y": SCORES}, "classification", {"outputs": {"scores": "q"}}, "no output 'q'"),
        ({"y": SCORES}, "classification", {"labels": ["a"]}, "there are 1 labels for 5 classes"),
        ({"y": SCORES}, "multi_label", {"quantization": {"q": {"scale": 1}}}, "no output 'q'"),
        ({"y": SCORES}, "detection", {}, "which output is 'boxes' is not known"),
        ({"y": SCORES}, "segmentation", {}, "is no mask: its shape is [-1, 5]"),
        ({"y": ("FP32", None)}, "segmentation", {}, "its shape is not known"),
        ({"y": ("FP32", (-1, 4, 4, 999))}, "segmentation", {}, "1 to 256 classes"),
        ({"y": ("FP32", (-1, 4, 4, 2))}, "segmentation", {"class_axis": 0}, "is the rows"),
        ({"y": SCORES, "z": SCORES}, "regression", {}, "which output is 'value'"),
    ],
)
def test_postprocess(outputs: Any, task: str, postprocess: Any, says: str) -> None:
    assert says in fault(None, outputs, task=task, postprocess=postprocess)


def test_a_label_file_for_another_model() -> None:
    says = fault(names=["a", "b"], task="classification", postprocess={})
    assert "there are 2 labels for 5 classes" in says


@pytest.mark.parametrize("config", [{}, {"task": "text"}, {"task": "text", "postprocess": {}}])
def test_nothing_to_do(config: Any) -> None:
    inner = Inner(specs(x=IMAGE), specs(y=SCORES), dict)
    assert around(inner.metadata, ModelConfig.model_validate(config), {}, (), Path()) is None


def test_what_the_model_does_not_say() -> None:
    inner = Inner(specs(x=("FP32", (-1, -1, -1, -1))), specs(y=SCORES), dict)
    model = processed(
        inner,
        preprocess={
            "layout": "nchw",
            "color": "bgr",
            "resize": {"height": 20, "width": 30},
        },
    )
    (image,) = model.metadata.signatures["serving_default"].inputs
    assert (image.dtype, image.shape) == ("BYTES", (-1,))


def test_rows_of_one_request() -> None:
    def most(shape: tuple[int, ...], **config: Any) -> int:
        inner = Inner(specs(x=("FP32", shape)), specs(y=(("FP32", (shape[0], 5)))), dict)
        return processed(inner, preprocess={}, **config).metadata.max_batch_size

    assert most((-1, 224, 224, 3)) == (256 << 20) // (224 * 224 * 3 * 4)
    assert most((1, 224, 224, 3)) == (256 << 20) // (224 * 224 * 3 * 4)
    assert most((1, 224, 224, 3), max_batch_size=2) == 2
    assert most((1, 224, 224, 3), max_batch_size=0) == 0
    assert most((-1, 8000, 8000, 3)) == 1
