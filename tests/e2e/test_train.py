"""``crossfade train``: killed and gone on with, by two processes, and served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton

from crossfade.serving.cli.main import main
from crossfade.serving.repository import lineage
from tests.conftest import ServerProcess
from tests.e2e.training_runs import kill_after, newest_weights
from tests.training import pictures

SETTINGS = (
    *("--set", "data.size=16", "--set", "network.widths=[8,16]", "--set", "batch_size=8"),
    *("--set", "epochs=6", "--set", "checkpoint_every_steps=4", "--set", "network.dropout=0.3"),
    *("--set", "optimisation.learning_rate=0.01", "--set", "optimisation.schedule.kind=one_cycle"),
)
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.table(tmp_path_factory.mktemp("data"))


def command(data: Path, place: Path) -> list[str]:
    where = ("--repository", str(place / "models"), "--run-dir", str(place / "run"))
    return ["train", "image-classifier", "--data", str(data), "--name", "shapes", *where, *SETTINGS]


def start(arguments: Sequence[str], program: Sequence[str] = ()) -> subprocess.Popen[str]:
    whole = [sys.executable, "-m", *(program or ("crossfade",)), *arguments]
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **THREADS}
    return subprocess.Popen(whole, stdout=quiet, stderr=subprocess.PIPE, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=100)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    place = tmp_path_factory.mktemp("whole")
    finished(start(command(data, place)))
    return place


@pytest.fixture
def killed(data: Path, tmp_path: Path) -> Iterator[Path]:
    """A run that was killed in the middle of an epoch, some steps after a checkpoint."""
    process = start(command(data, tmp_path))
    kill_after(process, tmp_path, 10, within_s=60)
    return tmp_path


def test_a_run_that_was_killed_comes_to_the_same_bytes(
    data: Path, whole: Path, killed: Path
) -> None:
    begun = sorted(path.name for path in (killed / "run" / "checkpoints").iterdir())
    assert begun, "it was killed before the first checkpoint"
    assert "step-000000024" not in begun
    finished(start(command(data, killed)))
    assert newest_weights(killed) == newest_weights(whole)
    model = Path("models") / "shapes" / "1" / "model.onnx"
    assert (killed / model).read_bytes() == (whole / model).read_bytes()
    lines = [
        [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
        for place in (killed, whole)
    ]
    assert lines[0] == lines[1]


def test_a_complete_run_is_not_run_again(
    data: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(data, whole)) == 1
    assert "the run 'run' is complete: it made shapes version 1" in capsys.readouterr().err


def test_it_is_served_and_its_card_is_true(
    data: Path, whole: Path, serve: Callable[..., ServerProcess], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = whole / "models" / "shapes"
    card = lineage.check(folder / "1")
    assert card.metrics["test/accuracy"] >= 0.8
    assert card.provenance["optimisation.schedule.kind"] == "command line"
    assert "label_smoothing" not in card.provenance, "a default"
    assert card.parity is not None
    assert card.parity.max_abs <= 1e-4
    assert main(["inspect", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "lineage" in shown
    assert card.data.sha256[:12] in shown
    server = serve("--model-repository", whole / "models")
    files = [path for path in sorted(data.parent.rglob("*.png")) if int(path.stem) % 5 == 4]
    request = triton.InferInput("image", [len(files)], "BYTES")
    request.set_data_from_numpy(np.array([file.read_bytes() for file in files], object))
    with triton.InferenceServerClient(server.http) as client:
        answer = client.infer("shapes", [request])
    best = answer.as_numpy("labels")[np.arange(len(files)), answer.as_numpy("scores").argmax(1)]
    right = [file.parent.name.encode() == label for file, label in zip(files, best, strict=True)]
    assert sum(right) / len(files) == card.metrics["test/accuracy"], "another than was measured"


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes that torchrun started."""
    place = tmp_path_factory.mktemp("together")
    torchrun = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    finished(start(command(data, place), (*torchrun, "-m", "crossfade")))
    return place


def test_two_processes_train_one_model(together: Path) -> None:
    card = lineage.check(together / "models" / "shapes" / "1")
    assert card.environment["processes"] == "2"
    assert card.metrics["test/accuracy"] > 0.5, "no better than chance"
    steps = max((together / "run" / "checkpoints").iterdir()).name
    assert steps == "step-000000012", "half as many as one process takes"


RAY = """
import sys, tempfile
import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

def each(options):
    from crossfade.serving.cli.main import main
    assert main(options["command"]) == 0

with tempfile.TemporaryDirectory(prefix="ray") as scratch:  # sockets need a short path
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        _node_ip_address="127.0.0.1",
        _temp_dir=scratch,
    )
    TorchTrainer(
        each,
        train_loop_config={"command": sys.argv[1:]},
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=scratch),
    ).fit()
    ray.shutdown()
"""


def test_ray_train_comes_to_the_same_bytes_as_torchrun(
    data: Path, together: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.train.torch", reason="Ray Train is not installed: ray[train]")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    program = tmp_path / "program.py"
    program.write_text(RAY)
    whole = [sys.executable, str(program), *command(data, tmp_path)]
    environment = {**os.environ, **THREADS}
    done = subprocess.run(
        whole, capture_output=True, text=True, check=False, timeout=110, env=environment
    )
    assert done.returncode == 0, done.stderr
    card = lineage.check(tmp_path / "models" / "shapes" / "1")
    assert card.environment["processes"] == "2"
    assert newest_weights(tmp_path) == newest_weights(together)
