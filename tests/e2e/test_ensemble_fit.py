"""Weights and a gate learned at the command line, taken up by a server that is running."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
import yaml
from sklearn.metrics import log_loss

from crossfade.ensemble.scores import log_softmax, softmax
from tests.conftest import ServerProcess
from tests.e2e import digit_models
from tests.e2e.digit_models import LABELS
from tests.serving.lifecycle.folders import wait_until
from tests.serving.test_cli import crossfade

COARSE = {"model": "coarse", "scores": "probabilities"}
FINE = {"model": "fine", "scores": "logits"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fit")
    models = root / "models"
    digit_models.write(models)
    stages = {"stages": [COARSE, FINE], "gate": "gate.json", "stage_output": "stage"}
    for name, section in (
        ("both", {"kind": "weighted", "members": [COARSE, FINE]}),
        ("cheap_first", {"kind": "cascade", **stages}),
    ):
        (models / name).mkdir()
        (models / name / "model.yaml").write_text(yaml.safe_dump({"ensemble": section}))
    x, y = seen()
    np.savez(root / "rows.npz", x=x)
    (root / "rows.csv").write_text("\n".join(["label", *(LABELS[n] for n in y)]) + "\n")
    return root


@pytest.fixture(scope="module")
def server(place: Path) -> Iterator[ServerProcess]:
    started = ServerProcess(
        *("--model-repository", str(place / "models"), "--cache", str(place / "cache")),
        *("--model-control-mode", "poll", "--poll-s", "0.2"),
    )
    yield started
    assert started.stop() == 0


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as found:
        yield found


def seen() -> tuple[np.ndarray, np.ndarray]:
    x, y = digit_models.held_out()
    return x[:900], y[:900]


def unseen() -> tuple[np.ndarray, np.ndarray]:
    x, y = digit_models.held_out()
    return x[900:], y[900:]


def fit(place: Path, name: str, *options: str) -> dict[str, Any]:
    done = crossfade(
        *("ensemble", "fit", name, "--repository", place / "models", "--json"),
        *("--data", place / "rows.npz", "--labels", place / "rows.csv"),
        *("--cache", place / "cache", *options),
    )
    assert (done.returncode, done.stderr) == (0, "")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def ask(client: triton.InferenceServerClient, name: str, x: np.ndarray, *names: str) -> Any:
    given = triton.InferInput("x", x.shape, "FP32")
    given.set_data_from_numpy(x)
    answer = client.infer(name, [given])
    return [answer.as_numpy(each) for each in names or ("scores",)]


def test_a_running_server_answers_with_the_learned_weights(
    place: Path, client: triton.InferenceServerClient
) -> None:
    x, y = unseen()
    (before,) = ask(client, "both", x)
    report = fit(place, "both")["report"]
    chosen = next(one for one in report["candidates"] if one["name"] == report["chosen"])["fit"]
    assert report["labels"] == LABELS
    wait_until(lambda: not np.array_equal(ask(client, "both", x)[0], before))
    (served,) = ask(client, "both", x)

    # The combination by hand, of what the members answer, in the order of ``LABELS``.
    temperatures = {one["name"]: one["temperature"] for one in report["members"]}
    (coarse,), (fine,) = ask(client, "coarse", x), ask(client, "fine", x)
    doubt = 1 / (report["rows"] + 2)
    logs = []
    for name, scores in (("coarse", np.log(np.maximum(coarse, 1e-7))), ("fine", fine[:, ::-1])):
        p = np.exp(log_softmax(scores.astype(np.float64) / temperatures[name]))
        logs.append(np.log((1 - doubt) * p + doubt / 10))
    weights = np.array(chosen["weights"])
    if chosen["rule"] == "logit":
        bias = np.array(chosen["bias"] or [0.0])
        expected = softmax(np.tensordot(weights, logs, 1) + bias)
    else:
        expected = np.tensordot(weights, np.exp(logs), 1)
    assert served == pytest.approx(expected, abs=2e-5)

    # On rows that neither models nor weights have seen, it beats equal weights and each member.
    losses = {
        "served": log_loss(y, served),
        "equal": log_loss(y, before),
        "coarse": log_loss(y, coarse),
        "fine": log_loss(y, softmax(fine[:, ::-1])),
    }
    assert min(losses, key=lambda name: losses[name]) == "served", losses


def test_a_cascade_serves_once_its_gate_is_solved(
    place: Path, client: triton.InferenceServerClient
) -> None:
    assert not client.is_model_ready("cheap_first")
    report = fit(place, "cheap_first", "--max-harm", "0.02", "--cost", "1", "30")["report"]
    assert report["threshold"] is not None
    wait_until(lambda: client.is_model_ready("cheap_first"))
    x, y = unseen()
    scores, stage = ask(client, "cheap_first", x, "scores", "stage")
    (coarse,) = ask(client, "coarse", x)
    cold = np.log(np.maximum(coarse, 1e-7)) / report["temperatures"]["coarse"]
    sure = softmax(cold).max(axis=1) >= report["threshold"]
    assert np.array_equal(stage, np.where(sure, 0, 1))
    assert 0.2 < sure.mean() < 0.9
    (fine,) = ask(client, "fine", x)
    harm = (fine[:, ::-1].argmax(axis=1) == y) & (scores.argmax(axis=1) != y)
    assert harm.mean() <= 0.02
