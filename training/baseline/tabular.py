"""AutoML Tabular's stand-in on this machine: described, run, measured and exported like it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
import yaml

from crossfade.runtimes.core.errors import FailedPrecondition, InvalidArgument, escape
from crossfade.serving.repository import lineage
from crossfade.serving.repository.lineage import Card, Origin, Parity, digest_of
from crossfade.training.baseline import metrics, split
from crossfade.training.baseline.jobs import ParityFailed, Progress, Report
from crossfade.training.baseline.members import predict
from crossfade.training.baseline.metrics import Evaluation, Task
from crossfade.training.baseline.search import Found, Problem, search
from crossfade.training.baseline.tabular_graph import CLASSES, SCORES, VALUE, compose
from crossfade.training.lineage import facts
from crossfade.training.transforms import plan
from crossfade.training.transforms.errors import WrongTable
from crossfade.training.transforms.fitting import nothing_to_learn
from crossfade.training.transforms.plan import PlannedColumn
from crossfade.training.transforms.spec import Column
from crossfade.training.transforms.table import Table, read_csv

Array = npt.NDArray[Any]
# AutoML's names of objectives, and what is minimised for each here.
OBJECTIVES: Final[Mapping[Task, Mapping[str, str]]] = {
    "regression": {"minimize-rmse": "rmse", "minimize-mae": "mae"},
    "classification": {"minimize-log-loss": "log_loss", "maximize-au-roc": "auc"},
}
TOLERANCE: Final = 1e-5
MAX_CLASSES: Final = 500
_MIN_ROWS: Final = 20
_HOUR_S: Final = 3.6  # of a thousandth of a node hour
INSTANCE: Final = "instance.yaml"
PREDICTION: Final = "prediction_schema.yaml"
MODEL: Final = "model.onnx"
TASK: Final = "tabular-baseline"
SPEC: Final = "transforms.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a run knows of itself, beside its model.

    Attributes:
        columns: the inputs, those that are left out included.
        left_out: columns that no member reads, and why.
    """

    data: Origin
    task: Task
    target: str
    classes: Sequence[str]
    columns: Sequence[PlannedColumn]
    left_out: Mapping[str, str]
    found: Found
    seed: int
    seconds: float


class LocalTabularModel:
    """A trained baseline. Thread-safe."""

    def __init__(self, name: str, trained: Trained, test: Table, wanted: Array) -> None:
        self._name = name
        self._test = test
        self._wanted = wanted
        self.trained = trained

    @property
    def display_name(self) -> str:
        """The name that it was given."""
        return self._name

    def predict(self, table: Table) -> Array:
        """Values, float64 [rows, 1], or probabilities in the order of the classes.

        Raises:
            WrongTable: a column is missing.
        """
        return predict(self.trained.task, self.trained.found.members, table)

    def evaluate(self) -> Evaluation:
        """Metrics of the test split, with 95 % intervals."""
        found = self.predict(self._test)
        if self.trained.task == "regression":
            return metrics.regression(self._wanted, found[:, 0])
        return metrics.classification(self._wanted, found)

    def export(self, folder: str | Path) -> Mapping[str, Any]:
        """Writes ``model.onnx`` with what describes it, as an AutoML Tabular export has it.

        Rows are texts, one input a column, as AutoML's are; the answers are AutoML's, too.

        Returns:
            What ``model.yaml`` should say.

        Raises:
            ParityFailed: the graph answers otherwise than the model; nothing is written.
        """
        trained = self.trained
        # Those left out, too: a client's row has them, and must not be refused for it.
        columns = [Column(name=c.name, kind=c.kind) for c in trained.columns]
        model = compose(trained.task, trained.found.members, trained.classes, columns)
        content = model.SerializeToString()
        proof = self._parity(content)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / MODEL).write_bytes(content)
        specs = [json.loads(member.spec.to_json()) for _, member in trained.found.members]
        texts = {
            INSTANCE: yaml.safe_dump(self._instance(), sort_keys=False, allow_unicode=True),
            PREDICTION: yaml.safe_dump(_prediction(trained), sort_keys=False, allow_unicode=True),
            SPEC: json.dumps(specs, indent=1),
        }
        for name, text in texts.items():
            (target / name).write_text(text, "utf-8")
        (target / lineage.FILE).write_text(self._card(target, proof).text(), "utf-8")
        return self.model_yaml()

    def model_yaml(self) -> dict[str, Any]:
        """What ``model.yaml`` has to say."""
        table = {"instance": INSTANCE, "prediction": PREDICTION}
        return {"task": self.trained.task, "table": table}

    def _instance(self) -> dict[str, Any]:
        properties = {}
        for column in self.trained.columns:
            examples = [text for text in self._test.texts(column.name).tolist() if text]
            example = {"example": examples[0]} if examples else {}
            properties[column.name] = {"type": "string", "nullable": True, **example}
        return {"type": "object", "properties": properties}

    def _parity(self, content: bytes) -> Parity:
        """The largest difference, in units of the value where that is above 1."""
        import onnxruntime

        columns = self.trained.columns
        rows = _adversarial(self._test, columns)
        wanted = self.predict(rows)
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        inputs = {column.name: rows.texts(column.name) for column in columns}
        output = VALUE if self.trained.task == "regression" else SCORES
        (answer,) = session.run([output], inputs)
        difference = np.abs(answer.reshape(wanted.shape) - wanted)
        worst = float((difference / np.maximum(1.0, np.abs(wanted))).max())
        if not worst <= TOLERANCE:
            raise ParityFailed(
                f"the exported graph differs from the model by {worst:.2g}, and {TOLERANCE:g} is"
                " allowed; nothing was written"
            )
        return Parity(max_abs=worst, tolerance=TOLERANCE, inputs=len(rows))

    def _card(self, folder: Path, proof: Parity) -> Card:
        trained, found = self.trained, self.trained.found
        measured = self.evaluate()
        ends = ("value", "low", "high")
        columns = {
            c.name: f"{c.kind}, by {c.source}"
            for c in trained.columns
            if c.name not in trained.left_out
        }
        packages = {n: metadata.version(n) for n in ("lightgbm", "optuna")}
        return Card(
            task=TASK,
            created=facts.now(),
            seed=trained.seed,
            data=trained.data,
            config={
                "target": trained.target,
                "task": trained.task,
                "classes": list(trained.classes),
                "columns": columns,
                "left_out": dict(trained.left_out),
                "members": {member.name: weight for weight, member in found.members},
                "trees": found.parameters,
                "settings_tried": found.trials,
                "seconds": round(trained.seconds, 1),
            },
            metrics={
                f"test/{name}" + ("" if end == "value" else f"/{end}"): value
                for name, interval in measured.metrics.items()
                for end, value in zip(ends, dataclasses.astuple(interval), strict=True)
                if np.isfinite(value)
            }
            | {f"cross_validation/{name}": value for name, value in found.losses.items()},
            parity=proof,
            environment=facts.environment(torch.device("cpu")) | packages,
            revision=facts.revision(Path.cwd()),
            files=facts.digests(folder),
        )


class LocalTabularTrainingJob:
    """Stands in for ``AutoMLTabularTrainingJob``, with its argument names.

    Args:
        display_name: what to call it.
        optimization_prediction_type: ``regression`` or ``classification``.
        optimization_objective: ``minimize-rmse``, ``minimize-mae``; ``minimize-log-loss``,
            ``maximize-au-roc``; the first of each by default.
        column_specs: the transformation of each column to use, ``auto``, ``numeric``,
            ``categorical`` or ``timestamp``; without it all columns are used and inferred.
        columns: planned columns in place of that, of an export (``plan.of_export``).
        seed: of all that is drawn.
        threads: for the trees.
        report: is told how far it is.
    """

    def __init__(
        self,
        display_name: str,
        optimization_prediction_type: Literal["regression", "classification"],
        optimization_objective: str | None = None,
        *,
        column_specs: Mapping[str, str] | None = None,
        columns: Sequence[PlannedColumn] | None = None,
        seed: int = 0,
        threads: int = 1,
        report: Report | None = None,
    ) -> None:
        objectives = OBJECTIVES.get(optimization_prediction_type)
        if objectives is None:
            raise InvalidArgument(
                f"there is no prediction type '{escape(optimization_prediction_type)}' here; there"
                f" are {', '.join(OBJECTIVES)}"
            )
        chosen = optimization_objective or next(iter(objectives))
        if chosen not in objectives:
            raise InvalidArgument(
                f"there is no objective '{escape(chosen)}' of {optimization_prediction_type} here;"
                f" there are {', '.join(objectives)}"
            )
        self._name = display_name
        self._task: Task = optimization_prediction_type
        self._objective = objectives[chosen]
        self._column_specs = column_specs
        self._columns = columns
        self._seed = seed
        self._threads = threads
        self._report: Report = report or _nobody

    def run(
        self,
        dataset: Table | str | Path,
        target_column: str,
        *,
        training_fraction_split: float = 0.8,
        validation_fraction_split: float = 0.1,
        test_fraction_split: float = 0.1,
        predefined_split_column_name: str | None = None,
        budget_milli_node_hours: int = 1000,
        model_display_name: str | None = None,
    ) -> LocalTabularModel:
        """See ``TrainingJob``.

        Raises:
            NotFound: there is no such file.
            WrongTable: the table lacks a column or a value of the target, or has too few rows.
            InvalidArgument: an option is wrong.
            FailedPrecondition: there is nothing to learn: one class alone, no column that differs.
        """
        started = time.monotonic()
        if budget_milli_node_hours < 1:
            raise InvalidArgument("budget_milli_node_hours has to be 1 or more")
        table = dataset if isinstance(dataset, Table) else read_csv(Path(dataset))
        target, classes = read_target(table, target_column, self._task)
        fractions = (training_fraction_split, validation_fraction_split, test_fraction_split)
        held = split.test_rows(
            table,
            fractions,
            predefined_split_column_name,
            target if classes else None,
            self._seed,
        )
        drop = [target_column, *filter(None, [predefined_split_column_name])]
        features = table.without(*drop)
        learned = features.rows(~held)
        columns = self._planned(learned)
        _check_learnable(target[~held], classes)
        problem = Problem(
            self._task,
            self._objective,
            learned,
            columns,
            target[~held],
            len(classes),
            self._seed,
            self._threads,
        )
        found = search(problem, budget_milli_node_hours * _HOUR_S, self._report)
        seconds = time.monotonic() - started
        counts = {"training": len(learned), "test": int(held.sum())}
        trained = Trained(
            Origin(name=table.name, sha256=_digest(table), counts=counts),
            self._task,
            target_column,
            classes,
            columns,
            _left_out(columns, found, learned),
            found,
            self._seed,
            seconds,
        )
        name = model_display_name or self._name
        return LocalTabularModel(name, trained, features.rows(held), target[held])

    def _planned(self, table: Table) -> Sequence[PlannedColumn]:
        if self._columns is not None:
            return self._columns
        if self._column_specs is not None:
            return plan.of_kinds(self._column_specs, table)
        return plan.infer(table)


def read_target(table: Table, column: str, task: Task) -> tuple[Array, list[str]]:
    """The target as float64, or as places of classes, int64, with the classes in their order.

    Classes that are numbers are in the order of numbers, others in that of their texts.

    Raises:
        WrongTable: a value is missing or no number, or there are too many classes or too few rows.
    """
    texts = table.texts(column)
    if len(table) < _MIN_ROWS:
        raise WrongTable(f"the table has {len(table)} rows; {_MIN_ROWS} are the least")
    empty = np.flatnonzero(texts == "")
    if len(empty):
        raise WrongTable(
            f"the target '{escape(column)}' has no value in {len(empty)} rows, row"
            f" {empty[0] + 1} first; remove these rows"
        )
    if task == "regression":
        numbers = table.numbers(column)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if len(wrong):
            raise WrongTable(
                f"the target '{escape(column)}' is no number in row {wrong[0] + 1}:"
                f" '{escape(str(texts[wrong[0]]))}'; is this a classification?"
            )
        return numbers, []
    words = sorted(set(texts.tolist()))
    numbers = Table({"words": np.array(words, object)}).numbers("words")
    if np.isfinite(numbers).all():
        words = [words[i] for i in np.argsort(numbers, kind="stable")]
    if len(words) > MAX_CLASSES:
        raise WrongTable(
            f"the target '{escape(column)}' has {len(words)} classes, and {MAX_CLASSES} are the"
            " most; is this a regression?"
        )
    places = {word: place for place, word in enumerate(words)}
    return np.array([places[text] for text in texts.tolist()], np.int64), words


def infer_task(table: Table, column: str) -> Task:
    """Regression where the target is numbers, more than a few different ones."""
    return "regression" if plan.infer_kind(table, column) == "number" else "classification"


def _check_learnable(target: Array, classes: Sequence[str]) -> None:
    if not classes:
        if target.min() == target.max():
            raise FailedPrecondition("all rows to learn from have the same target")
        return
    if len(classes) < 2:
        raise FailedPrecondition(f"all rows have the same class, '{escape(classes[0])}'")
    counts = np.bincount(target, minlength=len(classes))
    if counts.min() < 2:
        raise FailedPrecondition(
            f"class '{escape(classes[int(counts.argmin())])}' has {counts.min()} rows to learn"
            " from, and 2 are the least: add some, or remove the class"
        )


def _digest(table: Table) -> str:
    """SHA-256 of all cells, column by column."""
    return digest_of(
        "\0".join([name, *table.texts(name).tolist()]) for name in sorted(table.columns)
    )


def _left_out(columns: Sequence[PlannedColumn], found: Found, table: Table) -> dict[str, str]:
    """Columns that no member reads, in their order, and why."""
    used = {column.name for _, member in found.members for column in member.spec.columns}
    return {c.name: nothing_to_learn(table, c) for c in columns if c.name not in used}


def _adversarial(test: Table, columns: Sequence[PlannedColumn]) -> Table:
    """The test's rows, and as many again with cells that no training row has."""
    odd = ("", "1e250", "-1e250", "1e-250", "not a number", "日本 😀", "0001-01-01", "-0")
    made = {}
    for place, column in enumerate(columns):
        texts = test.texts(column.name)
        bent = texts.copy()
        rows = np.arange(len(bent))
        bent[(rows + place) % 3 == 0] = odd[place % len(odd)]
        alone = np.array(odd, object)
        made[column.name] = np.concatenate([texts, bent, alone])
    return Table(made)


def _prediction(trained: Trained) -> dict[str, Any]:
    if trained.task == "regression":
        return {"type": "object", "properties": {VALUE: {"type": "number"}}}
    words = {"type": "string", "enum": list(trained.classes)}
    return {
        "type": "object",
        "properties": {
            CLASSES: {"type": "array", "items": words},
            SCORES: {"type": "array", "items": {"type": "number"}},
        },
    }


def _nobody(_: Progress) -> None:
    """Is told, and tells nobody."""
