"""Logs: what is written can be read by others, and a resumed run repeats nothing."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from tensorboardX.proto import event_pb2

from crossfade.runtimes.core.errors import MissingExtra
from crossfade.serving.exports import record_file
from crossfade.training.core import run_log
from crossfade.training.core.run_log import RunLog


def read(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def test_a_resumed_run_takes_back_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (1, 2, 3):
        log.metrics(step, {"loss": float(step)})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed here
    log = RunLog(tmp_path, step=2)
    log.metrics(3, {"loss": 30.0})
    log.close()
    assert read(tmp_path) == [(1, 1.0), (2, 2.0), (3, 30.0)]
    RunLog(tmp_path).close()
    assert read(tmp_path) == []


def test_tensorboards_events_hold_the_values(tmp_path: Path) -> None:
    log = RunLog(tmp_path, tensorboard=True)
    log.config({"epochs": 3})
    for step in range(5):
        log.metrics(step, {"training/loss": 1.0 / (step + 1)})
    log.close()
    found = []
    for path in (tmp_path / "tensorboard").iterdir():
        with path.open("rb") as file:
            for record in record_file.records(file, 1 << 20):
                event = event_pb2.Event.FromString(record)
                values = [v for v in event.summary.value if v.tag == "training/loss"]
                found += [(event.step, v.simple_value) for v in values]
    assert found == [(step, pytest.approx(1.0 / (step + 1))) for step in range(5)]


@pytest.mark.filterwarnings("ignore")  # its own
def test_mlflow_has_the_run_and_goes_on_with_it(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    log = RunLog(tmp_path / "run", mlflow=uri, experiment="shapes")
    log.config({"data": {"size": 16}, "epochs": 3})
    log.metrics(1, {"loss": 0.5})
    log.close(failed=True)
    log = RunLog(tmp_path / "run", step=1, mlflow=uri, experiment="shapes")
    log.metrics(2, {"loss": 0.25})
    log.close()
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("shapes")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"data.size": "16", "epochs": "3"}
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5), (2, 0.25)]


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="mlflow is here")
def test_without_mlflow_one_error_names_the_extra(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'crossfade\[mlflow\]'"):
        RunLog(tmp_path, mlflow="http://127.0.0.1:1")


def test_where_nobody_watches_lines_are_few(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_log.time, "monotonic", lambda: 0.0)
    log = RunLog(tmp_path)
    for step in range(1, 1001):
        log.progress(step, 1000, "loss 1")
    log.close()
    assert capsys.readouterr().err.splitlines() == [
        "step 1 of 1,000  loss 1",
        "step 1,000 of 1,000  loss 1",
    ]
