"""Classify and Regress: examples to queries, answers to results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from crossfade.runtimes.core.errors import CrossfadeError
from crossfade.runtimes.core.model import Cancellation, InferResponse, ModelRef
from crossfade.serving.dataplane.door import DataPlane, Query
from crossfade.serving.frontends.tensorflow_serving import examples, model_spec, refusals
from crossfade.serving.frontends.tensorflow_serving.results import Method
from crossfade.serving.transport.calls import Caller
from crossfade.serving.wire import tf_framework as framework


@dataclasses.dataclass(frozen=True, slots=True)
class Task:
    """One thing to do with examples."""

    method: Method
    query: Query
    signature: str
    rows: int

    def result(self, response: InferResponse) -> Any:
        """The ``ClassificationResult`` or ``RegressionResult``; raises InvalidArgument."""
        return self.method.result(response, tuple(self.query.outputs), self.rows)

    def spec(self, response: InferResponse) -> Any:
        """The ``ModelSpec`` of the answer."""
        return model_spec.answered(response.model.name, response.model.version, self.signature)


def task(
    plane: DataPlane,
    method: Method,
    ref: ModelRef,
    *,
    signature_name: str | None,
    serialized: Sequence[bytes],
    deadline_s: float | None,
    cancelled: Cancellation,
    caller: Caller,
) -> Task:
    """Makes a query of examples.

    Raises:
        FailedPrecondition: no such signature.
        InvalidArgument: the signature is for something else, or the examples do not fit.
        NotFound: no such model or version.
        Unavailable: not now.
    """
    served = model_spec.facts(plane, ref)
    name, signature = refusals.signature_of(served, signature_name)
    method.check(signature)
    query = Query(
        ref,
        examples.to_inputs(serialized, signature, framework.Example),
        method.outputs(signature),
        name,
        deadline_s=deadline_s,
        cancelled=cancelled,
        caller=caller,
    )
    return Task(method, query, name, len(serialized))


def run(plane: DataPlane, tasks: Sequence[Task]) -> list[InferResponse | CrossfadeError]:
    """Answers all tasks; those for one model travel together."""
    results = plane.infer([task.query for task in tasks], "tensorflow_serving")
    return [
        refusals.explain(result, plane, task.query)
        if isinstance(result, CrossfadeError)
        else result
        for task, result in zip(tasks, results, strict=True)
    ]
