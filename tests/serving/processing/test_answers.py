"""Each task's answer, out of what models of that kind give."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crossfade.runtimes.core.model import InferRequest, InferResponse, TensorSpec
from crossfade.serving.processing.processed import Processed
from tests.serving.processing.models import Inner, processed, specs, texts
from tests.serving.processing.pictures import file_of

X = specs(x=("FP32", (-1, 2)))
SIDE = 8


def answer(model: Processed, rows: int = 1, **inputs: Any) -> Any:
    given = inputs or {"x": np.zeros((rows, 2), np.float32)}
    (result,) = model.infer((InferRequest(given, rows=rows),))
    assert isinstance(result, InferResponse), result
    return result.outputs


def giving(outputs: tuple[TensorSpec, ...], *arrays: Any, **config: Any) -> Processed:
    made = {spec.name: array for spec, array in zip(outputs, arrays, strict=True)}
    quantized = config.pop("quantized", None)
    names = config.pop("names", ())
    return processed(Inner(X, outputs, lambda _: made), quantized, names, **config)


def shapes(model: Processed) -> dict[str, tuple[str, Any]]:
    outputs = model.metadata.signatures["serving_default"].outputs
    return {spec.name: (spec.dtype, spec.shape) for spec in outputs}


# -- classification -----------------------------------------------------------------------------

LOGITS = np.array([[1, 3, 2], [0, 0, 4]], np.float32)


def test_classification() -> None:
    model = giving(
        specs(logits=("FP32", (-1, 3))),
        LOGITS,
        task="classification",
        postprocess={"activation": "softmax"},
        names=["a", "b", "c"],
    )
    assert shapes(model) == {"labels": ("BYTES", (-1, 3)), "scores": ("FP32", (-1, 3))}
    assert model.metadata.labels == {"scores": ["a", "b", "c"]}
    got = answer(model, 2)
    assert got["labels"].tolist() == [[b"a", b"b", b"c"]] * 2
    np.testing.assert_allclose(got["scores"].sum(axis=1), 1, rtol=1e-6)
    assert got["scores"].argmax(axis=1).tolist() == [1, 2]


def test_the_best() -> None:
    model = giving(
        specs(logits=("FP32", (-1, 3))),
        LOGITS,
        task="classification",
        postprocess={"activation": "softmax", "top_k": 2, "labels": ["a", "b", "c"]},
    )
    assert shapes(model)["labels"] == ("BYTES", (-1, 2))
    assert model.metadata.labels == {}, "they are not in index order"
    assert answer(model, 2)["labels"].tolist() == [[b"b", b"c"], [b"c", b"a"]]


def test_multi_label_of_a_quantised_model() -> None:
    model = giving(
        specs(out=("UINT8", (-1, 3))),
        np.array([[255, 128, 0]], np.uint8),
        task="multi_label",
        postprocess={"threshold": 0.4},
        quantized={"out": (1 / 256, 0)},
        names=["a", "b", "c"],
    )
    got = answer(model)
    assert got["labels"].tolist() == [[b"a", b"b", b""]]
    np.testing.assert_allclose(got["scores"], [[255 / 256, 0.5, 0]])


def test_quantisation_as_configured() -> None:
    model = giving(
        specs(out=("INT8", (-1, 2))),
        np.array([[127, -128]], np.int8),
        task="classification",
        postprocess={"quantization": {"out": {"scale": 1 / 256, "zero_point": -128}}},
        quantized={"out": (7.0, 7)},
    )
    got = answer(model)
    np.testing.assert_allclose(got["scores"], [[255 / 256, 0]])
    assert got["labels"].tolist() == [[b"0", b"1"]]


def test_labels_of_the_one_output_count_first() -> None:
    made = specs(out=("FP32", (-1, 2)))
    inner = Inner(X, made, lambda _: {"out": np.float32([[0, 1]])}, {"out": ["no", "yes"]})
    model = processed(inner, None, ["x", "y"], task="classification", postprocess={})
    assert answer(model)["labels"].tolist() == [[b"no", b"yes"]]


def test_scores_are_found_among_others() -> None:
    outputs = specs(features=("FP32", (-1, 9)), scores=("FP32", (-1, 2)))
    arrays = np.zeros((1, 9), np.float32), np.float32([[0.25, 0.75]])
    model = giving(outputs, *arrays, task="classification", postprocess={})
    np.testing.assert_array_equal(answer(model)["scores"], arrays[1])
    model = giving(
        outputs, *arrays, task="classification", postprocess={"outputs": {"scores": "features"}}
    )
    assert answer(model)["scores"].shape == (1, 9)


# -- detection ----------------------------------------------------------------------------------

BOXES = np.float32([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.02, 0, 0.5, 0.5], [0, 0, 1, 1]]])
TFLITE = specs(
    **{
        "TFLite_Detection_PostProcess": ("FP32", (1, 4, 4)),
        "TFLite_Detection_PostProcess:1": ("FP32", (1, 4)),
        "TFLite_Detection_PostProcess:2": ("FP32", (1, 4)),
        "TFLite_Detection_PostProcess:3": ("FP32", (1,)),
    }
)
FOUND = BOXES, np.float32([[0, 1, 0, 1]]), np.float32([[0.6, 0.9, 0.7, 0.8]]), np.float32([3])


def test_tflite_detection() -> None:
    """Of four boxes the fourth is not counted, and the best come first."""
    model = giving(TFLITE, *FOUND, task="detection", postprocess={"labels": ["cat", "dog"]})
    assert shapes(model) == {
        "detection_boxes": ("FP32", (-1, 4, 4)),
        "detection_scores": ("FP32", (-1, 4)),
        "detection_classes": ("FP32", (-1, 4)),
        "detection_classes_as_text": ("BYTES", (-1, 4)),
        "num_detections": ("FP32", (-1,)),
    }
    got = answer(model)
    assert got["num_detections"].tolist() == [3]
    np.testing.assert_allclose(got["detection_scores"], [[0.9, 0.7, 0.6, 0]], rtol=1e-6)
    assert got["detection_classes_as_text"].tolist() == [[b"dog", b"cat", b"cat", b""]]
    np.testing.assert_array_equal(got["detection_boxes"][0, :3], BOXES[0][[1, 2, 0]])
    assert (got["detection_boxes"][0, 3] == 0).all()


def test_object_detection_api_with_overlaps_and_labels_from_1() -> None:
    outputs = specs(
        detection_boxes=("FP32", (-1, 4, 4)),
        detection_scores=("FP32", (-1, 4)),
        detection_classes=("FP32", (-1, 4)),
        num_detections=("FP32", (-1,)),
        raw_detection_boxes=("FP32", (-1, 9, 4)),
    )
    arrays = BOXES, FOUND[2], FOUND[1] + 1, np.float32([4]), np.zeros((1, 9, 4), np.float32)
    model = giving(
        outputs,
        *arrays,
        task="detection",
        postprocess={
            "labels": ["cat", "dog"],
            "label_offset": -1,
            "iou_threshold": 0.5,
            "threshold": 0.5,
            "max_detections": 2,
        },
    )
    got = answer(model)
    assert got["detection_scores"].shape == (1, 2)
    assert got["detection_classes"].tolist() == [[2, 2]]
    assert got["detection_classes_as_text"].tolist() == [[b"dog", b"dog"]]


def test_a_score_for_each_class_and_corners_in_pixels() -> None:
    outputs = specs(b=("FP32", (-1, 3, 4)), s=("FP32", (-1, 3, 2)))
    boxes = np.float32([[[0, 0, 4, 8], [0, 0, 4, 7], [4, 4, 8, 8]]])  # xmin, ymin, xmax, ymax
    scores = np.float32([[[0.9, 0.1], [0.8, 0.7], [0.2, 0.6]]])
    image = specs(image=("UINT8", (-1, SIDE, SIDE, 3)))
    inner = Inner(image, outputs, lambda _: {"b": boxes, "s": scores})
    model = processed(
        inner,
        None,
        ["cat", "dog"],
        preprocess={},
        task="detection",
        postprocess={
            "outputs": {"boxes": "b", "scores": "s"},
            "box_format": "xyxy",
            "box_units": "pixels",
            "iou_threshold": 0.5,
            "threshold": 0.5,
        },
    )
    picture = file_of(np.zeros((SIDE, SIDE, 3), np.uint8))
    got = answer(model, image=texts(picture))
    # The second box is left out as a cat, since a better cat is there, and stays as a dog.
    assert got["num_detections"].tolist() == [3]
    assert got["detection_classes_as_text"].tolist() == [[b"cat", b"dog", b"dog"]]
    np.testing.assert_allclose(
        got["detection_boxes"][0], [[0, 0, 1, 0.5], [0, 0, 0.875, 0.5], [0.5, 0.5, 1, 1]]
    )


def test_boxes_of_a_letterbox_are_those_of_the_picture() -> None:
    outputs = specs(detection_boxes=("FP32", (-1, 1, 4)), detection_scores=("FP32", (-1, 1)))
    found = {
        "detection_boxes": np.float32([[[0.25, 0, 0.75, 0.5]]]),
        "detection_scores": np.float32([[1]]),
    }
    image = specs(image=("UINT8", (-1, SIDE, SIDE, 3)))
    inner = Inner(image, outputs, lambda _: found)
    model = processed(
        inner, preprocess={"resize": {"fit": "letterbox"}}, task="detection", postprocess={}
    )
    wide = file_of(np.zeros((SIDE, 2 * SIDE, 3), np.uint8))
    got = answer(model, image=texts(wide))
    np.testing.assert_allclose(got["detection_boxes"], [[[0, 0, 1, 0.5]]], atol=1e-6)
    plain = answer(model, image=np.zeros((1, SIDE, SIDE, 3), np.uint8))
    np.testing.assert_allclose(plain["detection_boxes"], found["detection_boxes"])


@pytest.mark.parametrize("count", [-1, 0, 99, np.nan, np.inf])
def test_a_count_that_cannot_be(count: float) -> None:
    model = giving(TFLITE, *FOUND[:3], np.float32([count]), task="detection", postprocess={})
    number = answer(model)["num_detections"].tolist()
    assert number == [4 if count in (99, np.inf) else 0]


def test_scores_that_are_no_numbers_are_no_boxes() -> None:
    scores = np.float32([[np.nan, 0.5, np.nan, 0.1]])
    model = giving(
        TFLITE, BOXES, FOUND[1], scores, np.float32([4]), task="detection", postprocess={}
    )
    assert answer(model)["num_detections"].tolist() == [2]


# -- segmentation, regression -------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 1])
def test_segmentation(axis: int) -> None:
    random = np.random.default_rng(2)
    raw = random.random((2, 4, 5, 3), np.float32)
    if axis == 1:
        raw = np.moveaxis(raw, -1, 1)
    outputs = specs(m=("FP32", (-1, *raw.shape[1:])))
    model = giving(outputs, raw, task="segmentation", postprocess={"class_axis": axis})
    assert shapes(model) == {"mask": ("UINT8", (-1, 4, 5))}
    np.testing.assert_array_equal(answer(model, 2)["mask"], raw.argmax(axis))


def test_a_mask_as_a_file() -> None:
    raw = np.random.default_rng(2).random((2, 4, 5, 1), np.float32)
    model = giving(
        specs(m=("FP32", (-1, 4, 5, 1))),
        raw,
        task="segmentation",
        postprocess={"png": True, "threshold": 0.3},
    )
    assert shapes(model) == {"mask_png_bytes": ("BYTES", (-1,))}
    files = answer(model, 2)["mask_png_bytes"]
    for file, row in zip(files, raw, strict=True):
        with Image.open(io.BytesIO(file)) as image:
            np.testing.assert_array_equal(np.asarray(image), row[..., 0] >= 0.3)


def test_a_mask_of_classes_passes() -> None:
    raw = np.array([[[0, 7], [300, 1]]], np.int64)
    model = giving(specs(m=("INT64", (-1, 2, 2))), raw, task="segmentation", postprocess={})
    assert answer(model)["mask"].tolist() == [[[0, 7], [255, 1]]]


def test_regression() -> None:
    raw = np.float32([[0.5], [-3], [9]])
    model = giving(
        specs(y=("FP32", (-1, 1))),
        raw,
        task="regression",
        postprocess={"scale": 10, "offset": 1, "minimum": 0, "maximum": 50},
    )
    assert shapes(model) == {"value": ("FP32", (-1, 1))}
    assert answer(model, 3)["value"].tolist() == [[6], [0], [50]]
