"""The same jobs on Vertex AI, by its own library: for whoever has a project there.

Tested against a stand-in of the library's shape, and never against the service.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from crossfade.runtimes.core.errors import InvalidArgument
from crossfade.runtimes.extras import require


class VertexModel:
    """A model in Vertex AI's registry."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def display_name(self) -> str:
        """Its name there."""
        return str(self._model.display_name)

    def evaluate(self) -> Mapping[str, Any]:
        """The metrics that the training stored, by AutoML's names."""
        return dict(self._model.get_model_evaluation().metrics)

    def export(self, folder: str | Path) -> Mapping[str, Any]:
        """Exports to a place in Cloud Storage; ``crossfade import`` takes it from there.

        Raises:
            InvalidArgument: the place is not a ``gs://`` URL, or the model cannot be exported.
        """
        place = str(folder)
        if not place.startswith("gs://"):
            raise InvalidArgument("Vertex AI exports to Cloud Storage: give a gs:// URL")
        formats = self._model.supported_export_formats
        wanted = next((f for f in ("tf-saved-model", "tflite") if f in formats), None)
        if wanted is None:
            raise InvalidArgument(
                "this model cannot be exported; picture models need a MOBILE_TF_… model type"
            )
        return dict(self._model.export_model(export_format_id=wanted, artifact_destination=place))


class VertexTabularTrainingJob:
    """``AutoMLTabularTrainingJob`` behind the interface of ``TrainingJob``.

    Args:
        display_name: see there.
        optimization_prediction_type: see there.
        optimization_objective: see there.
        column_specs: see there.
        project: of Google Cloud; that of the environment without it.
        location: a region.
    """

    def __init__(
        self,
        display_name: str,
        optimization_prediction_type: Literal["regression", "classification"],
        optimization_objective: str | None = None,
        *,
        column_specs: Mapping[str, str] | None = None,
        project: str | None = None,
        location: str | None = None,
    ) -> None:
        self._library = _library(project, location)
        self._name = display_name
        self._job = self._library.AutoMLTabularTrainingJob(
            display_name=display_name,
            optimization_prediction_type=optimization_prediction_type,
            optimization_objective=optimization_objective,
            column_specs=None if column_specs is None else dict(column_specs),
        )

    def run(
        self,
        dataset: str,
        target_column: str,
        *,
        training_fraction_split: float = 0.8,
        validation_fraction_split: float = 0.1,
        test_fraction_split: float = 0.1,
        predefined_split_column_name: str | None = None,
        budget_milli_node_hours: int = 1000,
        model_display_name: str | None = None,
    ) -> VertexModel:
        """See ``TrainingJob``; ``dataset`` is a ``gs://`` URL of a CSV file, or a data set's name.

        Raises:
            InvalidArgument: the data are on this machine.
        """
        data = _dataset(self._library.TabularDataset, self._name, dataset, {})
        shares = (
            {}
            if predefined_split_column_name
            else {
                "training_fraction_split": training_fraction_split,
                "validation_fraction_split": validation_fraction_split,
                "test_fraction_split": test_fraction_split,
            }
        )
        return VertexModel(
            self._job.run(
                dataset=data,
                target_column=target_column,
                predefined_split_column_name=predefined_split_column_name,
                budget_milli_node_hours=budget_milli_node_hours,
                model_display_name=model_display_name,
                **shares,
            )
        )


class VertexImageTrainingJob:
    """``AutoMLImageTrainingJob`` behind the interface of ``LocalImageTrainingJob``.

    Args:
        display_name: see there.
        prediction_type: see there.
        multi_label: see there.
        model_type: ``MOBILE_TF_…`` can be exported; ``CLOUD`` cannot.
        project: of Google Cloud; that of the environment without it.
        location: a region.
    """

    def __init__(
        self,
        display_name: str,
        prediction_type: str = "classification",
        multi_label: bool = False,
        *,
        model_type: str = "MOBILE_TF_VERSATILE_1",
        project: str | None = None,
        location: str | None = None,
    ) -> None:
        self._library = _library(project, location)
        self._name = display_name
        self._job = self._library.AutoMLImageTrainingJob(
            display_name=display_name,
            prediction_type=prediction_type,
            multi_label=multi_label,
            model_type=model_type,
        )
        schema = self._library.schema.dataset.ioformat.image
        self._schema = (
            schema.multi_label_classification if multi_label else schema.single_label_classification
        )

    def run(
        self,
        dataset: str,
        *,
        training_fraction_split: float = 0.8,
        validation_fraction_split: float = 0.1,
        test_fraction_split: float = 0.1,
        budget_milli_node_hours: int = 8000,
        model_display_name: str | None = None,
    ) -> VertexModel:
        """See ``LocalImageTrainingJob.run``; ``dataset`` is a ``gs://`` URL of an import file."""
        more = {"import_schema_uri": self._schema}
        data = _dataset(self._library.ImageDataset, self._name, dataset, more)
        return VertexModel(
            self._job.run(
                dataset=data,
                training_fraction_split=training_fraction_split,
                validation_fraction_split=validation_fraction_split,
                test_fraction_split=test_fraction_split,
                budget_milli_node_hours=budget_milli_node_hours,
                model_display_name=model_display_name,
            )
        )


def _library(project: str | None, location: str | None) -> Any:
    library = require("google.cloud.aiplatform", "automl", "training on Vertex AI")
    library.init(project=project, location=location)
    return library


def _dataset(kind: Any, name: str, place: str, more: Mapping[str, Any]) -> Any:
    if place.startswith("gs://"):
        return kind.create(display_name=name, gcs_source=place, **more)
    if place.startswith("projects/"):
        return kind(place)
    raise InvalidArgument(
        "Vertex AI reads from Cloud Storage: copy the data there, and give the gs:// URL"
    )
