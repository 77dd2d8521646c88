"""From a detection set to tokens of patches: trained by the command, served, and asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from crossfade.serving.repository.lineage import check
from tests.conftest import ROOT, ServerProcess
from tests.training.arr_coc.scenes import SETTINGS, compose

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # setup trains, evaluates and exports
OUTPUTS = ("patch_tokens", "relevance", "fallback", "unknown_words")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arr_coc")


@pytest.fixture(scope="module")
def trained(folder: Path) -> subprocess.CompletedProcess[str]:
    data = compose(folder / "digits")
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return subprocess.run(
        [
            *(sys.executable, "-m", "crossfade", "train", "arr-coc", "--name", "digits"),
            *("--data", str(data), "--repository", str(folder / "models")),
            *("--run-dir", str(folder / "run"), *settings),
        ],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.fixture(scope="module")
def server(folder: Path, trained: subprocess.CompletedProcess[str]) -> Iterator[ServerProcess]:
    assert trained.returncode == 0, trained.stderr
    started = ServerProcess("--model-repository", str(folder / "models"))
    yield started
    assert started.stop() == 0


def ask(
    server: ServerProcess, picture: bytes, texts: list[str], budgets: list[int]
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
        result = client.infer("digits", inputs)
    return {name: result.as_numpy(name) for name in OUTPUTS}


def test_a_picture_and_texts_become_tokens_of_patches(server: ServerProcess, folder: Path) -> None:
    picture = (folder / "digits" / "test-0000.png").read_bytes()
    answer = ask(server, picture, ["digit 3 left", "anything", "a zebra"], [18_816, 0, 30_001])
    assert answer["patch_tokens"].shape == (1, 3, 12, 16)
    assert answer["patch_tokens"].dtype == np.int32
    sums = answer["patch_tokens"].sum(axis=(2, 3))[0]
    assert sums[0] == 18_816
    assert sums[2] == 30_001
    assert answer["fallback"].tolist() == [[False, False, True]]
    assert answer["unknown_words"].tolist() == [[0, 0, 2]]
    other = ask(server, picture, ["digit 5 right"], [18_816])
    assert (other["relevance"][:, 0] != answer["relevance"][:, 0]).any()


def test_a_damaged_picture_is_refused(server: ServerProcess) -> None:
    with pytest.raises(InferenceServerException, match=r"is no JPEG, PNG") as e:
        ask(server, b"no picture", ["digit 3"], [0])
    assert "StatusCode.INVALID_ARGUMENT" in str(e.value)


def test_the_version_has_a_card_and_the_command_is_not_repeated_in_vain(
    trained: subprocess.CompletedProcess[str], folder: Path
) -> None:
    card = check(folder / "models" / "digits" / "1")
    assert card.task == "arr-coc"
    assert card.parity is not None
    assert "digits version 1: wrote" in trained.stdout
    assert json.loads((folder / "run" / "run.json").read_text())["data"] == card.data.sha256
