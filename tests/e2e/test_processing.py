"""Image files to real models, over every protocol, as clients of AutoML's containers send them."""

from __future__ import annotations

import base64
import http.client
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from onnx import TensorProto
from PIL import Image
from tritonclient.utils import InferenceServerException

from tests.conftest import ROOT, ServerProcess
from tests.e2e.test_real_files import picture
from tests.runtimes.onnx_models import model, node, value, weight
from tests.serving.processing.pictures import encoded

FLOWERS = """
task: classification
preprocess: {name: image_bytes, key: key, resize: {filter: bilinear}}
postprocess: {}
warmup: [{inputs: {image_bytes: [{file: warm.jpg}]}}]
"""
MOBILENET = """
task: classification
preprocess: {}
postprocess: {top_k: 3, threshold: 0.05}
"""
TRACKER = """
task: tracking
preprocess: {name: frame}
postprocess: {labels: [vehicle, person], threshold: 0.3, max_detections: 10}
sequence:
  states:
    - {input: raw_inputs/init_lstm_c, output: raw_outputs/lstm_c}
    - {input: raw_inputs/init_lstm_h, output: raw_outputs/lstm_h}
"""


def flowers(shared: Path) -> list[Path]:
    found = sorted((shared / "automl-vision-edge" / "flowers" / "images").glob("*.jpg"))
    assert len(found) == 6
    return found


def flower(path: Path) -> str:
    return path.name.partition("_")[0]


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.fixture(scope="module")
def server(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("processing")
    edge = shared / "automl-vision-edge" / "flowers"
    folder = root / "flowers" / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").symlink_to(edge / "model.tflite")
    (folder / "dict.txt").symlink_to(edge / "dict.txt")
    (folder / "warm.jpg").symlink_to(flowers(shared)[0])
    (root / "flowers" / "model.yaml").write_text(FLOWERS)
    folder = root / "mobilenet" / "1"
    folder.mkdir(parents=True)
    source = shared / "edgetpu"
    (folder / "model.tflite").symlink_to(source / "mobilenet_v2_1.0_224_quant.tflite")
    (root / "mobilenet" / "labels.txt").symlink_to(source / "imagenet_labels.txt")
    (root / "mobilenet" / "model.yaml").write_text(MOBILENET)
    folder = root / "tracker" / "1"
    folder.mkdir(parents=True)
    (folder / "model.tflite").symlink_to(
        shared / "automl-video" / "traffic" / "traffic_model.tflite"
    )
    (root / "tracker" / "model.yaml").write_text(TRACKER)
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as found:
        yield found


def files(name: str, contents: list[bytes], api: Any = triton) -> Any:
    array = np.array(contents, np.object_)
    tensor = api.InferInput(name, array.shape, "BYTES")
    tensor.set_data_from_numpy(array)
    return tensor


def rest(server: ServerProcess, path: str, body: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(server.http, timeout=20)
    try:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def first(labels: Any, scores: Any) -> str:
    best = labels[int(np.argmax(scores))]
    return str(best.decode() if isinstance(best, bytes) else best)


# -- flowers, as from a container of AutoML ------------------------------------------------------


def test_tensorflow_servings_rest_api(server: ServerProcess, shared: Path) -> None:
    pictures = flowers(shared)
    instances = [{"image_bytes": b64(path.read_bytes()), "key": path.name} for path in pictures]
    status, answer = rest(server, "/v1/models/flowers:predict", {"instances": instances})
    assert status == 200, answer
    assert len(answer["predictions"]) == 6
    for path, row in zip(pictures, answer["predictions"], strict=True):
        assert list(row) == ["labels", "scores", "key"]
        assert row["key"] == path.name
        assert sum(row["scores"]) == pytest.approx(1, abs=0.05)
        assert first(row["labels"], row["scores"]).startswith(flower(path))


def test_classify(server: ServerProcess, shared: Path) -> None:
    """TensorFlow Serving's other call: the labels come from the scores' order."""
    for path in flowers(shared):
        example = {"image_bytes": b64(path.read_bytes())}
        status, answer = rest(server, "/v1/models/flowers:classify", {"examples": [example]})
        assert status == 200, answer
        ((*classes,),) = answer["results"]
        assert max(classes, key=lambda pair: pair[1])[0].startswith(flower(path))


def test_without_a_key(server: ServerProcess, shared: Path) -> None:
    path = flowers(shared)[0]
    for instance in ({"image_bytes": b64(path.read_bytes())}, b64(path.read_bytes())):
        status, answer = rest(server, "/v1/models/flowers:predict", {"instances": [instance]})
        assert status == 200, answer
        assert list(answer["predictions"][0]) == ["labels", "scores"]


@pytest.mark.parametrize("api", [triton, triton_http])
def test_nvidias_clients(server: ServerProcess, shared: Path, api: Any) -> None:
    address = server.grpc if api is triton else server.http
    pictures = flowers(shared)
    with api.InferenceServerClient(address) as one:
        contents = [path.read_bytes() for path in pictures]
        answer = one.infer("flowers", [files("image_bytes", contents, api)])
        labels, scores = answer.as_numpy("labels"), answer.as_numpy("scores")
        assert labels.shape == scores.shape == (6, 5)
        assert answer.as_numpy("key") is None
        for row, path in enumerate(pictures):
            assert first(labels[row], scores[row]).startswith(flower(path))


def test_the_tensor_as_before(server: ServerProcess, client: Any, shared: Path) -> None:
    path = flowers(shared)[0]
    pixels = picture(path, 224)
    tensor = triton.InferInput("image", pixels.shape, "UINT8")
    tensor.set_data_from_numpy(pixels)
    plain = client.infer("flowers", [tensor])
    decoded = client.infer("flowers", [files("image_bytes", [path.read_bytes()])])
    np.testing.assert_array_equal(plain.as_numpy("scores"), decoded.as_numpy("scores"))
    body = {"instances": [{"image": pixels[0].tolist(), "key": "k"}]}
    status, answer = rest(server, "/v1/models/flowers:predict", body)
    assert status == 200, answer
    np.testing.assert_allclose(
        answer["predictions"][0]["scores"], plain.as_numpy("scores")[0], atol=1e-6
    )
    both = [tensor, files("image_bytes", [path.read_bytes()])]
    with pytest.raises(InferenceServerException, match="stand for one another"):
        client.infer("flowers", both)
    with pytest.raises(InferenceServerException, match="image_bytes"):
        client.infer("flowers", [files("key", [b"k"])])


def test_what_clients_are_told(client: Any, server: ServerProcess) -> None:
    metadata = client.get_model_metadata("flowers", as_json=True)
    told = [(t["name"], t["datatype"], t["shape"]) for t in metadata["inputs"]]
    assert told == [("image_bytes", "BYTES", ["-1"]), ("key", "BYTES", ["-1"])]
    told = [(t["name"], t["datatype"], t["shape"]) for t in metadata["outputs"]]
    assert told == [
        ("labels", "BYTES", ["-1", "5"]),
        ("scores", "FP32", ["-1", "5"]),
        ("key", "BYTES", ["-1"]),
    ]
    config = client.get_model_config("flowers").config
    assert [tensor.optional for tensor in config.input] == [False, True]
    statistics = client.get_inference_statistics("flowers").model_stats[0].inference_stats
    assert statistics.compute_input.ns > 0
    assert statistics.compute_output.ns > 0


def test_tensorflow_servings_grpc_api(server: ServerProcess, shared: Path) -> None:
    from crossfade.serving.wire import tf_framework, tf_serving

    path = flowers(shared)[1]
    request = tf_serving.PredictRequest()
    request.model_spec.name = "flowers"
    for name, content in (("image_bytes", path.read_bytes()), ("key", b"7")):
        tensor = request.inputs[name]
        tensor.dtype = tf_framework.DT_STRING
        tensor.tensor_shape.dim.add(size=1)
        tensor.string_val.append(content)
    with grpc.insecure_channel(server.grpc) as channel:
        predict = channel.unary_unary(
            "/tensorflow.serving.PredictionService/Predict",
            request_serializer=tf_serving.PredictRequest.SerializeToString,
            response_deserializer=tf_serving.PredictResponse.FromString,
        )
        answer = predict(request, timeout=20)
    assert list(answer.outputs["key"].string_val) == [b"7"]
    labels, scores = answer.outputs["labels"].string_val, answer.outputs["scores"].float_val
    assert first(labels, scores).startswith(flower(path))


def test_vertex(shared: Path, tmp_path: Path) -> None:
    edge = shared / "automl-vision-edge" / "flowers"
    for name in ("model.tflite", "dict.txt"):
        (tmp_path / name).symlink_to(edge / name)
    (tmp_path / "warm.jpg").symlink_to(flowers(shared)[0])
    (tmp_path / "model.yaml").write_text(FLOWERS)
    server = ServerProcess(
        *("--host", "127.0.0.1"),
        environment={
            "AIP_MODE": "PREDICTION",
            "AIP_STORAGE_URI": str(tmp_path),
            "AIP_PREDICT_ROUTE": "/predict",
        },
    )
    try:
        for path in flowers(shared):
            instance = {"image_bytes": b64(path.read_bytes()), "key": "1"}
            status, answer = rest(server, "/predict", {"instances": [instance]})
            assert status == 200, answer
            (row,) = answer["predictions"]
            assert row["key"] == "1"
            assert first(row["labels"], row["scores"]).startswith(flower(path))
    finally:
        assert server.stop() == 0


# -- MobileNet: one row a run, quantised --------------------------------------------------------


def test_mobilenet_tells_the_cat(client: Any, shared: Path) -> None:
    cat = (shared / "edgetpu" / "cat.bmp").read_bytes()
    labels = (shared / "edgetpu" / "imagenet_labels.txt").read_text().splitlines()
    answer = client.infer("mobilenet", [files("input", [cat])])
    assert answer.as_numpy("labels")[0, 0].decode() == labels[286]
    assert answer.as_numpy("scores")[0, 0] == pytest.approx(0.79, abs=0.02)
    below = answer.as_numpy("scores")[0] == 0
    assert (answer.as_numpy("labels")[0][below] == b"").all()


def test_mobilenet_tells_ten_of_ten(client: Any, shared: Path) -> None:
    classes: dict[str, int] = {}
    for listing in (shared / "images").glob("*.txt"):
        for line in listing.read_text().splitlines():
            parts = line.split()
            if len(parts) >= 2 and parts[-1].isdigit():
                classes[Path(parts[0]).name] = int(parts[-1])
    pictures = sorted((shared / "images").glob("*.jpeg"))
    assert len(pictures) == 10
    labels = (shared / "edgetpu" / "imagenet_labels.txt").read_text().splitlines()
    answer = client.infer("mobilenet", [files("input", [path.read_bytes() for path in pictures])])
    found = answer.as_numpy("labels")
    assert found.shape == (10, 3)
    for row, path in enumerate(pictures):
        assert found[row, 0].decode() == labels[classes[path.name] + 1], path.name


def test_an_image_as_the_body(server: ServerProcess, shared: Path) -> None:
    """Triton's raw mode: no JSON, only the file."""
    connection = http.client.HTTPConnection(server.http, timeout=20)
    cat = (shared / "edgetpu" / "cat.bmp").read_bytes()
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    connection.request("POST", "/v2/models/mobilenet/infer", cat, headers)
    response = connection.getresponse()
    assert response.status == 200
    assert b"Egyptian cat" in response.read()
    connection.close()


# -- an ONNX model of the usual kind: NCHW, normalised, stacked ---------------------------------


def test_pictures_of_all_sizes_ride_in_one_run(tmp_path: Path) -> None:
    """Each caller gets its own answer, and the model is run less often than it is asked."""
    folder = tmp_path / "means" / "1"
    folder.mkdir(parents=True)
    pixels = value("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])
    means = value("means", TensorProto.FLOAT, ["n", 3])
    nodes = [node("GlobalAveragePool", "pixels", "pooled"), node("Flatten", "pooled", "means")]
    (folder / "model.onnx").write_bytes(model(nodes, [pixels], [means]))
    (tmp_path / "means" / "model.yaml").write_text(
        "preprocess: {scale: 0.00392156862745098, mean: [0.5, 0.4, 0.3], std: [0.2, 0.3, 0.4]}\n"
        "batching: {max_size: 8, max_delay_ms: 200}\n"
        "instances: 1\n"
    )
    colors = [(40 * n % 256, 90 * n % 256, 7 * n) for n in range(16)]
    contents = [
        encoded(Image.new("RGB", (5 + n, 40 - n), color), "PNG") for n, color in enumerate(colors)
    ]
    server = ServerProcess("--model-repository", str(tmp_path))
    try:
        with (
            triton.InferenceServerClient(server.grpc) as client,
            ThreadPoolExecutor(16) as callers,
        ):
            answers = list(
                callers.map(lambda one: client.infer("means", [files("pixels", [one])]), contents)
            )
            statistics = client.get_inference_statistics("means").model_stats[0]
        for answer, color in zip(answers, colors, strict=True):
            expected = (np.array(color) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.4]
            np.testing.assert_allclose(answer.as_numpy("means")[0], expected, atol=1e-4)
        assert statistics.inference_count == 16
        assert statistics.execution_count < 16
    finally:
        assert server.stop() == 0


DETECTOR = """
task: detection
preprocess: {name: image_bytes, resize: {fit: letterbox}}
postprocess:
  outputs: {boxes: corners, scores: likely}
  labels: [cat, dog]
  box_format: xyxy
  box_units: pixels
  iou_threshold: 0.5
  threshold: 0.4
  max_detections: 3
"""
SEGMENTER = """
task: segmentation
preprocess: {name: image_bytes, resize: {filter: nearest}}
postprocess: {class_axis: 1, png: true}
"""


@pytest.fixture(scope="module")
def boxes_and_masks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A detector that always sees the same three boxes, and a mask of the strongest colour."""
    root = tmp_path_factory.mktemp("tasks")
    corners = np.float32([[[0, 8, 16, 24], [0, 8, 16, 23], [16, 8, 32, 24]]])
    likely = np.float32([[[0.9, 0.1], [0.8, 0.2], [0.1, 0.7]]])
    image = value("image", TensorProto.FLOAT, [1, 3, 32, 32])
    outputs = [
        value("corners", TensorProto.FLOAT, [1, 3, 4]),
        value("likely", TensorProto.FLOAT, [1, 3, 2]),
    ]
    nodes = [
        node("ReduceMax", "image", "most", keepdims=0),
        node("Mul", "most zero", "nothing"),
        node("Add", "b nothing", "corners"),
        node("Add", "s nothing", "likely"),
    ]
    weights = [weight("b", corners), weight("s", likely), weight("zero", np.float32(0))]
    detector = model(nodes, [image], outputs, weights)
    image = value("image", TensorProto.FLOAT, ["n", 3, 32, 32])
    mask = value("mask", TensorProto.FLOAT, ["n", 3, 32, 32])
    segmenter = model([node("Identity", "image", "mask")], [image], [mask])
    for name, content, text in (
        ("detector", detector, DETECTOR),
        ("segmenter", segmenter, SEGMENTER),
    ):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.onnx").write_bytes(content)
        (root / name / "model.yaml").write_text(text)
    started = ServerProcess("--model-repository", str(root))
    yield started
    assert started.stop() == 0


def test_boxes_lie_in_the_picture_that_was_sent(boxes_and_masks: ServerProcess) -> None:
    """The picture is twice as wide as high, so that a quarter of the input is border above it."""
    wide = encoded(Image.new("RGB", (100, 50), "gray"), "JPEG")
    instances = [{"image_bytes": b64(wide)}] * 2
    status, answer = rest(boxes_and_masks, "/v1/models/detector:predict", {"instances": instances})
    assert status == 200, answer
    first_row, second_row = answer["predictions"]
    assert first_row == second_row
    assert first_row["num_detections"] == 2
    assert first_row["detection_classes_as_text"] == ["cat", "dog", ""]
    assert first_row["detection_scores"] == pytest.approx([0.9, 0.7, 0])
    found = np.array(first_row["detection_boxes"])
    np.testing.assert_allclose(found, [[0, 0, 1, 0.5], [0, 0.5, 1, 1], [0, 0, 0, 0]], atol=1e-6)


def test_a_mask_comes_as_a_file(boxes_and_masks: ServerProcess) -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16, :, 1], pixels[16:, :, 2] = 200, 100
    file = encoded(Image.fromarray(pixels), "PNG")
    body = {"instances": [{"image_bytes": b64(file)}]}
    status, answer = rest(boxes_and_masks, "/v1/models/segmenter:predict", body)
    assert status == 200, answer
    with Image.open(io.BytesIO(base64.b64decode(answer["predictions"][0]["b64"]))) as image:
        mask = np.asarray(image)
    assert (mask[:16] == 1).all()
    assert (mask[16:] == 2).all()


def test_the_command_line_sends_a_picture(server: ServerProcess, shared: Path) -> None:
    path = flowers(shared)[2]
    for more, says in (([], "roses"), (["--top", "1"], ":2:roses")):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "crossfade",
                "infer",
                "flowers",
                path,
                "--url",
                server.grpc,
                *more,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=ROOT.parent,
        )
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


# -- a tracker: its state is kept, its boxes are told -------------------------------------------


def test_a_tracker(client: Any, shared: Path) -> None:
    metadata = client.get_model_metadata("tracker", as_json=True)
    assert [(t["name"], t["shape"]) for t in metadata["inputs"]] == [("frame", ["1"])]
    for index, name in enumerate(("0001.bmp", "0010.bmp")):
        frame = (shared / "automl-video" / "traffic" / name).read_bytes()
        answer = client.infer(
            "tracker",
            [files("frame", [frame])],
            sequence_id=7,
            sequence_start=index == 0,
            sequence_end=index == 1,
        )
        count = int(answer.as_numpy("num_detections")[0])
        boxes, scores = answer.as_numpy("detection_boxes"), answer.as_numpy("detection_scores")
        texts = answer.as_numpy("detection_classes_as_text")
        assert boxes.shape == (1, 10, 4)
        assert count > 0
        assert (scores[0, :count] >= 0.3).all()
        assert (scores[0, count:] == 0).all()
        assert set(texts[0, :count].tolist()) <= {b"vehicle", b"person"}
        assert set(texts[0, count:].tolist()) <= {b""}
        assert (boxes[0, :count, 2:] > boxes[0, :count, :2]).all()
        assert ((boxes >= 0) & (boxes <= 1)).all()
