"""Every fixture that is a model: imported, served, and asked what its index knows of it."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import ServerProcess
from tests.e2e.test_import import crossfade, imported
from tests.e2e.test_real_files import infer, picture

pytest.importorskip("ai_edge_litert")
# Each import of a SavedModel starts TensorFlow.
pytestmark = pytest.mark.timeout(600)
EDGE = "edgetpu/mobilenet_v2_1.0_224_quant_edgetpu.tflite"
CPU = "edgetpu/mobilenet_v2_1.0_224_quant.tflite"
FLOWERS = "automl-vision-edge/flowers"
TRAFFIC = "automl-video/traffic"
SAVED = "savedmodel/saved_model_half_plus_"
# By the name that it is served under: where it is, options of the import, and what that says.
IMPORTS: dict[str, tuple[str, tuple[str, ...], str]] = {
    "flowers": (FLOWERS, (), "5 labels of dict.txt"),
    "flowers_images": (FLOWERS, ("--images", "bilinear"), "task, preprocess, postprocess"),
    "traffic": (TRAFFIC, (), "model.yaml has sequence"),
    "traffic_images": (TRAFFIC, ("--images", "bilinear"), "postprocess, sequence"),
    "mobilenet": (CPU, (), "tried: it loads here"),
    "mobilenet_images": (CPU, ("--images", "bilinear"), "task, preprocess, postprocess"),
    "edgetpu": (EDGE, (), "--fallback cpu lets it serve"),
    "edgetpu_fallback": (EDGE, ("--fallback", "cpu"), "tried: it loads here"),
    "edgetpu_images": (EDGE, ("--fallback", "cpu", "--images", "bilinear"), "options, task"),
    "mnist": ("onnx/mnist", (), "tried: it loads here"),
    "two": (SAVED + "two_cpu", (), "tried: it loads here"),
    "two_tf2": (SAVED + "two_tf2_cpu", (), "tried: it loads here"),
    "two_latest": (SAVED + "two_2_versions", (), "taken from '00000124'"),
    "two_tflite": (SAVED + "two_tflite", (), "tried: it loads here"),
    "two_sigdef": (SAVED + "two_tflite_with_sigdef", (), "tried: it loads here"),
    "three": (SAVED + "three", (), "tried: it loads here"),
    "simple": ("triton/model_repository/simple/1/model.onnx", (), "tried: it loads here"),
}


@pytest.fixture(scope="module")
def server(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("fixtures") / "models"
    for name, (place, options, says) in IMPORTS.items():
        said = imported(models, name, shared / place, *options)
        assert says in said, said
    found = ServerProcess("--model-repository", str(models), "--probe", "auto")
    yield found
    assert found.stop() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(server.grpc) as found:
        yield found


def predicted(server: ServerProcess, model: str, file: Path) -> dict[str, Any]:
    """As Vertex AI's users ask a container that AutoML exported."""
    instance = {"image_bytes": {"b64": base64.b64encode(file.read_bytes()).decode()}, "key": "k"}
    request = urllib.request.Request(
        f"http://{server.http}/v1/models/{model}:predict",
        json.dumps({"instances": [instance]}).encode(),
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        (prediction,) = json.load(answer)["predictions"]
    assert prediction["key"] == "k"
    found: dict[str, Any] = prediction
    return found


def classes(shared: Path) -> dict[str, int]:
    """ImageNet's class of each picture; the model has a background class before them."""
    listing = (shared / "images" / "demos_image_classification_input_images.txt").read_text()
    listing += (shared / "images" / "client_python_resnet_input_images.txt").read_text()
    lines = [line.split() for line in listing.splitlines() if line.strip()]
    return {Path(parts[0]).name: int(parts[-1]) + 1 for parts in lines if parts[-1].isdigit()}


def test_only_the_edge_tpu_is_missing(client: Any) -> None:
    index = client.get_model_repository_index(as_json=True)["models"]
    assert {line["name"] for line in index} == IMPORTS.keys()
    (failed,) = [line for line in index if line["state"] != "READY"]
    assert failed["name"] == "edgetpu"
    assert "libedgetpu.so.1" in failed["reason"]
    assert "/" not in failed["reason"]


def test_flowers_six_of_six_as_automls_container_answers(
    server: ServerProcess, client: Any, shared: Path
) -> None:
    files = sorted((shared / FLOWERS / "images").glob("*.jpg"))
    assert len(files) == 6
    for file in files:
        told = predicted(server, "flowers_images", file)
        assert told["labels"] == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
        best = told["labels"][int(np.argmax(told["scores"]))]
        assert best.startswith(file.name.partition("_")[0]), file.name
        stored = infer(client, "flowers", image=picture(file, 224)).as_numpy("scores")[0]
        # The two decoders of JPEG differ by a rounding here and there.
        assert told["scores"] == pytest.approx((stored / 256).tolist(), abs=0.02)


@pytest.mark.parametrize("model", ["mobilenet_images", "edgetpu_images"])
def test_mobilenet_ten_of_ten(server: ServerProcess, shared: Path, model: str) -> None:
    known = classes(shared)
    files = sorted((shared / "images").glob("*.jpeg"))
    assert len(files) == 10
    for file in files:
        scores = predicted(server, model, file)["scores"]
        assert int(np.argmax(scores)) == known[file.name], file.name
    cat = predicted(server, model, shared / "edgetpu" / "cat.bmp")["scores"]
    assert (int(np.argmax(cat)), cat[286]) == (286, pytest.approx(0.79, abs=0.02))


@pytest.mark.parametrize("model", ["mobilenet", "edgetpu_fallback"])
def test_the_cat_of_the_cpu_and_of_the_twin(client: Any, shared: Path, model: str) -> None:
    cat = picture(shared / "edgetpu" / "cat.bmp", 224)
    answer = infer(client, model, input=cat)
    scores = answer.as_numpy("MobilenetV2/Predictions/Softmax")[0] / 256
    assert (int(scores.argmax()), scores[286]) == (286, pytest.approx(0.79, abs=0.02))


def test_mnist_ten_of_ten(client: Any, shared: Path) -> None:
    metadata = client.get_model_metadata("mnist", as_json=True)
    name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
    for digit in range(10):
        file = shared / "onnx" / "mnist" / "digits" / f"{digit}.png"
        grey = picture(file, 28)[..., 0].astype(np.float32)[None]
        assert int(infer(client, "mnist", **{name: grey}).as_numpy(output).argmax()) == digit


@pytest.mark.parametrize(
    ("model", "expected"),
    [(name, [2.5, 3.0, 4.5]) for name in IMPORTS if name.startswith("two")]
    + [("three", [3.5, 4.0, 5.5])],
)
def test_half_plus(client: Any, model: str, expected: list[float]) -> None:
    metadata = client.get_model_metadata(model, as_json=True)
    (source,) = metadata["inputs"]
    (output,) = metadata["outputs"]
    # One signature is declared with the shape [1].
    requests = [[1], [2], [5]] if source["shape"] == ["1"] else [[1, 2, 5]]
    found = []
    for x in requests:
        array = np.array(x, np.float32).reshape([-1, *(1 for _ in source["shape"][1:])])
        answer = infer(client, model, **{source["name"]: array})
        found += answer.as_numpy(output["name"]).ravel().tolist()
    assert found == expected


def test_the_sum_and_the_difference(client: Any) -> None:
    left, right = np.arange(16, dtype=np.int32)[None], np.full((1, 16), 3, np.int32)
    answer = infer(client, "simple", INPUT0=left, INPUT1=right)
    assert (answer.as_numpy("OUTPUT0") == left + right).all()
    assert (answer.as_numpy("OUTPUT1") == left - right).all()


def test_the_tracker_over_frames(client: Any, shared: Path) -> None:
    """The state is the server's: no client sees it, and no sequence goes on that never began.

    On these two frames the model's own state stays zero, so that answers do not show it.
    """
    (report,) = json.loads(crossfade("inspect", shared / TRAFFIC, "--json").stdout)
    metadata = client.get_model_metadata("traffic_images", as_json=True)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["image_bytes", "key"]
    assert not any("lstm" in tensor["name"] for tensor in metadata["outputs"])

    def frame(name: str, sequence: int, start: bool = False, end: bool = False) -> Any:
        tensor = triton.InferInput("image_bytes", [1], "BYTES")
        content = (shared / TRAFFIC / name).read_bytes()
        tensor.set_data_from_numpy(np.array([content], np.object_))
        answer = client.infer(
            "traffic_images",
            [tensor],
            sequence_id=sequence,
            sequence_start=start,
            sequence_end=end,
        )
        named = {text.decode() for text in answer.as_numpy("detection_classes_as_text").ravel()}
        assert named <= {*report["labels"], ""}
        assert answer.as_numpy("num_detections") == 40
        return answer.as_numpy("detection_scores")[0]

    with pytest.raises(triton.InferenceServerException, match="sequence"):
        frame("0010.bmp", 8)
    first = frame("0001.bmp", 9, start=True)
    second = frame("0010.bmp", 9, end=True)
    assert (first[0], second[0]) == (pytest.approx(0.414, abs=0.05), pytest.approx(0.5, abs=0.05))
    with pytest.raises(triton.InferenceServerException, match="sequence"):
        frame("0010.bmp", 9)


def test_inspect_says_what_is_done_around_a_model(shared: Path, tmp_path: Path) -> None:
    imported(tmp_path, "f", shared / FLOWERS, "--images", "bilinear")
    said = crossfade("inspect", tmp_path / "f").stdout
    assert "image files as 'image_bytes' (bilinear, stretch) -> task classification" in said


def test_what_is_refused(shared: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone_edgetpu.tflite"
    shutil.copy(shared / EDGE, lone)
    for place, options, says in (
        (shared / "savedmodel" / "bad_half_plus_two", (), "no export or model"),
        (shared / "edgetpu" / "invalid_models", (), "fake-op-double"),
        (lone, ("--fallback", "cpu"), "there is no 'lone.tflite' for the CPU beside"),
        (shared / FLOWERS, ("--fallback", "cpu"), "compiled for the Edge TPU"),
        (shared / "onnx" / "mnist", ("--images", "area"), "for TFLite models"),
        (shared / f"{SAVED}two_tflite", ("--images", "area"), "no input"),
    ):
        to = ("--name", "x", "--repository", tmp_path / "models")
        done = crossfade("import", place, *to, *options)
        assert (done.returncode, says in done.stderr) == (1, True), done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_compiled_model_and_its_twin_are_one_export(shared: Path, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    shutil.copy(shared / EDGE, export / "edgetpu_model.tflite")
    shutil.copy(shared / CPU, export / "model.tflite")
    said = imported(tmp_path / "models", "m", export, "--fallback", "cpu")
    assert "model.tflite, model_edgetpu.tflite" in said
    report = json.loads(crossfade("inspect", tmp_path / "models" / "m", "--json").stdout)[0]
    assert report["error"] is None
