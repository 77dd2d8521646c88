"""From a detection set to tokens of patches: trained, converted to 8 bits, served, and asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from crossfade.serving.repository.lineage import check, digest_file
from tests.conftest import ROOT, ServerProcess
from tests.training.arr_coc.scenes import SETTINGS, compose

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # setup trains, evaluates and exports
OUTPUTS = ("patch_tokens", "relevance", "fallback", "unknown_words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arr_coc")


@pytest.fixture(scope="module")
def trained(folder: Path) -> subprocess.CompletedProcess[str]:
    """Begun with a detector that the command before it exported."""
    compose(folder / "digits")
    done = train(folder, "detector", "detector", run="detector")
    assert done.returncode == 0, done.stderr
    return train(folder, "arr-coc", "digits", *begun_from(folder))


def begun_from(folder: Path) -> list[str]:
    return ["--export", str(folder / "models" / "detector" / "1" / "model.onnx")]


def train(
    folder: Path, task: str, name: str, *options: str, run: str = "run"
) -> subprocess.CompletedProcess[str]:
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    data = folder / "digits" / "import.jsonl"
    return crossfade(
        *("train", task, "--name", name, *options),
        *("--data", str(data), "--repository", str(folder / "models")),
        *("--run-dir", str(folder / run), *settings),
    )


def convert(folder: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    return crossfade("convert", name, *options, "--repository", str(folder / "models"))


def crossfade(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crossfade", *words],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def converted(folder: Path, trained: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The report of version 2, which is version 1 with convolutions of 8 bits."""
    assert trained.returncode == 0, trained.stderr
    (folder / "pictures").mkdir()
    for picture in (folder / "digits").glob("validation-*.png"):
        shutil.copy(picture, folder / "pictures")
    asked = {
        "query": [["digit 3 left", "digit 5"], ["anything", "digit 0 on the right"]],
        "token_budget": [[0, 18_816], [18_816, 0], [30_001, 12_288]],
    }
    (folder / "asked.json").write_text(json.dumps(asked))
    done = convert(
        *(folder, "digits", "--to", "onnx-int8", "--data", str(folder / "pictures"), "--json"),
        *("--range", "0", "255", "--inputs", str(folder / "asked.json")),
        *("--agreement", "0.95"),  # two epochs leave scores that are close to each other
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def parts(folder: Path, trained: subprocess.CompletedProcess[str]) -> list[str]:
    """The same run as two models and their pipeline."""
    assert trained.returncode == 0, trained.stderr
    done = train(folder, "arr-coc", "parts", "--split-text", *begun_from(folder))
    assert done.returncode == 0, done.stderr
    return sorted(path.name for path in (folder / "models").glob("parts*"))


@pytest.fixture(scope="module")
def server(folder: Path, converted: dict[str, Any], parts: list[str]) -> Iterator[ServerProcess]:
    assert parts == ["parts", "parts-text", "parts-vision"]
    with (folder / "models" / "digits" / "model.yaml").open("a") as config:
        config.write("version_policy: all\n")
    started = ServerProcess("--model-repository", str(folder / "models"))
    yield started
    assert started.stop() == 0


def ask(
    server: ServerProcess,
    picture: bytes,
    texts: list[str],
    budgets: list[int],
    *,
    version: str = "",
    model: str = "digits",
) -> dict[str, Any]:
    values = {
        "image_bytes": ("BYTES", np.array([picture], dtype=object)),
        "query": ("BYTES", np.array([texts], dtype=object)),
        "token_budget": ("INT32", np.array([budgets], dtype=np.int32)),
    }
    inputs = []
    for name, (dtype, array) in values.items():
        tensor = triton.InferInput(name, array.shape, dtype)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    with triton.InferenceServerClient(server.grpc) as client:
        result = client.infer(model, inputs, model_version=version)
    return {name: result.as_numpy(name) for name in OUTPUTS}


@pytest.mark.parametrize("version", ["1", "2"])
def test_a_picture_and_texts_become_tokens_of_patches(
    server: ServerProcess, folder: Path, version: str
) -> None:
    picture = (folder / "digits" / "test-0000.png").read_bytes()
    texts = ["digit 3 left", "anything", "a zebra"]
    answer = ask(server, picture, texts, [18_816, 0, 30_001], version=version)
    assert answer["patch_tokens"].shape == (1, 3, 12, 16)
    assert answer["patch_tokens"].dtype == np.int32
    sums = answer["patch_tokens"].sum(axis=(2, 3))[0]
    assert sums[0] == 18_816
    assert sums[2] == 30_001
    assert answer["fallback"].tolist() == [[False, False, True]]
    assert answer["unknown_words"].tolist() == [[0, 0, 2]]
    other = ask(server, picture, ["digit 5 right"], [18_816], version=version)
    assert (other["relevance"][:, 0] != answer["relevance"][:, 0]).any()


def test_a_quarter_of_the_size_answers_nearly_alike(
    server: ServerProcess, folder: Path, converted: dict[str, Any]
) -> None:
    found = converted["differences"]["real"]
    assert found["unknown_words"]["max_abs"] == found["fallback"]["max_abs"] == 0
    assert found["patch_tokens"]["overlap"] > 0.95
    assert found["relevance"]["overlap"] is None
    assert converted["result"]["activation_bits"] == 8
    assert converted["result"]["size_bytes"] < 0.35 * converted["source"]["size_bytes"]
    picture = (folder / "digits" / "test-0001.png").read_bytes()
    one, two = (ask(server, picture, ["digit 3"], [18_816], version=version) for version in "12")
    assert (one["relevance"] != two["relevance"]).any()
    np.testing.assert_allclose(two["relevance"], one["relevance"], atol=0.1)


def test_two_models_in_a_pipeline_answer_as_one(server: ServerProcess, folder: Path) -> None:
    picture = (folder / "digits" / "test-0002.png").read_bytes()
    texts, budgets = ["Digit 3, left", "", "a zebra"], [18_816, 0, 12_289]
    one = ask(server, picture, texts, budgets, version="1")
    two = ask(server, picture, texts, budgets, model="parts")
    for name in OUTPUTS:
        np.testing.assert_allclose(two[name], one[name], atol=1e-6, err_msg=name)
    with triton.InferenceServerClient(server.grpc) as client:
        metadata = [client.get_model_metadata(name) for name in ("digits", "parts", "parts-vision")]
    inputs = [{i.name: (i.datatype, list(i.shape)) for i in found.inputs} for found in metadata]
    assert inputs[0] == inputs[1]
    assert inputs[2]["tokens"] == ("INT64", [-1, -1, 8])


def test_a_pipeline_is_converted_by_its_members(parts: list[str], folder: Path) -> None:
    done = convert(folder, "parts", "--to", "tensorrt")
    assert done.returncode == 1
    assert "convert its members, parts-text, parts-vision" in done.stderr


def test_the_detector_is_a_model_of_its_own(server: ServerProcess, folder: Path) -> None:
    picture = np.array([(folder / "digits" / "test-0000.png").read_bytes()], dtype=object)
    tensor = triton.InferInput("image_bytes", picture.shape, "BYTES")
    tensor.set_data_from_numpy(picture)
    with triton.InferenceServerClient(server.grpc) as client:
        found = client.infer("detector", [tensor])
    assert found.as_numpy("scores").shape == (1, 3, 12, 16)
    assert found.as_numpy("centres").shape == (1, 3, 2, 12, 16)
    assert check(folder / "models" / "detector" / "1").task == "detector"
    export = check(folder / "models" / "digits" / "1").export
    assert export is not None
    assert export.sha256 == digest_file(folder / "models" / "detector" / "1" / "model.onnx")


@pytest.mark.parametrize("model", ["digits", "parts"])
def test_a_damaged_picture_is_refused(server: ServerProcess, model: str) -> None:
    with pytest.raises(InferenceServerException, match=r"is no JPEG, PNG") as e:
        ask(server, b"no picture", ["digit 3"], [0], model=model)
    assert "StatusCode.INVALID_ARGUMENT" in str(e.value)


def test_the_version_has_a_card_and_the_command_is_not_repeated_in_vain(
    trained: subprocess.CompletedProcess[str], folder: Path
) -> None:
    card = check(folder / "models" / "digits" / "1")
    assert card.task == "arr-coc"
    assert card.parity is not None
    assert "digits version 1: wrote" in trained.stdout
    assert json.loads((folder / "run" / "run.json").read_text())["data"] == card.data.sha256
