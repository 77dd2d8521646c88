"""Weights that follow feedback, in a real server: they move, survive a kill, and freeze."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossfade.serving.cli.main import main
from crossfade.serving.fade.database import FadeDatabase
from tests import fading
from tests.conftest import ServerProcess

MODEL = """\
ensemble:
  kind: weighted
  scores: probabilities
  members:
    - {model: good, weight: 0.5}
    - {model: bad, weight: 0.5}
  adapt: {rate: 0.2, window: 20, max_step: 1, min_weight: 0.02, tolerance: 0.3}
"""


def post(server: ServerProcess, path: str, body: Any) -> Any:
    request = urllib.request.Request(f"http://{server.http}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def ask(server: ServerProcess, request_id: str, best: int) -> list[float]:
    row = [3.0 if place == best else 0.0 for place in range(3)]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": row}
    answer = post(server, "/v2/models/pair/infer", {"id": request_id, "inputs": [tensor]})
    found: list[float] = answer["outputs"][0]["data"]
    return found


def tell(server: ServerProcess, truths: dict[str, str]) -> list[str]:
    given = [{"id": key, "truth": truth} for key, truth in truths.items()]
    answer = post(server, "/v2/models/pair/feedback", {"truths": given})
    return [each["outcome"] for each in answer["truths"]]


def shown(server: ServerProcess) -> tuple[float, float]:
    """The better member's weight, and whether the weights are frozen."""
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=30) as response:
        text = response.read().decode()
    weight = re.search(
        r'crossfade_ensemble_weight{member="good",model="pair",version="1"} (\S+)', text
    )
    frozen = re.search(r'crossfade_adapt_frozen{model="pair",version="1"} (\S+)', text)
    assert weight is not None, text
    assert frozen is not None, text
    return float(weight[1]), float(frozen[1])


def wait_until(server: ServerProcess, done: Callable[[float, float], bool]) -> float:
    until = time.monotonic() + 30
    while not done(*(found := shown(server))):
        assert time.monotonic() < until, found
        time.sleep(0.05)
    return found[0]


def learned(server: ServerProcess, url: str, records: int) -> float:
    """Waits until so many are there, and the server follows them; the better member's weight."""
    database = FadeDatabase(url)
    until = time.monotonic() + 30
    while (now := database.adapting.adaptations("pair")[0]).version < records:
        assert time.monotonic() < until, now
        time.sleep(0.05)
    database.close()
    return wait_until(server, lambda weight, _: weight == now.state.weights[0])


def test_weights_move_to_the_better_member_survive_a_kill_and_freeze_on_a_drift(
    serve: Callable[..., ServerProcess], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models, url = tmp_path / "models", f"sqlite:///{tmp_path / 'fades.db'}"
    models.mkdir()
    fading.write_version(models / "good", 1)
    fading.write_version(models / "bad", 1, wrong=True)
    (models / "pair").mkdir()
    (models / "pair" / "model.yaml").write_text(MODEL)
    command = ["--model-repository", models, "--fade-database", url]
    server = serve(*command)
    assert shown(server) == (0.5, 0.0)
    before = ask(server, "0", 0)
    assert abs(before[0] - before[1]) < 0.5
    truths = {"0": "rose"}
    for n in range(1, 60):
        ask(server, str(n), n % 3)
        truths[str(n)] = fading.LABELS[n % 3]
    assert set(tell(server, truths)) <= {"joined", "waiting"}
    weight, after = learned(server, url, 60), ask(server, "again", 0)
    assert weight > 0.9
    assert after[0] > 0.8
    assert set(tell(server, truths)) == {"repeated"}

    server.process.kill()  # kill -9
    server.process.wait(10)
    server = serve(*command)
    assert shown(server) == (weight, 0.0)
    assert np.allclose(ask(server, "again", 0), after, atol=1e-6)

    drifted = {}
    for n in range(40):  # what neither member says
        ask(server, f"drift-{n}", n % 3)
        drifted[f"drift-{n}"] = fading.LABELS[(n + 2) % 3]
    tell(server, drifted)
    line = server.wait_for("weights frozen: the ensemble's log-loss got worse", model="pair")
    assert line["weights"]["good"] > 0.8, "back to weights that were good"
    frozen = wait_until(server, lambda _, frozen: frozen == 1.0)
    assert abs(frozen - line["weights"]["good"]) < 1e-4
    assert tell(server, {"again": "rose"}) == ["joined"], "which changes nothing"

    command = ["--database", url]
    assert main(["ensemble", "replay", "pair", *command]) == 0
    assert "the weights are the same to the bit" in capsys.readouterr().out
    assert main(["ensemble", "resume", "pair", *command]) == 0
    assert wait_until(server, lambda _, frozen: frozen == 0.0) == frozen
    capsys.readouterr()
    assert main(["ensemble", "replay", "pair", "--json", *command]) == 0
    (history,) = json.loads(capsys.readouterr().out)
    assert history["fault"] == ""
    assert [each["event"]["action"] for each in history["updates"]][-2:] == ["freeze", "resume"]
