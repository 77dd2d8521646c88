"""From a table to answers: gate, baseline, its next version, one server, the peers' clients."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton_grpc

from tests.conftest import ROOT, ServerProcess

ROWS = 300


def crossfade(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crossfade", "train", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=110
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "people.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["age", "city", "joined", "name", "member"])
        for row in range(ROWS):
            age, city = rng.uniform(0, 90), rng.integers(0, 3)
            member = age + 25 * city + rng.normal() * 4 > 70
            shown = "" if row % 13 == 0 else f"{age:.1f}"
            day = f"2024-{1 + row % 12:02}-03T04:05:06+02:00"
            writer.writerow(
                [shown, ("Köln", "東京", "")[city], day, f"Ann {row}", "yes" if member else "no"]
            )
    return path


@pytest.fixture(scope="module")
def repository(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 is the baseline; version 2 is one that graduated: another seed."""
    models = tmp_path_factory.mktemp("baseline") / "models"
    for seed in ("0", "1"):
        done = crossfade(
            *("baseline", "--data", str(people), "--target", "member", "--name", "people"),
            *("--repository", str(models), "--budget", "1s", "--seed", seed),
        )
        assert done.returncode == 0, done.stderr
        assert "done, best" in done.stderr
        assert "test/accuracy" in done.stdout
        assert "left out  name: no value comes twice" in done.stdout
    return models


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ServerProcess]:
    config = repository / "people" / "model.yaml"
    config.write_text(config.read_text("utf-8") + "version_policy: all\n", "utf-8")
    started = ServerProcess("--model-repository", str(repository))
    yield started
    assert started.stop() == 0


def predict(server: ServerProcess, document: Any, version: int = 1) -> Any:
    url = f"http://{server.http}/v1/models/people/versions/{version}:predict"
    request = urllib.request.Request(url, json.dumps(document).encode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["predictions"]


def bare(repository: Path, version: int, rows: dict[str, list[str]]) -> np.ndarray:
    session = onnxruntime.InferenceSession(repository / "people" / str(version) / "model.onnx")
    inputs = {name: np.array(cells, object) for name, cells in rows.items()}
    inputs.setdefault("name", np.array([""] * len(next(iter(inputs.values()))), object))
    return session.run(["scores"], inputs)[0]


def test_rows_as_an_automl_export_takes_them(server: ServerProcess, repository: Path) -> None:
    answers = predict(
        server,
        {"instances": [{"age": 80, "city": "東京"}, {"age": None, "joined": "2024-02-03"}, {}]},
    )
    assert [answer["classes"] for answer in answers] == [["no", "yes"]] * 3
    rows = {"age": ["80", "", ""], "city": ["東京", "", ""], "joined": ["", "2024-02-03", ""]}
    scores = [answer["scores"] for answer in answers]
    np.testing.assert_allclose(scores, bare(repository, 1, rows), rtol=1e-5)


def test_a_row_of_the_file_itself(server: ServerProcess, people: Path) -> None:
    with people.open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    del row["member"]
    named, unnamed = predict(server, {"instances": [row, row | {"name": None}]})
    assert named == unnamed


def test_columns_over_grpc_and_the_next_version(server: ServerProcess, repository: Path) -> None:
    rows = {"age": ["12.5", "x"], "city": ["Köln", "nowhere"], "joined": ["", "0"]}
    inputs = []
    for name, cells in rows.items():
        inputs.append(triton_grpc.InferInput(name, [2], "BYTES"))
        inputs[-1].set_data_from_numpy(np.array([c.encode() for c in cells], object))
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        for version in (1, 2):
            answer = client.infer("people", inputs, model_version=str(version))
            np.testing.assert_allclose(
                answer.as_numpy("scores"), bare(repository, version, rows), rtol=1e-5
            )


def test_the_gate(people: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = crossfade(
        *("gate", "--data", str(people), "--target", "member", "--goal", "0.9"),
        *("--json", str(report)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("verdict: ")
    assert json.loads(report.read_text())["verdict"] in ("deploy AutoML", "go custom")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("gate", "--data", "none.csv", "--target", "y"), "there is no file none.csv"),
        (("gate", "--data", "{people}", "--target", "y"), "no column 'y'"),
        (
            ("baseline", "--data", "{people}", "--target", "member", "--column", "age=text"),
            "no transformation 'text'",
        ),
        (("baseline", "--data", "{people}"), "a table needs --target"),
        (("gate", "--data", "{folder}", "--target", "y"), "is a folder, and a table is one CSV"),
        (
            ("gate", "--data", "{people}", "--target", "member", "--goal", "90"),
            "a goal of 90 is no accuracy",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    people: Path, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    words = [word.format(people=people, folder=tmp_path) for word in arguments]
    if words[0] == "baseline":
        words += ["--name", "people", "--repository", str(tmp_path / "m")]
    done = crossfade(*words)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()
