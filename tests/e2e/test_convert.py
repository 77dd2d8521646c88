"""``crossfade convert`` as a user runs it, and the result in a real server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto
from PIL import Image

from tests.conftest import ServerProcess
from tests.runtimes import onnx_models, saved_models

Serve = Callable[..., ServerProcess]
# A converter loads TensorFlow twice; the machine may be busy.
pytestmark = pytest.mark.timeout(400)


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "crossfade", "convert", *map(str, arguments)]


def convert(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=390,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )


def files(folder: Path) -> dict[str, bytes]:
    """All that is in a folder, hidden or not."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def infer(server: ServerProcess, model: str, version: str, name: str, rows: np.ndarray) -> Any:
    with triton.InferenceServerClient(server.grpc) as client:
        tensor = triton.InferInput(name, rows.shape, "FP32")
        tensor.set_data_from_numpy(rows)
        return client.infer(model, [tensor], model_version=version)


@pytest.fixture(scope="module")
def curved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "curved"
    saved_models.curved(folder)
    return folder


@pytest.fixture
def repository(tmp_path: Path, curved: Path) -> Path:
    """One model, ``net``, whose version 3 is a SavedModel; every version is served."""
    root = tmp_path / "models"
    shutil.copytree(curved, root / "net" / "3")
    (root / "net" / "model.yaml").write_text("version_policy: all\n")
    (root / "net" / "labels.txt").write_text("a\nb\nc\nd\n")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_a_client_notices_nothing(
    repository: Path, tmp_path: Path, serve: Serve, target: str
) -> None:
    done = convert("net", "--repository", repository, "--to", target, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accepted"]
    assert report["inputs"]["real"] is None
    found = report["differences"]["adversarial"]["y"]
    assert found["finite"]
    assert found["max_abs"] <= 1e-4
    assert sorted(p.name for p in (repository / "net").iterdir()) == [
        *("3", "4", "labels.txt", "model.yaml")
    ]
    assert json.loads((repository / "net" / "4" / "conversion.json").read_text()) == report
    server = serve("--model-repository", repository)
    rows = np.random.default_rng(1).normal(size=(5, 16)).astype(np.float32)
    answers = [infer(server, "net", version, "x", rows).as_numpy("y") for version in "34"]
    np.testing.assert_allclose(answers[1], answers[0], atol=1e-5)
    with triton.InferenceServerClient(server.grpc) as client:
        said = [client.get_model_metadata("net", v, as_json=True) for v in "34"]
    assert said[0]["inputs"] == said[1]["inputs"]
    assert said[0]["outputs"] == said[1]["outputs"]
    shown = subprocess.run(
        [sys.executable, "-m", "crossfade", "inspect", str(repository / "net")],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert f"signature serving_default) -> {target}" in shown.stdout


@pytest.mark.slow
def test_a_program_of_pytorch_becomes_onnx(tmp_path: Path, serve: Serve) -> None:
    pytest.importorskip("torch")
    made = tmp_path / "models" / "net" / "1"
    made.mkdir(parents=True)
    save = "import pathlib; from tests.runtimes.exported_programs import affine;"
    save += " affine(pathlib.Path({!r}))"
    subprocess.run(
        [sys.executable, "-c", save.format(str(made))],
        check=True,
        timeout=200,
        cwd=Path(__file__).parents[2],
    )
    done = convert("net", "--repository", "models", "--to", "onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(torch, signature serving_default) -> onnx" in done.stdout
    server = serve("--model-repository", tmp_path / "models")
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.get_model_metadata("net").platform == "onnxruntime_onnx"
        (shape,) = [i.shape for i in client.get_model_metadata("net").inputs]
    assert list(shape) == [-1, *rows.shape[1:]]
    np.testing.assert_allclose(infer(server, "net", "2", "x", rows).as_numpy("y"), 2 * rows + 1)


@pytest.mark.slow
def test_a_rejected_conversion_changes_nothing(repository: Path, tmp_path: Path) -> None:
    before = files(repository)
    arguments = ("net", "--repository", repository, "--to", "onnx", "--tolerance", "1e-12")
    done = convert(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "REJECTED" in done.stdout
    assert "is off by" in done.stdout
    assert files(repository) == before
    assert not json.loads((tmp_path / "net-onnx-rejected.json").read_text())["accepted"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_kill_in_the_middle_leaves_nothing(
    repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    before = files(repository)
    process = subprocess.Popen(
        command("net", "--repository", repository, "--to", "onnx"),
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "freezing" in line:
            break
    children = psutil.Process(process.pid).children()
    assert children
    process.send_signal(number)
    process.wait(30)
    process.stderr.close()
    _, alive = psutil.wait_procs(children, 30)
    assert not alive
    if number == signal.SIGKILL:  # nobody was left to clean up: the next one does
        assert not [p for p in (repository / "net").iterdir() if p.name == "4"]
        convert("net", "--repository", repository, "--to", "onnx-int8", "--data", ".", cwd=tmp_path)
    assert files(repository) == before


def digit_rows(digits: Path, file: Path) -> list[str]:
    """The sample digits as rows of the custom model; returns their labels."""
    pictures = sorted((digits / "images").glob("*.png"))
    rows = []
    for path in pictures:
        with Image.open(path) as image:
            small = image.convert("L").resize((8, 8), Image.Resampling.BILINEAR)
            rows.append(np.asarray(small, np.float32)[None] / 255)
    np.savez(file, image=np.stack(rows))
    return [path.stem.partition("_")[0] for path in pictures]


@pytest.fixture
def sample(tmp_path: Path, digits: Path) -> Path:
    root = tmp_path / "models"
    shutil.copytree(digits / "models" / "digits_custom", root / "digits")
    (root / "digits" / "model.yaml").write_text("version_policy: all\n")
    return root


def test_a_trained_model_in_eight_bits(
    sample: Path, digits: Path, tmp_path: Path, serve: Serve
) -> None:
    names = digit_rows(digits, tmp_path / "rows.npz")
    (tmp_path / "labels.csv").write_text("label\n" + "".join(f"{n}\n" for n in names))
    arguments = ("--to", "onnx-int8", "--data", "rows.npz", "--labels", "labels.csv", "--json")
    done = convert("digits", "--repository", sample, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["first_choices"] == {
        "output": "probabilities",
        "rows": 12,
        "same": 12,
        "agreement": 1.0,
    }
    assert report["metric"] == {
        "name": "accuracy",
        "rows": 12,
        "before": 1.0,
        "after": 1.0,
        "drop": 0.0,
    }
    assert report["result"]["calibration"] == "12 rows of rows.npz"
    server = serve("--model-repository", sample)
    with np.load(tmp_path / "rows.npz") as archive:
        answers = infer(server, "digits", "2", "image", archive["image"])
    labels = (sample / "digits" / "labels.txt").read_text().splitlines()
    best = answers.as_numpy("probabilities").argmax(axis=1)
    assert [labels[index] for index in best] == names


def test_a_batch_of_one_and_real_digits(shared: Path, tmp_path: Path) -> None:
    folder = shared / "onnx" / "mnist"
    rows = []
    for path in sorted((folder / "digits").glob("*.png")):
        with Image.open(path) as image:
            rows.append(np.asarray(image.convert("L").resize((28, 28)), np.float32)[None])
    np.savez(tmp_path / "rows.npz", Input3=np.stack(rows))
    shutil.copy(folder / "mnist.onnx", tmp_path / "mnist.onnx")
    arguments = ("--to", "onnx-int8", "--data", "rows.npz", "--output", "small", "--json")
    done = convert("mnist.onnx", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["first_choices"]["same"] == 10
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == [
        *("conversion.json", "model.onnx")
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.onnx", "--to", "onnx-int8", "--output", "o"], "nothing at"),
        (["digits", "--repository", "models", "--to", "onnx-int8"], "(--data)"),
        (["digits", "--repository", "models", "--to", "tflite"], "it can become onnx-int8"),
        (["digits", "--repository", "models", "--to", "tensorrt"], "pip install tensorrt"),
        (["digits", "--repository", "models", "--version", "9", "--to", "onnx-int8"], "no version"),
        (["nobody", "--repository", "models", "--to", "onnx-int8"], "no model 'nobody'"),
        (["corrupt.onnx", "--to", "onnx-int8", "--data", "x.npz", "--output", "o"], "not an ONNX"),
        (["text.txt", "--to", "onnx", "--output", "o"], "no kind of model"),
        (["broken", "--to", "onnx", "--output", "o"], "corrupt"),
        (["custom.onnx", "--to", "onnx-int8", "--data", "x.npz", "--output", "o"], "my.own.Magic"),
        (["digits", "--repository", "models", "--to", "onnx-int8", "--data", "no.npz"], "nothing"),
        (["digits", "--repository", "models", "--to", "onnx-int8", "--inputs", "a"], "(--data)"),
        (["digits", "--repository", "models", "--to", "onnx-int8", "--data", "x.npz"], "no array"),
        (
            ["digits", "--repository", "models", "--to", "onnx-int8", "--data", "nan.npz"],
            "NaN or infinity",
        ),
        (
            ["digits", "--repository", "models", "--to", "onnx-int8", "--data", "shape.npz"],
            "the model needs [rows, 1, 8, 8]",
        ),
        (
            ["digits", "--repository", "models", "--to", "onnx-int8", "--data", "rows.npz",
             "--as", "digits", "--output", "o"],
            "not both",
        ),
        (
            ["digits", "--repository", "models", "--to", "onnx-int8", "--data", "rows.npz",
             "--as", "../digits"],
            "needs a name",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_changes_nothing(
    sample: Path, digits: Path, tmp_path: Path, arguments: Sequence[str], says: str
) -> None:
    digit_rows(digits, tmp_path / "rows.npz")
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 3), np.float32))
    np.savez(tmp_path / "nan.npz", image=np.full((2, 1, 8, 8), np.nan, np.float32))
    np.savez(tmp_path / "shape.npz", image=np.zeros((2, 8, 8), np.float32))
    (tmp_path / "corrupt.onnx").write_bytes(b"\x08\x07" + os.urandom(200))
    (tmp_path / "text.txt").write_text("no model")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(os.urandom(200))
    value = onnx_models.value
    custom = onnx_models.model(
        [onnx_models.node("Magic", "x", "y", domain="my.own")],
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
        domains=[("my.own", 1)],
    )
    (tmp_path / "custom.onnx").write_bytes(custom)
    before = files(tmp_path)
    done = convert(*arguments, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path) not in done.stderr
    assert files(tmp_path) == before


def test_a_full_disk_keeps_nothing(sample: Path, digits: Path, tmp_path: Path) -> None:
    digit_rows(digits, tmp_path / "rows.npz")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = convert(
            *("digits", "--repository", sample, "--to", "onnx-int8", "--data", "rows.npz"),
            *("--output", small / "result"),
            cwd=tmp_path,
        )
        left = list(small.iterdir())
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert done.returncode == 1
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert left == []


@pytest.mark.parametrize(
    ("config", "arguments", "says"),
    [
        ("platform: tensorflow\n", [], "sets platform"),
        ("options: {tags: [serve]}\n", [], "sets options"),
        ("", ["--signature", "look"], "another one than"),
        ("", ["--after-decode"], "other inputs than"),
    ],
)
def test_a_version_that_could_not_be_served_there_is_not_begun(
    repository: Path, tmp_path: Path, config: str, arguments: Sequence[str], says: str
) -> None:
    (repository / "net" / "model.yaml").write_text(config)
    done = convert("net", "--repository", repository, "--to", "onnx", *arguments, cwd=tmp_path)
    assert (done.returncode, says in done.stderr) == (1, True), done.stderr
    assert "--as NAME" in done.stderr


@pytest.mark.slow
def test_operations_that_cannot_be_converted_are_named_first(curved: Path, tmp_path: Path) -> None:
    arguments = ("--to", "onnx", "--signature", "look", "--output", "o")
    done = convert(curved, *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert "LookupTableFindV2" in done.stderr or "tables" in done.stderr
    assert "converting to ONNX" not in done.stderr


@pytest.fixture(
    scope="module", params=["mobilenet", pytest.param("efficientnet", marks=pytest.mark.large)]
)
def container(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An image classifier as AutoML's container export has it: files in, scores out."""
    root = tmp_path_factory.mktemp(request.param)
    program = Path(__file__).parents[1] / "serving/conversion/programs/image_model.py"
    place = root / "models" / "net" / "1"
    command = [sys.executable, str(program), request.param, str(place), str(shared / "images")]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "tflite", "tflite-int8", "onnx-int8"])
def test_an_image_classifier_without_its_decoding(
    container: Path, shared: Path, target: str
) -> None:
    """On ten real images. The weights are random but for the last layer, which knows the ten.

    Where eight bits between the layers cost one of the ten, sixteen do not.
    """
    arguments = ("--after-decode", "--data", shared / "images", "--as", target, "--json")
    done = convert("net", "--repository", "models", "--to", target, *arguments, cwd=container)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["first_choices"]["same"] == report["first_choices"]["rows"] == 10
    if not target.endswith("int8"):
        for group in ("real", "adversarial"):
            assert report["differences"][group]["scores"]["max_abs"] <= 1e-4
    assert report["preprocessing"]["shape"] == [-1, 224, 224, 3]
    place = container / "models" / target / "1"
    names = (place / "labels.txt").read_text().splitlines()
    assert names == sorted(path.stem for path in (shared / "images").glob("*.jpeg"))


@pytest.fixture(scope="module", params=["mobilenet", "efficientnet"])
def cells(
    request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A network that was trained on blood cells, and those of the test split as files."""
    root = tmp_path_factory.mktemp(f"cells-{request.param}")
    program = Path(__file__).parents[1] / "serving/conversion/programs/cell_model.py"
    data = shared / "detection" / "BCCD"
    command = [sys.executable, str(program), request.param, str(root / "models" / "net" / "1")]
    command += [str(data), str(root / "cells"), "4"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    assert float(done.stdout.split()[-1]) > 0.9, "it has learned what the cells are"
    return root


@pytest.mark.large
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("target", ["onnx", "tflite", "tflite-int8", "onnx-int8"])
def test_a_trained_network_keeps_its_answers(cells: Path, target: str) -> None:
    arguments = ("--after-decode", "--data", "cells", "--labels", "labels.csv", "--as", target)
    form = ("--range", "0", "255", "--json")
    done = convert("net", "--repository", "models", "--to", target, *arguments, *form, cwd=cells)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["first_choices"]["same"] >= 0.99 * report["first_choices"]["rows"] > 200
    assert report["metric"]["drop"] <= 0.01
    if not target.endswith("int8"):
        for group in ("real", "adversarial"):
            assert report["differences"][group]["scores"]["max_abs"] <= 1e-4


@pytest.mark.slow
def test_decoding_in_the_graph_is_named_with_two_ways_out(container: Path) -> None:
    done = convert("net", "--repository", "models", "--to", "onnx", cwd=container)
    assert done.returncode == 1
    assert "DecodeImage" in done.stderr
    assert "'pixels' instead (--signature)" in done.stderr
    assert "(--after-decode): 'image_bytes' is then FP32 [-1, 224, 224, 3]" in done.stderr
