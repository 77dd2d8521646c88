"""The jobs on Vertex AI, against a stand-in with the calls of google-cloud-aiplatform 2.7."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from crossfade.runtimes.core.errors import InvalidArgument, MissingExtra
from crossfade.training.baseline.vertex import VertexImageTrainingJob, VertexTabularTrainingJob


class Calls:
    """Remembers each call by name; answers with itself."""

    def __init__(self) -> None:
        self.made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.display_name = "registered"
        self.supported_export_formats: Any = {"tf-saved-model": []}
        self.metrics = {"auPrc": 0.9}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return Call(self, name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        raise AssertionError


class Call:
    def __init__(self, calls: Calls, name: str) -> None:
        self._calls, self._name = calls, name

    def __getattr__(self, name: str) -> Any:
        return Call(self._calls, f"{self._name}.{name}")

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self._calls.made.append((self._name, arguments, named))
        return {"artifactOutputUri": "gs://b/e"} if "export" in self._name else self._calls

    def __repr__(self) -> str:
        return self._name


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()
    for name in ("google", "google.cloud"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform", made)  # type: ignore[misc]
    return made


def test_a_table(calls: Calls) -> None:
    job = VertexTabularTrainingJob("t", "regression", column_specs={"x": "numeric"}, project="p")
    model = job.run("gs://b/x.csv", "y", budget_milli_node_hours=2000)
    assert [name for name, _, _ in calls.made] == [
        "init",
        "AutoMLTabularTrainingJob",
        "TabularDataset.create",
        "run",
    ]
    assert calls.made[0][2] == {"project": "p", "location": None}
    assert calls.made[2][2] == {"display_name": "t", "gcs_source": "gs://b/x.csv"}
    run = calls.made[3][2]
    assert run["dataset"] is calls
    assert (run["target_column"], run["budget_milli_node_hours"]) == ("y", 2000)
    assert run["training_fraction_split"] == 0.8
    assert model.display_name == "registered"
    assert model.evaluate() == {"auPrc": 0.9}
    assert calls.made[-1][0] == "get_model_evaluation"
    assert model.export("gs://b/out") == {"artifactOutputUri": "gs://b/e"}
    assert calls.made[-1][2] == {
        "export_format_id": "tf-saved-model",
        "artifact_destination": "gs://b/out",
    }


def test_a_split_column_takes_the_place_of_shares(calls: Calls) -> None:
    job = VertexTabularTrainingJob("t", "classification")
    job.run("gs://b/x.csv", "y", predefined_split_column_name="use")
    assert "training_fraction_split" not in calls.made[-1][2]
    assert calls.made[-1][2]["predefined_split_column_name"] == "use"


def test_pictures(calls: Calls) -> None:
    VertexImageTrainingJob("i").run("gs://b/x.csv")
    (_, _, described) = calls.made[1]
    assert described["model_type"] == "MOBILE_TF_VERSATILE_1"
    (_, _, created) = calls.made[2]
    assert repr(created["import_schema_uri"]).endswith("image.single_label_classification")


def test_what_vertex_cannot_read_or_export(calls: Calls) -> None:
    job = VertexTabularTrainingJob("t", "regression")
    with pytest.raises(InvalidArgument, match="copy the data there"):
        job.run("x.csv", "y")
    model = job.run("projects/p/locations/l/datasets/1", "y")
    with pytest.raises(InvalidArgument, match="gs:// URL"):
        model.export("here")
    calls.supported_export_formats = {}
    with pytest.raises(InvalidArgument, match="MOBILE_TF_"):
        model.export("gs://b/out")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtra, match=r"crossfade\[automl\]"):
        VertexTabularTrainingJob("t", "regression")
