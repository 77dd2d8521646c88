"""From a real AutoML export to answers: warm start, killed and gone on with, served."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from PIL import Image

from crossfade.serving.repository import lineage
from tests.conftest import ServerProcess
from tests.e2e.training_runs import kill_after, newest_weights

LABELS = ("dandelion", "rose", "sunflower")
SETTINGS = (
    *("batch_size=6", "probe_epochs=30", "stages=1", "stage_epochs=2", "head.widths=[]"),
    *("optimisation.learning_rate=0.01", "stage_rate=0.01"),  # one picture a label says little
)
PROBE_STEPS = 30 * 4
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def flowers(shared: Path) -> Path:
    """An AutoML Vision Edge export of 8 bits, with two pictures of each of three flowers."""
    return shared / "automl-vision-edge" / "flowers"


@pytest.fixture(scope="module")
def data(flowers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of one picture of each flower to learn from; the other one, whole, is the test."""
    root = tmp_path_factory.mktemp("data")
    lines = []
    for label in LABELS:
        first, second = sorted((flowers / "images").glob(f"{label}_*.jpg"))
        with Image.open(first) as image:
            for number in range(10):
                left, top = (number % 5) * 12, (number // 5) * 24
                part = image.crop((left, top, image.width - 60 + left, image.height - 48 + top))
                part.resize((224, 224)).save(root / f"{label}{number}.png")
                use = "VALIDATION" if number % 5 == 4 else "TRAINING"
                lines.append(f"{use},{label}{number}.png,{label}\n")
        (root / f"{label}.jpg").write_bytes(second.read_bytes())
        lines.append(f"TEST,{label}.jpg,{label}\n")
    (root / "flowers.csv").write_text("".join(lines))
    return root / "flowers.csv"


def start(flowers: Path, data: Path, place: Path) -> subprocess.Popen[str]:
    command = [
        *(sys.executable, "-m", "crossfade", "train", "warm-start", "--data", str(data)),
        *("--export", str(flowers / "model.tflite"), "--name", "flowers"),
        *("--repository", str(place / "models"), "--run-dir", str(place / "run")),
    ]
    for setting in SETTINGS:
        command += ["--set", setting]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdout=quiet, stderr=subprocess.PIPE, text=True, env=environment
    )


def finished(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=110)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def whole(flowers: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    place = tmp_path_factory.mktemp("whole")
    finished(start(flowers, data, place))
    return place


def test_a_client_gets_the_right_labels(
    whole: Path, data: Path, serve: Callable[..., ServerProcess]
) -> None:
    card = lineage.check(whole / "models" / "flowers" / "1")
    assert card.export is not None
    assert card.export.name == "model.tflite"
    assert card.metrics["test/accuracy"] == 1
    server = serve("--model-repository", whole / "models")
    files = [(data.parent / f"{label}.jpg").read_bytes() for label in LABELS]
    for library, address in ((triton_http, server.http), (triton_grpc, server.grpc)):
        request = library.InferInput("image", [len(files)], "BYTES")
        request.set_data_from_numpy(np.array(files, object))
        with library.InferenceServerClient(address) as client:
            answer = client.infer("flowers", [request])
        best = answer.as_numpy("scores").argmax(1)
        labels = answer.as_numpy("labels")[np.arange(len(files)), best]
        assert [label.decode() for label in labels] == list(LABELS)


def test_a_run_that_was_killed_comes_to_the_same_bytes(
    flowers: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed in the second epoch of the stage that is opened, with the probe behind it."""
    process = start(flowers, data, tmp_path)
    kill_after(process, tmp_path, PROBE_STEPS + 5, within_s=100)
    assert newest_weights(tmp_path) != newest_weights(whole)
    finished(start(flowers, data, tmp_path))
    assert newest_weights(tmp_path) == newest_weights(whole)
    model = Path("models") / "flowers" / "1" / "model.onnx"
    assert (tmp_path / model).read_bytes() == (whole / model).read_bytes()
    logs = [(place / "run" / "metrics.jsonl").read_text() for place in (tmp_path, whole)]
    assert logs[0] == logs[1]
