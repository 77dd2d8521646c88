"""``crossfade import``, and what a real server then answers: the fixtures' known truths."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from PIL import Image

from tests.conftest import ServerProcess
from tests.e2e.test_real_files import infer, picture

# Each import of a SavedModel starts TensorFlow.
pytestmark = pytest.mark.timeout(600)


def crossfade(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossfade", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def imported(repository: Path, name: str, place: str | Path, *more: str) -> str:
    done = crossfade("import", place, "--name", name, "--repository", repository, *more)
    assert done.returncode == 0, done.stderr
    assert f"{name} version" in done.stdout
    assert "crossfade serve --model-repository" in done.stdout
    return done.stdout


def archives(shared: Path, folder: Path) -> tuple[Path, Path]:
    """The flowers as a ``.zip``, MNIST as a ``.tar.gz`` below a folder."""
    zipped, tarred = folder / "flowers.zip", folder / "mnist.tar.gz"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (shared / "automl-vision-edge" / "flowers").iterdir():
            if file.is_file():
                archive.write(file, f"export/{file.name}")
    with tarfile.open(tarred, "w:gz") as archive:
        archive.add(shared / "onnx" / "mnist", "deep/er/mnist")
    return zipped, tarred


@pytest.fixture(scope="module")
def client(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    root = tmp_path_factory.mktemp("import")
    repository = root / "models"
    zipped, tarred = archives(shared, root)
    said = imported(repository, "flowers", zipped)
    assert "5 labels of dict.txt" in said
    assert "crossfade infer flowers picture.jpg" in said
    imported(repository, "mnist", tarred)
    said = imported(repository, "traffic", shared / "automl-video" / "traffic")
    assert "model.yaml has sequence" in said
    edge = shared / "edgetpu"
    imported(repository, "mobilenet", edge / "mobilenet_v2_1.0_224_quant.tflite")
    said = imported(repository, "edgetpu", edge / "mobilenet_v2_1.0_224_quant_edgetpu.tflite")
    assert "not tried" in said
    saved = shared / "savedmodel"
    imported(repository, "half_plus_three", saved / "saved_model_half_plus_three")
    said = imported(
        repository,
        "half_plus_two",
        saved / "saved_model_half_plus_two_2_versions",
        "--version",
        "9",
    )
    assert "taken from '00000124'" in said
    imported(repository, "half_plus_two", saved / "saved_model_half_plus_two_cpu")
    server = ServerProcess("--model-repository", str(repository))
    with triton.InferenceServerClient(server.grpc) as found:
        yield found
    assert server.stop() == 0


def test_flowers(client: Any, shared: Path) -> None:
    best = [triton.InferRequestedOutput("scores", class_count=1)]
    pictures = sorted((shared / "automl-vision-edge" / "flowers" / "images").glob("*.jpg"))
    assert len(pictures) == 6
    for path in pictures:
        tensor = triton.InferInput("image", [1, 224, 224, 3], "UINT8")
        tensor.set_data_from_numpy(picture(path, 224))
        answer = client.infer("flowers", [tensor], outputs=best).as_numpy("scores")
        label = answer.ravel()[0].decode().split(":")[2]
        assert label.startswith(path.name.partition("_")[0]), path.name


def test_mnist(client: Any, shared: Path) -> None:
    metadata = client.get_model_metadata("mnist", as_json=True)
    name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
    for digit in range(10):
        with Image.open(shared / "onnx" / "mnist" / "digits" / f"{digit}.png") as image:
            grey = np.asarray(image.convert("L").resize((28, 28)), dtype=np.float32)[None, None]
        scores = infer(client, "mnist", **{name: grey}).as_numpy(output)
        assert int(scores.argmax()) == digit


def test_tracker_keeps_its_state_without_being_told(client: Any, shared: Path) -> None:
    metadata = client.get_model_metadata("traffic", as_json=True)
    (frame,) = (each["name"] for each in metadata["inputs"])  # the states are not for clients
    assert frame == "normalized_input_image_tensor"
    assert all("lstm" not in each["name"] for each in metadata["outputs"])
    for step, name in enumerate(("0001.bmp", "0010.bmp")):
        tensor = triton.InferInput(frame, [1, 256, 256, 3], "UINT8")
        tensor.set_data_from_numpy(picture(shared / "automl-video" / "traffic" / name, 256))
        answer = client.infer(
            "traffic", [tensor], sequence_id=5, sequence_start=step == 0, sequence_end=step == 1
        )
        boxes = answer.as_numpy("TFLite_Detection_PostProcess")
        classes = answer.as_numpy("TFLite_Detection_PostProcess:1")
        assert boxes.shape[2] == 4
        assert 0 <= classes.min() <= classes.max() <= 2  # three classes, counted from 0


def test_mobilenet_and_its_twin_for_the_edge_tpu(client: Any, shared: Path) -> None:
    cat = picture(shared / "edgetpu" / "cat.bmp", 224)
    metadata = client.get_model_metadata("mobilenet", as_json=True)
    name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
    scores = infer(client, "mobilenet", **{name: cat}).as_numpy(output)[0]
    assert int(scores.argmax()) == 286
    assert scores[286] / 256 == pytest.approx(0.79, abs=0.02)
    index = client.get_model_repository_index(as_json=True)["models"]
    (reason,) = (line["reason"] for line in index if line["name"] == "edgetpu")
    assert "libedgetpu.so.1" in reason


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [("half_plus_three", "1", [3.5, 4.0, 5.5]), ("half_plus_two", "10", [2.5, 3.0, 4.5])],
)
def test_half_plus(client: Any, model: str, version: str, expected: list[float]) -> None:
    metadata = client.get_model_metadata(model, as_json=True)
    assert metadata["versions"] == [version]
    (source,) = metadata["inputs"]
    shape = [3, *(1 for _ in source["shape"][1:])]
    x = np.array([1, 2, 5], np.float32).reshape(shape)
    answer = infer(client, model, **{source["name"]: x})
    assert answer.as_numpy(metadata["outputs"][0]["name"]).ravel().tolist() == pytest.approx(
        expected
    )


def test_what_is_no_model_or_is_several_says_so(shared: Path, tmp_path: Path) -> None:
    to = ("--name", "x", "--repository", tmp_path / "models")
    done = crossfade("import", shared / "savedmodel" / "bad_half_plus_two", *to)
    assert (done.returncode, "no export or model" in done.stderr) == (1, True)
    done = crossfade("import", shared / "edgetpu", *to)
    assert "mobilenet_v2_1.0_224_quant_edgetpu.tflite" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models").exists()
