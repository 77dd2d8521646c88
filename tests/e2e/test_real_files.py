"""The fixtures' real files, through a real server and NVIDIA's unmodified client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from PIL import Image

from tests.conftest import ServerProcess


@pytest.fixture(scope="module")
def client(triton_server: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(triton_server.grpc) as found:
        yield found


def infer(client: Any, model: str, version: str = "", /, **inputs: np.ndarray[Any, Any]) -> Any:
    tensors = []
    for name, array in inputs.items():
        tensor = triton.InferInput(name, array.shape, _dtype(array))
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return client.infer(model, tensors, model_version=version)


def _dtype(array: np.ndarray[Any, Any]) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(array.dtype))


def picture(path: Path, size: int) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        resized = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(resized)[None]


@pytest.fixture(scope="module")
def served(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One repository of everything that INDEX.md says something about, in the owners' layouts."""
    root = tmp_path_factory.mktemp("repository")
    links = {
        "flowers": shared / "automl-vision-edge" / "flowers",
        "mnist": shared / "onnx" / "mnist",
        **{p.name: p for p in (shared / "savedmodel").iterdir() if p.is_dir()},
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    mobilenet = root / "mobilenet" / "1"
    mobilenet.mkdir(parents=True)
    (mobilenet / "model.tflite").symlink_to(
        shared / "edgetpu" / "mobilenet_v2_1.0_224_quant.tflite"
    )
    (root / "mobilenet" / "labels.txt").symlink_to(shared / "edgetpu" / "imagenet_labels.txt")
    edge = root / "mobilenet_edgetpu" / "1"
    edge.mkdir(parents=True)
    (edge / "model.tflite").symlink_to(
        shared / "edgetpu" / "mobilenet_v2_1.0_224_quant_edgetpu.tflite"
    )
    (root / "saved_model_half_plus_two_all").mkdir()
    for version in ("00000123", "00000124"):
        source = shared / "savedmodel" / "saved_model_half_plus_two_2_versions" / version
        (root / "saved_model_half_plus_two_all" / version).symlink_to(source)
    (root / "saved_model_half_plus_two_all" / "model.yaml").write_text("version_policy: all\n")
    server = ServerProcess("--model-repository", str(root))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def everything(served: ServerProcess) -> Iterator[Any]:
    with triton.InferenceServerClient(served.grpc) as found:
        yield found


def test_flowers_of_automl(everything: Any, shared: Path) -> None:
    pictures = sorted((shared / "automl-vision-edge" / "flowers" / "images").glob("*.jpg"))
    assert len(pictures) == 6
    best = [triton.InferRequestedOutput("scores", class_count=1)]
    for path in pictures:
        tensor = triton.InferInput("image", [1, 224, 224, 3], "UINT8")
        tensor.set_data_from_numpy(picture(path, 224))
        answer = everything.infer("flowers", [tensor], outputs=best).as_numpy("scores")
        label = answer.ravel()[0].decode().split(":")[2]
        assert label.startswith(path.name.partition("_")[0]), path.name


def test_mobilenet_tells_the_cat(everything: Any, shared: Path) -> None:
    metadata = everything.get_model_metadata("mobilenet", as_json=True)
    (name,) = (i["name"] for i in metadata["inputs"])
    (output,) = (o["name"] for o in metadata["outputs"])
    cat = picture(shared / "edgetpu" / "cat.bmp", 224)
    scores = infer(everything, "mobilenet", **{name: cat}).as_numpy(output)[0]
    assert int(scores.argmax()) == 286
    assert scores[286] / 256 == pytest.approx(0.79, abs=0.02)


def test_mobilenet_tells_ten_of_ten(everything: Any, shared: Path) -> None:
    classes: dict[str, int] = {}
    for listing in (shared / "images").glob("*.txt"):
        for line in listing.read_text().splitlines():
            parts = line.split()
            if len(parts) >= 2 and parts[-1].isdigit():
                classes[Path(parts[0]).name] = int(parts[-1])
    pictures = sorted((shared / "images").glob("*.jpeg"))
    assert len(pictures) == 10
    metadata = everything.get_model_metadata("mobilenet", as_json=True)
    name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
    for path in pictures:
        scores = infer(everything, "mobilenet", **{name: picture(path, 224)}).as_numpy(output)[0]
        # The list counts ImageNet's 1000 classes; this model has a background class before them.
        assert int(scores.argmax()) == classes[path.name] + 1, path.name


@pytest.mark.parametrize(
    ("model", "version", "expected"),
    [
        ("saved_model_half_plus_two_cpu", "", [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_two_tf2_cpu", "", [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_two_2_versions", "", [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_two_all", "123", [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_two_all", "124", [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_three", "", [3.5, 4.0, 5.5]),
        ("saved_model_half_plus_two_tflite", "", [2.5, 3.0, 4.5]),
        ("saved_model_half_plus_two_tflite_with_sigdef", "", [2.5, 3.0, 4.5]),
    ],
)
def test_half_plus(everything: Any, model: str, version: str, expected: list[float]) -> None:
    metadata = everything.get_model_metadata(model, as_json=True)
    (source,) = metadata["inputs"]
    shape = [int(size) for size in source["shape"]]
    x = np.array([1, 2, 5], dtype=np.float32)
    array = x.reshape([3, *shape[1:]] if shape[:1] == ["-1"] or -1 in shape[:1] else [3])
    if shape[:1] == [1]:  # one row a request
        rows = [
            infer(everything, model, version, **{source["name"]: x[i : i + 1].reshape(shape)})
            for i in range(3)
        ]
        got = [float(r.as_numpy(metadata["outputs"][0]["name"]).ravel()[0]) for r in rows]
    else:
        answer = infer(everything, model, version, **{source["name"]: array})
        got = answer.as_numpy(metadata["outputs"][0]["name"]).ravel().tolist()
        assert version in ("", answer.get_response().model_version)
    assert got == pytest.approx(expected)


def test_mnist_tells_ten_of_ten(everything: Any, shared: Path) -> None:
    metadata = everything.get_model_metadata("mnist", as_json=True)
    name, output = metadata["inputs"][0]["name"], metadata["outputs"][0]["name"]
    for digit in range(10):
        with Image.open(shared / "onnx" / "mnist" / "digits" / f"{digit}.png") as image:
            grey = image.convert("L").resize((28, 28))
            array = np.asarray(grey, dtype=np.float32)[None, None]
        scores = infer(everything, "mnist", **{name: array}).as_numpy(output)
        assert int(scores.argmax()) == digit


def test_what_cannot_be_served_says_why(everything: Any, shared: Path) -> None:
    index = everything.get_model_repository_index(as_json=True)["models"]
    reasons = {line["name"]: line.get("reason", "") for line in index}
    assert "saved_model.pb" in reasons["bad_half_plus_two"]
    assert "Edge TPU" in reasons["mobilenet_edgetpu"]
    assert not any(str(shared) in reason or "/tmp" in reason for reason in reasons.values())


@pytest.mark.parametrize("protocol", ["grpc", "http", "http-json"])
@pytest.mark.parametrize(("model", "dtype"), [("simple", np.int32), ("simple_int8", np.int8)])
def test_simple_of_triton(
    triton_server: ServerProcess, protocol: str, model: str, dtype: type[np.generic]
) -> None:
    left = np.arange(16, dtype=dtype)[None]
    right = np.full((1, 16), 3, dtype=dtype)
    api: Any = triton if protocol == "grpc" else triton_http
    address = triton_server.grpc if protocol == "grpc" else triton_server.http
    json_only = {"binary_data": False} if protocol == "http-json" else {}
    with api.InferenceServerClient(address) as client:
        tensors = []
        for name, array in (("INPUT0", left), ("INPUT1", right)):
            tensor = api.InferInput(name, array.shape, _dtype(array))
            tensor.set_data_from_numpy(array, **json_only)
            tensors.append(tensor)
        wanted = [api.InferRequestedOutput(name, **json_only) for name in ("OUTPUT0", "OUTPUT1")]
        answer = client.infer(model, tensors, outputs=wanted, request_id="a1")
    assert (answer.as_numpy("OUTPUT0") == left + right).all()
    assert (answer.as_numpy("OUTPUT1") == left - right).all()


def test_simple_string_of_triton(client: Any) -> None:
    left = np.array([[str(i).encode() for i in range(16)]], dtype=np.object_)
    right = np.array([[b"1"] * 16], dtype=np.object_)
    answer = infer(client, "simple_string", INPUT0=left, INPUT1=right)
    assert answer.as_numpy("OUTPUT0").ravel().tolist() == [str(i + 1).encode() for i in range(16)]
    assert answer.as_numpy("OUTPUT1").ravel().tolist() == [str(i - 1).encode() for i in range(16)]


def test_metadata_over_both_protocols(triton_server: ServerProcess, client: Any) -> None:
    with triton_http.InferenceServerClient(triton_server.http) as http:
        assert http.is_server_live()
        assert http.is_server_ready()
        assert http.is_model_ready("simple")
        over_http = http.get_model_metadata("simple")
        config = http.get_model_config("simple")
        statistics = http.get_inference_statistics("simple")
    over_grpc = client.get_model_metadata("simple", as_json=True)
    assert over_http["name"] == over_grpc["name"] == "simple"
    assert over_http["platform"] == "onnxruntime_onnx"
    assert [i["shape"] for i in over_http["inputs"]] == [[-1, 16], [-1, 16]]
    assert config["max_batch_size"] == 8
    assert config["input"][0]["dims"] == [16]
    assert json.dumps(config)
    assert len(statistics["model_stats"]) == 1
    assert client.get_model_config("simple").config.max_batch_size == 8
