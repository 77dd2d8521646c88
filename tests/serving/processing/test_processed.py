"""Requests with image files: what the model inside is asked, and what the client gets."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pytest

from crossfade.runtimes.core.errors import Code, CrossfadeError, InvalidArgument
from crossfade.runtimes.core.model import InferRequest, InferResponse
from crossfade.serving.processing.processed import Processed
from tests.serving.processing.models import Inner, processed, specs, texts
from tests.serving.processing.pictures import file_of, scene

RED, BLUE = (
    file_of(np.full((size, 7, 3), color, np.uint8))
    for size, color in ((5, (200, 0, 0)), (9, (0, 0, 80)))
)
IMAGE = specs(image=("FP32", (-1, 4, 6, 3)))
MEANS = specs(means=("FP32", (-1, 3)))


def means(inputs: Any) -> dict[str, Any]:
    return {"means": inputs["image"].astype(np.float32).mean(axis=(1, 2))}


def averaging(**preprocess: Any) -> tuple[Inner, Processed]:
    inner = Inner(IMAGE, MEANS, means)
    return inner, processed(inner, preprocess={"name": "image_bytes", "key": "key", **preprocess})


def ask(model: Processed, *files: bytes, **more: Any) -> Any:
    inputs = {"image_bytes": texts(*files), **more.pop("inputs", {})}
    (result,) = model.infer((InferRequest(inputs, rows=len(files), **more),))
    return result


def test_files_of_any_size_become_one_run() -> None:
    inner, model = averaging()
    answer = ask(model, RED, BLUE)
    np.testing.assert_allclose(answer.outputs["means"], [[200, 0, 0], [0, 0, 80]])
    (asked,) = inner.asked
    assert asked.inputs["image"].shape == (2, 4, 6, 3)
    assert asked.rows == 2
    assert answer.model is model.metadata
    assert answer.timings.queue_ns == 5
    assert answer.timings.infer_ns == 7
    assert answer.timings.input_ns > 0
    assert answer.timings.output_ns > 0


def test_the_signature_that_clients_see() -> None:
    _, model = averaging()
    signature = model.metadata.signatures["serving_default"]
    picture, key = signature.inputs
    assert (picture.name, picture.dtype, picture.shape) == ("image_bytes", "BYTES", (-1,))
    assert picture.alternative == IMAGE[0]
    assert (key.name, key.optional) == ("key", True)
    assert [spec.name for spec in signature.outputs] == ["means", "key"]
    assert signature.batched
    # One request may become 256 MiB of pixels, of this model and for this shape.
    assert model.metadata.max_batch_size == min(4096, (256 << 20) // (4 * 6 * 3 * 4))


def test_one_bad_file_fails_its_request_and_no_other() -> None:
    inner, model = averaging()
    requests = [
        InferRequest({"image_bytes": texts(*files)}, rows=len(files))
        for files in ((RED,), (BLUE, RED, b"nonsense"), (BLUE,))
    ]
    first, second, third = model.infer(requests)
    assert isinstance(second, InvalidArgument)
    assert second.message == (
        "the image at index 2 of input 'image_bytes' is no JPEG, PNG, GIF, BMP or ICO file"
    )
    assert isinstance(first, InferResponse)
    assert isinstance(third, InferResponse)
    np.testing.assert_allclose(third.outputs["means"], [[0, 0, 80]])
    assert len(inner.asked) == 2


def test_the_tensor_itself() -> None:
    inner, model = averaging()
    pixels = np.ones((2, 4, 6, 3), np.float32)
    (answer,) = model.infer((InferRequest({"image": pixels}, rows=2),))
    assert isinstance(answer, InferResponse)
    assert inner.asked[0].inputs["image"] is pixels
    inner = Inner(IMAGE, MEANS, means)
    model = processed(inner, preprocess={})  # both are then called as the model calls it
    for given in (pixels, texts(RED, RED)):
        (answer,) = model.infer((InferRequest({"image": given}, rows=2),))
        assert isinstance(answer, InferResponse)


def test_a_key_comes_back() -> None:
    _, model = averaging()
    keys = texts(b"a", b"\xff")
    answer = ask(model, RED, BLUE, inputs={"key": keys})
    assert list(answer.outputs) == ["means", "key"]
    assert answer.outputs["key"] is keys
    assert list(ask(model, RED).outputs) == ["means"]
    assert list(ask(model, RED, inputs={"key": texts(b"1")}, outputs=("key",)).outputs) == ["key"]
    padded = ask(model, RED, BLUE, outputs=("key", "means")).outputs
    assert padded["key"].tolist() == [b"", b""]


def test_other_signatures_pass() -> None:
    inner, model = averaging()
    inner._run = lambda inputs: {"u": inputs["t"]}
    request = InferRequest({"t": np.int32([1])}, "other")
    (answer,) = model.infer((request,))
    assert isinstance(answer, InferResponse)
    assert inner.asked == [request]


def test_a_model_that_takes_one_row() -> None:
    inner = Inner(specs(image=("UINT8", (1, 4, 6, 3))), specs(means=("FP32", (1, 3))), means)
    model = processed(inner, preprocess={})
    signature = model.metadata.signatures["serving_default"]
    assert signature.batched
    assert signature.inputs[0].shape == (-1,)
    assert signature.inputs[0].alternative is not None
    assert signature.inputs[0].alternative.shape == (-1, 4, 6, 3)
    assert signature.outputs[0].shape == (-1, 3)
    (answer,) = model.infer((InferRequest({"image": texts(RED, BLUE, RED)}, rows=3),))
    assert isinstance(answer, InferResponse)
    assert [one.inputs["image"].shape for one in inner.asked] == [(1, 4, 6, 3)] * 3
    np.testing.assert_allclose(answer.outputs["means"], [[200, 0, 0], [0, 0, 80], [200, 0, 0]])
    assert answer.timings.infer_ns == 21


def test_a_model_that_fails() -> None:
    def fail(inputs: Any) -> dict[str, Any]:
        raise InvalidArgument("no")

    model = processed(Inner(IMAGE, MEANS, fail), preprocess={"name": "image_bytes"})
    assert ask(model, RED).message == "no"


def test_a_model_that_answers_what_it_did_not_say() -> None:
    inner = Inner(IMAGE, MEANS, lambda inputs: {"means": np.float32(1)})
    model = processed(
        inner, preprocess={"name": "image_bytes"}, task="classification", postprocess={}
    )
    error = ask(model, RED)
    assert isinstance(error, CrossfadeError)
    assert error.code is Code.INTERNAL
    assert "quote the id" in error.message


def test_nobody_waits() -> None:
    class Gone:
        def is_set(self) -> bool:
            return True

        def subscribe(self, callback: Any) -> None:
            raise AssertionError

    inner, model = averaging()
    late = ask(model, RED, deadline_s=time.monotonic() - 1)
    assert late.code is Code.DEADLINE_EXCEEDED
    assert ask(model, RED, cancelled=Gone()).code is Code.CANCELLED
    assert inner.asked == []


def test_it_closes_the_model_inside() -> None:
    inner, model = averaging()
    model.close()
    assert inner.closed


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_layout_and_colour_reach_the_model(layout: str, color: str) -> None:
    shape = (-1, 30, 40, 3) if layout == "nhwc" else (-1, 3, 30, 40)
    seen: list[Any] = []

    def look(inputs: Any) -> dict[str, Any]:
        seen.append(inputs["image"])
        return {"means": np.zeros((1, 3), np.float32)}

    inner = Inner(specs(image=("FP32", shape)), MEANS, look)
    model = processed(
        inner, preprocess={"color": color, "scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": 2}
    )
    model.infer((InferRequest({"image": texts(file_of(scene()))}),))
    ordered = scene()[..., ::-1] if color == "bgr" else scene()
    expected = (ordered / 255 - [0.5, 0.4, 0.3]) / 2
    got = seen[0][0] if layout == "nhwc" else np.moveaxis(seen[0][0], 0, -1)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_a_letterbox_has_its_border() -> None:
    seen: list[Any] = []

    def look(inputs: Any) -> dict[str, Any]:
        seen.append(inputs["image"])
        return {"means": np.zeros((1, 3), np.float32)}

    inner = Inner(specs(image=("UINT8", (-1, 8, 8, 3))), MEANS, look)
    model = processed(inner, preprocess={"resize": {"fit": "letterbox", "fill": 114}})
    wide = file_of(np.full((20, 40, 3), 255, np.uint8))
    model.infer((InferRequest({"image": texts(wide)}),))
    (shown,) = seen[0]
    assert (shown[2:6] == 255).all()
    assert (shown[[0, 1, 6, 7]] == 114).all()


def test_timings_are_replaced_and_not_lost() -> None:
    _, model = averaging()
    answer = ask(model, RED)
    assert dataclasses.replace(answer.timings, input_ns=0, output_ns=0).batch_rows == 1
