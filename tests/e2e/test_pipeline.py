"""The whole way on one machine: gate, baseline, custom model, ensemble, fade; clients go on."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton

from tests.conftest import ROOT, ServerProcess
from tests.serving.lifecycle.folders import wait_until

EXAMPLE = ROOT / "examples" / "graduate"
DIGITS = ROOT / "training" / "image_classifier" / "configs" / "digits.yaml"
PLAN = """\
require_lineage: true
steps:
  - {traffic_percent: shadow, min_time_s: 1, min_samples: 100}
  - {traffic_percent: 50, mirror_percent: 50, min_time_s: 1, min_samples: 100}
  - {traffic_percent: 100, mirror_percent: 50, min_time_s: 0.5, min_samples: 50}
guardrails:
  quality: {margin: 0.2, tolerance: 0.1, min_labels: 20, min_agreement: 0.7}
  errors: {margin: 0.2, tolerance: 0.05}
  latency: [{quantile: 0.5, max_ratio: 1000}]
"""
BOTH = """\
ensemble:
  kind: weighted
  scores: probabilities
  members: [{model: digits}, {model: digits_custom}]
"""


def crossfade(folder: Path, *arguments: str) -> str:
    """What a command prints, run as a user would in a folder with the data."""
    done = subprocess.run(
        [sys.executable, "-m", "crossfade", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Client(threading.Thread):
    """Sends picture files to ``digits`` in one and the same way, and tells the truth of each."""

    def __init__(self, server: ServerProcess, folder: Path) -> None:
        super().__init__(daemon=True)
        self.answered: list[bool] = []  # whether the answer was right
        self.failed: list[str] = []
        self.pause_s = 0.005
        self.done = threading.Event()
        self._server = server
        with (folder / "held_out.csv").open(encoding="utf-8", newline="") as file:
            self._pictures = [
                ((folder / "held_out" / row["file"]).read_bytes(), row["label"])
                for row in csv.DictReader(file)
            ]

    def run(self) -> None:
        rng = np.random.default_rng(0)
        truths: list[dict[str, str]] = []
        with triton.InferenceServerClient(self._server.grpc) as client:
            while not self.done.is_set():
                picture, label = self._pictures[rng.integers(len(self._pictures))]
                try:
                    answer = client.infer("digits", [tensor(picture)], client_timeout=20)
                    self.answered.append(best(answer) == label)
                    request_id = answer.get_response().id
                    truths += [{"id": request_id, "truth": label}] if request_id else []
                    if len(truths) >= 20:
                        self._tell(truths)
                        truths = []
                except Exception as error:
                    self.failed.append(repr(error))
                time.sleep(self.pause_s)

    def wait_more(self, count: int) -> None:
        wanted = len(self.answered) + count
        wait_until(lambda: len(self.answered) >= wanted or bool(self.failed))

    def _tell(self, truths: list[dict[str, str]]) -> None:
        url = f"http://{self._server.http}/v2/models/digits/feedback"
        request = urllib.request.Request(url, json.dumps({"truths": truths}).encode())
        with urllib.request.urlopen(request, timeout=30) as response:
            response.read()


def tensor(picture: bytes) -> Any:
    made = triton.InferInput("image", [1], "BYTES")
    made.set_data_from_numpy(np.array([picture], np.object_))
    return made


def best(answer: Any) -> str:
    return str(int(answer.as_numpy("scores")[0].argmax()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    spec = importlib.util.spec_from_file_location("graduate_data", EXAMPLE / "data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_from_a_table_to_a_promoted_model(folder: Path, serve: Any) -> None:
    # -- the gate, and what AutoML would have made of few labels
    with ThreadPoolExecutor() as pool:  # beside each other only to save the test's time
        verdict = pool.submit(
            crossfade, folder, "train", "gate", "--data", "early.csv", "--target", "digit",
            "--task", "classification", "--goal", "0.99",
        )  # fmt: skip
        told = crossfade(
            folder, "train", "baseline", "--data", "early", "--size", "16", "--color", "gray",
            "--name", "digits", "--repository", "models", "--budget", "1s",
        )  # fmt: skip
        assert verdict.result().startswith(("verdict: deploy AutoML", "verdict: go custom"))
    assert "digits version 1: wrote" in told

    # -- clients call it from now on, while everything else happens
    server = serve(
        "--model-repository", folder / "models", "--model-control-mode", "poll",
        "--poll-s", "0.2", "--fade-database", f"sqlite:///{folder / 'fades.db'}",
    )  # fmt: skip
    client = Client(server, folder)
    client.start()
    client.wait_more(200)
    at_first = len(client.answered)
    client.pause_s = 0.05  # trainings take the processor

    # -- more labels, a custom model, and an ensemble of both fitted on what neither has seen
    told = crossfade(
        folder, "train", "image-classifier", "--data", "later", "--config", str(DIGITS),
        "--name", "digits_custom", "--repository", "models",
    )  # fmt: skip
    assert "digits_custom version 1: wrote" in told
    (folder / "models" / "digits_both").mkdir()
    (folder / "models" / "digits_both" / "model.yaml").write_text(BOTH)
    told = crossfade(
        folder, "ensemble", "fit", "digits_both", "--repository", "models", "--json",
        "--data", "held_out", "--labels", "held_out.csv", "--cache", "cache",
    )  # fmt: skip
    report = json.loads(told)["report"]
    shares = {one["name"]: one for one in report["candidates"]}
    assert shares["best_single"]["fit"]["weights"] == [0.0, 1.0]  # the custom one is better
    with triton.InferenceServerClient(server.grpc) as asked:
        wait_until(lambda: asked.is_model_ready("digits_both"))
        picture = next((folder / "held_out").iterdir()).read_bytes()
        answer = asked.infer("digits_both", [tensor(picture)])
        assert answer.as_numpy("scores").shape == (1, 10)

    # -- traffic goes over, and nobody notices
    client.pause_s = 0.005
    (folder / "fade.yaml").write_text(PLAN)
    told = crossfade(
        folder, "fade", "start", "digits", "--from", "digits", "--to", "digits_custom",
        "--plan", "fade.yaml", "--url", server.grpc,
    )  # fmt: skip
    assert "RUNNING, step 1 of 3" in told

    def status() -> Any:
        return json.loads(
            urllib.request.urlopen(f"http://{server.http}/v2/fades/digits", timeout=30).read()
        )

    until = time.monotonic() + 60
    while (now := status())["status"] == "RUNNING":
        assert time.monotonic() < until, now
        time.sleep(0.1)
    assert now["status"] == "PROMOTED", now
    promoted = len(client.answered)
    client.wait_more(200)
    retired = crossfade(folder, "fade", "retire", "digits", "--url", server.grpc)
    assert "RETIRED" in retired
    client.wait_more(100)
    client.done.set()
    client.join(30)
    assert client.failed == []
    assert now["answered"]["candidate"] > 0
    history = json.loads(
        crossfade(folder, "fade", "history", "digits", "--json", "--url", server.grpc)
    )
    found = [finding for one in history["decisions"] for finding in one["findings"]]
    assert any(one["metric"] == "quality" for one in found)  # by what clients said was right
    # Over all that it was asked before and after, the custom model is right more often.
    before, after = client.answered[:at_first], client.answered[promoted:]
    assert np.mean(after) > np.mean(before)
